//! Files: every call, every other name, denied where it must be and free where it may be.

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, line_of, policy, rule};
use crate::fixture::matrix::{Matrix, Row, UNKNOWN};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, Snapshot, WORK};
use crate::fixture::{Guard, Server, World};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "files_denied",
        "every call and every name for a protected file fails, and is told",
        files_denied,
    )
    .everywhere(),
    Scenario::direct(
        "files_inherited",
        "descriptors opened before the policy changed don't truncate",
        files_inherited,
    ),
    Scenario::direct("files_scope", "the same calls work in the session's scope, untold", files_scope),
    Scenario::direct(
        "files_programs",
        "rm, mv, cp, ln, dd, truncate, git and bash meet the same wall",
        files_programs,
    ),
];

const fn row(attempt: &'static str, operation: &'static str, hook: &'static str, path: &'static str) -> Row {
    Row::new(attempt, operation, path).by(hook)
}

/// Opening for writing leaves no trace by itself.
const fn quiet(
    attempt: &'static str,
    operation: &'static str,
    hook: &'static str,
    path: &'static str,
) -> Row {
    row(attempt, operation, hook, path).quiet()
}

/// What changes a file that is there, by whatever name.
pub(crate) const EXISTING: &[Row] = &[
    row("unlink {d}/f", "delete", "path_unlink", "{d}/f"),
    row("unlink {d}/dir/deep/f", "delete", "path_unlink", "{d}/dir/deep/f"),
    row("unlink-relative {d}/f", "delete", "path_unlink", "{d}/f"),
    row("unlink-dirfd {d}/f", "delete", "path_unlink", "{d}/f"),
    row("32bit unlink {d}/f", "delete", "path_unlink", "{d}/f"),
    row("unlink {d}/dir/../f", "delete", "path_unlink", "{d}/f"),
    row("unlink /srv//./work/../..{d}/f", "delete", "path_unlink", "{d}/f"),
    row("unlink /proc/self/root{d}/f", "delete", "path_unlink", "{d}/f"),
    row("rmdir {d}/empty", "delete", "path_rmdir", "{d}/empty"),
    row("truncate {d}/f", "write", "path_truncate", "{d}/f"),
    quiet("open-write {d}/f", "write", "file_open", "{d}/f"),
    quiet("open-rdwr {d}/f", "write", "file_open", "{d}/f"),
    quiet("open-append {d}/f", "write", "file_open", "{d}/f"),
    row("open-trunc {d}/f", "write", "file_open", "{d}/f"),
    row("open-rdonly-trunc {d}/f", "write", "file_open", "{d}/f"),
    quiet("open-create {d}/f", "write", "file_open", "{d}/f"),
    row("creat {d}/f", "write", "file_open", "{d}/f"),
    quiet("openat2 {d}/f", "write", "file_open", "{d}/f"),
    quiet("openat2-beneath {d}/f", "write", "file_open", "{d}/f"),
    row("reopen-proc {d}/f", "write", "file_open", "{d}/f"),
    row("reopen-opath {d}/f", "write", "file_open", "{d}/f"),
    quiet("open-handle {d}/f", "write", "file_open", "").lacks(UNKNOWN),
];

/// What makes something new, and what moves something.
pub(crate) const NEW_AND_MOVED: &[Row] = &[
    row("create-new {d}/new", "create", "path_mknod", "{d}/new"),
    row("creat {d}/new", "create", "path_mknod", "{d}/new"),
    row("creat {d}/dir/deep/new", "create", "path_mknod", "{d}/dir/deep/new"),
    row("mknod {d}/new", "create", "path_mknod", "{d}/new"),
    row("mkfifo {d}/new", "create", "path_mknod", "{d}/new"),
    row("bind-unix {d}/new", "create", "path_mknod", "{d}/new"),
    row("mkdir {d}/new", "create", "path_mkdir", "{d}/new"),
    row("symlink {d}/new", "create", "path_symlink", "{d}/new"),
    row("link {d}/f {d}/new", "create", "path_link", "{d}/new"),
    row("link-fd {d}/f {d}/new", "create", "path_link", "{d}/new"),
    row("tmpfile-link {w} {d}/new", "create", "path_link", "{d}/new"),
    quiet("tmpfile {d}", "write", "file_open", "{d}/*"),
    row("rename {d}/f {d}/new", "rename", "path_rename", "{d}/f"),
    row("rename {d}/f {d}/g", "rename", "path_rename", "{d}/f"),
    row("rename {d}/dir {d}/new", "rename", "path_rename", "{d}/dir"),
    row("rename-noreplace {d}/f {d}/new", "rename", "path_rename", "{d}/f"),
    row("rename-exchange {d}/f {d}/g", "rename", "path_rename", "{d}/f"),
    row("rename-whiteout {d}/f {d}/new", "rename", "path_rename", "{d}/f").lacks(UNKNOWN),
];

