//! Which rule decides, and what each verdict does.

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::Scenario;
use crate::fixture::guard::{CHANGES, critical, line_of, policy, rule};
use crate::fixture::world::{PROD, Snapshot, exists};
use crate::fixture::{Guard, PROFILE, Server, World, same};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "files_rules_order",
        "critical first, then the deepest, then scope, then outside",
        order,
    )
    .on("7.2"),
    Scenario::direct("files_rules_report", "report lets through and tells", report).on("6.18"),
    Scenario::direct("files_rules_kill", "kill denies and kills", kill).on("6.1"),
    Scenario::direct(
        "files_rules_mode",
        "mode = \"report\" blocks nothing but what is critical",
        report_mode,
    )
    .on("6.18"),
    Scenario::direct("files_rules_builtin", "/dev/null and its kin need no rule", builtin).on("6.18"),
    Scenario::direct("files_devices", "no scope covers a device node", devices),
    Scenario::direct("files_outside", "what no rule and no scope names", outside).on("7.2"),
];

/// Deleting a file in each directory, and what decides about it.
fn order() -> Result<()> {
    let world = World::new()?;
    let rules = rule("/srv/prod", CHANGES, "deny")
        + &rule("/srv/prod/dir", CHANGES, "allow")
        + &rule("/srv/prod/dir/deep", CHANGES, "deny")
        + &rule("/srv/work/dir", CHANGES, "deny")
        + &rule("/srv/work/empty", &["create"], "allow")
        + &rule("/srv/work/empty", &["create", "delete"], "deny")
        + &critical("/srv/work/dir/deep", &["delete"], "deny")
        + &critical("/srv/work/g", &["delete"], "deny")
        + &rule("/srv/work/g", &["delete"], "allow");
    let text = policy(&rules);
    let mut guard = Guard::start(&text)?;
    let mut inside = Server::inside(&guard)?;
    for (attempt, answer, rule, source) in [
        ("unlink /srv/prod/f", "EPERM", "\"/srv/prod\"", "rule"),
        ("unlink /srv/prod/dir/f", "ok", "", ""),
        ("unlink /srv/prod/dir/deep/f", "EPERM", "\"/srv/prod/dir/deep\"", "rule"),
        ("unlink /srv/work/f", "ok", "", ""),
        ("unlink /srv/work/dir/f", "EPERM", "\"/srv/work/dir\"", "rule"),
        ("unlink /srv/work/dir/deep/f", "EPERM", "\"/srv/work/dir/deep\"", "critical"),
        ("mkdir /srv/work/empty/new", "EPERM", "\"/srv/work/empty\"", "rule"),
        ("unlink /srv/work/g", "EPERM", "\"/srv/work/g\"", "critical"),
        ("unlink /srv/marker", "EPERM", "", "outside"),
    ] {
        world.file("/srv/marker")?;
        let mark = guard.events.mark()?;
        inside.expect(attempt, answer)?;
        if answer == "ok" {
            continue;
        }
        let event = guard.events.wait(mark, attempt, |event| event.judged("deny"))?;
        same(&format!("{attempt}: what decided"), event.field("source").as_str(), source)?;
        if !rule.is_empty() {
            // Where several rules have that path, the one that denies.
            let line: usize = event.field("rule_line").parse().context("no line")?;
            let mut lines = text.lines().skip(line - 1);
            same(&format!("{attempt}: line {line}"), lines.next(), Some(format!("path = {rule}").as_str()))?;
            same(&format!("{attempt}: line {line} + 2"), lines.nth(1), Some("verdict = \"deny\""))?;
        }
    }
    guard.stop()
}

fn report() -> Result<()> {
    let _world = World::new()?;
    let text = policy(&(rule(PROD, CHANGES, "report") + &rule("/srv/prod/dir", CHANGES, "deny")));
    let mut guard = Guard::start(&text)?;
    let mut inside = Server::inside(&guard)?;
    for (attempt, operation, path) in [
        ("open-trunc /srv/prod/f", "write", "/srv/prod/f"),
        ("creat /srv/prod/new", "create", "/srv/prod/new"),
        ("rename /srv/prod/new /srv/prod/newer", "rename", "/srv/prod/new"),
        ("unlink /srv/prod/f", "delete", "/srv/prod/f"),
    ] {
        let mark = guard.events.mark()?;
        inside.expect(attempt, "ok")?;
        let event = guard.events.wait(mark, attempt, |event| event.judged("report") && event.about(path))?;
        same(&format!("{attempt}: operation"), event.field("operation").as_str(), operation)?;
        same(&format!("{attempt}: errno"), event.field("errno").as_str(), "0")?;
        same(
            &format!("{attempt}: line"),
            event.field("rule_line"),
            line_of(&text, "path = \"/srv/prod\"")?.to_string(),
        )?;
    }
    exists("/srv/prod/f", false)?;
    inside.expect("unlink /srv/prod/dir/f", "EPERM")?;
    guard.stop()
}

fn kill() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "kill")))?;
    for attempt in [
        "unlink /srv/prod/f",
        "open-trunc /srv/prod/f",
        "mkdir /srv/prod/new",
        "uring async unlink /srv/prod/f",
    ] {
        let before = Snapshot::of(PROD)?;
        let mark = guard.events.mark()?;
        let words: Vec<&str> = attempt.split(' ').collect();
        guard.attack(&words)?.killed_by(Signal::KILL).with_context(|| attempt.to_owned())?;
        before.unchanged(PROD).with_context(|| attempt.to_owned())?;
        let event = guard.events.wait(mark, attempt, |event| event.judged("kill"))?;
        same(&format!("{attempt}: errno"), event.field("errno").as_str(), "-1")?;
    }
    // Only the process that did it.
    guard.ran(&["bash", "-c", "rm -f /srv/prod/f; echo goes on"])?.says("goes on")?;
    exists("/srv/prod/f", true)?;
    guard.stop()
}

