//! Metadata: modes, owners, times, attributes, access control lists and flags, by every call and by programs.

use std::process::Command;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{line_of, policy, rule};
use crate::fixture::matrix::{Matrix, Row, UNKNOWN};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, Snapshot, WORK};
use crate::fixture::{Guard, Server, World};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "files_metadata",
    "mode, owner, times, attributes, ACL and flags of protected files stay as they are",
    files_metadata,
)];

const fn row(attempt: &'static str, path: &'static str) -> Row {
    Row::new(attempt, "metadata", path)
}

/// On files, directories and symbolic links.
pub(crate) const METADATA: &[Row] = &[
    row("chmod {d}/f", "{d}/f"),
    row("chmod {d}/dir/deep", "{d}/dir/deep"),
    row("chmod {d}/dir/../f", "{d}/f"),
    row("chmod /proc/self/root{d}/f", "{d}/f"),
    row("fchmod {d}/f", "{d}/f"),
    row("fchmod {d}/dir", "{d}/dir"),
    row("fchmodat2 {d}/f", "{d}/f").lacks(UNKNOWN),
    row("chmod-proc {d}/f", "{d}/f"),
    row("chown {d}/f", "{d}/f"),
    row("fchown {d}/f", "{d}/f"),
    row("lchown {d}/soft", "{d}/soft"),
    row("lchown {d}/dir", "{d}/dir"),
    row("utimes {d}/f", "{d}/f"),
    row("utimes-now {d}/f", "{d}/f"),
    row("utimes {d}/dir", "{d}/dir"),
    row("lutimes {d}/soft", "{d}/soft"),
    row("futimens {d}/f", "{d}/f"),
    row("utimes-proc {d}/f", "{d}/f"),
    row("setxattr {d}/f", "{d}/f").lacks(UNKNOWN),
    row("lsetxattr {d}/dir", "{d}/dir").lacks(UNKNOWN),
    row("fsetxattr {d}/f", "{d}/f").lacks(UNKNOWN),
    row("setxattrat {d}/f", "{d}/f").lacks(UNKNOWN),
    row("lsetxattr-trusted {d}/soft", "{d}/soft"),
    row("removexattr {d}/f", "{d}/f").lacks(UNKNOWN),
    row("lremovexattr {d}/f", "{d}/f").lacks(UNKNOWN),
    row("fremovexattr {d}/f", "{d}/f").lacks(UNKNOWN),
    row("acl {d}/f", "{d}/f").lacks(UNKNOWN),
    row("acl-fd {d}/f", "{d}/f").lacks(UNKNOWN),
    row("acl-default {d}/dir", "{d}/dir").lacks(UNKNOWN),
    row("acl-remove {d}/g", "{d}/g").lacks(UNKNOWN),
    row("setflags {d}/f", "{d}/f").lacks(UNKNOWN),
    row("setflags {d}/dir", "{d}/dir").lacks(UNKNOWN),
    row("fssetxattr {d}/f", "{d}/f").lacks(UNKNOWN),
    row("file-setattr {d}/f", "{d}/f").lacks(UNKNOWN),
    row("uring plain setxattr {d}/f", "{d}/f").lacks(UNKNOWN),
    row("uring async setxattr {d}/f", "{d}/f").lacks(UNKNOWN),
    row("uring async fsetxattr {d}/f", "{d}/f").lacks(UNKNOWN),
];

/// What metadata is tried on: a symbolic link, an attribute, a list.
pub(crate) fn fill(world: &World) -> Result<()> {
    for dir in world.both() {
        std::os::unix::fs::symlink("f", format!("{dir}/soft"))
            .with_context(|| format!("no link in {dir}"))?;
        let set = |file: &str, name: &str, value: &[u8]| {
            let path = format!("{dir}/{file}");
            match rustix::fs::setxattr(&path, name, value, rustix::fs::XattrFlags::empty()) {
                // A file system without such attributes.
                Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
                other => other.with_context(|| format!("can't set {name} of {path}")),
            }
        };
        set("f", "user.old", b"1")?;
        // Version 2; owner and others rw, one user r, group and mask rw.
        let mut list = vec![2, 0, 0, 0];
        for (tag, permissions, id) in [
            (1_u16, 6_u16, u32::MAX),
            (2, 4, 65534),
            (4, 6, u32::MAX),
            (0x10, 6, u32::MAX),
            (0x20, 6, u32::MAX),
        ] {
            list.extend(tag.to_le_bytes());
            list.extend(permissions.to_le_bytes());
            list.extend(id.to_le_bytes());
        }
        set("g", "system.posix_acl_access", &list)?;
    }
    Ok(())
}

fn files_metadata() -> Result<()> {
    let world = World::new()?;
    let mut matrix = Matrix::new(&world, fill, &[METADATA]);
    matrix.controls(&mut Server::outside()?)?;
    let text = policy(&rule(PROD, &["metadata", "delete"], "deny"));
    let line = line_of(&text, "path = \"/srv/prod\"")?;
    let mut guard = Guard::start(&text)?;
    let mut inside = Server::inside(&guard)?;
    matrix.denied(&mut guard, &mut inside, line)?;
    programs(&world, &guard)?;
    matrix.in_scope(&mut guard, &mut inside)?;
    guard.stop()
}

/// What people type.
fn programs(world: &World, guard: &Guard) -> Result<()> {
    for line in [
        "chmod 600 {d}/f",
        "chmod -R go-rwx {d}",
        "chown nobody {d}/f",
        "chown -h nobody {d}/soft",
        "touch {d}/f",
        "touch -d 2001-01-01 {d}/dir",
        "setfattr -n user.name -v value {d}/f",
        "setfacl -m u:nobody:rw {d}/f",
        "setfacl -b {d}/g",
        "chattr +d {d}/f",
    ] {
        let line = line.replace("{d}", PROD);
        world.fresh()?;
        fill(world)?;
        let before = Snapshot::of(PROD)?;
        let done = guard.ran(&["bash", "-c", &line])?;
        anyhow::ensure!(!done.status.success(), "it says it worked: {}", done.summary());
        before.unchanged(PROD).with_context(|| line.clone())?;
        run(Command::new("bash").args(["-c", &line]).current_dir(WORK))?
            .good()
            .context("outside of a session")?;
        before.changed(PROD).with_context(|| line.clone())?;
    }
    Ok(())
}