/// The same through io_uring.
pub(crate) const RING: &[Row] = &[
    row("uring plain unlink {d}/f", "delete", "path_unlink", "{d}/f"),
    row("uring async unlink {d}/f", "delete", "path_unlink", "{d}/f"),
    row("uring sqpoll unlink {d}/f", "delete", "path_unlink", "{d}/f"),
    row("uring async rmdir {d}/empty", "delete", "path_rmdir", "{d}/empty"),
    row("uring plain rename {d}/f {d}/new", "rename", "path_rename", "{d}/f"),
    row("uring async rename {d}/f {d}/g", "rename", "path_rename", "{d}/f"),
    quiet("uring plain open-write {d}/f", "write", "file_open", "{d}/f"),
    quiet("uring async open-write {d}/f", "write", "file_open", "{d}/f"),
    row("uring plain open-trunc {d}/f", "write", "file_open", "{d}/f"),
    row("uring sqpoll open-trunc {d}/f", "write", "file_open", "{d}/f"),
    row("uring async create {d}/new", "create", "path_mknod", "{d}/new"),
    row("uring plain mkdir {d}/new", "create", "path_mkdir", "{d}/new"),
    row("uring async symlink {d}/new", "create", "path_symlink", "{d}/new"),
    row("uring plain link {d}/f {d}/new", "create", "path_link", "{d}/new"),
];

/// What only makes sense across the border between scope and protected directory.
const ACROSS: &[Row] = &[
    row("rename /srv/prod/f /srv/work/new", "rename", "path_rename", "/srv/prod/f"),
    row("rename /srv/work/f /srv/prod/new", "rename", "path_rename", "/srv/prod/new"),
    row("rename /srv/work/f /srv/prod/f", "rename", "path_rename", "/srv/prod/f"),
    row("rename /srv/work/dir /srv/prod/new", "rename", "path_rename", "/srv/prod/new"),
    row("rename-exchange /srv/work/f /srv/prod/f", "rename", "path_rename", "/srv/prod/f"),
    row("rename-exchange /srv/prod/dir /srv/work/dir", "rename", "path_rename", "/srv/prod/dir"),
    row("link /srv/prod/f /srv/work/new", "create", "path_link", "/srv/work/new"),
    row("link /srv/work/f /srv/prod/new", "create", "path_link", "/srv/prod/new"),
    row("link-fd /srv/prod/f /srv/work/new", "create", "path_link", "/srv/work/new"),
    row("uring plain rename /srv/work/f /srv/prod/f", "rename", "path_rename", "/srv/prod/f"),
    row("uring async link /srv/prod/f /srv/work/new", "create", "path_link", "/srv/work/new"),
    // Through symbolic links that lie in the scope.
    row("open-trunc /srv/work/to-file", "write", "file_open", "/srv/prod/f"),
    row("truncate /srv/work/to-file", "write", "path_truncate", "/srv/prod/f"),
    row("unlink /srv/work/to-dir/f", "delete", "path_unlink", "/srv/prod/f"),
    row("creat /srv/work/to-dir/new", "create", "path_mknod", "/srv/prod/new"),
    row("creat /srv/work/to-nothing", "create", "path_mknod", "/srv/prod/nothing"),
    row("rename /srv/work/f /srv/work/to-dir/f", "rename", "path_rename", "/srv/prod/f"),
];

fn fill(world: &World) -> Result<()> {
    world.fresh()?;
    for (to, name) in [("f", "to-file"), ("", "to-dir"), ("nothing", "to-nothing")] {
        let (target, name) = (format!("{PROD}/{to}"), format!("{WORK}/{name}"));
        std::os::unix::fs::symlink(target, &name).with_context(|| format!("can't make {name}"))?;
    }
    Ok(())
}

