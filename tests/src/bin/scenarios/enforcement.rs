//! `status` says of each rule what enforces it, and that must be true.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;

use crate::Scenario;
use crate::fixture::guard::{
    CHANGES, PINS, cli, critical, free_system, json, line_of, rule, strict_policy_of,
};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, WORK, exists};
use crate::fixture::{Guard, PROFILE, Server, World, attack, contains, list, number, same, text};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "status_rules",
        "the rules in force, the hooks that enforce them, and what is missing",
        rules,
    )
    .on("6.18"),
    Scenario::direct("status_counters", "what was done, and what would have been", counters).on("6.1"),
];

/// A profile that only reports.
const WATCHED: &str = "watched";

/// Two profiles, one of which only reports, with these words about the system.
fn policy_with(system: &str) -> String {
    let of_watched =
        |text: String| text.replace(&format!("profile.{PROFILE}."), &format!("profile.{WATCHED}."));
    let rest = [
        format!(
            "[profile.{WATCHED}]\nmode = \"report\"\n[profile.{WATCHED}.files]\nscope = [\"{WORK}\"]\n\n"
        ),
        critical("/srv/prod/dir", &["delete", "rename"], "hold"),
        rule(PROD, CHANGES, "deny"),
        of_watched(rule("/srv/prod/f", &["delete"], "hold")),
        of_watched(rule("/srv/prod/g", &["delete"], "kill")),
        format!("[profile.{PROFILE}.network]\nallow = [\"10.1.2.3:443\"]\n\n"),
        system.to_owned(),
    ];
    strict_policy_of(WORK, &rest.concat())
}

fn policy() -> String {
    policy_with(&format!(
        "[profile.{PROFILE}.system]\nclock = \"allow\"\nreboot = \"hold\"\nmount = \"hold\"\nsetuid = \"hold\"\n"
    ))
}

/// The line about something that the policy says.
fn line<'a>(status: &'a Value, profile: Option<&str>, words: &str) -> Result<&'a Value> {
    let is = |rule: &&Value| {
        rule.get("profile").and_then(Value::as_str) == profile && text(rule, "/text") == words
    };
    let found = list(status, "/rules")?.iter().find(is);
    found.with_context(|| format!("status doesn't have {words:?} of {profile:?}: {}", status["rules"]))
}

fn hooks(rule: &Value) -> Result<BTreeSet<&str>> {
    Ok(list(rule, "/hooks")?.iter().filter_map(Value::as_str).collect())
}

/// What a line says: mode, how much, and the first reason.
fn says(rule: &Value) -> (&str, &str, &str) {
    (text(rule, "/mode"), text(rule, "/enforced"), text(rule, "/why/0"))
}

fn rules() -> Result<()> {
    let _world = World::new()?;
    let policy = policy();
    let mut guard = Guard::start(&policy)?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    let status = json(&["status"])?;
    let profile = Some(PROFILE);

    let first = line(&status, None, "hold delete, rename /srv/prod/dir")?;
    same("its place", (text(first, "/kind"), number(first, "/number")?), ("critical", 1))?;
    same("its line", number(first, "/line")?, line_of(&policy, "/srv/prod/dir")?)?;
    same("how much is enforced", says(first), ("enforce", "full", ""))?;
    same("its hooks", hooks(first)?, BTreeSet::from(["path_unlink", "path_rmdir", "path_rename"]))?;
    let connect = line(&status, profile, "allow connect 10.1.2.3:443")?;
    let sockets = BTreeSet::from(["file_receive", "sctp_bind_connect", "socket_connect", "socket_sendmsg"]);
    same("its hooks", hooks(connect)?, sockets)?;
    for (words, kind) in [
        ("deny write, create, delete, rename /srv/prod", "files"),
        ("deny write outside", "outside"),
        ("deny connect elsewhere", "connect"),
        ("deny kexec", "system"),
        ("deny capabilities", "system"),
        ("hold setuid", "system"),
        ("allow clock", "system"),
    ] {
        let rule = line(&status, profile, words)?;
        same(words, (text(rule, "/kind"), says(rule)), (kind, ("enforce", "full", "")))?;
    }
    // What can't wait for people is denied, and said to be.
    for (words, why) in [("hold reboot", "can't wait for people"), ("hold mount", "mount_setattr")] {
        let rule = line(&status, profile, words)?;
        same(words, text(rule, "/enforced"), "part")?;
        contains(words, text(rule, "/why/0"), why)?;
    }
    same(
        "what only reports",
        says(line(&status, Some(WATCHED), "deny write outside")?),
        ("report", "full", ""),
    )?;
    let own = list(&status, "/rules")?.iter().filter(|rule| text(rule, "/kind") == "guard");
    let own: Vec<_> = own.map(|rule| (text(rule, "/text"), text(rule, "/enforced"))).collect();
    for words in ["/run/agent-guard", "/etc/agent-guard-test", "the guard gets none", "the tag goes on"] {
        anyhow::ensure!(
            own.iter().any(|(text, extent)| text.contains(words) && *extent == "full"),
            "{words}: {own:?}"
        );
    }
    consistent(&status)?;
    let people = cli(&["status"])?.good()?;
    contains("what people read", &people.stdout, "hold delete, rename /srv/prod/dir")?;

    // It is true, and the same works outside.
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    inside.expect("rmdir /srv/prod/empty", "EPERM")?;
    outside.expect("rmdir /srv/prod/empty", "ok")?;
    outside.expect("mkdir /srv/prod/empty", "ok")?;
    without_a_pin(&mut inside)?;
    outside.expect("mkdir /srv/prod/empty", "ok")?;

    // The next daemon brings it back.
    guard.halt()?;
    guard.launch()?;
    let status = json(&["status"])?;
    same(
        "after a restart",
        says(line(&status, None, "hold delete, rename /srv/prod/dir")?),
        ("enforce", "full", ""),
    )?;
    inside.expect("rmdir /srv/prod/empty", "EPERM")?;
    exists("/srv/prod/empty", true)?;
    drop(inside);
    guard.stop()
}

