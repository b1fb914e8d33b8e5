//! `attach`: a tree that runs already becomes a session.

use std::io;

use super::{
    args::{AttachArgs, LookArgs},
    client::Client,
    exit::{Exit, Failure},
    output::{Out, count},
};
use crate::{
    api::types::{AttachSession, SessionAttached},
    session::{look, proc},
    sys::judge,
};

pub(super) fn attach(client: &Client, args: AttachArgs) -> Result<Exit, Failure> {
    let out = Out::new(args.json);
    let stat = proc::stat(args.pid).map_err(|error| {
        let why = if error.kind() == io::ErrorKind::NotFound {
            format!("there is no process {}", args.pid)
        } else {
            format!("process {} can't be looked at: {error}", args.pid)
        };
        Failure::new(Exit::Failed, format!("nothing was attached: {why}"))
    })?;
    let request = AttachSession {
        pid: args.pid,
        start_time: stat.start,
        profile: args.profile,
        task: args.task,
        name: args.name,
    };
    let attached: SessionAttached = client.post("/v1/sessions/attach", &request)?;
    if out.json {
        out.value(&attached)?;
        return Ok(Exit::Done);
    }
    let processes = u64::try_from(attached.processes.len()).unwrap_or(u64::MAX);
    out.line(&format!(
        "session {} (profile {}, {}): {}, {}",
        attached.id,
        attached.profile,
        attached.mode.name(),
        count(processes, "process"),
        count(attached.threads, "thread"),
    ))?;
    Ok(Exit::Done)
}

/// Only the daemon runs this.
pub(super) fn judge() -> Result<Exit, Failure> {
    judge::answer()
        .map_err(|error| Failure::new(Exit::Failed, format!("only the daemon runs this: {error}")))?;
    Ok(Exit::Done)
}

fn inherited(pids: &[u32]) -> io::Result<Vec<String>> {
    let all = pids.iter().map(|pid| look::inherited(*pid)).collect::<io::Result<Vec<_>>>()?;
    Ok(all.concat())
}

/// Only the daemon runs this.
pub(super) fn look(args: &LookArgs) -> Result<Exit, Failure> {
    let found = if args.inherited { inherited(&args.pids) } else { look::look(&args.pids) };
    let found =
        found.map_err(|error| Failure::new(Exit::Failed, format!("only the daemon runs this: {error}")))?;
    Out::new(true).value(&found)?;
    Ok(Exit::Done)
}
