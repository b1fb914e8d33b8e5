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
    Scenario::direct("files_systems_ext4", "all attacks on files of an ext4", || plain("ext4")),
    Scenario::direct("files_systems_xfs", "all attacks on files of an xfs", || plain("xfs")),
    Scenario::direct("files_systems_btrfs", "all attacks on files of a btrfs, and on subvolumes", btrfs),
    Scenario::direct("files_systems_tmpfs", "all attacks on files in memory", tmpfs),
    Scenario::direct("files_systems_overlay", "all attacks on files of an overlay, and copying up", overlay),
];

const VOLUME: &str = "/srv/volume";
const PROTECTED: &str = "/srv/volume/prod";
const SCOPE: &str = "/srv/volume/work";

/// What deduplication does with a descriptor for reading, where there is such a thing.
const DEDUPE: &[Row] = &[Row::new("in-place-read dedupe {d}/big", "write", "{d}/big").quiet().lacks(UNKNOWN)];

/// In a btrfs: subvolumes, which are no ordinary directories to the kernel.
const SUBVOLUMES: &[Row] = &[
    Row::new("subvolume-create {d} new", "create|write", "{d}*"),
    Row::new("subvolume-snapshot {d}/sub {d} new", "create|write", "{d}*"),
    Row::new("subvolume-destroy {d} sub", "delete|write", "{d}*"),
];

fn fill(world: &World) -> Result<()> {
    files_metadata::fill(world)?;
    files_execute::fill(world)?;
    files_writes_need_open::fill(world)
}

fn fill_subvolumes(world: &World) -> Result<()> {
    fill(world)?;
    for dir in world.both() {
        run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(format!("{dir}/sub")))?.good()?;
    }
    Ok(())
}

/// The usual world in a file system, the tables that go with each policy, and what else is to be tried.
fn everything(
    world: &World,
    fill: fn(&World) -> Result<()>,
    more: &[Row],
    special: impl FnOnce(&mut Guard, &mut Server, &mut Server) -> Result<()>,
) -> Result<()> {
    let changes: &[&[Row]] = &[EXISTING, NEW_AND_MOVED, RING, METADATA, IN_PLACE, DEDUPE, more];
    let phases: [(Vec<&str>, &[&[Row]]); 3] = [
        ([CHANGES, &["metadata"]].concat(), changes),
        (vec!["read", "delete"], &[READ]),
        (vec!["execute", "delete"], &[EXECUTE]),
    ];
    let mut outside = Server::outside()?;
    let mut tried = Vec::new();
    for (ops, tables) in phases {
        let mut matrix = Matrix::new(world, fill, tables);
        matrix.rows.retain(|row| !row.attempt.contains("to-file"));
        matrix.controls(&mut outside)?;
        tried.push((policy_of(world.scope(), &rule(world.protected(), &ops, "deny")), matrix));
    }
    let (first, _) = tried.first().context("there is no policy")?;
    let line = line_of(first, &format!("path = {:?}", world.protected()))?;
    let mut guard = Guard::start(first)?;
    let mut inside = Server::inside(&guard)?;
    special(&mut guard, &mut outside, &mut inside)?;
    for (policy, matrix) in &tried {
        guard.reload(policy)?;
        matrix.denied(&mut guard, &mut inside, line)?;
        matrix.in_scope(&mut guard, &mut inside)?;
    }
    drop((outside, inside));
    guard.stop()
}

/// Sessions work in the usual directory, the attacks are elsewhere.
fn prepare() -> Result<()> {
    World::new().map(drop)
}

fn plain(kind: &str) -> Result<()> {
    prepare()?;
    let _volume = Mounted::image(kind, VOLUME)?;
    everything(&World::at(PROTECTED, SCOPE)?, fill, &[], |_, _, _| Ok(()))
}

fn tmpfs() -> Result<()> {
    prepare()?;
    let _volume = Mounted::tmpfs(VOLUME)?;
    everything(&World::at(PROTECTED, SCOPE)?, fill, &[], |_, _, _| Ok(()))
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
    everything(&world, fill_subvolumes, SUBVOLUMES, |guard, outside, inside| {
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

/// Files that are in the lower layer until they are written to.
fn overlay() -> Result<()> {
    const LAYERS: &str = "/srv/layers";
    prepare()?;
    remove(Path::new(LAYERS))?;
    for dir in ["", "/lower", "/upper", "/scratch", "/lower/prod", "/lower/work"] {
        directory(&format!("{LAYERS}{dir}"))?;
    }
    let low = |dir: &str, name: &str| -> Result<()> {
        let path = format!("{LAYERS}/lower/{dir}/{name}");
        std::fs::write(&path, "from below\n").with_context(|| format!("can't write {path}"))
    };
    for name in ["one", "two", "three"] {
        low("prod", name)?;
        low("work", name)?;
    }
    let lower = format!("{LAYERS}/lower");
    let _volume = Mounted::overlay(&lower, &format!("{LAYERS}/upper"), &format!("{LAYERS}/scratch"), VOLUME)?;
    let text = policy_of(SCOPE, &rule(PROTECTED, &[CHANGES, &["metadata"]].concat(), "deny"));
    {
        let mut guard = Guard::start(&text)?;
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
        guard.stop()?;
    }
    everything(&World::around(PROTECTED, SCOPE)?, fill, &[], |_, _, _| Ok(()))
}