/// Every hook that a line names is attached, and what is judged has one.
fn consistent(status: &Value) -> Result<()> {
    let at_work = list(status, "/hooks")?.iter().filter(|hook| text(hook, "/state") == "attached");
    let at_work: BTreeSet<&str> = at_work.map(|hook| text(hook, "/name")).collect();
    for rule in list(status, "/rules")? {
        let hooks = hooks(rule)?;
        anyhow::ensure!(hooks.is_subset(&at_work), "not at work: {rule}");
        anyhow::ensure!(text(rule, "/verdict") == "allow" || !hooks.is_empty(), "no hooks: {rule}");
        // On old kernels another hook stands in for it.
        let writes = list(rule, "/operations")?.iter().any(|op| op == "write");
        let truncates = if at_work.contains("file_truncate") { "file_truncate" } else { "path_truncate" };
        anyhow::ensure!(!writes || hooks.contains(truncates), "no {truncates}: {rule}");
    }
    Ok(())
}

/// The pin of a program.
fn pin(hook: &str) -> Result<PathBuf> {
    fn find(dir: &Path, hook: &str) -> Result<Option<PathBuf>> {
        for entry in fs::read_dir(dir).with_context(|| format!("can't read {}", dir.display()))? {
            let path = entry?.path();
            let found = if path.is_dir() { find(&path, hook)? } else { path.ends_with(hook).then_some(path) };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
    find(Path::new(PINS), hook)?.with_context(|| format!("no pin of {hook}"))
}

/// Somebody takes a hook away: `status` fails, says which rules are concerned, and they are.
fn without_a_pin(inside: &mut Server) -> Result<()> {
    let pin = pin("path_rmdir")?;
    fs::remove_file(&pin).with_context(|| format!("can't remove {}", pin.display()))?;
    let people = cli(&["status"])?.code(1)?;
    contains("what people read", &people.stdout, "degraded: path_rmdir isn't at work")?;
    let status: Value =
        serde_json::from_str(&cli(&["status", "--json"])?.code(1)?.stdout).context("no JSON")?;
    contains(
        "what is degraded",
        &status.pointer("/degraded").map(ToString::to_string).unwrap_or_default(),
        "path_rmdir",
    )?;
    let state = list(&status, "/hooks")?.iter().find(|hook| text(hook, "/name") == "path_rmdir");
    same("the hook's state", state.map(|hook| text(hook, "/state")), Some("gone"))?;
    let concerned = line(&status, None, "hold delete, rename /srv/prod/dir")?;
    same("how much is enforced", text(concerned, "/enforced"), "part")?;
    contains("why", text(concerned, "/why/0"), "path_rmdir")?;
    same("the others", says(line(&status, Some(PROFILE), "deny write outside")?), ("enforce", "full", ""))?;
    consistent(&status)?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    inside.expect("rmdir /srv/prod/empty", "ok")
}

fn counted(name: &str) -> Result<u64> {
    number(&json(&["status"])?, &format!("/counters/{name}"))
}

fn counters() -> Result<()> {
    const NAMES: [&str; 6] =
        ["denied", "killed", "would_have", "would_have_denied", "would_have_held", "would_have_killed"];
    let _world = World::new()?;
    // Nothing else is judged: capabilities are asked for at every turn.
    let policy = policy_with(&(free_system(PROFILE) + &free_system(WATCHED)));
    let guard = Guard::start(&policy)?;
    let program = attack()?.display().to_string();
    let tries = |profile: &str, path: &str| run(&mut guard.command(profile, &[&program, "unlink", path]));
    let step = |what: &str, step: &dyn Fn() -> Result<()>, more: [u64; 6]| -> Result<()> {
        let before = NAMES.map(counted);
        step()?;
        for ((name, before), more) in NAMES.into_iter().zip(before).zip(more) {
            same(&format!("{name}, {what}"), counted(name)? - before?, more)?;
        }
        Ok(())
    };
    // The positive control: nothing is counted of who is outside.
    fs::write("/srv/prod/outside", "").context("can't write")?;
    step("outside", &|| fs::remove_file("/srv/prod/outside").context("can't remove"), [0; 6])?;
    step("denied", &|| tries(PROFILE, "/srv/prod/f")?.says("EPERM").map(drop), [1, 0, 0, 0, 0, 0])?;
    exists("/srv/prod/f", true)?;
    step("would have held", &|| tries(WATCHED, "/srv/prod/f")?.says("ok").map(drop), [0, 0, 1, 0, 1, 0])?;
    step("would have killed", &|| tries(WATCHED, "/srv/prod/g")?.says("ok").map(drop), [0, 0, 1, 0, 0, 1])?;
    fs::write("/srv/outside", "").context("can't write")?;
    step("would have denied", &|| tries(WATCHED, "/srv/outside")?.says("ok").map(drop), [0, 0, 1, 1, 0, 0])?;
    guard.reload(&policy.replace("verdict = \"deny\"", "verdict = \"kill\""))?;
    fs::write("/srv/prod/f", "").context("can't write")?;
    let killed = || tries(PROFILE, "/srv/prod/f")?.killed_by(Signal::KILL).map(drop);
    step("killed", &killed, [0, 1, 0, 0, 0, 0])?;
    guard.stop()
}
