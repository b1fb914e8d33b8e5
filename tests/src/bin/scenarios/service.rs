//! The installed service under systemd.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Scenario;
use crate::fixture::guard::{CHANGES, cli, free_system, json, pins, rule};
use crate::fixture::process::run;
use crate::fixture::world::{WORK, exists};
use crate::fixture::{Finished, PROFILE, SOON, Server, World, attack, contains, number, same, until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::systemd("service", "active, ready when it says so, its events in the journal", active),
    Scenario::systemd("service_reload", "systemctl reload takes a good policy and refuses a bad one", reload),
    Scenario::systemd("service_restart", "a restart leaves no gap", restart),
    Scenario::systemd("service_stop", "stopping ends the daemon, not the enforcement", stop),
    Scenario::systemd("service_enrolls", "a unit that is enrolled is in a session from the start", enrolls),
    Scenario::systemd("service_killed", "systemd starts a killed daemon again, which goes on", killed),
];

pub(crate) const UNIT: &str = "agent-guard.service";
const POLICY: &str = "/etc/agent-guard/policy.d/90-scenario.toml";
/// The profile of this file; the package has its own besides.
pub(crate) const OWN: &str = "scenario";

/// The running service with a profile of our own. Taken back at the end.
pub(crate) struct Service;

impl Service {
    pub(crate) fn new() -> Result<(World, Self)> {
        let world = World::new()?;
        systemctl(&["start", UNIT])?.good()?;
        let service = Self;
        service.write(&own_policy(""))?;
        systemctl(&["reload", UNIT])?.good()?;
        Ok((world, service))
    }

    pub(crate) fn write(&self, text: &str) -> Result<()> {
        fs::write(POLICY, text).with_context(|| format!("can't write {POLICY}"))
    }

    pub(crate) fn session(&self) -> Result<Server> {
        let attack = attack()?;
        let mut command = Command::new(crate::fixture::guard::PROGRAM);
        command.args(["run", "--profile", OWN, "--"]).arg(attack).arg("serve").current_dir(WORK);
        Server::start(command, "inside")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let back = fs::remove_file(POLICY)
            .map_err(anyhow::Error::from)
            .and_then(|()| systemctl(&["reload-or-restart", UNIT])?.good());
        if let Err(error) = back {
            eprintln!("can't take the scenario's policy back: {error:#}");
        }
    }
}

pub(crate) fn own_policy(rest: &str) -> String {
    let text = format!("version = 1\n\n[profile.{PROFILE}.files]\nscope = [\"{WORK}\", \"/tmp\"]\n\n");
    (text + &free_system(PROFILE) + &rule("/srv/prod", CHANGES, "deny") + rest)
        .replace(&format!("profile.{PROFILE}."), &format!("profile.{OWN}."))
}

pub(crate) fn systemctl(words: &[&str]) -> Result<Finished> {
    run(Command::new("systemctl").args(words))
}

fn property(name: &str) -> Result<String> {
    Ok(systemctl(&["show", "--value", "--property", name, UNIT])?.good()?.stdout.trim().to_owned())
}

/// The journal's end, to read from later.
fn journal_mark() -> Result<String> {
    let done = run(Command::new("journalctl").args(["--no-pager", "-n", "0", "--show-cursor"]))?.good()?;
    let cursor = done.stdout.lines().find_map(|line| line.strip_prefix("-- cursor: "));
    cursor.map(str::to_owned).with_context(|| format!("no cursor: {}", done.summary()))
}

/// The unit's entries after a mark.
fn journal_since(mark: &str) -> Result<Vec<Value>> {
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "-u", UNIT, "-o", "json", "--after-cursor", mark]);
    let done = run(&mut command)?.good()?;
    done.stdout.lines().map(|line| serde_json::from_str(line).context("no JSON from journalctl")).collect()
}

/// Waits for an entry that has a text in its message or its event.
fn journal_has(mark: &str, text: &str) -> Result<Value> {
    until(&format!("the journal has {text:?}"), SOON, || {
        let entries = journal_since(mark)?;
        Ok(entries.into_iter().find(|entry| {
            let has = |field: &str| {
                entry.get(field).and_then(Value::as_str).is_some_and(|value| value.contains(text))
            };
            has("MESSAGE") || has("AGENT_GUARD_EVENT")
        }))
    })
}

