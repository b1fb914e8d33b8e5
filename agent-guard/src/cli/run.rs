//! `run`: this very process gets the tag and then becomes the command. Nothing of it runs unguarded.

use std::{
    io,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    process::Command,
};

use super::{
    args::RunArgs,
    client::Client,
    exit::{Exit, Failure},
};
use crate::{
    api::types::{SessionStarted, StartSession},
    sys::descriptors::{self, Taken},
};

/// The profile of sessions that aren't in another one, unless said otherwise.
const DEFAULT_PROFILE: &str = "coding-agent";

/// Becomes the command; returns only if that fails.
pub(super) fn run(client: &Client, args: RunArgs) -> Failure {
    let verbose = args.verbose;
    let started = match start(client, &args) {
        Ok(started) => started,
        Err(failure) => {
            let message = format!("no session, so nothing was run: {}", failure.message);
            return Failure::new(Exit::NoSession, message);
        }
    };
    if verbose {
        eprintln!(
            "agent-guard: session {} (profile {}, {})",
            started.id,
            started.profile,
            started.mode.name()
        );
    }
    match inherit() {
        Ok(()) => become_command(&args, &started),
        Err(failure) => failure,
    }
}

/// Takes away what the command mayn't inherit. Where that is its input or its output, it isn't run at all: it would lose
/// what somebody has asked for.
fn inherit() -> Result<(), Failure> {
    let taken = descriptors::filter().map_err(|error| {
        let message = format!("nothing was run: the kernel can't be asked what may be inherited: {error}");
        Failure::new(Exit::NoSession, message)
    })?;
    for Taken { fd, what } in &taken {
        let name = match fd {
            0 => "standard input",
            1 => "standard output",
            2 => "standard error",
            _ => {
                eprintln!(
                    "agent-guard: descriptor {fd} ({}) was closed: the profile wouldn't let the command open it",
                    what.display()
                );
                continue;
            }
        };
        let message = format!(
            "nothing was run: the profile wouldn't let the command open its {name}, {}; put a pipe in between \
             (`... | cat >FILE`, `cat FILE | ...`), or allow it in the policy",
            what.display()
        );
        return Err(Failure::new(Exit::NoSession, message));
    }
    Ok(())
}

fn start(client: &Client, args: &RunArgs) -> Result<SessionStarted, Failure> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| Failure::new(Exit::NoSession, format!("{what}: {error}"))
    };
    // The tag is the thread's; what another thread did would not be judged.
    let threads = std::fs::read_dir("/proc/self/task").map_err(failed("/proc/self/task"))?.count();
    if threads != 1 {
        return Err(Failure::new(
            Exit::NoSession,
            format!("this process has {threads} threads instead of one"),
        ));
    }
    let (stream, inside) = client.connect_or_inside()?;
    // Inside of a session the default is that session's.
    let usual = || (!inside).then(|| DEFAULT_PROFILE.to_owned());
    let request = StartSession {
        profile: args.profile.clone().or_else(usual),
        task: args.task.clone(),
        name: args.name.clone(),
        command: args.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        cwd: std::env::current_dir().map_err(failed("current directory"))?.to_string_lossy().into_owned(),
        pid: std::process::id(),
        start_time: start_time().map_err(failed("/proc/self/stat"))?,
    };
    // Whoever else listens there could say "started" and guard nothing.
    let daemon = rustix::net::sockopt::socket_peercred(stream.as_fd())
        .map_err(|error| failed("who listens on the socket")(error.into()))?;
    if !daemon.uid.is_root() {
        let socket = if inside { client.session_socket() } else { client.socket().to_owned() };
        let message = format!("{} belongs to uid {}, not to root", socket.display(), daemon.uid.as_raw());
        return Err(Failure::new(Exit::NoSession, message));
    }
    Ok(client.post_on(stream, "/v1/sessions", &request)?)
}

/// Field 22 of `/proc/self/stat`. The second is the program's name, which may have anything in it.
fn start_time() -> io::Result<u64> {
    let stat = std::fs::read("/proc/self/stat")?;
    let stat = String::from_utf8_lossy(&stat);
    start_time_of(&stat).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time"))
}

fn start_time_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn become_command(args: &RunArgs, started: &SessionStarted) -> Failure {
    let Some((program, rest)) = args.command.split_first() else {
        return Failure::new(Exit::Usage, "no command");
    };
    let error = Command::new(program).args(rest).env("AGENT_GUARD_SESSION", started.id.to_string()).exec();
    let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NoCommand } else { Exit::NotExecutable };
    Failure::new(exit, format!("{}: {error}", program.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_times() {
        let stat = "42 (a) b) ) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 0 0";
        assert_eq!(start_time_of(stat), Some(987_654));
        assert_eq!(start_time_of("42 (x) S 1"), None);
        assert!(start_time().unwrap() > 0);
    }
}
