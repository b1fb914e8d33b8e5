//! What can be typed.

use std::{ffi::OsString, path::PathBuf};

use agent_guard_common::{Op, Verdict};
use clap::{
    ArgGroup, Args, Parser, Subcommand,
    builder::{PossibleValuesParser, StyledStr},
};

use super::{CONFIG, POLICY, SOCKET};
use crate::{
    api::time::{Time, parse_span},
    sys::judge,
};

/// Runtime enforcement for AI coding agents: the kernel judges what they do, and asks people where it
/// matters.
#[derive(Debug, Parser)]
#[command(
    name = "agent-guard",
    version,
    about,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 the policy is invalid, 4 not permitted, 5 the \
                  daemon can't be reached.\n`run` ends as its command does; 125 if the session could not \
                  be started, 126 and 127 if the command could not."
)]
pub struct Cli {
    /// The daemon's control socket
    #[arg(long, global = true, env = "AGENT_GUARD_SOCKET", default_value = SOCKET, value_name = "SOCKET")]
    pub socket: PathBuf,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon (systemd does this)
    #[command(after_help = examples(&["agent-guard daemon --config ./agent-guard.toml"]))]
    Daemon(DaemonArgs),
    /// Run a command as an agent session; it never runs unguarded
    #[command(after_help = examples(&[
        "agent-guard run -- claude",
        "agent-guard run --profile ci --task 'bump the version' -- codex exec 'bump the version'",
    ]), long_about = "Run a command as an agent session; it never runs unguarded.\n\nInside a session it starts another one \
        within it, which must certainly be as strict: else nothing is run, and what could be wider is listed.")]
    Run(RunArgs),
    /// Make an agent session of a running process and all that it has started
    #[command(after_help = examples(&[
        "agent-guard attach --pid 4711",
        "agent-guard attach --pid 4711 --profile ci --task 'the nightly build' --name nightly",
    ]))]
    Attach(AttachArgs),
    /// For the daemon: have a session's descriptors judged
    #[command(hide = true, name = judge::JUDGE)]
    JudgeDescriptors,
    /// For the daemon: look at what processes have open
    #[command(hide = true, name = judge::LOOKER)]
    LookAtDescriptors(LookArgs),
    /// Look at sessions, or kill one
    #[command(subcommand, after_help = examples(&[
        "agent-guard session list",
        "agent-guard session tree fix-config",
        "agent-guard session kill 01KBCW0000000000000000000A",
    ]))]
    Session(SessionCommand),
    /// Look at actions that wait for people, and decide
    #[command(subcommand, after_help = examples(&[
        "agent-guard approvals list",
        "agent-guard approvals approve 01KBCW0000000000000000000A --comment 'agreed with the team'",
    ]))]
    Approvals(ApprovalsCommand),
    /// Check, show, reload and explain the policy
    #[command(subcommand, after_help = examples(&[
        "agent-guard policy check",
        "agent-guard policy check ./new.toml",
        "agent-guard policy explain --profile coding-agent --op delete --path /srv/prod/db",
        "agent-guard policy explain --profile coding-agent --op write --path ~/src/a.c --file ./new.toml --cwd ~/src",
        "agent-guard policy explain --profile coding-agent --connect static.crates.io:443",
    ]))]
    Policy(PolicyCommand),
    /// Show what happened
    #[command(after_help = examples(&[
        "agent-guard events --since 10m --verdict deny,hold",
        "agent-guard events --follow --session fix-config",
        "agent-guard events --json --since 2025-12-01T00:00:00Z",
    ]))]
    Events(EventsArgs),
    /// Show how the guard is; fails if it is degraded
    #[command(after_help = examples(&["agent-guard status", "agent-guard status --json"]))]
    Status(JsonArgs),
    /// Say what this host can and can't enforce, and what to change; needs no daemon and no installation
    #[command(after_help = examples(&[
        "sudo agent-guard doctor",
        "agent-guard doctor --json | jq '.checks[] | select(.state != \"ok\")'",
    ]), long_about = "Say what this host can and can't enforce, and what to change.\n\nNeeds neither the daemon nor an \
        installation, changes nothing, and works without root, but says then what only root can look at. Ends with 0 if \
        every operation is enforced in full, and with 1 if something isn't, or couldn't be looked at.")]
    Doctor(DoctorArgs),
    /// Write completions for a shell
    #[command(after_help = examples(&[
        "agent-guard completions bash > /usr/share/bash-completion/completions/agent-guard",
    ]))]
    Completions(CompletionsArgs),
}

fn examples(lines: &[&str]) -> StyledStr {
    let mut text = String::from("Examples:");
    for line in lines {
        text.push_str("\n  ");
        text.push_str(line);
    }
    StyledStr::from(text)
}

/// Of `daemon`.
#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// Configuration
    #[arg(long, default_value = CONFIG, value_name = "FILE")]
    pub config: PathBuf,
}