fn files_denied() -> Result<()> {
    let world = World::new()?;
    let mut matrix = Matrix::new(&world, fill, &[EXISTING, NEW_AND_MOVED, RING, ACROSS]);
    matrix.controls(&mut Server::outside()?)?;
    let text = policy(&rule(PROD, CHANGES, "deny"));
    let line = line_of(&text, "path = \"/srv/prod\"")?;
    let mut guard = Guard::start(&text)?;
    let mut inside = Server::inside(&guard)?;
    matrix.denied(&mut guard, &mut inside, line)?;
    guard.stop()
}

fn files_scope() -> Result<()> {
    let world = World::new()?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let mut inside = Server::inside(&guard)?;
    let matrix = Matrix::new(&world, |_| Ok(()), &[EXISTING, NEW_AND_MOVED, RING]);
    matrix.in_scope(&mut guard, &mut inside)?;
    // Reading what isn't named is nobody's business.
    inside.expect("open-read /srv/prod/f", "ok")?;
    guard.stop()
}

/// A descriptor that was opened while the policy allowed it.
fn files_inherited() -> Result<()> {
    let world = World::new()?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "allow")))?;
    let mut inside = Server::inside(&guard)?;
    inside.expect("keep 70 both /srv/prod/f", "ok")?;
    inside.expect("keep 71 both /srv/work/f", "ok")?;
    inside.expect("use-inherited 70 ftruncate", "ok")?;
    guard.reload(&policy(&rule(PROD, CHANGES, "deny")))?;
    world.file("/srv/prod/f")?;
    let before = Snapshot::of(PROD)?;
    let mark = guard.events.mark()?;
    inside.expect("use-inherited 70 ftruncate", "EPERM")?;
    before.unchanged(PROD)?;
    let event =
        guard.events.wait(mark, "ftruncate", |event| event.judged("deny") && event.about("/srv/prod/f"))?;
    let hook = event.field("hook");
    anyhow::ensure!(["file_truncate", "path_truncate"].contains(&hook.as_str()), "the hook is {hook}");
    // In scope it works.
    inside.expect("use-inherited 71 ftruncate", "ok")?;
    guard.stop()
}

/// What people type. Nothing may come through, and none may succeed.
fn files_programs() -> Result<()> {
    let world = World::new()?;
    let guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    for line in [
        "rm -f {d}/f",
        "rm -rf {d}/dir",
        "rmdir {d}/empty",
        "mv {d}/f {d}/new",
        "mv /srv/work/g {d}/g",
        "cp /srv/work/g {d}/g",
        "cp --remove-destination /srv/work/g {d}/g",
        "cp -r /srv/work/dir {d}/copy",
        "install -m 644 /srv/work/g {d}/g",
        "ln {d}/f {d}/hard",
        "ln -s f {d}/soft",
        "ln -f /srv/work/f {d}/f",
        "truncate -s 0 {d}/f",
        "dd if=/dev/zero of={d}/f bs=1 count=1 conv=notrunc status=none",
        "touch {d}/new",
        "mkdir {d}/new",
        "mkfifo {d}/new",
        "sed -i s/contents/other/ {d}/f",
        "echo more >>{d}/f",
        ": >{d}/f",
        "find {d} -name g -delete",
        "tar -C {d} -xf /srv/work.tar",
        "git init -q {d}/repository",
        "python3 -c 'import shutil; shutil.rmtree(\"{d}/dir\")'",
        "python3 -c 'import os; os.replace(\"{d}/f\", \"{d}/g\")'",
        "perl -e 'unlink(\"{d}/f\") or die $!'",
    ] {
        world.fresh()?;
        run(std::process::Command::new("tar").args(["-cf", "/srv/work.tar", "-C", WORK, "."]))?.good()?;
        let line = line.replace("{d}", PROD);
        let before = Snapshot::of(PROD)?;
        let done = guard.ran(&["bash", "-c", &line])?;
        anyhow::ensure!(!done.status.success(), "it says it worked: {}", done.summary());
        before.unchanged(PROD).with_context(|| line.clone())?;
        let control = run(std::process::Command::new("bash").args(["-c", &line]).current_dir(WORK))?;
        control.good().context("outside of a session")?;
        before.changed(PROD).with_context(|| line.clone())?;
    }
    guard.stop()
}
