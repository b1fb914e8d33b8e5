//! Executing: what a rule keeps from being executed becomes no program and no part of one.

use std::process::Command;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{line_of, policy, rule};
use crate::fixture::matrix::{Matrix, Row};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, WORK, mode};
use crate::fixture::{Guard, Server, World};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "files_execute",
    "protected programs aren't executed, mapped to be executed, or used as interpreters",
    files_execute,
)];

const fn row(attempt: &'static str, path: &'static str) -> Row {
    Row::new(attempt, "execute", path).quiet()
}

/// Every way to have the processor execute what is in a file.
pub(crate) const EXECUTE: &[Row] = &[
    row("exec {d}/program", "{d}/program"),
    row("exec /proc/self/root{d}/program", "{d}/program"),
    row("exec {d}/script", "{d}/script"),
    row("exec-fd {d}/program", "{d}/program"),
    row("exec-proc {d}/program", "{d}/program"),
    row("exec-script /tmp/script {d}/program", "{d}/program"),
    row("exec-loader {d}/program", "{d}/program"),
    row("map-exec {d}/program", "{d}/program"),
    row("mprotect-exec {d}/program", "{d}/program"),
    row("32bit execve {d}/program", "{d}/program"),
];

/// A program and a script.
pub(crate) fn fill(world: &World) -> Result<()> {
    for dir in world.both() {
        let (program, script) = (format!("{dir}/program"), format!("{dir}/script"));
        std::fs::copy("/bin/true", &program).with_context(|| format!("can't make {program}"))?;
        std::fs::write(&script, "#!/bin/sh\nexit 0\n").with_context(|| format!("can't make {script}"))?;
        mode(&program, 0o755)?;
        mode(&script, 0o755)?;
    }
    Ok(())
}

fn files_execute() -> Result<()> {
    let world = World::new()?;
    let mut matrix = Matrix::new(&world, fill, &[EXECUTE]);
    matrix.controls(&mut Server::outside()?)?;
    let text = policy(&rule(PROD, &["execute", "delete"], "deny"));
    let line = line_of(&text, "path = \"/srv/prod\"")?;
    let mut guard = Guard::start(&text)?;
    let mut inside = Server::inside(&guard)?;
    matrix.denied(&mut guard, &mut inside, line)?;
    // It may be read still.
    inside.expect("open-read /srv/prod/program", "ok")?;
    for line in ["{d}/program", "PATH={d} program", "env {d}/script", "setsid --wait {d}/program"] {
        let (line, mark) = (line.replace("{d}", PROD), guard.events.mark()?);
        let done = guard.ran(&["bash", "-c", &line])?;
        anyhow::ensure!(!done.status.success(), "it says it worked: {}", done.summary());
        let about = if line.contains("script") { "/srv/prod/script" } else { "/srv/prod/program" };
        guard.events.wait(mark, &line, |event| event.judged("deny") && event.about(about))?;
        run(Command::new("bash").args(["-c", &line]).current_dir(WORK))?
            .good()
            .context("outside of a session")?;
    }
    // The session's own first program is judged, too.
    let mark = guard.events.mark()?;
    guard.ran(&["/srv/prod/program"])?.code(126)?;
    guard
        .events
        .wait(mark, "the denial", |event| event.judged("deny") && event.about("/srv/prod/program"))?;
    matrix.in_scope(&mut guard, &mut inside)?;
    guard.stop()
}
