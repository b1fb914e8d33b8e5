//! Directories and file systems that others move or mount while a process of a session is at work: what it was told about
//! them before counts no more.

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::Scenario;
use crate::fixture::guard::{ALL, CHANGES, PROFILE, policy, rule};
use crate::fixture::mounted::Mounted;
use crate::fixture::world::{PROD, directory};
use crate::fixture::{Guard, Server, World};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "files_moved_away",
        "a directory that a process has just used is moved into a protected one, or a mount above it is",
        moved,
    ),
    Scenario::direct(
        "files_mounts_elsewhere",
        "a process keeps a directory open, leaves its mount name space, and somebody mounts there",
        elsewhere,
    ),
    Scenario::direct(
        "files_mounts_later",
        "times, attributes and lists on file systems that were mounted after the load",
        later,
    ),
];

/// Twice, so that the process has been told before.
fn works(inside: &mut Server, line: &str) -> Result<()> {
    inside.expect(line, "ok")?;
    inside.expect(line, "ok")
}

fn denied(guard: &mut Guard, inside: &mut Server, line: &str) -> Result<()> {
    let mark = guard.events.mark()?;
    inside.expect(line, "EPERM")?;
    guard.events.wait(mark, line, |event| event.judged("deny"))?;
    Ok(())
}

/// Of a rule that is met above the moved directory; the very same process asks before and after.
fn moved() -> Result<()> {
    let world = World::new()?;
    let disk = Mounted::tmpfs("/srv/work/disk")?;
    directory("/srv/work/disk/sub")?;
    world.file("/srv/work/disk/sub/f")?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);

    works(&mut inside, "open-write /srv/work/dir/deep/f")?;
    outside.expect("rename /srv/work/dir /srv/prod/moved", "ok")?;
    denied(&mut guard, &mut inside, "open-write /srv/prod/moved/deep/f")?;
    outside.expect("open-write /srv/prod/moved/deep/f", "ok")?;
    outside.expect("rename /srv/prod/moved /srv/work/dir", "ok")?;
    works(&mut inside, "open-write /srv/work/dir/deep/f")?;

    works(&mut inside, "open-write /srv/work/disk/sub/f")?;
    directory("/srv/prod/disk")?;
    outside.expect("mount-move /srv/work/disk /srv/prod/disk", "ok")?;
    denied(&mut guard, &mut inside, "open-write /srv/prod/disk/sub/f")?;
    outside.expect("open-write /srv/prod/disk/sub/f", "ok")?;
    outside.expect("mount-move /srv/prod/disk /srv/work/disk", "ok")?;
    works(&mut inside, "open-write /srv/work/disk/sub/f")?;

    // The mount stays where it is in its directory, and that is moved.
    directory("/srv/work/above")?;
    directory("/srv/work/above/disk")?;
    outside.expect("mount-move /srv/work/disk /srv/work/above/disk", "ok")?;
    works(&mut inside, "open-write /srv/work/above/disk/sub/f")?;
    outside.expect("rename /srv/work/above /srv/prod/above", "ok")?;
    denied(&mut guard, &mut inside, "open-write /srv/prod/above/disk/sub/f")?;
    outside.expect("rename /srv/prod/above /srv/work/above", "ok")?;
    works(&mut inside, "open-write /srv/work/above/disk/sub/f")?;
    outside.expect("mount-move /srv/work/above/disk /srv/work/disk", "ok")?;
    drop((inside, disk));
    guard.stop()
}

/// Two new name spaces have the same count of changes.
fn elsewhere() -> Result<()> {
    let world = World::new()?;
    let disk = Mounted::tmpfs("/srv/work/disk")?;
    directory("/srv/work/disk/sub")?;
    world.file("/srv/work/disk/sub/f")?;
    directory("/srv/prod/disk")?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    inside.expect("own-mounts", "ok")?;
    outside.expect(&format!("enter-mounts {}", inside.process().pid()), "ok")?;
    inside.expect("keep-dir /srv/work/disk/sub", "ok")?;
    works(&mut inside, "kept-open-write f")?;
    inside.expect("own-mounts", "ok")?;
    works(&mut inside, "kept-open-write f")?;
    outside.expect("mount-move /srv/work/disk /srv/prod/disk", "ok")?;
    denied(&mut guard, &mut inside, "kept-open-write f")?;
    outside.expect("open-write /srv/prod/disk/sub/f", "ok")?;
    outside.expect("mount-move /srv/prod/disk /srv/work/disk", "ok")?;
    works(&mut inside, "kept-open-write f")?;
    drop((inside, outside, disk));
    guard.stop()
}

