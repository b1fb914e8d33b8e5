//! Mounts: a protected directory is protected with all that is mounted below it, and through whatever it is
//! mounted itself.

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, policy, rule};
use crate::fixture::mounted::Mounted;
use crate::fixture::world::{PROD, exists};
use crate::fixture::{Guard, Server, World};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "files_mounts_below",
        "file systems mounted below a protected directory, before and after",
        below,
    ),
    Scenario::direct(
        "files_mounts_bind",
        "a protected directory mounted into the scope stays protected",
        bind,
    ),
    Scenario::direct(
        "files_mounts_scope",
        "a file system mounted into the scope is no way to widen it",
        scope,
    ),
    Scenario::direct(
        "files_mounts_ways",
        "bind mounts, chroot, pivot_root, over-mounting, the new mount calls, a disk mounted twice",
        ways,
    ),
];

/// A file below the protected directory by other ways, each in a mount name space of its own.
const WAYS: &[&str] = &[
    "ns-unlink /srv/prod/dir/f",
    "ns-bind /srv/prod/dir /srv/work/empty f",
    "ns-bind /srv/prod /srv/work/empty dir/f",
    "ns-chroot /srv/prod dir/f",
    "ns-pivot /srv/work/empty /srv/prod/dir/f",
    "ns-overmount /srv/prod/dir f",
    "ns-open-tree /srv/prod dir/f",
    "ns-move-mount /srv/prod /srv/work/empty dir/f",
];

/// By each way it works outside, and is denied and told inside; the scope stays usable by the same ways.
fn ways() -> Result<()> {
    let world = World::new()?;
    let disk = Mounted::image("ext4", "/srv/prod/dir/disk")?;
    let device = disk.device()?;
    let file = "/srv/prod/dir/disk/f";
    let twice = format!("ns-disk {device} /srv/work/empty f");
    let mut outside = Server::outside()?;
    let ways: Vec<(&str, &str)> =
        WAYS.iter().map(|way| (*way, "/srv/prod/dir/f")).chain([(twice.as_str(), file)]).collect();
    for (way, file) in &ways {
        world.file(file)?;
        outside.expect(way, "ok")?;
        exists(file, false).with_context(|| (*way).to_owned())?;
    }
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let mut inside = Server::inside(&guard)?;
    for (way, file) in &ways {
        world.file(file)?;
        let mark = guard.events.mark()?;
        inside.expect(way, "EPERM")?;
        guard.events.wait(mark, way, |event| event.judged("deny") && event.field("rule") == "1")?;
        exists(file, true).with_context(|| (*way).to_owned())?;
    }
    for way in [
        "ns-unlink /srv/work/dir/f",
        "ns-bind /srv/work/dir /srv/work/empty f",
        "ns-chroot /srv/work dir/f",
        "ns-pivot /srv/work/empty /srv/work/dir/f",
        "ns-overmount /srv/work/dir f",
    ] {
        world.file("/srv/work/dir/f")?;
        inside.expect(way, "ok")?;
        exists("/srv/work/dir/f", false).with_context(|| way.to_owned())?;
    }
    drop(inside);
    drop(disk);
    guard.stop()
}

/// Denied inside, done outside.
fn denied(
    world: &World,
    guard: &mut Guard,
    inside: &mut Server,
    outside: &mut Server,
    path: &str,
) -> Result<()> {
    let new = format!("{path}-new");
    world.file(path)?;
    for line in [
        format!("unlink {path}"),
        format!("open-trunc {path}"),
        format!("creat {new}"),
        format!("rename {path} {new}"),
    ] {
        let mark = guard.events.mark()?;
        inside.expect(&line, "EPERM")?;
        guard.events.wait(mark, &line, |event| event.judged("deny"))?;
    }
    exists(path, true)?;
    exists(&new, false)?;
    outside.expect(&format!("creat {new}"), "ok")?;
    outside.expect(&format!("unlink {new}"), "ok")?;
    outside.expect(&format!("unlink {path}"), "ok")
}

fn below() -> Result<()> {
    let world = World::new()?;
    let early = Mounted::tmpfs("/srv/prod/early")?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    denied(&world, &mut guard, &mut inside, &mut outside, "/srv/prod/early/f")
        .context("mounted before the load")?;
    let late = Mounted::tmpfs("/srv/prod/dir/late")?;
    denied(&world, &mut guard, &mut inside, &mut outside, "/srv/prod/dir/late/f")
        .context("mounted after the load")?;
    let deeper = Mounted::tmpfs("/srv/prod/dir/late/deeper")?;
    denied(&world, &mut guard, &mut inside, &mut outside, "/srv/prod/dir/late/deeper/f")
        .context("one in the other")?;
    drop((deeper, late, early));
    guard.stop()
}

fn bind() -> Result<()> {
    let world = World::new()?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    let whole = Mounted::bind(PROD, "/srv/work/whole")?;
    denied(&world, &mut guard, &mut inside, &mut outside, "/srv/work/whole/x")
        .context("the directory itself")?;
    let part = Mounted::bind("/srv/prod/dir", "/srv/work/part")?;
    denied(&world, &mut guard, &mut inside, &mut outside, "/srv/work/part/x").context("a directory of it")?;
    denied(&world, &mut guard, &mut inside, &mut outside, "/srv/work/part/deep/x").context("deeper")?;
    drop((part, whole));
    guard.stop()
}

/// Whoever may mount can't make the outside part of the scope; the scope's own files stay usable.
fn scope() -> Result<()> {
    let world = World::new()?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    std::fs::create_dir_all("/srv/elsewhere").context("can't create /srv/elsewhere")?;
    let other = Mounted::bind("/srv/elsewhere", "/srv/work/elsewhere")?;
    denied(&world, &mut guard, &mut inside, &mut outside, "/srv/work/elsewhere/x")
        .context("a directory of the outside")?;
    let work = Mounted::bind("/srv/work", "/srv/elsewhere/work")?;
    inside.expect("creat /srv/elsewhere/work/mine", "ok").context("the scope by another name")?;
    inside.expect("unlink /srv/work/mine", "ok")?;
    drop((work, other));
    guard.stop()
}
