//! agent-guard: the command line and the daemon.

use std::process::ExitCode;

use agent_guard::cli::{self, Cli, Command};
use clap::Parser as _;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Daemon(args) = cli.command {
        return match agent_guard::daemon::main(&args.config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("agent-guard: {error:#}");
                if error.is::<agent_guard::daemon::InvalidPolicy>() {
                    return ExitCode::from(cli::Exit::Policy.code());
                }
                ExitCode::FAILURE
            }
        };
    }
    match cli::dispatch(cli) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("agent-guard: {}", failure.message);
            }
            ExitCode::from(failure.exit.code())
        }
    }
}
