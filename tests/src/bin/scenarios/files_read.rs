//! Reading: what a rule keeps from being read is opened for reading in no way, and nothing of it is listed.

use std::process::Command;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{line_of, policy, rule};
use crate::fixture::matrix::{Matrix, Row, UNKNOWN};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, WORK};
use crate::fixture::{Guard, Server, World};

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::direct("files_read", "protected files aren't read, nor directories listed", files_read)];

const fn row(attempt: &'static str, path: &'static str) -> Row {
    Row::new(attempt, "read", path).quiet()
}

/// Every way to open something for reading.
pub(crate) const READ: &[Row] = &[
    row("open-read {d}/f", "{d}/f"),
    row("open-read {d}/dir/deep/f", "{d}/dir/deep/f"),
    row("open-read {d}/dir/../f", "{d}/f"),
    row("open-read /proc/self/root{d}/f", "{d}/f"),
    row("open-read-nonblock {d}/f", "{d}/f"),
    row("open-read-opath {d}/f", "{d}/f"),
    row("openat2-read {d}/f", "{d}/f"),
    row("open-handle-read {d}/f", "").lacks(UNKNOWN),
    row("readdir {d}/dir", "{d}/dir"),
    row("readdir {d}/empty", "{d}/empty"),
    row("readdir {d}", "{d}"),
    row("cat {d}/f", "{d}/f"),
    row("uring plain open-read {d}/f", "{d}/f"),
    row("uring async open-read {d}/f", "{d}/f"),
    row("32bit open-read {d}/f", "{d}/f"),
    row("open-read {w}/to-file", "*"),
];

/// A symbolic link out of the scope.
fn fill(world: &World) -> Result<()> {
    let (target, name) = (format!("{}/f", world.protected()), format!("{}/to-file", world.scope()));
    std::os::unix::fs::symlink(target, &name).with_context(|| format!("can't make {name}"))
}

fn files_read() -> Result<()> {
    let world = World::new()?;
    let mut matrix = Matrix::new(&world, fill, &[READ]);
    matrix.controls(&mut Server::outside()?)?;
    let text = policy(&rule(PROD, &["read", "delete"], "deny"));
    let line = line_of(&text, "path = \"/srv/prod\"")?;
    let mut guard = Guard::start(&text)?;
    let mut inside = Server::inside(&guard)?;
    matrix.denied(&mut guard, &mut inside, line)?;
    // Naming it is free, and so is looking at what is said about it.
    inside.expect("open-path /srv/prod/f", "ok")?;
    guard.ran(&["stat", "/srv/prod/f"])?.good()?;
    for line in [
        "cat {d}/f",
        "cat <{d}/f",
        "ls {d}",
        "find {d}/dir -name f",
        "cp {d}/f /srv/work/copy",
        "cp -r {d}/dir /srv/work/copy",
        "tar -cf /srv/work/copy -C {d} .",
        "grep -r contents {d}",
        "dd if={d}/f of=/srv/work/copy status=none",
        "python3 -c 'open(\"{d}/f\").read()'",
        "curl -s file://{d}/f",
    ] {
        let line = line.replace("{d}", PROD);
        world.fresh()?;
        let done = guard.ran(&["bash", "-c", &line])?;
        anyhow::ensure!(!done.status.success(), "it says it worked: {}", done.summary());
        anyhow::ensure!(!done.stdout.contains("contents of"), "it was read: {}", done.summary());
        world.fresh()?;
        run(Command::new("bash").args(["-c", &line]).current_dir(WORK))?
            .good()
            .context("outside of a session")?;
    }
    matrix.rows.retain(|row| !row.attempt.contains("{w}"));
    matrix.in_scope(&mut guard, &mut inside)?;
    guard.stop()
}
