//! Files: every call, every other name, denied where it must be and free where it may be.

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, POLICY, line_of, policy, rule};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, Snapshot, WORK};
use crate::fixture::{Guard, Server, World, same};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "files_denied",
        "every call and every name for a protected file fails, and is told",
        files_denied,
    ),
    Scenario::direct(
        "files_inherited",
        "descriptors opened before the session don't truncate",
        files_inherited,
    ),
    Scenario::direct("files_scope", "the same calls work in the session's scope, untold", files_scope),
    Scenario::direct(
        "files_programs",
        "rm, mv, cp, ln, dd, truncate, git and bash meet the same wall",
        files_programs,
    ),
];

/// One attempt and what must be told of it. `{d}` is the directory it is about.
struct Row {
    attempt: &'static str,
    operation: &'static str,
    hooks: &'static str,
    /// What the event is about; ends in `*` where the rest isn't known, empty where it has no path.
    path: &'static str,
    /// Whether it leaves a trace when it works.
    changes: bool,
}

const fn row(attempt: &'static str, operation: &'static str, hooks: &'static str, path: &'static str) -> Row {
    Row { attempt, operation, hooks, path, changes: true }
}

/// Opening for writing leaves no trace by itself.
const fn quiet(
    attempt: &'static str,
    operation: &'static str,
    hooks: &'static str,
    path: &'static str,
) -> Row {
    Row { attempt, operation, hooks, path, changes: false }
}

/// What changes a file that is there, by whatever name.
const EXISTING: &[Row] = &[
    row("unlink {d}/f", "delete", "path_unlink", "{d}/f"),
    row("unlink {d}/dir/deep/f", "delete", "path_unlink", "{d}/dir/deep/f"),
    row("unlink-relative {d}/f", "delete", "path_unlink", "{d}/f"),
    row("unlink-dirfd {d}/f", "delete", "path_unlink", "{d}/f"),
    row("unlink-32bit {d}/f", "delete", "path_unlink", "{d}/f"),
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
    quiet("open-handle {d}/f", "write", "file_open", ""),
];

/// What makes something new, and what moves something.
const NEW_AND_MOVED: &[Row] = &[
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
    row("tmpfile-link /srv/work {d}/new", "create", "path_link", "{d}/new"),
    quiet("tmpfile {d}", "write", "file_open", "{d}/*"),
    row("rename {d}/f {d}/new", "rename", "path_rename", "{d}/f"),
    row("rename {d}/f {d}/g", "rename", "path_rename", "{d}/f"),
    row("rename {d}/dir {d}/new", "rename", "path_rename", "{d}/dir"),
    row("rename-noreplace {d}/f {d}/new", "rename", "path_rename", "{d}/f"),
    row("rename-exchange {d}/f {d}/g", "rename", "path_rename", "{d}/f"),
    row("rename-whiteout {d}/f {d}/new", "rename", "path_rename", "{d}/f"),
];

