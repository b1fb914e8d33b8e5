//! The entries that a 64-bit kernel has for 32-bit programs lead to the same answers.

use anyhow::Result;

use crate::Scenario;
use crate::fixture::guard::{ALL, line_of, policy, rule};
use crate::fixture::matrix::{Matrix, Row};
use crate::fixture::world::PROD;
use crate::fixture::{Guard, Server, Skip, World};
use crate::{files_execute, files_metadata};

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::direct("files_32bit", "32-bit calls are judged like the others", files_32bit)];

/// Each call with an operation.
pub(crate) const COMPAT: &[Row] = &[
    Row::new("32bit open-read {d}/f", "read", "{d}/f").quiet(),
    Row::new("32bit open-write {d}/f", "write", "{d}/f").quiet(),
    Row::new("32bit openat-write {d}/f", "write", "{d}/f").quiet(),
    Row::new("32bit open-trunc {d}/f", "write", "{d}/f"),
    Row::new("32bit creat {d}/f", "write", "{d}/f"),
    Row::new("32bit creat {d}/new", "create", "{d}/new"),
    Row::new("32bit create-new {d}/new", "create", "{d}/new"),
    Row::new("32bit truncate {d}/f", "write", "{d}/f"),
    Row::new("32bit truncate64 {d}/f", "write", "{d}/f"),
    Row::new("32bit unlink {d}/f", "delete", "{d}/f"),
    Row::new("32bit unlinkat {d}/f", "delete", "{d}/f"),
    Row::new("32bit rmdir {d}/empty", "delete", "{d}/empty"),
    Row::new("32bit rename {d}/f {d}/new", "rename", "{d}/f"),
    Row::new("32bit renameat2-exchange {d}/f {d}/g", "rename", "{d}/f"),
    Row::new("32bit link {d}/f {d}/new", "create|write", "{d}/new"),
    Row::new("32bit symlink {d}/new", "create", "{d}/new"),
    Row::new("32bit mknod {d}/new", "create", "{d}/new"),
    Row::new("32bit mkdir {d}/new", "create", "{d}/new"),
    Row::new("32bit chmod {d}/f", "metadata", "{d}/f"),
    Row::new("32bit chown {d}/f", "metadata", "{d}/f"),
    Row::new("32bit lchown {d}/soft", "metadata", "{d}/soft"),
    Row::new("32bit utime {d}/f", "metadata", "{d}/f"),
    Row::new("32bit setxattr {d}/f", "metadata", "{d}/f").lacks(&["EOPNOTSUPP"]),
    Row::new("32bit execve {d}/program", "execute", "{d}/program").quiet(),
];

fn fill(world: &World) -> Result<()> {
    files_metadata::fill(world)?;
    files_execute::fill(world)
}

fn files_32bit() -> Result<()> {
    let world = World::new()?;
    let mut outside = Server::outside()?;
    let answer = outside.ask("32bit open-read /etc/passwd")?;
    if answer != "ok" {
        return Err(Skip(format!("this kernel has no 32-bit calls: {answer}")).into());
    }
    let mut matrix = Matrix::new(&world, fill, &[COMPAT]);
    matrix.controls(&mut outside)?;
    let text = policy(&rule(PROD, ALL, "deny"));
    let line = line_of(&text, "path = \"/srv/prod\"")?;
    let mut guard = Guard::start(&text)?;
    let mut inside = Server::inside(&guard)?;
    matrix.denied(&mut guard, &mut inside, line)?;
    matrix.in_scope(&mut guard, &mut inside)?;
    guard.stop()
}
