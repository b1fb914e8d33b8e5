//! Reloading: at every instant one whole policy judges, and a bad one changes nothing.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::Scenario;
use crate::fixture::guard::{CHANGES, POLICY, cli, json, line_of, points_at, policy, rule};
use crate::fixture::world::{PROD, exists};
use crate::fixture::{Guard, PROFILE, SOON, Server, World, contains, list, number, same, text, until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("policy_reload", "a new rule judges sessions that run already", good).on("6.1"),
    Scenario::direct("policy_reload_bad", "a bad policy changes nothing and says where it is wrong", bad)
        .on("6.18"),
    Scenario::direct("policy_reload_signal", "SIGHUP does the same", signal).on("6.1"),
    Scenario::direct(
        "policy_reload_busy",
        "no instant without a policy while it is reloaded again and again",
        busy,
    )
    .on("6.12 6.18"),
    Scenario::direct(
        "policy_check",
        "all mistakes of all files in one run, and unsupported keys by name",
        check,
    )
    .on("7.2"),
];

fn denying(path: &str) -> String {
    policy(&(rule(PROD, CHANGES, "deny") + &rule(path, CHANGES, "deny")))
}

/// Three mistakes, and the texts that stand on their lines.
fn mistaken() -> (String, [&'static str; 3]) {
    let table = format!("[profile.{PROFILE}.files]\n");
    let text = policy(&(rule("srv/prod", CHANGES, "deny") + &rule("/srv/work/dir", CHANGES, "dney")))
        .replace(&table, &format!("{table}scoep = [\"/srv\"]\n"));
    (text, ["scoep", "path = \"srv/prod\"", "\"dney\""])
}

fn points_at_all(message: &str, policy: &str, mistakes: &[&str]) -> Result<()> {
    mistakes.iter().try_for_each(|mistake| points_at(message, line_of(policy, mistake)?))
}

fn good() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let mut inside = Server::inside(&guard)?;
    inside.expect("unlink /srv/work/dir/deep/f", "ok")?;
    inside.expect("creat /srv/work/dir/deep/f", "ok")?;
    let (before, mark) = (guard.generation()?, guard.events.mark()?);
    let reloaded = guard.reload(&denying("/srv/work/dir"))?;
    same("the generation before", number(&reloaded, "/generation_before")?, before)?;
    same("the generation now", number(&reloaded, "/generation")?, before + 1)?;
    same("the number of rules", number(&reloaded, "/rules")?, 2)?;
    same("what status says", guard.generation()?, before + 1)?;
    inside.expect("unlink /srv/work/dir/deep/f", "EPERM")?;
    inside.expect("unlink /srv/work/f", "ok")?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    let event = guard.events.wait(mark, "the reload", |event| event.is("policy_reloaded"))?;
    same("class and activity", event.class(), (3004, 3))?;
    same("the event's generation", event.field("generation"), (before + 1).to_string())?;
    let digest = json(&["policy", "show"])?;
    same("the digest", text(&digest, "/digest"), text(&reloaded, "/digest"))?;
    // And back.
    guard.reload(&policy(&rule(PROD, CHANGES, "deny")))?;
    inside.expect("unlink /srv/work/dir/deep/f", "ok")?;
    guard.stop()
}

fn bad() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&denying("/srv/work/dir"))?;
    let mut inside = Server::inside(&guard)?;
    let before = json(&["policy", "show"])?;
    let (nowhere, not_toml) =
        (policy(&rule("/srv/**/nowhere", CHANGES, "deny")), "version = 1\n[profile\n".to_owned());
    let (three, mistakes) = mistaken();
    for (what, bad, mistakes) in [
        ("three mistakes", &three, mistakes.as_slice()),
        ("a path that can't be", &nowhere, &["/srv/**/nowhere"]),
        ("no TOML", &not_toml, &["[profile"]),
    ] {
        let mark = guard.events.mark()?;
        guard.write_policy(bad)?;
        let done = cli(&["policy", "reload"])?.code(3).context(what)?;
        points_at_all(&done.stderr, bad, mistakes).context(what)?;
        let event = guard.events.wait(mark, what, |event| event.is("policy_refused"))?;
        same("class and activity", event.class(), (3004, 3))?;
        points_at_all(&event.field("errors"), bad, mistakes).context(what)?;
        let now = json(&["policy", "show"])?;
        for member in ["/generation", "/digest", "/rules"] {
            same(&format!("{what}: {member}"), now.pointer(member), before.pointer(member))?;
        }
        inside.expect("unlink /srv/work/dir/f", "EPERM").context(what)?;
        inside.expect("open-write /srv/work/f", "ok").context(what)?;
    }
    // No file at all is no policy either.
    std::fs::remove_file(guard.policy_file()).context("can't remove the policy")?;
    let done = cli(&["policy", "reload"])?;
    anyhow::ensure!(!done.status.success(), "an empty directory was taken for a policy: {}", done.summary());
    inside.expect("unlink /srv/work/dir/f", "EPERM")?;
    guard.stop()
}

fn signal() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let mut inside = Server::inside(&guard)?;
    let before = guard.generation()?;
    guard.write_policy(&denying("/srv/work/dir"))?;
    guard.daemon()?.signal(Signal::HUP)?;
    until("the new generation is in force", SOON, || Ok((guard.generation()? == before + 1).then_some(())))?;
    inside.expect("unlink /srv/work/dir/f", "EPERM")?;
    let (bad, mistakes) = mistaken();
    let mark = guard.events.mark()?;
    guard.write_policy(&bad)?;
    guard.daemon()?.signal(Signal::HUP)?;
    let event = guard.events.wait(mark, "the refusal", |event| event.is("policy_refused"))?;
    points_at_all(&event.field("errors"), &bad, &mistakes)?;
    same("the generation", guard.generation()?, before + 1)?;
    inside.expect("unlink /srv/work/dir/f", "EPERM")?;
    guard.stop()
}

