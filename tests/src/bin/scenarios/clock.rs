//! The clock of the system is set: nothing is prolonged, nothing forgotten, nothing decided by it.

use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, json, policy, rule};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, exists};
use crate::fixture::{Guard, Hold, SOON, Server, World, list, same, state, stays, text, until};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "clock_set",
    "the clock is set back and forth: holds, answers and sessions are the same, with the next daemon, too",
    clock_set,
)
.on("6.18")];

/// The clock as it was, which it is again in the end.
struct Clock {
    wall: SystemTime,
    since: std::time::Instant,
}

impl Clock {
    fn new() -> Self {
        Self { wall: SystemTime::now(), since: std::time::Instant::now() }
    }

    /// Sets the clock so many days away from what is right.
    fn set(&self, days: i64) -> Result<()> {
        let right = self.wall + self.since.elapsed();
        let seconds = right.duration_since(SystemTime::UNIX_EPOCH).context("a clock before 1970")?.as_secs();
        let seconds = i64::try_from(seconds)? + days * 86400;
        run(Command::new("date").args(["--set", &format!("@{seconds}")]))?.good().map(drop)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        if let Err(error) = self.set(0) {
            eprintln!("{error:#}");
        }
    }
}

fn clock_set() -> Result<()> {
    let _world = World::new()?;
    let rules = rule(PROD, CHANGES, "deny") + &rule("/srv/prod/dir", CHANGES, "hold");
    let mut guard = Guard::start(&policy(&rules))?;
    let clock = Clock::new();
    let mut inside = Server::inside(&guard)?;
    let mut held = guard.run(&["rm", "-f", "/srv/prod/dir/f"])?;
    let hold = Hold::of(held.pid())?;
    // No tag, no hold and no answer ends by the clock that people set: ten years on, and back beyond the beginning.
    for (days, restart) in [(3650, false), (-3650, false), (3650, true), (-3650, true), (0, true)] {
        clock.set(days)?;
        if restart {
            guard.halt()?;
            guard.launch()?;
        }
        let mark = guard.events.mark()?;
        inside.expect("unlink /srv/prod/f", "EPERM").with_context(|| format!("{days} days away"))?;
        let event = guard.events.wait(mark, "the denial", |event| event.judged("deny"))?;
        // Whoever reads it has the same clock.
        let now = u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?;
        let time = crate::fixture::number(&event.0, "/time")?;
        anyhow::ensure!(time.abs_diff(now) < SOON.as_millis() as u64, "the event says {time}, it is {now}");
        same("the held process", state(held.pid()), Some('T'))?;
        let again = Hold::of(held.pid()).with_context(|| format!("{days} days away"))?;
        same("the hold's id", again.id(), hold.id())?;
        same("its state", text(&again.0, "/state"), "waiting")?;
        stays("it stands still", Duration::from_millis(300), || Ok(state(held.pid()) == Some('T')))?;
        exists("/srv/prod/dir/f", true)?;
        until("both sessions run, and no other", SOON, || {
            let sessions = json(&["session", "list"])?;
            let running = list(&sessions, "/sessions")?.iter().filter(|one| text(one, "/state") == "running");
            Ok((running.count() == 2).then_some(()))
        })?;
        guard.ran(&["true"])?.good()?;
    }
    // An answer counts for the call that it was given to, whatever the clock says in between.
    clock.set(-3650)?;
    held.signal(rustix::process::Signal::CONT)?;
    until("it is held again", SOON, || Ok((state(held.pid()) == Some('T')).then_some(())))?;
    Hold::of(held.pid())?.approve()?;
    held.wait(SOON)?.good()?;
    clock.set(0)?;
    let mut next = guard.run(&["rm", "-f", "/srv/prod/dir/deep/f"])?;
    let next_hold = Hold::of(next.pid())?;
    anyhow::ensure!(next_hold.id() != hold.id(), "the answered hold has come again");
    next_hold.deny()?;
    anyhow::ensure!(!next.wait(SOON)?.status.success(), "it went on although it was denied");
    exists("/srv/prod/dir/deep/f", true)?;
    drop(inside);
    guard.stop()
}