/// These hooks don't say by which mount a file was reached.
const WAYS: [&str; 4] = ["utimes", "lsetxattr-trusted", "acl", "chmod"];

fn ways(server: &mut Server, path: &str, outcome: &str) -> Result<()> {
    WAYS.iter().try_for_each(|way| server.expect(&format!("{way} {path}"), outcome))
}

/// Where the profile allows all that no rule names.
fn later() -> Result<()> {
    let world = World::new()?;
    let outside = format!("[profile.{PROFILE}.files.outside]\nmetadata = \"allow\"\n\n");
    let rules = [rule(PROD, ALL, "deny"), rule("/srv/apps/volume/named", ALL, "deny")].concat();
    for dir in ["/srv/apps/volume", "/srv/elsewhere"] {
        std::fs::create_dir_all(dir).with_context(|| format!("can't create {dir}"))?;
    }
    let mut guard = Guard::start(&policy(&(outside + &rules)))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);

    let disk = Mounted::image("ext4", "/srv/prod/dir/disk")?;
    world.file("/srv/prod/dir/disk/f")?;
    for way in WAYS {
        denied(&mut guard, &mut inside, &format!("{way} /srv/prod/dir/disk/f")).context("below the rule")?;
    }
    ways(&mut outside, "/srv/prod/dir/disk/f", "ok")?;
    // The same file by another mount, in no protected directory: it can still be seen in one.
    let other = Mounted::bind("/srv/prod/dir/disk", "/srv/elsewhere")?;
    let mark = guard.events.mark()?;
    inside.expect("utimes /srv/elsewhere/f", "EPERM").context("through another mount")?;
    let denial = guard.events.wait(mark, "the denial", |event| event.judged("deny"))?;
    anyhow::ensure!(denial.about("/srv/prod/dir/disk/f"), "the event names {}", denial.brief());
    unmount("/srv/prod/dir/disk", UnmountFlags::empty()).context("can't unmount")?;
    ways(&mut inside, "/srv/elsewhere/f", "ok").context("where the rule is about nothing any more")?;
    mount_bind("/srv/elsewhere", "/srv/prod/dir/disk").context("can't mount it back")?;
    drop((other, disk));

    let disk = Mounted::image("ext4", "/srv/apps/volume")?;
    for dir in ["/srv/apps/volume/named", "/srv/apps/volume/other"] {
        directory(dir)?;
        world.file(&format!("{dir}/f"))?;
    }
    for way in WAYS {
        denied(&mut guard, &mut inside, &format!("{way} /srv/apps/volume/named/f")).context("by names")?;
    }
    ways(&mut inside, "/srv/apps/volume/other/f", "ok").context("beside the names")?;
    many(&mut guard, &mut inside, &mut outside)?;
    drop((inside, outside, disk));
    guard.stop()
}

/// More mounts of one file system than are looked at: nobody can say.
fn many(guard: &mut Guard, inside: &mut Server, outside: &mut Server) -> Result<()> {
    const MOUNTS: usize = 33;
    const AT: &str = "/srv/elsewhere";
    for _ in 0..MOUNTS {
        mount_bind("/srv/apps/volume/other", AT).context("can't mount")?;
    }
    let mark = guard.events.mark()?;
    let answer = inside.expect("utimes /srv/apps/volume/other/f", "EPERM");
    outside.expect("utimes /srv/apps/volume/other/f", "ok")?;
    for _ in 0..MOUNTS {
        unmount(AT, UnmountFlags::empty()).context("can't unmount")?;
    }
    answer.context("with many mounts")?;
    guard.events.wait(mark, "the fault", |event| event.judged("deny") && event.field("fault") != "none")?;
    inside.expect("utimes /srv/apps/volume/other/f", "ok").context("without them")
}
