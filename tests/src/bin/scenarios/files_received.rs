//! Descriptors that come from processes outside: over a Unix socket, or taken with pidfd_getfd.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::Scenario;
use crate::fixture::guard::{CHANGES, line_of, policy, rule};
use crate::fixture::matrix::{Matrix, Row};
use crate::fixture::world::{PROD, Snapshot, WORK, remove};
use crate::fixture::{Guard, PROFILE, Running, SOON, Server, World, attack, until};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "files_received",
    "descriptors received or taken from others are judged as if the session had opened them",
    files_received,
)];

/// Where a process outside hands out descriptors.
const SOCKET: &str = "/tmp/offer.sock";

/// Received for writing, used in different ways.
const WRITE: &[Row] = &[
    Row::new("receive /tmp/offer.sock both {d}/f write", "write", "{d}/f"),
    Row::new("receive /tmp/offer.sock both {d}/f map-shared", "write", "{d}/f"),
    Row::new("receive /tmp/offer.sock both {d}/f ftruncate", "write", "{d}/f"),
    Row::new("receive /tmp/offer.sock both {d}/f uring-write", "write", "{d}/f"),
    Row::new("receive /tmp/offer.sock write {d}/dir/deep/f pwrite", "write", "{d}/dir/deep/f"),
];

/// Received for reading.
const READ: &[Row] = &[
    Row::new("receive /tmp/offer.sock read {d}/f read", "read", "{d}/f").quiet(),
    Row::new("receive /tmp/offer.sock read {d}/f map-read", "read", "{d}/f").quiet(),
];

/// A policy that lets sessions go where descriptors are offered.
fn received(ops: &[&str]) -> String {
    let network = format!("[profile.{PROFILE}.network]\nallow = [\"unix:{SOCKET}\"]\n");
    policy(&(rule(PROD, ops, "deny") + &network))
}

fn nothing(_: &World) -> Result<()> {
    Ok(())
}

fn files_received() -> Result<()> {
    let world = World::new()?;
    remove(Path::new(SOCKET))?;
    let _offer = Running::start(Command::new(attack()?).args(["offer", SOCKET]))?;
    until("descriptors are offered", SOON, || Ok(Path::new(SOCKET).exists().then_some(())))?;
    let mut outside = Server::outside()?;
    let mut writes = Matrix::new(&world, nothing, &[WRITE]);
    writes.controls(&mut outside)?;
    let mut reads = Matrix::new(&world, nothing, &[READ]);
    reads.controls(&mut outside)?;

    let text = received(CHANGES);
    let line = line_of(&text, "path = \"/srv/prod\"")?;
    let mut guard = Guard::start(&text)?;
    let mut inside = Server::inside(&guard)?;
    writes.denied(&mut guard, &mut inside, line)?;
    // What it may read it may receive for reading.
    inside.expect(&format!("receive {SOCKET} read /srv/prod/f read"), "ok")?;
    writes.in_scope(&mut guard, &mut inside)?;
    taken(&world, &mut guard, &mut outside, &mut inside)?;
    rings(&mut guard, &mut outside, &mut inside)?;

    guard.reload(&received(&["read", "delete"]))?;
    reads.denied(&mut guard, &mut inside, line)?;
    reads.in_scope(&mut guard, &mut inside)?;
    guard.stop()
}

/// A process outside that has a descriptor.
fn holder(command: &mut Command, fd: u32) -> Result<Running> {
    let process = Running::start(command.current_dir(WORK))?;
    let link = format!("/proc/{}/fd/{fd}", process.pid());
    until("a process has its descriptor", SOON, || Ok(Path::new(&link).exists().then_some(())))?;
    Ok(process)
}

/// Taken with pidfd_getfd.
fn taken(world: &World, guard: &mut Guard, outside: &mut Server, inside: &mut Server) -> Result<()> {
    let hold =
        |path: &str| holder(Command::new("bash").args(["-c", &format!("exec 7<>{path}; exec sleep 600")]), 7);
    let (protected, scope) = (hold("/srv/prod/f")?, hold("/srv/work/f")?);
    outside.expect(&format!("pidfd-getfd {} 7 write", protected.pid()), "ok")?;
    world.file("/srv/prod/f")?;
    let before = Snapshot::of(PROD)?;
    for how in ["write", "map-shared", "ftruncate"] {
        let attempt = format!("pidfd-getfd {} 7 {how}", protected.pid());
        let mark = guard.events.mark()?;
        inside.expect(&attempt, "EPERM")?;
        before.unchanged(PROD)?;
        guard.events.wait(mark, &attempt, |event| event.judged("deny") && event.about("/srv/prod/f"))?;
    }
    inside.expect(&format!("pidfd-getfd {} 7 write", scope.pid()), "ok")
}

/// Through a ring the kernel works for whoever made it.
fn rings(guard: &mut Guard, outside: &mut Server, inside: &mut Server) -> Result<()> {
    let ring = holder(Command::new(attack()?).args(["with-ring", "70", "sleep", "600"]), 70)?;
    let attempt = format!("pidfd-getfd {} 70 enter", ring.pid());
    outside.expect(&attempt, "ok")?;
    let mark = guard.events.mark()?;
    inside.expect(&attempt, "EPERM")?;
    guard.events.wait(mark, &attempt, |event| event.judged("deny"))?;
    Ok(())
}
