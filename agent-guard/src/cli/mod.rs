//! The command line. Except for `daemon`, `doctor` and `policy check` every command is a client of the control
//! socket: synchronous and single-threaded, because `run` becomes the command it starts.

mod approvals;
mod args;
mod attach;
mod check;
mod client;
mod doctor;
mod events;
mod exit;
mod explain;
mod ids;
mod output;
mod policy;
mod run;
mod session;
mod status;

pub use args::{Cli, Command};
pub use client::{Client, ClientError};
pub use exit::{Exit, Failure};

use clap::CommandFactory as _;

use output::Out;

/// Where the daemon listens unless told otherwise.
pub const SOCKET: &str = "/run/agent-guard/control.sock";
/// The daemon's configuration unless told otherwise.
pub const CONFIG: &str = "/etc/agent-guard/agent-guard.toml";
/// Where the policy is unless told otherwise.
pub const POLICY: &str = "/etc/agent-guard/policy.d";

/// What a session can ask: about itself, and for another session within it.
const fn asks_of_itself(command: &Command) -> bool {
    use args::SessionCommand::{List, Show, Tree};
    matches!(command, Command::Run(_) | Command::Session(List(_) | Show(_) | Tree(_)))
}

/// Does what the command line says; everything but `daemon`.
///
/// # Errors
///
/// Says what to print and which exit code to end with.
pub fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let client = Client::new(cli.socket).or_inside(asks_of_itself(&cli.command));
    match cli.command {
        Command::Daemon(_) => Err(Failure::new(Exit::Failed, "the daemon isn't a client command")),
        Command::Run(args) => Err(run::run(&client, args)),
        Command::Attach(args) => attach::attach(&client, args),
        Command::JudgeDescriptors => attach::judge(),
        Command::LookAtDescriptors(args) => attach::look(&args),
        Command::Session(command) => session::session(&client, command),
        Command::Approvals(command) => approvals::approvals(&client, command),
        Command::Policy(command) => policy::policy(&client, command),
        Command::Events(args) => events::events(&client, &args),
        Command::Status(args) => status::status(&client, &Out::new(args.json)),
        Command::Doctor(args) => doctor::doctor(&Out::new(args.json), &args.config),
        Command::Completions(args) => {
            let mut out = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "agent-guard", &mut out);
            Out::new(false).raw(&out)?;
            Ok(Exit::Done)
        }
    }
}