/// Both policies deny the same deletion; in between there must be nothing.
fn busy() -> Result<()> {
    let _world = World::new()?;
    let guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let attack = crate::fixture::attack()?.display().to_string();
    let mut prober =
        guard.run(&[&attack, "unlink-until", "/srv/prod/f", "/srv/work/stop", "/srv/work/tries"])?;
    until("the prober is at work", SOON, || Ok(Path::new("/srv/work/tries").exists().then_some(())))?;
    let before = guard.generation()?;
    for round in 0..20 {
        let other = if round % 2 == 0 { "/srv/prod/dir" } else { "/srv/work/dir" };
        guard.reload(&denying(other))?;
    }
    same("the generation", guard.generation()?, before + 20)?;
    std::fs::write("/srv/work/stop", "").context("can't stop the prober")?;
    prober.wait(SOON)?.good()?.says("EPERM")?;
    exists("/srv/prod/f", true)?;
    guard.stop()
}

fn check() -> Result<()> {
    let _world = World::new()?;
    let guard = Guard::prepare(&policy(&rule(PROD, CHANGES, "deny")))?;
    let dir = guard.policy_file().parent().context("the policy is in no directory")?;
    let (file, dir) = (guard.policy_file().display().to_string(), dir.display().to_string());
    cli(&["policy", "check", &file])?.good()?;
    cli(&["policy", "check", &dir])?.good()?;
    let (bad, mistakes) = mistaken();
    guard.write_policy(&bad)?;
    for path in [&file, &dir] {
        let done = cli(&["policy", "check", path])?.code(3)?;
        points_at_all(&(done.stdout + &done.stderr), &bad, &mistakes)?;
        let done = cli(&["policy", "check", path, "--json"])?.code(3)?;
        let checked: serde_json::Value = serde_json::from_str(&done.stdout).context("no JSON")?;
        same("whether it is valid", checked.pointer("/valid"), Some(&serde_json::Value::Bool(false)))?;
        let lines: Vec<u64> =
            list(&checked, "/errors")?.iter().filter_map(|error| number(error, "/line").ok()).collect();
        for mistake in mistakes {
            let line = line_of(&bad, mistake)?;
            anyhow::ensure!(lines.contains(&line), "no error on line {line}: {checked}");
        }
    }
    for (rest, key) in UNSUPPORTED {
        guard.write_policy(&policy(rest))?;
        let done = cli(&["policy", "check", &file])?.code(3).with_context(|| (*key).to_owned())?;
        let message = done.stdout + &done.stderr;
        contains(&format!("the message about {key}"), &message, key)?;
        contains(&format!("the message about {key}"), &message, &format!("{POLICY}:"))?;
    }
    Ok(())
}

/// What the policy language has and this version doesn't enforce, with the name that the message must have.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("[profile.agent]\nttl = \"8h\"\n", "ttl"),
    ("[[profile.agent.limit]]\nop = \"delete\"\nmax = 200\nper = \"60s\"\nverdict = \"hold\"\n", "limit"),
    ("[profile.agent.approval]\nquorum = 2\n", "approval"),
    ("[profile.agent.backup]\nops = [\"delete\"]\n", "backup"),
    ("[profile.agent.network]\nlisten = [\"unix:/run/x\"]\n", "/run/x"),
    ("[profile.agent.network]\nallow = [\"static.*.io:443\"]\n", "static.*.io"),
    ("[profile.agent.network]\nallow = [\"unix:run/x\"]\n", "run/x"),
    (
        "[[profile.agent.files.rule]]\npath = \"/srv/**/x\"\nops = [\"delete\"]\nverdict = \"deny\"\n",
        "/srv/**/x",
    ),
    (
        "[[profile.agent.files.rule]]\npath = \"/srv/a*b\"\nops = [\"delete\"]\nverdict = \"deny\"\n",
        "/srv/a*b",
    ),
    ("[[critical]]\npath = \"${cwd}\"\nops = [\"delete\"]\nverdict = \"deny\"\n", "${cwd}"),
];

#[cfg(test)]
mod tests {
    use agent_guard::policy::{self, Source};

    use super::*;
    use crate::fixture::guard::critical;

    fn errors(text: &str) -> String {
        let source = Source { name: POLICY.to_owned(), text: text.to_owned() };
        let errors = policy::load(vec![source]).err().unwrap_or_default();
        errors.iter().map(|error| format!("{error}\n")).collect()
    }

    #[test]
    fn good_policies_are_good() {
        assert_eq!(errors(&denying("/srv/work/dir")), "");
        assert_eq!(errors(&policy(&critical("/srv/prod", CHANGES, "hold"))), "");
        assert_eq!(
            errors(&policy("[profile.agent.network]\nconnect = \"hold\"\nallow = [\"[::1]:80\"]\n")),
            ""
        );
    }

    #[test]
    fn bad_policies_are_bad_where_scenarios_look() {
        let (text, mistakes) = mistaken();
        points_at_all(&errors(&text), &text, &mistakes).unwrap();
        let text = "version = 1\n[profile\n";
        points_at_all(&errors(text), text, &["[profile"]).unwrap();
        let text = "version = 1\nthis is no TOML\n";
        points_at_all(&errors(text), text, &["this is"]).unwrap();
        for (rest, key) in UNSUPPORTED {
            assert!(errors(&policy(rest)).contains(key), "{key}: {:?}", errors(&policy(rest)));
        }
    }
}
