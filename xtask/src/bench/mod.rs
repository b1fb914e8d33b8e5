//! `cargo xtask bench`: how many instructions the guard adds to system calls, and whether that is few enough.
//!
//! The measuring is done by `bench` of package `tests`, in a guest that counts instructions. What it measures is a
//! list of rows; here they become a table, a file, and a verdict. Rows of operations that nobody knows here are shown
//! like the others: a new operation, or a whole workload (`workload_NAME`), needs no change.

mod rows;
mod table;
mod targets;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::build::{self, BuildArgs};
use crate::package;
use crate::project::Project;
use crate::run::{self, note};
use crate::setup;
use crate::vm::machine::{self, Boot, Ending, Limits, Sink};
use crate::vm::payload::{Job, Payload};
use crate::vm::{self, Accel, Mode, Run};
use rows::Rows;
use targets::Outcome;

const PROGRAM: &str = "/opt/agent-guard-tests/bench";

/// How long a guest may say nothing. A policy with 100,000 rules takes a minute or two to load.
const SILENCE: Duration = Duration::from_secs(900);

/// What to measure.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask bench                                        everything, on 6.12
  cargo xtask bench --op rename --case tagged_d6           one figure (and the bare one that it is compared with)
  cargo xtask bench --kernel 7.2 --json result.jsonl --check

docs/bench.md says how it measures and how to read the table.")]
pub(crate) struct BenchArgs {
    /// 6.1, 6.12, 6.18, 7.2, or the path of a bzImage or vmlinux
    #[arg(long, value_name = "KERNEL", default_value = "6.12")]
    kernel: String,
    /// The modules folder of a kernel given as a path (beside it otherwise)
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// Write one JSON object a row, one a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only this case
    #[arg(long, value_name = "CASE")]
    case: Vec<String>,
    /// Only this operation
    #[arg(long, value_name = "OP")]
    op: Vec<String>,
    /// Say too what each of the guard's programs has part in a figure
    #[arg(long)]
    programs: bool,
    /// Fail if a target is missed
    #[arg(long)]
    check: bool,
}

impl BenchArgs {
    /// Whether the guest needs the disk of tools: for workloads that work in the system on it.
    fn needs_tools(&self) -> bool {
        self.op.is_empty()
            || self.op.iter().any(|op| ["workload_cargo", "workload_apt"].contains(&op.as_str()))
    }
}