fn report_mode() -> Result<()> {
    let _world = World::new()?;
    let text = policy(&(rule(PROD, CHANGES, "deny") + &critical("/srv/prod/dir", CHANGES, "deny"))).replace(
        &format!("[profile.{PROFILE}.files]"),
        &format!("[profile.{PROFILE}]\nmode = \"report\"\n\n[profile.{PROFILE}.files]"),
    );
    let mut guard = Guard::start(&text)?;
    let mut inside = Server::inside(&guard)?;
    let mark = guard.events.mark()?;
    inside.expect("unlink /srv/prod/f", "ok")?;
    let event = guard.events.wait(mark, "what would have been denied", |event| event.about("/srv/prod/f"))?;
    same("what was done", event.field("verdict").as_str(), "report")?;
    same("what the policy says", event.field("policy_verdict").as_str(), "deny")?;
    inside.expect("creat /srv/outside-of-all", "ok")?;
    std::fs::remove_file("/srv/outside-of-all").context("it isn't there")?;
    inside.expect("unlink /srv/prod/dir/f", "EPERM")?;
    exists("/srv/prod/dir/f", true)?;
    guard.stop()
}

fn builtin() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let mut inside = Server::inside(&guard)?;
    let mark = guard.events.mark()?;
    for device in ["null", "zero", "full", "random", "urandom"] {
        inside.expect(&format!("open-write /dev/{device}"), "ok")?;
    }
    guard.settle()?;
    guard.events.none(mark, "needs no rule", |event| event.field("path").starts_with("/dev/"))?;
    // A node of the same device somewhere else is the same device; a new one can't be made.
    inside.expect("mknod /srv/prod/null", "EPERM")?;
    inside.expect("open-write /dev/kmsg", "EPERM")?;
    inside.expect("unlink /dev/null", "EPERM")?;
    exists("/dev/null", true)?;
    let pipes = guard.ran(&[
        "bash",
        "-c",
        "echo one | cat | { read line; echo \"$line\" >/dev/null; echo $line; }",
    ])?;
    pipes.good()?.says("one")?;
    guard.stop()
}

/// `files.outside` may differ by operation.
fn outside() -> Result<()> {
    let world = World::new()?;
    let table = format!("[profile.{PROFILE}.files]\n");
    let text = policy(&rule(PROD, CHANGES, "deny")).replace(
        &table,
        &format!("{table}outside = {{ write = \"report\", create = \"allow\", delete = \"deny\", rename = \"deny\" }}\n"),
    );
    let mut guard = Guard::start(&text)?;
    let mut inside = Server::inside(&guard)?;
    world.file("/srv/loose")?;
    let mark = guard.events.mark()?;
    inside.expect("mkdir /srv/loose-dir", "ok")?;
    inside.expect("open-write /srv/loose", "ok")?;
    guard.events.wait(mark, "a report", |event| {
        event.judged("report") && event.about("/srv/loose") && event.own("source") == "outside"
    })?;
    inside.expect("unlink /srv/loose", "EPERM")?;
    inside.expect("rename /srv/loose /srv/looser", "EPERM")?;
    inside.expect("rmdir /srv/loose-dir", "EPERM")?;
    let explained = crate::fixture::guard::json(&[
        "policy",
        "explain",
        "--profile",
        PROFILE,
        "--op",
        "delete",
        "--path",
        "/srv/loose",
    ])?;
    same("what explain says", crate::fixture::text(&explained, "/verdict"), "deny")?;
    std::fs::remove_dir("/srv/loose-dir").context("it isn't there")?;
    guard.stop()
}

/// A node in the session's own directory is a way to a device, not to something in the directory.
fn devices() -> Result<()> {
    let _world = World::new()?;
    let guard = Guard::start(&policy(""))?;
    let nodes = [
        ["mknod", "/srv/work/block", "b", "254", "0"],
        ["mknod", "/srv/work/memory", "c", "1", "1"],
        ["mknod", "/srv/work/zero", "c", "1", "5"],
    ];
    for words in &nodes {
        let [mknod, name, rest @ ..] = words;
        guard.ran(words)?.code(1)?.complains("Operation not permitted")?;
        exists(name, false)?;
        let made = std::process::Command::new(mknod).arg(name).args(rest).status().context("mknod")?;
        anyhow::ensure!(made.success(), "outside of sessions mknod {name} failed too");
    }
    // Made by somebody else, they are no more to be written to; only what needs no rule is.
    guard.ran(&["bash", "-c", ": >>/srv/work/block"])?.code(1)?.complains("Operation not permitted")?;
    guard.ran(&["bash", "-c", ": >>/srv/work/memory"])?.code(1)?.complains("Operation not permitted")?;
    guard.ran(&["bash", "-c", "echo >/srv/work/zero"])?.good()?;
    guard.ran(&["mkfifo", "/srv/work/fifo"])?.good()?;
    std::fs::OpenOptions::new().append(true).open("/srv/work/block").context("outside of sessions")?;
    guard.stop()
}
