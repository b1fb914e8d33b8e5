//! The whole matrix of attacks on files of every file system that agents meet.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::files::{EXISTING, NEW_AND_MOVED, RING};
use crate::files_execute::{self, EXECUTE};
use crate::files_metadata::{self, METADATA};
use crate::files_read::READ;
use crate::files_writes_need_open::{self, IN_PLACE};
use crate::fixture::guard::{CHANGES, line_of, policy_of, rule};
use crate::fixture::matrix::{Matrix, Row, UNKNOWN};
use crate::fixture::mounted::Mounted;
use crate::fixture::process::run;
use crate::fixture::world::{Snapshot, directory, exists, remove};
use crate::fixture::{Guard, Server, World};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("files_systems_ext4", "all attacks on files of an ext4", || plain("ext4")).on("6.1 7.2"),
    Scenario::direct("files_systems_xfs", "all attacks on files of an xfs", || plain("xfs")),
    Scenario::direct("files_systems_btrfs", "all attacks on files of a btrfs, and on subvolumes", btrfs),
    Scenario::direct("files_systems_tmpfs", "all attacks on files in memory", tmpfs),
    Scenario::direct("files_systems_overlay", "all attacks on files of an overlay, and copying up", overlay),
];

const VOLUME: &str = "/srv/volume";
const PROTECTED: &str = "/srv/volume/prod";
const SCOPE: &str = "/srv/volume/work";

/// What deduplication does with a descriptor for reading, where there is such a thing.
const DEDUPE: &[Row] =
    &[Row::new("in-place-read dedupe {d}/big", "write", "{d}/big").quiet().unscoped().lacks(UNKNOWN)];

/// In a btrfs: subvolumes, which are no ordinary directories to the kernel.
const SUBVOLUMES: &[Row] = &[
    Row::new("subvolume-create {d} new", "create|write", "{d}*").unscoped(),
    Row::new("subvolume-snapshot {d}/sub {d} new", "create|write", "{d}*").unscoped(),
    Row::new("subvolume-destroy {d} sub", "delete|write", "{d}*").unscoped(),
];

/// A subvolume beside the usual contents.
fn fill_subvolume(world: &World) -> Result<()> {
    for dir in world.both() {
        run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(format!("{dir}/sub")))?.good()?;
    }
    Ok(())
}

/// Tables, and what they need besides the usual contents.
type Group = (fn(&World) -> Result<()>, &'static [&'static [Row]]);

fn nothing(_: &World) -> Result<()> {
    Ok(())
}

/// The tables that go with each policy.
const CHANGING: &[Group] = &[
    (nothing, &[EXISTING, NEW_AND_MOVED, RING]),
    (files_metadata::fill, &[METADATA]),
    (files_writes_need_open::fill, &[IN_PLACE, DEDUPE]),
];
const READING: &[Group] = &[(nothing, &[READ])];
const EXECUTING: &[Group] = &[(files_execute::fill, &[EXECUTE])];

/// The usual world in a file system: all tables, and what else is to be tried with the first policy.
fn everything(
    world: &World,
    more: &[Group],
    adjust: fn(Row) -> Row,
    special: impl FnOnce(&mut Guard, &mut Server, &mut Server) -> Result<()>,
) -> Result<()> {
    let phases: [(Vec<&str>, Vec<Group>); 3] = [
        ([CHANGES, &["metadata"]].concat(), [CHANGING, more].concat()),
        (vec!["read", "delete"], READING.to_vec()),
        (vec!["execute", "delete"], EXECUTING.to_vec()),
    ];
    let mut outside = Server::outside()?;
    // Overlays can't make files without a name before 6.3.
    let nameless = outside.ask(&format!("tmpfile {}", world.scope()))? != "EOPNOTSUPP";
    let mut tried = Vec::new();
    for (ops, groups) in phases {
        let mut tables = Vec::new();
        for (fill, rows) in groups {
            let mut matrix = Matrix::new(world, fill, rows);
            matrix.rows.retain(|row| {
                !row.attempt.contains("to-file") && (nameless || !row.attempt.contains("tmpfile"))
            });
            matrix.rows = matrix.rows.into_iter().map(adjust).collect();
            matrix.controls(&mut outside)?;
            tables.push(matrix);
        }
        tried.push((policy_of(world.scope(), &rule(world.protected(), &ops, "deny")), tables));
    }
    let (first, _) = tried.first().context("there is no policy")?;
    let line = line_of(first, &format!("path = {:?}", world.protected()))?;
    let mut guard = Guard::start(first)?;
    let mut inside = Server::inside(&guard)?;
    special(&mut guard, &mut outside, &mut inside)?;
    for (policy, tables) in &tried {
        guard.reload(policy)?;
        for matrix in tables {
            matrix.denied(&mut guard, &mut inside, line)?;
            matrix.in_scope(&mut guard, &mut inside)?;
        }
    }
    drop((outside, inside));
    guard.stop()
}

fn as_it_is(row: Row) -> Row {
    row
}

