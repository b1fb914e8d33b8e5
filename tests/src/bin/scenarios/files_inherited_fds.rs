//! Descriptors that were opened before the session: what the profile wouldn't let it open it doesn't keep.

use std::process::Command;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, PROGRAM, policy, rule};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, Snapshot, WORK};
use crate::fixture::{Finished, Guard, World, attack, contains};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "files_inherited_fds",
    "a session starts without descriptors that it couldn't have opened, or not at all",
    files_inherited_fds,
)];

/// A redirection, the descriptor, how it is used, and whether the session may.
type Case = (&'static str, &'static str, &'static str, bool);

const CHANGING: &[Case] = &[
    ("7<>/srv/prod/f", "7", "write", false),
    ("7<>/srv/prod/f", "7", "map-shared", false),
    ("7<>/srv/prod/f", "7", "ftruncate", false),
    ("7>>/srv/prod/f", "7", "write", false),
    ("250<>/srv/prod/dir/deep/f", "250", "write", false),
    ("7</srv/prod/f", "7", "read", true),
    ("7<>/srv/work/f", "7", "write", true),
    ("7<>/srv/work/f", "7", "map-shared", true),
    ("7</dev/zero", "7", "read", true),
    ("7<>/dev/null", "7", "write", true),
];

const READING: &[Case] = &[("7</srv/prod/f", "7", "read", false), ("7</srv/work/f", "7", "read", true)];

/// What a program can't do without: there is nothing to close.
const STANDARD: &[&str] = &["0<>/srv/prod/f", "1>>/srv/prod/f", "2>>/srv/prod/f", "1<>/srv/prod/f 2>&1"];

/// A shell that opens something and becomes a program.
fn shell(redirections: &str, program: &str, words: &str) -> Result<Finished> {
    let script = format!("exec {program} {words} {redirections}");
    run(Command::new("bash").args(["-c", &script]).current_dir(WORK))
}

fn cases(world: &World, cases: &[Case], attack: &str, session: &str) -> Result<()> {
    for (redirection, fd, how, may) in cases {
        let words = format!("use-inherited {fd} {how}");
        world.fresh()?;
        shell(redirection, attack, &words)?.says("ok").context("outside of a session")?;
        world.fresh()?;
        let before = Snapshot::of(PROD)?;
        let done = shell(redirection, session, &words)?;
        if *may {
            done.says("ok").context(*redirection)?;
            continue;
        }
        let done = done.says("EBADF").context(*redirection)?;
        contains(&format!("stderr with {redirection}"), &done.stderr, "/srv/prod/")?;
        before.unchanged(PROD)?;
    }
    Ok(())
}

fn files_inherited_fds() -> Result<()> {
    let world = World::new()?;
    let attack = attack()?.display().to_string();
    let session = format!("{PROGRAM} run --profile agent -- {attack}");
    for redirection in STANDARD {
        shell(redirection, "/bin/true", "")?.good().context("outside of a session")?;
    }
    let with_ring = |program: &str| {
        let script = format!("exec {attack} with-ring 70 {program} use-inherited 70 enter");
        run(Command::new("bash").args(["-c", &script]).current_dir(WORK))
    };
    with_ring(&attack)?.says("ok")?;

    let guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    cases(&world, CHANGING, &attack, &session)?;
    let before = Snapshot::of(PROD)?;
    for redirection in STANDARD {
        shell(redirection, &session, "create-new /srv/work/ran")?.code(125).context(*redirection)?;
        before.unchanged(PROD)?;
        crate::fixture::world::exists("/srv/work/ran", false)?;
    }
    with_ring(&session)?.says("EBADF").context("an inherited ring")?;

    guard.reload(&policy(&rule(PROD, &["read", "delete"], "deny")))?;
    cases(&world, READING, &attack, &session)?;
    shell("0</srv/prod/f", &session, "create-new /srv/work/ran")?.code(125)?;
    guard.stop()
}
