//! Real work in a session gives the same as outside: nothing is denied, nothing fails, nothing comes out otherwise.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, policy_of, rule};
use crate::fixture::mounted::Mounted;
use crate::fixture::world::{PROD, WORK, directory};
use crate::fixture::{Finished, Guard, PROFILE, Running, World, same};

/// Where the toolchain disk is mounted; the `workload` program looks there.
const TOOLCHAIN: &str = "/srv/toolchain";
/// What cargo may take on an emulated processor, outside of a session and inside.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(240);

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("workload_git", "git clones, commits, merges and collects garbage in a session", git)
        .on("6.12"),
    Scenario::direct("workload_cargo", "cargo builds a program in a session", cargo)
        .on("6.12")
        .with_disk("toolchain"),
    Scenario::direct("workload_apt", "apt installs a package into a container's root in a session", apt)
        .on("6.12")
        .with_disk("toolchain"),
];

fn program() -> Result<String> {
    let me = std::env::current_exe().context("can't find this program")?;
    Ok(me.with_file_name("workload").to_string_lossy().into_owned())
}

fn finished(command: &mut Command) -> Result<Finished> {
    Running::start(command)?.wait(PATIENCE)?.good()
}

/// The same work outside of a session and inside, in a scope.
fn compare(what: &str, dir: &str, scope: &str) -> Result<()> {
    let program = program()?;
    let before = finished(Command::new(&program).args([what, dir]).current_dir(WORK))?;
    let mut guard = Guard::start(&policy_of(scope, &rule(PROD, CHANGES, "deny")))?;
    let mark = guard.events.mark()?;
    let inside = finished(&mut guard.command(PROFILE, &[&program, what, dir]))?;
    same(&format!("what {what} printed in a session"), inside.stdout.trim(), before.stdout.trim())?;
    guard.settle()?;
    let is_marker = |event: &crate::fixture::Event| event.field("path").contains("/marker-");
    guard
        .events
        .none(mark, "denied in the middle of real work", |event| event.judged("deny") && !is_marker(event))?;
    guard.stop()
}

fn git() -> Result<()> {
    World::new()?;
    compare("git", "/srv/work/repositories", WORK)
}

/// The system on the toolchain disk, with what programs in it need of the kernel.
pub(crate) fn mounted() -> Result<Vec<Mounted>> {
    let disk = Mounted::disk("toolchain", TOOLCHAIN)?;
    let dev = Mounted::bind("/dev", &format!("{TOOLCHAIN}/dev"))?;
    let proc = Mounted::new(&["-t", "proc", "proc"], &format!("{TOOLCHAIN}/proc"))?;
    // Dropped in this order.
    Ok(vec![proc, dev, disk])
}

/// The directory on that disk where cargo works.
fn work() -> Result<String> {
    let work = format!("{TOOLCHAIN}/work");
    if !Path::new(&work).exists() {
        directory(&work)?;
    }
    Ok(work)
}

/// What building a program and installing a package come to outside of a session.
pub(crate) fn outside() -> Result<String> {
    let (program, small) = (program()?, format!("{}/small", work()?));
    let done = |what: &str, dir: &str| finished(Command::new(&program).args([what, dir]).current_dir(WORK));
    Ok(done("cargo", &small)?.stdout + &done("apt", TOOLCHAIN)?.stdout)
}

fn cargo() -> Result<()> {
    World::new()?;
    let mounts = mounted()?;
    let work = work()?;
    compare("cargo", &format!("{work}/small"), &work)?;
    drop(mounts);
    Ok(())
}

fn apt() -> Result<()> {
    World::new()?;
    let mounts = mounted()?;
    compare("apt", TOOLCHAIN, TOOLCHAIN)?;
    drop(mounts);
    Ok(())
}
