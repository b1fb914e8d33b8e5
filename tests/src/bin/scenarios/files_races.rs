//! What is judged changes while it is judged: links, paths in memory, directories that move.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Scenario;
use crate::fixture::guard::{CHANGES, policy, rule};
use crate::fixture::world::{PROD, Snapshot, WORK};
use crate::fixture::{Guard, Server, World, number, same};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "files_races",
    "nothing protected is reached by changing what is judged meanwhile",
    files_races,
)];

const REPORT: &str = "/tmp/race.json";

/// Tries outside of a session, which show that the race is one.
const CONTROL: u32 = 100;

/// A race: its name, what is done, and between what.
struct Race {
    how: &'static str,
    action: &'static str,
    between: &'static str,
}

const fn race(how: &'static str, action: &'static str, between: &'static str) -> Race {
    Race { how, action, between }
}

const LINKS: &str = "/srv/work/one /srv/work/two /f /srv/work/f /srv/prod/f";
const FILE_OR_LINK: &str = "/srv/work/three /srv/work/four - /srv/work/f /srv/prod/f";
const PATHS: &str = "/srv/work/f /srv/prod/f";

/// Links to both directories exchanged; a file exchanged for a link; the path itself changed in memory.
const RACES: &[Race] = &[
    race("race-exchange", "write", LINKS),
    race("race-exchange", "truncate", LINKS),
    race("race-exchange", "unlink", LINKS),
    race("race-exchange", "rename", LINKS),
    race("race-exchange", "write", FILE_OR_LINK),
    race("race-memory", "write", PATHS),
    race("race-memory", "unlink", PATHS),
    race("race-memory", "rename", PATHS),
];

/// Tries of each race that the daemon tells of, and without it, where a try costs a tenth: 100,000 in all.
const TOLD: u32 = 50;
const UNTOLD: u32 = 12_500;
/// Tries to make files below a directory that moves.
const MOVES: u32 = 2_000;

fn fill(world: &World) -> Result<()> {
    world.fresh()?;
    for (target, name) in [(WORK, "one"), (PROD, "two"), ("/srv/prod/f", "four")] {
        std::os::unix::fs::symlink(target, format!("{WORK}/{name}")).context("can't make a link")?;
    }
    world.file("/srv/work/three")
}

/// Runs a race; answers its counts.
fn counts(server: &mut Server, line: &str) -> Result<Value> {
    server.expect(line, "ok")?;
    let text = fs::read_to_string(REPORT).with_context(|| format!("can't read {REPORT}"))?;
    fs::remove_file(REPORT).with_context(|| format!("can't remove {REPORT}"))?;
    eprintln!("{line}: {}", text.trim());
    serde_json::from_str(&text).with_context(|| format!("no JSON in {REPORT}: {text}"))
}

fn files_races() -> Result<()> {
    let world = World::new()?;
    let mut outside = Server::outside()?;
    let line =
        |race: &Race, tries: u32| format!("{} {REPORT} {tries} {} {}", race.how, race.action, race.between);
    for race in RACES {
        fill(&world)?;
        let counts = counts(&mut outside, &line(race, CONTROL))?;
        for end in ["/scope", "/protected"] {
            anyhow::ensure!(
                number(&counts, end)? > 0,
                "{} {} hits one only: {counts}",
                race.how,
                race.action
            );
        }
    }
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let mut inside = Server::inside(&guard)?;
    for race in RACES {
        let mark = guard.events.mark()?;
        let line = line(race, TOLD);
        lost(&world, &mut inside, &line)?;
        guard.events.wait(mark, &line, |event| event.judged("deny"))?;
    }
    moves(&world, &mut guard, &mut outside, &mut inside)?;
    // The kernel needs nobody for it.
    guard.halt()?;
    RACES.iter().try_for_each(|race| lost(&world, &mut inside, &line(race, UNTOLD)))?;
    guard.launch()?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    guard.stop()
}

/// Runs a race in a session: both files are met, and the protected one never is reached.
fn lost(world: &World, inside: &mut Server, line: &str) -> Result<()> {
    fill(world)?;
    let before = Snapshot::of(PROD)?;
    let counts = counts(inside, line)?;
    same(&format!("{line}: hits of what is protected"), number(&counts, "/protected")?, 0)?;
    before.unchanged(PROD).with_context(|| line.to_owned())?;
    for end in ["/scope", "/denied"] {
        anyhow::ensure!(number(&counts, end)? > 0, "{line} met one only: {counts}");
    }
    Ok(())
}

/// A directory that moves within the scope is in scope all the time.
fn moves(world: &World, guard: &mut Guard, outside: &mut Server, inside: &mut Server) -> Result<()> {
    for (server, times) in [(outside, CONTROL), (inside, MOVES)] {
        world.fresh()?;
        guard.settle()?;
        let line = format!("race-moves {REPORT} {times} /srv/work/dir/deep /srv/work/empty/moved");
        let counts = counts(server, &line)?;
        same("what was done below a directory that moves", number(&counts, "/scope")?, u64::from(times))?;
    }
    Ok(())
}
