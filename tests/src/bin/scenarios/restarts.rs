//! Restarts and upgrades, again and again: never a moment without, nothing forgotten.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, json, pins, policy, rule};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, WORK, directory, exists};
use crate::fixture::{
    Guard, Hold, PROFILE, Running, SOON, Server, World, attack, doctored, list, same, text, until,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "restart_many",
        "up to a hundred restarts, killed and stopped, with other programs too: no action slips by, a hold waits on",
        restarts,
    ).thorough(),
    Scenario::direct(
        "restart_paths",
        "after a restart a session's own paths are its own, not those of one that has ended",
        own_paths,
    ).on("6.1"),
];

const STOP: &str = "/srv/work/stop";
const CALM: &str = "/srv/work/calm";
const TURNS: &str = "/srv/work/turns";

/// Restarts at least: with emulated processors one takes seconds. The upgrade is in the middle of them.
const FEW: usize = 6;
/// And at most, on one kernel, as long as there is time.
const MANY: usize = 100;
const MANY_ON: &str = "6.18.";
const LONG: Duration = Duration::from_secs(240);

/// Tries two denied things without a pause.
struct Loop(Running);

impl Loop {
    const WORDS: [&'static str; 6] = ["denied-until", "/srv/prod/f", "/srv/prod/g", STOP, CALM, TURNS];

    fn new(guard: &Guard) -> Result<Self> {
        let attack = attack()?.display().to_string();
        let started = Self(guard.run(&[&[attack.as_str()], Self::WORDS.as_slice()].concat())?);
        started.goes_on("at first")?;
        Ok(started)
    }

    /// Without a pause, or with.
    fn calm(&self, calm: bool) -> Result<()> {
        if calm { std::fs::write(CALM, "") } else { std::fs::remove_file(CALM) }
            .context("can't tell the loop")
    }

    fn turns(&self) -> u64 {
        std::fs::read_to_string(TURNS).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    fn goes_on(&self, when: &str) -> Result<()> {
        let before = self.turns();
        until(&format!("the loop goes on {when}"), SOON, || {
            anyhow::ensure!(
                !self.0.ends_within(Duration::ZERO)?,
                "it has ended: {}",
                self.0.stdout_so_far()?
            );
            Ok((self.turns() > before).then_some(()))
        })
    }

    /// Neither may ever have worked.
    fn end(mut self) -> Result<()> {
        std::fs::write(STOP, "").context("can't stop the loop")?;
        self.0.wait(SOON)?.good()?.says("EPERM")?;
        exists("/srv/prod/f", true)
    }
}

/// Pins, each with its number.
type Pins = Vec<(PathBuf, u64)>;

/// Pins of programs, and those of maps.
fn pinned() -> Result<(Pins, Pins)> {
    Ok(pins()?.into_iter().partition(|(path, _)| path.to_string_lossy().contains("/links-")))
}

fn restarts() -> Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let times = if release.starts_with(MANY_ON) { MANY } else { FEW };
    let world = World::new()?;
    let rules = rule(PROD, CHANGES, "deny") + &rule("/srv/prod/dir", CHANGES, "hold");
    let program = doctored::installed("daemon")?;
    let mut guard = Guard::prepare(&policy(&rules))?;
    guard.set_program(&program);
    guard.launch()?;
    // Outside of a session the very same loop ends at once, because it can.
    let words = Loop::WORDS;
    run(Command::new(attack()?).args(words))?.good()?.says("ok")?;
    world.fresh()?;
    let mut inside = Server::inside(&guard)?;
    let mut held = guard.run(&["rm", "-f", "/srv/prod/dir/f"])?;
    let hold = Hold::of(held.pid())?;
    let attempts = Loop::new(&guard)?;
    attempts.calm(true)?;
    let (programs, maps) = pinned()?;
    let begin = std::time::Instant::now();
    for turn in 0..times {
        if turn >= FEW && begin.elapsed() > LONG {
            break;
        }
        let upgrade = turn == FEW / 2;
        let downgrade = turn == FEW / 2 + 1;
        let before = if upgrade || downgrade { Some(guard.generation()?) } else { None };
        attempts.calm(false)?;
        attempts.goes_on("without a pause")?;
        if turn % 2 == 0 {
            guard.kill()?;
        } else {
            guard.halt()?;
        }
        attempts.goes_on("without a daemon")?;
        // What the loop is told would fill the disk.
        std::fs::remove_file(guard.events.path()).context("can't remove the log")?;
        // In the same file, so that the policy, which protects it, becomes the very same tables.
        if upgrade {
            doctored::upgraded("daemon")?;
        } else if downgrade {
            doctored::installed("daemon")?;
        }
        guard.launch().with_context(|| format!("restart {turn}"))?;
        attempts.calm(true)?;
        attempts.goes_on("with the new daemon")?;
        if let Some(before) = before {
            let (now, same_maps) = pinned()?;
            same("the pins of maps after another program", &same_maps, &maps)?;
            anyhow::ensure!(now.iter().all(|pin| !programs.contains(pin)), "old programs are still there");
            same("how many programs there are", now.len(), programs.len())?;
            // What the other programs have decided isn't found again.
            same("the generation", guard.generation()?, before + 1)?;
        }
        eprintln!("restart {turn} after {} s", begin.elapsed().as_secs());
        let now = Hold::of(held.pid()).with_context(|| format!("after restart {turn}"))?;
        same("what is known of the hold", now.details(), hold.details())?;
        inside.expect("unlink /srv/prod/f", "EPERM")?;
    }
    hold.approve()?;
    held.wait(SOON)?.good()?;
    exists("/srv/prod/dir/f", false)?;
    attempts.end()?;
    doctored::remove(&program)?;
    guard.halt()
}

fn own_paths() -> Result<()> {
    let _world = World::new()?;
    for dir in ["first", "second"] {
        directory(&format!("{WORK}/{dir}"))?;
        std::fs::write(format!("{WORK}/{dir}/f"), "").context("can't make a file")?;
    }
    let own = policy(&rule(PROD, CHANGES, "deny")).replace(&format!("\"{WORK}\""), "\"${cwd}\"");
    let mut guard = Guard::start(&own)?;
    let session = |guard: &Guard, dir: &str| {
        let attack = attack()?.display().to_string();
        let mut command = guard.command(PROFILE, &[&attack, "serve"]);
        command.current_dir(format!("{WORK}/{dir}"));
        Server::start(command, "inside")
    };
    let mut first = session(&guard, "first")?;
    first.expect(&format!("open-write {WORK}/first/f"), "ok")?;
    first.expect(&format!("open-write {WORK}/second/f"), "EPERM")?;
    drop(first);
    let ended = || -> Result<Option<()>> {
        let sessions = json(&["session", "list"])?;
        let running = list(&sessions, "/sessions")?.iter().any(|s| text(s, "/state") == "running");
        Ok((!running).then_some(()))
    };
    until("the first session has ended", SOON, ended)?;
    guard.halt()?;
    guard.launch()?;
    let mut second = session(&guard, "second")?;
    second.expect(&format!("open-write {WORK}/second/f"), "ok")?;
    second.expect(&format!("open-write {WORK}/first/f"), "EPERM")?;
    second.expect(&format!("creat {WORK}/first/new"), "EPERM")?;
    let mut outside = Server::outside()?;
    outside.expect(&format!("open-write {WORK}/first/f"), "ok")?;
    guard.stop()
}
