//! Set-up, builds, virtual machines, tests, benchmark, demo and packages of agent-guard.

mod bench;
mod btf;
mod build;
mod demo;
mod package;
mod project;
mod run;
mod setup;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use project::Project;

#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about)]
struct Cli {
    /// Tell nothing but errors
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Install and download everything that builds, guests and tests need
    Setup(setup::SetupArgs),
    /// Build what a guest needs: the product, the scenarios, the guest's own programs
    Build(build::BuildArgs),
    /// Run a command or a shell in a guest with one of the kernels, the product installed and running
    Vm(vm::VmArgs),
    /// Check formatting, lints and licences, run the unit tests, and all scenarios on all kernels
    Test(test::TestArgs),
    /// Count the instructions that the guard adds to system calls, in a guest that counts them
    Bench(bench::BenchArgs),
    /// Make the BTF samples that unit tests resolve layouts against
    Btf(btf::BtfArgs),
    /// Build a Debian package
    Package(package::PackageArgs),
    /// Play the demonstration in a guest
    Demo(demo::DemoArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.quiet {
        run::be_quiet();
    }
    match dispatch(&cli) {
        Ok(code) => code,
        Err(error) => {
            run::say("error", format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: &Cli) -> Result<ExitCode> {
    let project = Project::find()?;
    match &cli.command {
        Task::Setup(args) => setup::command(&project, args)?,
        Task::Build(args) => build::command(&project, args)?,
        Task::Vm(args) => return vm::command(&project, args),
        Task::Test(args) => return test::command(&project, args),
        Task::Bench(args) => return bench::command(&project, args),
        Task::Btf(args) => btf::command(&project, args)?,
        Task::Package(args) => package::command(&project, args)?,
        Task::Demo(args) => return demo::command(&project, args),
    }
    Ok(ExitCode::SUCCESS)
}