/// Denied inside, fine outside.
fn enforces(server: &mut Server) -> Result<()> {
    server.expect("unlink /srv/prod/f", "EPERM")?;
    exists("/srv/prod/f", true)?;
    server.expect("creat /srv/work/made", "ok")?;
    server.expect("unlink /srv/work/made", "ok")
}

/// A unit that tries to delete something; whether that is there afterwards.
fn unit_tries(unit: &str) -> Result<bool> {
    let victim = "/srv/prod/victim";
    fs::write(victim, "")?;
    // It ends well whatever became of the attempt, once it was made.
    systemctl(&["start", unit])?.good()?;
    Ok(Path::new(victim).exists())
}

/// Unit files that are removed at the end.
struct Unit(String);

impl Unit {
    fn new(name: &str, lines: &str) -> Result<Self> {
        let path = format!("/run/systemd/system/{name}");
        let attack = attack()?;
        let text = format!(
            "[Service]\nType=oneshot\nExecStart={} unlink /srv/prod/victim\n{lines}",
            attack.display()
        );
        fs::write(&path, text).with_context(|| format!("can't write {path}"))?;
        systemctl(&["daemon-reload"])?.good()?;
        Ok(Self(path))
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let gone = fs::remove_file(&self.0).map_err(anyhow::Error::from);
        if let Err(error) = gone.and_then(|()| systemctl(&["daemon-reload"])?.good()) {
            eprintln!("{} stays: {error:#}", self.0);
        }
    }
}

