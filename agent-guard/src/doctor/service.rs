//! What the service needs besides the kernel.

use super::{Check, Need, State, probe::Probe};
use crate::{
    config::{self, Config},
    kernel::host::Host,
    policy::source::{self, SourceError, Trust},
};

/// Less than this isn't much for events: what waits for room in memory is 64 MiB.
const ROOM: u64 = 256 << 20;

pub(super) fn checks(host: &Host, config: &Config, probe: &dyn Probe) -> Vec<Check> {
    vec![
        systemd(host),
        journal(host),
        room(host, config, probe),
        policy(host, config),
        directories(host, config),
    ]
}

/// The daemon's own configuration.
pub(super) fn configuration(config: &Result<Config, config::Error>) -> Check {
    const NAME: &str = "configuration";
    match config {
        Ok(config) => Check::ok(NAME, Need::Service, config.file.display().to_string()),
        Err(error) => Check::not(NAME, Need::Enforcement, State::Missing, error.to_string())
            .then("correct it: the daemon refuses to start with it"),
    }
}

fn systemd(host: &Host) -> Check {
    if host.has("/run/systemd/system") {
        return Check::ok("systemd", Need::Service, "it runs this host");
    }
    Check::not("systemd", Need::Service, State::Degraded, "it doesn't run this host")
        .then("have your service manager start `agent-guard daemon` early, and again whenever it ends")
}

fn journal(host: &Host) -> Check {
    if host.has("/run/systemd/journal/socket") {
        return Check::ok("journald", Need::Service, "/run/systemd/journal/socket");
    }
    Check::not("journald", Need::Service, State::Degraded, "no journal: events go to the file only")
        .then("have that file collected")
}

fn room(host: &Host, config: &Config, probe: &dyn Probe) -> Check {
    const NAME: &str = "disk_space";
    let Some(directory) = config.events.parent() else {
        return Check::not(NAME, Need::Service, State::Unknown, "the event log has no directory");
    };
    let shown = directory.display();
    match probe.free_bytes(&host.path(directory)) {
        None => Check::not(
            NAME,
            Need::Service,
            State::Unknown,
            format!("how much is free for {shown} can't be told"),
        ),
        Some(free) if free < ROOM => {
            let found = format!("{} MiB are free for {shown}", free >> 20);
            Check::not(NAME, Need::Service, State::Degraded, found)
                .then("make room: events wait in memory where there is none, 64 MiB at most")
        }
        Some(free) => Check::ok(NAME, Need::Service, format!("{} MiB are free for {shown}", free >> 20)),
    }
}

/// Whether the daemon would take the policy's files for root's.
fn policy(host: &Host, config: &Config) -> Check {
    const NAME: &str = "policy";
    let shown = config.policy.display();
    match host.path(&config.policy).try_exists() {
        Ok(true) => {}
        Ok(false) => {
            return Check::not(NAME, Need::Service, State::Missing, format!("{shown} isn't there"))
                .then("install agent-guard, or write a policy there");
        }
        Err(error) => {
            return Check::not(NAME, Need::Service, State::Unknown, format!("{shown}: {error}"))
                .then("sudo agent-guard doctor");
        }
    }
    match source::read(&[host.path(&config.policy)], Trust::Root) {
        Ok(files) => Check::ok(NAME, Need::Enforcement, format!("{shown}, files: {}", files.len())),
        Err(SourceError::Read { source, .. } | SourceError::Open { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            Check::not(NAME, Need::Service, State::Unknown, format!("{shown} can't be read by this user"))
                .then("sudo agent-guard doctor")
        }
        Err(error) => Check::not(NAME, Need::Enforcement, State::Missing, error.to_string())
            .then("the daemon refuses to start with it"),
    }
}

fn directories(host: &Host, config: &Config) -> Check {
    const NAME: &str = "directories";
    let all = [Some(config.state.as_path()), config.events.parent(), config.socket.parent()];
    let mut all: Vec<_> = all.into_iter().flatten().collect();
    all.sort();
    all.dedup();
    let wrong: Vec<String> = all
        .iter()
        .filter(|path| host.has(path) && !host.path(path).is_dir())
        .map(|path| format!("{} is no directory", path.display()))
        .collect();
    if !wrong.is_empty() {
        return Check::not(NAME, Need::Service, State::Missing, wrong.join(", "))
            .then("move it away: the daemon can't make its directory");
    }
    let (there, not): (Vec<_>, Vec<_>) = all.into_iter().partition(|path| host.has(path));
    let list = |paths: &[&std::path::Path]| {
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    if not.is_empty() {
        return Check::ok(NAME, Need::Service, list(&there));
    }
    Check::ok(NAME, Need::Service, format!("the service makes {} when it starts", list(&not)))
}