fn kernel_is(beginning: &str) -> bool {
    rustix::system::uname().release().to_string_lossy().starts_with(beginning)
}

/// In a ring's request it can't be told that it is the overlay that acts on its layer, which is in no scope.
fn on_layers(row: Row) -> Row {
    let through_ring = row.attempt.starts_with("uring") && row.attempt.contains("setxattr");
    // Kernels from 6.5 on show the layer's file to the hook for what is mapped already.
    let mapped = row.attempt.starts_with("mprotect-exec") && !kernel_is("6.1.");
    if mapped {
        // The event is about that, too.
        return Row { path: "", ..row.unscoped() };
    }
    if through_ring { row.unscoped() } else { row }
}

/// Sessions work in the usual directory, the attacks are elsewhere.
fn prepare() -> Result<()> {
    World::new().map(drop)
}

fn plain(kind: &str) -> Result<()> {
    prepare()?;
    let _volume = Mounted::image(kind, VOLUME)?;
    everything(&World::at(PROTECTED, SCOPE)?, &[], as_it_is, |_, _, _| Ok(()))
}

fn tmpfs() -> Result<()> {
    prepare()?;
    let _volume = Mounted::tmpfs(VOLUME)?;
    everything(&World::at(PROTECTED, SCOPE)?, &[], as_it_is, |_, _, _| Ok(()))
}

/// The protected directory and the scope are in a subvolume.
fn btrfs() -> Result<()> {
    prepare()?;
    let _volume = Mounted::image("btrfs", VOLUME)?;
    for name in ["sub", "other"] {
        run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(format!("{VOLUME}/{name}")))?
            .good()?;
    }
    let world = World::at("/srv/volume/sub/prod", "/srv/volume/sub/work")?;
    everything(&world, &[(fill_subvolume, &[SUBVOLUMES])], as_it_is, |guard, outside, inside| {
        fill_subvolume(&world)?;
        let before = Snapshot::of("/srv/volume/sub/prod")?;
        // The subvolume around it, whole, and one that nobody protects but that isn't in scope.
        for attempt in [
            "subvolume-destroy /srv/volume sub",
            "subvolume-destroy /srv/volume other",
            "subvolume-flags /srv/volume/sub",
            "subvolume-flags /srv/volume/sub/prod/sub",
        ] {
            let mark = guard.events.mark()?;
            inside.expect(attempt, "EPERM")?;
            guard.events.wait(mark, attempt, |event| event.judged("deny"))?;
        }
        before.unchanged("/srv/volume/sub/prod")?;
        outside.expect("subvolume-flags /srv/volume/other", "ok")?;
        run(Command::new("btrfs").args(["property", "set", "/srv/volume/other", "ro", "false"]))?.good()?;
        outside.expect("subvolume-destroy /srv/volume other", "ok")
    })
}

const LAYERS: &str = "/srv/layers";

/// An overlay with three files in each directory that are in the lower layer until they are written to.
fn layers() -> Result<Mounted> {
    remove(Path::new(LAYERS))?;
    for dir in ["", "/lower", "/upper", "/scratch", "/lower/prod", "/lower/work"] {
        directory(&format!("{LAYERS}{dir}"))?;
    }
    for name in ["prod/one", "prod/two", "prod/three", "work/one", "work/two", "work/three"] {
        let path = format!("{LAYERS}/lower/{name}");
        std::fs::write(&path, "from below\n").with_context(|| format!("can't write {path}"))?;
    }
    let layer = |name: &str| format!("{LAYERS}/{name}");
    Mounted::overlay(&layer("lower"), &layer("upper"), &layer("scratch"), VOLUME)
}

fn overlay() -> Result<()> {
    prepare()?;
    let volume = layers()?;
    everything(&World::around(PROTECTED, SCOPE)?, &[], on_layers, |_, _, _| Ok(()))?;
    drop(volume);
    let _volume = layers()?;
    let ops = [CHANGES, &["metadata"]].concat();
    let mut guard = Guard::start(&policy_of(SCOPE, &rule(PROTECTED, &ops, "deny")))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    for attempt in ["open-write {}/one", "unlink {}/two", "rename {}/three {}/moved", "chmod {}/one"] {
        let mark = guard.events.mark()?;
        inside.expect(&attempt.replace("{}", PROTECTED), "EPERM")?;
        guard.events.wait(mark, attempt, |event| event.judged("deny"))?;
        exists("/srv/layers/upper/prod", false).context("nothing was copied up")?;
        inside.expect(&attempt.replace("{}", SCOPE), "ok")?;
    }
    exists("/srv/layers/upper/work/one", true)?;
    // The layers by their own names are outside of the scope.
    for attempt in ["open-write /srv/layers/lower/prod/one", "open-write /srv/layers/upper/work/one"] {
        inside.expect(attempt, "EPERM")?;
        outside.expect(attempt, "ok")?;
    }
    outside.expect("open-write /srv/volume/prod/one", "ok")?;
    exists("/srv/layers/upper/prod/one", true).context("outside of a session it is copied up")?;
    drop((inside, outside));
    guard.stop()
}