fn enrolls() -> Result<()> {
    let (_world, service) = Service::new()?;
    let _unit = Unit::new("scenario-agent@.service", "")?;
    let _other = Unit::new("scenario-user.service", "User=nobody\n")?;
    same("before it is enrolled", unit_tries("scenario-agent@1.service")?, false)?;
    let enroll = "[[enroll]]\nunit = [\"scenario-agent@*.service\", \"scenario-user.service\"]\nprofile = \"scenario\"\n\n";
    let text = own_policy("").replacen("version = 1\n", &format!("version = 1\n\n{enroll}"), 1);
    service.write(&text)?;
    systemctl(&["reload", UNIT])?.good()?;
    for unit in ["scenario-agent@1.service", "scenario-agent@2.service"] {
        same(unit, unit_tries(unit)?, true)?;
    }
    // systemd makes it somebody else's before the tag is on.
    fs::set_permissions("/srv/prod", std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    same("as another user", unit_tries("scenario-user.service")?, true)?;
    systemctl(&["stop", UNIT])?.good()?;
    same("without the daemon", unit_tries("scenario-agent@3.service")?, true)?;
    systemctl(&["start", UNIT])?.good()?;
    service.write(&own_policy(""))?;
    systemctl(&["reload", UNIT])?.good()?;
    same("enrolled no more", unit_tries("scenario-agent@1.service")?, false)?;
    same("as another user, enrolled no more", unit_tries("scenario-user.service")?, false)
}

fn active() -> Result<()> {
    let (_world, service) = Service::new()?;
    same("the state", property("ActiveState")?.as_str(), "active")?;
    contains("the type", &property("Type")?, "notify")?;
    let status = json(&["status"])?;
    same("the main process", property("MainPID")?, number(&status, "/pid")?.to_string())?;
    same("what is degraded", crate::fixture::list(&status, "/degraded")?.len(), 0)?;
    // Ready means that it answers: right after a start, and without waiting.
    systemctl(&["restart", UNIT])?.good()?;
    cli(&["status"])?.good()?;
    let mark = journal_mark()?;
    let mut server = service.session()?;
    enforces(&mut server)?;
    let entry = journal_has(&mark, "/srv/prod/f")?;
    let event = entry.get("AGENT_GUARD_EVENT").and_then(Value::as_str).context("the entry has no event")?;
    let event: Value = serde_json::from_str(event).context("the entry's event is no JSON")?;
    same("the verdict", crate::fixture::text(&event, "/unmapped/agent_guard/verdict"), "deny")?;
    same("the verdict's field", entry.get("AGENT_GUARD_VERDICT").and_then(Value::as_str), Some("deny"))?;
    same("the identifier", entry.get("SYSLOG_IDENTIFIER").and_then(Value::as_str), Some("agent-guard"))?;
    let mut outside = Server::outside()?;
    outside.expect("unlink /srv/prod/f", "ok")
}

fn reload() -> Result<()> {
    let (_world, service) = Service::new()?;
    let mut server = service.session()?;
    enforces(&mut server)?;
    let generation = || -> Result<u64> { number(&json(&["status"])?, "/generation") };
    let before = generation()?;
    service.write(&own_policy(&rule("/srv/work/dir", CHANGES, "deny")))?;
    systemctl(&["reload", UNIT])?.good()?;
    same("the generation", generation()?, before + 1)?;
    server.expect("unlink /srv/work/dir/f", "EPERM")?;
    let bad = own_policy(&rule("/srv/work/dir", CHANGES, "dney"));
    service.write(&bad)?;
    let mark = journal_mark()?;
    let done = systemctl(&["reload", UNIT])?;
    anyhow::ensure!(!done.status.success(), "reload takes a bad policy: {}", done.summary());
    let line = crate::fixture::guard::line_of(&bad, "dney")?;
    journal_has(&mark, &format!("{POLICY}:{line}:"))?;
    same("the generation", generation()?, before + 1)?;
    same("the state", property("ActiveState")?.as_str(), "active")?;
    server.expect("unlink /srv/work/dir/f", "EPERM")?;
    enforces(&mut server)
}

fn restart() -> Result<()> {
    let (_world, service) = Service::new()?;
    let mut server = service.session()?;
    enforces(&mut server)?;
    let program = attack()?.display().to_string();
    let mut command = Command::new(crate::fixture::guard::PROGRAM);
    command.args(["run", "--profile", OWN, "--", &program, "unlink-until", "/srv/prod/f"]);
    let mut prober = crate::fixture::Running::start(
        command.args(["/srv/work/stop", "/srv/work/tries"]).current_dir(WORK),
    )?;
    until("the prober is at work", SOON, || Ok(Path::new("/srv/work/tries").exists().then_some(())))?;
    let pinned = pins()?;
    let pid = property("MainPID")?;
    systemctl(&["restart", UNIT])?.good()?;
    anyhow::ensure!(property("MainPID")? != pid, "it wasn't restarted");
    same("what is pinned", pins()?, pinned)?;
    enforces(&mut server)?;
    fs::write("/srv/work/stop", "").context("can't stop the prober")?;
    prober.wait(SOON)?.good()?.says("EPERM")?;
    let mut next = service.session()?;
    enforces(&mut next)
}

fn stop() -> Result<()> {
    let (_world, service) = Service::new()?;
    let mut server = service.session()?;
    enforces(&mut server)?;
    let pinned = pins()?;
    systemctl(&["stop", UNIT])?.good()?;
    same("how it ended", property("Result")?.as_str(), "success")?;
    same("the state", property("ActiveState")?.as_str(), "inactive")?;
    same("what is pinned", pins()?, pinned)?;
    enforces(&mut server)?;
    cli(&["status"])?.code(5)?;
    systemctl(&["start", UNIT])?.good()?;
    enforces(&mut server)
}

fn killed() -> Result<()> {
    let (_world, service) = Service::new()?;
    let mut server = service.session()?;
    enforces(&mut server)?;
    let pid = property("MainPID")?;
    systemctl(&["kill", "--kill-who=main", "--signal=SIGKILL", UNIT])?.good()?;
    enforces(&mut server)?;
    until("systemd has started it again", SOON, || {
        let again = property("MainPID")?;
        Ok((again != pid && again != "0" && cli(&["status"])?.status.success()).then_some(()))
    })?;
    enforces(&mut server)?;
    let mut next = service.session()?;
    enforces(&mut next)
}
