//! Everything that changes a file's contents in place needs a descriptor for it that is open for writing.

use std::fs;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, line_of, policy, rule};
use crate::fixture::matrix::{Matrix, Row, UNKNOWN};
use crate::fixture::world::{PROD, Snapshot, mode};
use crate::fixture::{Guard, Server, World};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "files_writes_need_open",
    "whatever writes in place fails where opening for writing is denied",
    files_writes_need_open,
)];

const fn row(attempt: &'static str) -> Row {
    Row::new(attempt, "write", "{d}/big")
}

/// Every way to change contents through a descriptor.
pub(crate) const IN_PLACE: &[Row] = &[
    row("in-place write {d}/big"),
    row("in-place pwrite {d}/big"),
    row("in-place ftruncate {d}/big"),
    row("in-place extend {d}/big"),
    row("in-place punch {d}/big").lacks(UNKNOWN),
    row("in-place zero {d}/big").lacks(UNKNOWN),
    row("in-place collapse {d}/big").lacks(UNKNOWN),
    row("in-place insert {d}/big").lacks(UNKNOWN),
    row("in-place map-shared {d}/big"),
    row("in-place map-mprotect {d}/big"),
    row("in-place splice {d}/big"),
    row("in-place sendfile {d}/big"),
    row("in-place copy {d}/big").lacks(UNKNOWN),
    row("in-place clone {d}/big").lacks(UNKNOWN),
    row("in-place dedupe {d}/big").quiet().unscoped().lacks(UNKNOWN),
    row("in-place uring-write {d}/big"),
    row("in-place uring-fallocate {d}/big").lacks(UNKNOWN),
    row("in-place uring-ftruncate {d}/big").lacks(UNKNOWN),
];

/// The same through a descriptor that is open for reading only. The kernel itself refuses.
const READ_ONLY: &[&str] = &[
    "write",
    "pwrite",
    "ftruncate",
    "extend",
    "punch",
    "zero",
    "collapse",
    "insert",
    "map-shared",
    "map-mprotect",
    "splice",
    "sendfile",
    "copy",
    "clone",
    "uring-write",
    "uring-fallocate",
    "uring-ftruncate",
];

/// A file of four blocks that are alike.
pub(crate) fn fill(world: &World) -> Result<()> {
    for dir in world.both() {
        let path = format!("{dir}/big");
        fs::write(&path, [b'a'; 4 * 4096]).with_context(|| format!("can't write {path}"))?;
        mode(&path, 0o666)?;
    }
    Ok(())
}

/// Neither outside of a session nor inside does a descriptor for reading change anything.
pub(crate) fn read_only(world: &World, server: &mut Server) -> Result<()> {
    world.fresh()?;
    fill(world)?;
    let before = Snapshot::of(world.protected())?;
    for how in READ_ONLY {
        let answer = server.ask(&format!("in-place-read {how} {}/big", world.protected()))?;
        anyhow::ensure!(answer != "ok" && !answer.starts_with('?'), "{how} through a reader: {answer}");
        before.unchanged(world.protected()).context(*how)?;
    }
    Ok(())
}

fn files_writes_need_open() -> Result<()> {
    let world = World::new()?;
    let mut outside = Server::outside()?;
    let mut matrix = Matrix::new(&world, fill, &[IN_PLACE]);
    matrix.controls(&mut outside)?;
    read_only(&world, &mut outside)?;
    let text = policy(&rule(PROD, CHANGES, "deny"));
    let line = line_of(&text, "path = \"/srv/prod\"")?;
    let mut guard = Guard::start(&text)?;
    let mut inside = Server::inside(&guard)?;
    matrix.denied(&mut guard, &mut inside, line)?;
    read_only(&world, &mut inside)?;
    matrix.in_scope(&mut guard, &mut inside)?;
    guard.stop()
}