/// The same through io_uring.
const RING: &[Row] = &[
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

/// An attempt that must work. None if this machine can't do it at all.
fn control(server: &mut Server, attempt: &str, changes: bool) -> Result<Option<()>> {
    let before = (Snapshot::of(PROD)?, Snapshot::of(WORK)?);
    let answer = server.ask(attempt)?;
    // Only what a kernel or file system may lack for good may be left out.
    let may_lack = attempt.starts_with("unlink-32bit ") || attempt.starts_with("rename-whiteout ");
    if may_lack && answer != "ok" && answer != "EPERM" {
        eprintln!("{attempt}: not possible on this machine: {answer}");
        return Ok(None);
    }
    same(&format!("{attempt}, which must work"), answer.as_str(), "ok")?;
    if changes {
        before.0.changed(PROD).or_else(|_| before.1.changed(WORK)).with_context(|| attempt.to_owned())?;
    }
    Ok(Some(()))
}

fn files_denied() -> Result<()> {
    let world = World::new()?;
    let text = policy(&rule(PROD, CHANGES, "deny"));
    let line = line_of(&text, "path = \"/srv/prod\"")?;
    let mut guard = Guard::start(&text)?;
    let (mut outside, mut inside) = (Server::outside()?, Server::inside(&guard)?);
    for row in [EXISTING, NEW_AND_MOVED, RING, ACROSS].into_iter().flatten() {
        let attempt = row.attempt.replace("{d}", PROD);
        fill(&world)?;
        if control(&mut outside, &attempt, row.changes)?.is_none() {
            continue;
        }
        fill(&world)?;
        let before = (Snapshot::of(PROD)?, Snapshot::of(WORK)?);
        let mark = guard.events.mark()?;
        inside.expect(&attempt, "EPERM")?;
        before.0.unchanged(PROD).with_context(|| attempt.clone())?;
        before.1.unchanged(WORK).with_context(|| attempt.clone())?;
        told(&mut guard, mark, row, &attempt, line)?;
    }
    guard.stop()
}

/// The denial is an event that says what, where, by which hook and because of which rule.
fn told(
    guard: &mut Guard,
    mark: crate::fixture::event::Mark,
    row: &Row,
    attempt: &str,
    line: u64,
) -> Result<()> {
    let event = guard.events.wait(mark, attempt, |event| event.judged("deny"))?;
    same(&format!("{attempt}: operation"), event.field("operation").as_str(), row.operation)?;
    let hook = event.field("hook");
    same(&format!("{attempt}: hook"), hook.as_str(), row.hooks)?;
    same(&format!("{attempt}: errno"), event.field("errno").as_str(), "-1")?;
    same(&format!("{attempt}: profile"), event.field("profile").as_str(), crate::fixture::PROFILE)?;
    let path = row.path.replace("{d}", PROD);
    if path.is_empty() {
        return Ok(());
    }
    anyhow::ensure!(event.about(&path), "{attempt}: the event isn't about {path}: {}", event.0);
    same(&format!("{attempt}: source"), event.field("source").as_str(), "rule")?;
    let file = event.field("rule_file");
    anyhow::ensure!(file.ends_with(POLICY), "{attempt}: rule of {file:?}");
    same(&format!("{attempt}: line of the rule"), event.field("rule_line"), line.to_string())
}

fn files_scope() -> Result<()> {
    let world = World::new()?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let mut inside = Server::inside(&guard)?;
    let mark = guard.events.mark()?;
    for row in [EXISTING, NEW_AND_MOVED, RING].into_iter().flatten() {
        let attempt = row.attempt.replace("{d}", WORK);
        world.fresh()?;
        control(&mut inside, &attempt, row.changes)?;
    }
    // Reading a protected file is nobody's business.
    world.fresh()?;
    inside.expect("open-read /srv/prod/f", "ok")?;
    guard.settle()?;
    let is_marker = |event: &crate::fixture::Event| event.field("path").contains("/marker-");
    guard.events.none(mark, "in scope, but an event", |event| event.is("judged") && !is_marker(event))?;
    guard.stop()
}

/// A descriptor that the shell opened before the session began.
fn files_inherited() -> Result<()> {
    let world = World::new()?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let attack = crate::fixture::attack()?.display().to_string();
    let session = format!("{} run --profile agent -- {attack}", crate::fixture::guard::PROGRAM);
    let shell = |program: &str, fd: &str| -> Result<crate::fixture::Finished> {
        let script = format!("exec 7{fd} && exec {program} ftruncate-fd 7");
        run(std::process::Command::new("bash").args(["-c", &script]).current_dir(WORK))
    };
    shell(&attack, "<>/srv/prod/f")?.says("ok")?;
    world.fresh()?;
    let before = Snapshot::of(PROD)?;
    let mark = guard.events.mark()?;
    shell(&session, "<>/srv/prod/f")?.says("EPERM")?;
    before.unchanged(PROD)?;
    let event =
        guard.events.wait(mark, "ftruncate", |event| event.judged("deny") && event.about("/srv/prod/f"))?;
    let hook = event.field("hook");
    anyhow::ensure!(["file_truncate", "path_truncate"].contains(&hook.as_str()), "the hook is {hook}");
    // In scope it works.
    shell(&session, "<>/srv/work/f")?.says("ok")?;
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
