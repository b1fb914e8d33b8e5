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
)
.on("6.12")];

const REPORT: &str = "/tmp/race.json";

/// Tries outside of a session, which show that the race is one.
const CONTROL: u32 = 100;

/// A race: its name, what is done, between what, and how often on an emulated processor.
struct Race {
    how: &'static str,
    action: &'static str,
    between: &'static str,
    tries: u32,
}

const fn race(how: &'static str, action: &'static str, between: &'static str, tries: u32) -> Race {
    Race { how, action, between, tries }
}

const LINKS: &str = "/srv/work/one /srv/work/two /f /srv/work/f /srv/prod/f";
const FILE_OR_LINK: &str = "/srv/work/three /srv/work/four - /srv/work/f /srv/prod/f";
const PATHS: &str = "/srv/work/f /srv/prod/f";

/// Links to both directories exchanged; a file exchanged for a link; the path itself changed in memory.
const RACES: &[Race] = &[
    race("race-exchange", "write", LINKS, 300),
    race("race-exchange", "truncate", LINKS, 300),
    race("race-exchange", "unlink", LINKS, 150),
    race("race-exchange", "rename", LINKS, 150),
    race("race-exchange", "write", FILE_OR_LINK, 300),
    race("race-memory", "write", PATHS, 300),
    race("race-memory", "unlink", PATHS, 150),
    race("race-memory", "rename", PATHS, 150),
];

/// How often: as often as the class of attacks deserves where there is time for it.
fn tries(usual: u32) -> u32 {
    if std::env::var_os("AGENT_GUARD_THOROUGH").is_some() { 100_000 } else { usual }
}

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
        fill(&world)?;
        let before = Snapshot::of(PROD)?;
        let mark = guard.events.mark()?;
        let line = line(race, tries(race.tries));
        let counts = counts(&mut inside, &line)?;
        same(&format!("{line}: hits of what is protected"), number(&counts, "/protected")?, 0)?;
        before.unchanged(PROD).with_context(|| line.clone())?;
        for end in ["/scope", "/denied"] {
            anyhow::ensure!(number(&counts, end)? > 0, "{line} met one only: {counts}");
        }
        guard.events.wait(mark, &line, |event| event.judged("deny"))?;
    }
    moves(&world, &mut guard, &mut outside, &mut inside)?;
    guard.stop()
}

/// A directory that moves within the scope is in scope all the time.
fn moves(world: &World, guard: &mut Guard, outside: &mut Server, inside: &mut Server) -> Result<()> {
    for (server, times) in [(outside, CONTROL), (inside, tries(500))] {
        world.fresh()?;
        guard.settle()?;
        let line = format!("race-moves {REPORT} {times} /srv/work/dir/deep /srv/work/empty/moved");
        let counts = counts(server, &line)?;
        same("what was done below a directory that moves", number(&counts, "/scope")?, u64::from(times))?;
    }
    Ok(())
}
