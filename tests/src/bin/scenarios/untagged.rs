//! Nobody else is touched: outside of sessions everything works, and nothing is told.

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::Scenario;
use crate::fixture::guard::{CHANGES, critical, json, policy, rule};
use crate::fixture::process::run;
use crate::fixture::world::PROD;
use crate::fixture::{Event, Guard, Server, World, number, same};
use crate::network::Target;

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::direct("untagged", "no process outside of sessions is ever judged", untagged)];

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
        run(std::process::Command::new("bash").args(["-c", line]))?.good().context("outside of a session")?;
    }
    same("actions that were judged meanwhile", judged()?, before)?;
    // All that was told up to an action of which something must be told.
    guard.attack(&["unlink", "/srv/prod/f"])?.killed_by(Signal::KILL)?;
    guard.events.wait(mark, "the session's own", |event| event.judged("kill"))?;
    let others = |event: &Event| event.is("held") || (event.is("judged") && !event.judged("kill"));
    guard.events.none(mark, "an event about somebody outside", others)?;
    guard.stop()
}
