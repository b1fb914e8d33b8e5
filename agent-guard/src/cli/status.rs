//! `status`.

use super::{
    client::Client,
    exit::{Exit, Failure},
    output::{Colour, Out, printable, span},
};
use crate::api::types::{HookState, Status};

/// Ends with a failure if the guard is degraded, so that scripts needn't read.
pub(super) fn status(client: &Client, out: &Out) -> Result<Exit, Failure> {
    let status: Status = client.get("/v1/status")?;
    if out.json {
        out.value(&status)?;
    } else {
        people(out, &status)?;
    }
    Ok(if status.degraded.is_empty() { Exit::Done } else { Exit::Failed })
}

fn people(out: &Out, status: &Status) -> Result<(), Failure> {
    let state = if status.degraded.is_empty() {
        out.paint(Colour::Green, "in force")
    } else {
        out.paint(Colour::Red, "degraded")
    };
    out.line(&format!("agent-guard {} is {state}", status.version))?;
    let counters = &status.counters;
    out.fields(&[
        ("kernel", format!("{} (ABI {})", status.kernel, status.abi)),
        ("daemon", format!("pid {}, for {}", status.pid, span(status.uptime_ms))),
        ("socket", status.socket.clone()),
        ("policy", format!("generation {}, {}", status.generation, status.policy_digest)),
        ("sessions", status.sessions.to_string()),
        ("waiting", format!("{} for an answer", status.holds_waiting)),
        (
            "counted",
            format!(
                "{} judged, {} denied, {} held, {} killed, {} would have been blocked, {} faults",
                counters.judged,
                counters.denied,
                counters.held,
                counters.killed,
                counters.would_have,
                counters.faults
            ),
        ),
        ("lost", format!("{} decisions, {} reports", status.lost.decisions, status.lost.reports)),
    ])?;
    let rows: Vec<Vec<String>> = status
        .hooks
        .iter()
        .map(|hook| {
            let state = match hook.state {
                HookState::Attached => "attached",
                HookState::Idle => "not needed",
                HookState::Absent => "ABSENT",
            };
            vec![hook.name.clone(), state.to_owned(), hook.enforces.clone()]
        })
        .collect();
    out.line("")?;
    out.table(&["HOOK", "STATE", "ENFORCES"], &rows)?;
    for text in &status.warnings {
        out.line(&format!("{} {}", out.paint(Colour::Yellow, "warning:"), printable(text)))?;
    }
    for text in &status.degraded {
        out.line(&format!("{} {}", out.paint(Colour::Red, "degraded:"), printable(text)))?;
    }
    Ok(())
}