/// The command. Missed targets are a failure only if that is asked for.
pub(crate) fn command(project: &Project, args: &BenchArgs) -> Result<ExitCode> {
    let (rootfs, kernel) = vm::kernel(project, &args.kernel, args.modules.as_deref())?;
    let built = build::build(project, &BuildArgs::default())?;
    let known = Known::ask(built.bench()?)?;
    known.check(args)?;
    let package = package::for_guest(project, &built)?;
    let run = Run { project, kernel: &kernel, rootfs: &rootfs, built: &built, package: package.as_deref() };
    note("bench", format!("Linux {}, counting instructions", kernel.release));
    let begun = Instant::now();
    let toolchain = if args.needs_tools() { Some(setup::ensure_toolchain(project)?) } else { None };
    let mut rows = measure(&run, args, toolchain.as_deref())?;
    known.sort(&mut rows);
    note("bench", format!("measured in {} s", begun.elapsed().as_secs()));
    if let Some(file) = &args.json {
        write_json(file, &rows)?;
    }
    let outcomes = targets::judge(&rows);
    print!("{}\n{}", table::table(&rows), table::targets(&outcomes));
    let missed = outcomes.iter().any(|target| target.outcome == Outcome::Missed);
    Ok(if args.check && missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the program in the guest can measure, in the order of the table.
struct Known {
    ops: Vec<String>,
    cases: Vec<String>,
}

impl Known {
    /// Asks the program.
    fn ask(program: &Path) -> Result<Self> {
        let list = run::capture(Command::new(program).arg("list"))?;
        let of = |kind: &str| -> Vec<String> {
            let pairs = list.lines().filter_map(|line| line.split_once(' '));
            pairs.filter(|(known, _)| *known == kind).map(|(_, name)| name.to_owned()).collect()
        };
        Ok(Self { ops: of("op"), cases: of("case") })
    }

    /// Refuses other names before a guest boots.
    fn check(&self, args: &BenchArgs) -> Result<()> {
        for (kind, names, all) in [("op", &args.op, &self.ops), ("case", &args.case, &self.cases)] {
            if let Some(name) = names.iter().find(|name| !all.contains(name)) {
                bail!("there is no {kind} `{name}`; known are: {}", all.join(", "));
            }
        }
        Ok(())
    }

    /// Puts rows in order: they come in the order in which it is best to measure.
    fn sort(&self, rows: &mut Rows) {
        let place =
            |all: &[String], name: &str| all.iter().position(|known| known == name).unwrap_or(all.len());
        rows.all.sort_by_key(|row| (place(&self.ops, &row.op), place(&self.cases, &row.case)));
    }
}

/// Boots a guest that counts, and collects what it says.
fn measure(run: &Run<'_>, args: &BenchArgs, toolchain: Option<&Path>) -> Result<Rows> {
    let mut argv = vec![PROGRAM.to_owned(), "run".to_owned()];
    argv.extend(args.programs.then(|| "--programs".to_owned()));
    for (flag, names) in [("--op", &args.op), ("--case", &args.case)] {
        argv.extend(names.iter().flat_map(|name| [flag.to_owned(), name.clone()]));
    }
    let job = Job {
        argv,
        env: BTreeMap::new(),
        cwd: "/root".into(),
        terminal: None,
        service: None,
        collect: false,
        records: true,
    };
    let logs = run.logs(&format!("bench-{}-{}", run.kernel.name, std::process::id()))?;
    // Without a service manager: what the job doesn't start doesn't run.
    let mode = Mode::Direct;
    let boot = Boot {
        kernel: run.kernel,
        rootfs: run.rootfs,
        accel: Accel::Counting,
        mode: Some(mode),
        append: &[],
        logs: &logs,
        toolchain,
    };
    let payload = Payload { built: run.built, package: run.package, mode, job: &job, folders: &[] };
    let limits = Limits { boot: machine::TO_JOB, silence: Some(SILENCE) };
    let mut listener =
        Listener { begun: Instant::now(), rows: Vec::new(), said: Vec::new(), line: String::new() };
    match machine::run(&boot, &run.built.guest, &payload, &limits, &mut listener)? {
        Ending::Ended(0) => {}
        Ending::Ended(code) => {
            bail!("the measuring ended with code {code}: {} (logs: {})", listener.last(), logs.display());
        }
        Ending::Broken(why) | Ending::FalseStart(why) => bail!("{why} (logs: {})", logs.display()),
    }
    std::fs::remove_dir_all(&logs).context("can't remove the logs")?;
    let rows = Rows::parse(&String::from_utf8_lossy(&listener.rows))?;
    if rows.all.is_empty() {
        bail!("nothing was measured");
    }
    Ok(rows)
}

fn write_json(file: &Path, rows: &Rows) -> Result<()> {
    let mut text = Vec::new();
    for row in &rows.all {
        serde_json::to_writer(&mut text, row)?;
        writeln!(text)?;
    }
    std::fs::write(file, text).with_context(|| format!("can't write {}", file.display()))
}

/// Collects rows, and passes on what the guest tells of its progress.
struct Listener {
    begun: Instant,
    rows: Vec<u8>,
    said: Vec<u8>,
    line: String,
}

impl Listener {
    /// What was told last.
    fn last(&self) -> &str {
        if self.line.is_empty() { "it didn't say why" } else { &self.line }
    }
}

impl Sink for Listener {
    fn out(&mut self, bytes: &[u8]) -> Result<()> {
        self.rows.extend_from_slice(bytes);
        Ok(())
    }

    fn err(&mut self, bytes: &[u8]) -> Result<()> {
        for byte in bytes {
            if *byte == b'\n' {
                self.line = String::from_utf8_lossy(&std::mem::take(&mut self.said)).into_owned();
                note("bench", format!("{:>4} s  {}", self.begun.elapsed().as_secs(), self.line));
            } else {
                self.said.push(*byte);
            }
        }
        Ok(())
    }

    fn terminal(&mut self, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_the_order_of_the_list() {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
        let known = Known { ops: names(&["stat", "fork"]), cases: names(&["bare", "untagged"]) };
        let mut rows = rows::sample(&[
            ("workload_git", "bare", 1, 1),
            ("fork", "bare", 1, 1),
            ("stat", "untagged", 1, 1),
            ("stat", "bare", 1, 1),
        ]);
        known.sort(&mut rows);
        let order: Vec<_> = rows.all.iter().map(|row| (row.op.as_str(), row.case.as_str())).collect();
        assert_eq!(
            order,
            [("stat", "bare"), ("stat", "untagged"), ("fork", "bare"), ("workload_git", "bare")]
        );
    }
}
