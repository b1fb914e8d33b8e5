//! The daemon dies, stands still, or stops: what is in force stays in force, and it goes on where it was.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use crate::Scenario;
use crate::fixture::guard::{CHANGES, cli, json, pins, policy, rule};
use crate::fixture::world::{PROD, exists};
use crate::fixture::{
    Guard, Hold, Running, SOON, Server, World, attack, list, same, state, stays, text, until,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("daemon_death", "killed and started again: no gap, nothing forgotten", || {
        gap(Guard::kill)
    })
    .on("6.1 7.2"),
    Scenario::direct("daemon_stop", "stopped and started again: no gap, nothing forgotten", || {
        gap(Guard::halt)
    })
    .on("6.1 6.18"),
    Scenario::direct("daemon_frozen", "while the daemon stands still nothing gets easier", frozen),
];

const STOP: &str = "/srv/work/stop";
const TRIES: &str = "/srv/work/tries";

fn start() -> Result<(World, Guard)> {
    let world = World::new()?;
    let rules = rule(PROD, CHANGES, "deny") + &rule("/srv/prod/dir", CHANGES, "hold");
    Ok((world, Guard::start(&policy(&rules))?))
}

/// A process that tries a denied deletion again and again, until it is told to stop.
struct Prober(Running);

impl Prober {
    fn new(guard: &Guard) -> Result<Self> {
        let attack = attack()?.display().to_string();
        let running = guard.run(&[&attack, "unlink-until", "/srv/prod/f", STOP, TRIES])?;
        let prober = Self(running);
        prober.goes_on("at first")?;
        Ok(prober)
    }

    fn tries(&self) -> u64 {
        std::fs::read_to_string(TRIES).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// It must have been at it just now.
    fn goes_on(&self, when: &str) -> Result<()> {
        let before = self.tries();
        until(&format!("the prober goes on {when}"), SOON, || Ok((self.tries() > before).then_some(())))
    }

    /// Not once may it have worked.
    fn end(mut self) -> Result<()> {
        std::fs::write(STOP, "")?;
        self.0.wait(SOON)?.good()?.says("EPERM")?;
        exists("/srv/prod/f", true)
    }
}

fn gap(end: fn(&mut Guard) -> Result<()>) -> Result<()> {
    let (_world, mut guard) = start()?;
    let mut inside = Server::inside(&guard)?;
    let mut holder = Server::inside(&guard)?;
    let prober = Prober::new(&guard)?;
    let mut held = guard.run(&["rm", "-f", "/srv/prod/dir/f"])?;
    let hold = Hold::of(held.pid())?;
    let (pinned, generation) = (pins()?, guard.generation()?);

    end(&mut guard)?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    inside.expect("unlink /srv/work/f", "ok")?;
    prober.goes_on("without a daemon")?;
    for _ in 0..3 {
        held.signal(Signal::CONT)?;
        until("it is held again", SOON, || Ok((state(held.pid()) == Some('T')).then_some(())))?;
        exists("/srv/prod/dir/f", true)?;
    }
    // What begins to wait now waits too.
    holder.send("unlink /srv/prod/dir/deep/f")?;
    let waiting = holder.process().pid();
    until("a call is held without a daemon", SOON, || Ok((state(waiting) == Some('T')).then_some(())))?;
    // And no session starts unguarded.
    guard.ran(&["touch", "/srv/work/unguarded"])?.code(125)?;
    exists("/srv/work/unguarded", false)?;
    cli(&["status"])?.code(5)?;

    guard.launch()?;
    prober.goes_on("with the new daemon")?;
    same("what is pinned", pins()?, pinned)?;
    same("the generation", guard.generation()?, generation)?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    let again = Hold::of(held.pid())?;
    same("what is known of the hold", again.details(), hold.details())?;
    let late = Hold::of(waiting)?;
    late.is("delete", "/srv/prod/dir/deep/f")?;
    again.approve()?;
    held.wait(SOON)?.good()?;
    exists("/srv/prod/dir/f", false)?;
    late.deny()?;
    same("the late one", holder.answer()?.as_str(), "EPERM")?;
    exists("/srv/prod/dir/deep/f", true)?;
    // Sessions from before and from now are alike.
    until("three sessions run", SOON, || {
        let sessions = json(&["session", "list"])?;
        let running = list(&sessions, "/sessions")?.iter().filter(|s| text(s, "/state") == "running").count();
        Ok((running == 3).then_some(()))
    })?;
    guard.attack(&["unlink", "/srv/prod/f"])?.says("EPERM")?;
    prober.end()?;
    guard.stop()
}

fn frozen() -> Result<()> {
    let (_world, mut guard) = start()?;
    let mut inside = Server::inside(&guard)?;
    let mark = guard.events.mark()?;
    guard.freeze()?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    inside.send("unlink /srv/prod/dir/f")?;
    let pid = inside.process().pid();
    until("a call is held", SOON, || Ok((state(pid) == Some('T')).then_some(())))?;
    let mut unguarded = guard.run(&["touch", "/srv/work/unguarded"])?;
    stays("no session starts", Duration::from_secs(2), || {
        Ok(!std::path::Path::new("/srv/work/unguarded").exists())
    })?;
    guard.daemon()?.signal(Signal::CONT)?;
    unguarded.wait(SOON)?.good()?;
    exists("/srv/work/unguarded", true)?;
    Hold::of(pid)?.deny()?;
    same("the held call", inside.answer()?.as_str(), "EPERM")?;
    guard.events.wait(mark, "the denial", |event| event.judged("deny") && event.about("/srv/prod/f"))?;
    guard.stop()
}
