//! Nobody else is touched: outside of sessions everything works, and nothing is told.

use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::Scenario;
use crate::fixture::guard::{ALL, CHANGES, critical, json, policy, remove_traces, rule, strict_policy_of};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, WORK};
use crate::fixture::{Event, Guard, Server, World, number, same};
use crate::network::Target;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("untagged", "no process outside of sessions is ever judged", untagged),
    Scenario::direct(
        "untagged_stress",
        "files, processes and networks under stress: as without the guard",
        stress,
    )
    .on("7.2"),
    Scenario::direct("untagged_workloads", "a package and a build: as without the guard", workloads)
        .on("6.12")
        .with_disk("toolchain"),
];

fn untagged() -> Result<()> {
    let world = World::new()?;
    let rules = rule(PROD, CHANGES, "kill") + &critical("/srv/prod/dir", CHANGES, "deny");
    let mut guard = Guard::start(&policy(&rules))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    inside.expect("open-write /srv/work/f", "ok")?;
    let (target, mark) = (Target::new()?, guard.events.mark()?);
    let judged = || -> Result<u64> { number(&json(&["status"])?, "/counters/judged") };
    let before = judged()?;
    for line in [
        "open-trunc /srv/prod/f",
        "creat /srv/prod/new",
        "rename /srv/prod/new /srv/prod/newer",
        "link /srv/prod/f /srv/work/hard",
        "unlink /srv/prod/f",
        "unlink /srv/prod/dir/deep/f",
        "mkdir /srv/prod/dir/new",
        "fork-unlink /srv/prod/dir/f",
        "clone3-unlink /srv/prod/newer",
        "uring async unlink /srv/prod/g",
        "creat /etc/agent-guard-test-file",
        "unlink /etc/agent-guard-test-file",
    ] {
        outside.expect(line, "ok")?;
    }
    world.fresh()?;
    for call in ["connect", "sendto", "fastopen", "uring plain connect"] {
        outside.expect(&format!("{call} 127.0.0.1:{}", target.port), "ok")?;
    }
    for line in [
        "rm -rf /srv/prod/dir",
        "cp -r /srv/work/dir /srv/prod/",
        "git init -q /srv/prod/repository",
        "su nobody -s /bin/sh -c true",
    ] {
        run(Command::new("bash").args(["-c", line]))?.good().context("outside of a session")?;
    }
    same("actions that were judged meanwhile", judged()?, before)?;
    // All that was told up to an action of which something must be told.
    guard.attack(&["unlink", "/srv/prod/f"])?.killed_by(Signal::KILL)?;
    guard.events.wait(mark, "the session's own", |event| event.judged("kill"))?;
    let others = |event: &Event| event.is("held") || (event.is("judged") && !event.judged("kill"));
    guard.events.none(mark, "an event about somebody outside", others)?;
    guard.stop()
}

/// Everything that a policy can say no to, said as hard as it can be.
fn strictest() -> String {
    let rules = rule("/", &["write", "create", "delete", "rename", "metadata"], "kill")
        + &rule(PROD, CHANGES, "deny")
        + &rule("/srv/prod/dir", ALL, "kill")
        + &critical("/srv/prod/dir/deep", ALL, "kill");
    strict_policy_of(WORK, &rules)
}

/// Works outside of any session with a guard that would kill for it, and nothing may come of it: no count, no event.
fn beside_the_guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut guard = Guard::start(&strictest())?;
    let mark = guard.events.mark()?;
    let counts = || Ok::<_, anyhow::Error>(json(&["status"])?.pointer("/counters").cloned());
    let lost = || Ok::<_, anyhow::Error>(json(&["status"])?.pointer("/lost").cloned());
    let before = (counts()?, lost()?);
    let done = work()?;
    same("what is counted", (counts()?, lost()?), before)?;
    // The first that is told is the session in which something is denied now.
    guard.settle()?;
    let events = guard.events.since(mark)?;
    let first = events.first().context("no events")?;
    anyhow::ensure!(first.is("session_started"), "something is told about somebody outside: {}", first.0);
    let session = first.field("session");
    let others = |event: &Event| event.field("session") != session;
    guard.events.none(mark, "an event about somebody outside", others)?;
    guard.stop()?;
    Ok(done)
}

/// Stressors by what they are about: files and directories, processes, networks.
const STRESSORS: &[&str] = &[
    "dir",
    "dentry",
    "rename",
    "link",
    "symlink",
    "chmod",
    "chown",
    "utime",
    "xattr",
    "fallocate",
    "mmap",
    "open",
    "flock",
    "fork",
    "vfork",
    "clone",
    "exec",
    "kill",
    "ptrace",
    "pthread",
    "sock",
    "sockpair",
    "udp",
    "epoll",
];

/// Runs all of them at once, each of which looks at its results; says which have passed. Small enough for a guest.
fn stressed(dir: &str) -> Result<String> {
    let mut command = Command::new("stress-ng");
    command.args(["--verify", "--timeout", "4s", "--temp-path", dir, "--no-rand-seed"]);
    command.args([
        "--clone-max",
        "64",
        "--pthread-max",
        "32",
        "--mmap-bytes",
        "8m",
        "--fallocate-bytes",
        "8m",
    ]);
    for stressor in STRESSORS {
        command.args([&format!("--{stressor}"), "1"]);
    }
    let done = run(&mut command)?.good()?;
    let text = done.stdout + &done.stderr;
    let passed = text.lines().find_map(|line| Some(line.split_once("passed: ")?.1.trim().to_owned()));
    // Older ones say only that all is well.
    let completed = text.contains("successful run completed").then(|| "completed".to_owned());
    passed.or(completed).with_context(|| format!("stress-ng doesn't say what has passed: {text}"))
}

fn stress() -> Result<()> {
    let _world = World::new()?;
    // In the directory that is protected most.
    let dir = "/srv/prod/dir/deep";
    remove_traces()?;
    let without = stressed(dir)?;
    let with = beside_the_guard(|| stressed(dir))?;
    same("what has passed", with, without)
}

fn workloads() -> Result<()> {
    let _world = World::new()?;
    remove_traces()?;
    let mounts = crate::workloads::mounted()?;
    let without = crate::workloads::outside()?;
    let with = beside_the_guard(crate::workloads::outside)?;
    same("what came out", with, without)?;
    drop(mounts);
    Ok(())
}