/// Of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The daemon's configuration, which says where its directories are
    #[arg(long, default_value = CONFIG, value_name = "FILE")]
    pub config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Profile of the policy [default: coding-agent; inside a session that session's]
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// What the session is for, for the record and for approvers
    #[arg(long, value_name = "TEXT")]
    pub task: Option<String>,
    /// A name for the session
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Print the session's id to standard error
    #[arg(long, short)]
    pub verbose: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Of `attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// The process; all of its threads and all that it has started come with it
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: u32,
    /// Profile of the policy
    #[arg(long, default_value = "coding-agent", value_name = "PROFILE")]
    pub profile: String,
    /// What the session is for, for the record and for approvers
    #[arg(long, value_name = "TEXT")]
    pub task: Option<String>,
    /// A name for the session
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Of the daemon's own command.
#[derive(Debug, Args)]
pub struct LookArgs {
    /// Only at what a program inherits that the process executes
    #[arg(long)]
    pub inherited: bool,
    /// The processes
    pub pids: Vec<u32>,
}

/// Of commands that print.
#[derive(Debug, Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Of commands about one session.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// The session: its id, the end of its id, or its name
    #[arg(value_name = "ID")]
    pub id: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `session ...`
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// List sessions
    List(JsonArgs),
    /// Show a session
    Show(SessionArgs),
    /// Show a session's processes
    Tree(SessionArgs),
    /// Kill all of a session's processes
    Kill(SessionArgs),
}

/// Of `approvals list`.
#[derive(Debug, Args)]
pub struct ApprovalsListArgs {
    /// Those that were answered, too
    #[arg(long)]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `approvals show`.
#[derive(Debug, Args)]
pub struct ApprovalArgs {
    /// Its id, or the end of its id
    #[arg(value_name = "ID")]
    pub id: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `approvals approve` and `deny`.
#[derive(Debug, Args)]
pub struct AnswerArgs {
    /// Its id, or the end of its id
    #[arg(value_name = "ID")]
    pub id: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `approvals ...`
#[derive(Debug, Subcommand)]
pub enum ApprovalsCommand {
    /// List what waits for an answer
    List(ApprovalsListArgs),
    /// Show what is asked, in full
    Show(ApprovalArgs),
    /// Let the action go on
    Approve(AnswerArgs),
    /// Let the action fail
    Deny(AnswerArgs),
}

/// Of `policy check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Files and folders; folders for their *.toml in name order
    #[arg(default_value = POLICY, value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `policy explain`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("question").required(true).args(["op", "connect", "listen", "exec"]))]
pub struct ExplainArgs {
    /// Profile of the policy
    #[arg(long, value_name = "PROFILE")]
    pub profile: String,
    /// Operation on a file
    #[arg(long, requires = "path", value_name = "OP", value_parser = PossibleValuesParser::new(Op::FILE.map(Op::name)))]
    pub op: Option<String>,
    /// The file
    #[arg(long, requires = "op", value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// A connection instead, to an address, a name or a Unix socket; PROTO is tcp, udp or sctp, and HOST/icmp has no port
    #[arg(long, value_name = "HOST:PORT[/PROTO]|unix:PATH|unix:@NAME")]
    pub connect: Option<String>,
    /// With --connect and a name: an address that it has, so that rules about that count, too
    #[arg(long, value_name = "ADDRESS", requires = "connect", conflicts_with_all = ["op", "listen", "exec"])]
    pub address: Option<String>,
    /// Listening at an address of this host's instead
    #[arg(long, value_name = "ADDRESS:PORT[/PROTO]")]
    pub listen: Option<String>,
    /// The execution of a program instead, by its name or its path, with all that follows for its arguments
    #[arg(long, value_name = "ARGV", num_args = 1.., allow_hyphen_values = true, conflicts_with_all = ["op", "connect", "listen"])]
    pub exec: Option<Vec<String>>,
    /// As a session of that profile sees it: its id, the end of its id, or its name
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    pub session: Option<String>,
    /// By these policy files instead of what is in force, without the daemon; can be given several times
    #[arg(long, value_name = "FILE|DIR")]
    pub file: Vec<PathBuf>,
    /// With --file: as a session sees it that is started in this directory
    #[arg(long, value_name = "DIR", requires = "file")]
    pub cwd: Option<PathBuf>,
    /// With --cwd: the home directory of whoever starts it
    #[arg(long, value_name = "DIR", requires = "cwd")]
    pub home: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `policy ...`
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Check policy files, without the daemon
    Check(CheckArgs),
    /// Show the policy in force
    Show(JsonArgs),
    /// Read the policy again; one with errors changes nothing
    Reload(JsonArgs),
    /// Say what the policy would do, and by which rule: the one in force, or one in files
    #[command(after_help = examples(&[
        "agent-guard policy explain --profile coding-agent --op delete --path /srv/prod/db",
        "agent-guard policy explain --profile coding-agent --connect 10.0.0.53:53/udp",
        "agent-guard policy explain --profile coding-agent --connect api.example.org:443 --address 203.0.113.7",
        "agent-guard policy explain --profile coding-agent --listen 0.0.0.0:8080",
        "agent-guard policy explain --profile coding-agent --exec terraform destroy",
    ]))]
    Explain(Box<ExplainArgs>),
}

/// Of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on with what happens from now on
    #[arg(long, short)]
    pub follow: bool,
    /// Of one session: its id, the end of its id, or its name
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// With these verdicts only
    #[arg(long, value_delimiter = ',', value_name = "VERDICT", value_parser = PossibleValuesParser::new(Verdict::ALL.map(Verdict::name)))]
    pub verdict: Vec<String>,
    /// Not older: a span (90s, 10m, 2h, 7d) or a time (RFC 3339)
    #[arg(long, value_name = "WHEN", value_parser = when)]
    pub since: Option<String>,
    /// Print the events themselves (OCSF), one a line
    #[arg(long)]
    pub json: bool,
}

/// Of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

fn when(text: &str) -> Result<String, String> {
    if parse_span(text).is_some() || Time::parse(text).is_some() {
        Ok(text.to_owned())
    } else {
        Err("a span such as 90s, 10m, 2h or 7d, or a time such as 2025-12-01T12:00:00Z".to_owned())
    }
}

#[cfg(test)]
mod tests;
