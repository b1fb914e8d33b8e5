//! `cargo xtask test`: static checks, unit tests, and scenarios in guests.

mod checks;
mod host;
mod known;
mod report;
mod scenarios;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::build::{self, BuildArgs};
use crate::project::Project;
use crate::run::note;
use crate::setup::kernels::SERIES;
use crate::{package, setup, vm};
use report::Report;

/// What to test.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask test                                     everything
  cargo xtask test --kernel 6.12 --only hold_approve   one scenario on one kernel
  cargo xtask test --kernel 7.2 --json result.jsonl    all scenarios on one kernel
  cargo xtask test --no-vm                             what needs no guest")]
pub(crate) struct TestArgs {
    /// Only scenarios, on this kernel: 6.1, 6.12, 6.18, 7.2, the path of a bzImage or vmlinux, or `host` for this machine's own
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<String>,
    /// The modules folder of a kernel given as a path (beside it otherwise)
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// Only this scenario
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Write one JSON object per scenario and kernel, one a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Checks and unit tests too, though only some scenarios are asked for
    #[arg(long)]
    unit: bool,
    /// No checks and unit tests
    #[arg(long, conflicts_with = "unit")]
    no_unit: bool,
    /// No scenarios
    #[arg(long, conflicts_with_all = ["no_unit", "kernel", "only"])]
    no_vm: bool,
    /// Scenarios that are meant for one kernel on all of them
    #[arg(long)]
    thorough: bool,
    /// Guests side by side
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: u8,
    /// The most that one scenario may take
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    limit: u64,
    /// End a guest that gives no sign of life for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    silence: u64,
}

/// The command.
pub(crate) fn command(project: &Project, args: &TestArgs) -> Result<ExitCode> {
    let report = Report::new(args.json.as_deref())?;
    let subset = !args.kernel.is_empty() || !args.only.is_empty();
    if args.unit || (!subset && !args.no_unit) {
        setup::ensure_build(project)?;
        checks::run(project, &report);
    }
    if !args.no_vm
        && let Err(error) = scenarios(project, args, &report)
    {
        report.check("scenarios", Err(error));
    }
    report.finish()
}

/// Prepares what guests need and runs what was asked for.
fn scenarios(project: &Project, args: &TestArgs, report: &Report) -> Result<()> {
    let mut names: Vec<String> =
        if args.kernel.is_empty() { SERIES.map(str::to_owned).to_vec() } else { args.kernel.clone() };
    let here = args.kernel.is_empty() || names.iter().any(|name| name == host::NAME);
    names.retain(|name| name != host::NAME);
    let mut kernels = Vec::new();
    let mut rootfs = setup::ensure(project, &[], false)?.rootfs;
    for name in &names {
        let (file, kernel) = vm::kernel(project, name, args.modules.as_deref())?;
        rootfs = file;
        note("test", format!("kernel {}: Linux {} {}", kernel.name, kernel.release, kernel.version));
        kernels.push(kernel);
    }
    let built = build::build(project, &BuildArgs::default())?;
    let package = package::for_guest(project, &built)?;
    let known = known::list(built.scenarios()?)?;
    let chosen = known::choose(&known, &args.only)?;
    if chosen.is_empty() {
        bail!("there are no scenarios");
    }
    // Who names a scenario wants it, on whichever kernel.
    let marked = !args.thorough && args.only.is_empty();
    let chosen: Vec<_> =
        if marked { chosen } else { chosen.into_iter().map(known::Scenario::everywhere).collect() };
    let toolchain = if chosen.iter().any(|scenario| scenario.needs(known::Disk::Toolchain)) {
        Some(setup::ensure_toolchain(project)?)
    } else {
        None
    };
    let limits = scenarios::Limits {
        scenario: Duration::from_secs(args.limit),
        silence: Duration::from_secs(args.silence),
    };
    let guests = scenarios::Guests {
        project,
        rootfs: &rootfs,
        built: &built,
        package: package.as_deref().context("the product wasn't built")?,
        toolchain: toolchain.as_deref(),
        limits,
        report,
    };
    if here {
        guests.run_here(&chosen);
    }
    guests.run(&kernels, &chosen, usize::from(args.jobs));
    Ok(())
}
