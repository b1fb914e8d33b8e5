//! `status`.

use std::collections::BTreeSet;

use super::{
    client::Client,
    exit::{Exit, Failure},
    output::{Colour, Out, printable, span},
};
use crate::api::types::{Extent, HookState, Mode, RuleStatus, Status};

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
                "{} judged: {} denied, {} held, {} killed, {} faults",
                counters.judged, counters.denied, counters.held, counters.killed, counters.faults
            ),
        ),
        (
            "would have",
            format!(
                "{} denied, {} held, {} killed, where profiles only report",
                counters.would_have_denied, counters.would_have_held, counters.would_have_killed
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
                HookState::Gone => "GONE",
                HookState::Absent => "ABSENT",
            };
            vec![hook.name.clone(), state.to_owned(), hook.enforces.clone()]
        })
        .collect();
    out.line("")?;
    out.table(&["HOOK", "STATE", "ENFORCES"], &rows)?;
    rules(out, status)?;
    for text in &status.warnings {
        out.line(&format!("{} {}", out.paint(Colour::Yellow, "warning:"), printable(text)))?;
    }
    for text in &status.degraded {
        out.line(&format!("{} {}", out.paint(Colour::Red, "degraded:"), printable(text)))?;
    }
    Ok(())
}

/// What the policy says, and the hooks that do it.
fn rules(out: &Out, status: &Status) -> Result<(), Failure> {
    let row = |rule: &RuleStatus| {
        let number = rule.number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let profile = rule.profile.clone().unwrap_or_else(|| "all".to_owned());
        let hooks = if rule.hooks.is_empty() { "-".to_owned() } else { rule.hooks.join(" ") };
        let from = if rule.line == 0 { rule.file.clone() } else { format!("{}:{}", rule.file, rule.line) };
        vec![number, rule.kind.clone(), profile, extent(rule).to_owned(), rule.text.clone(), from, hooks]
    };
    let rows: Vec<Vec<String>> = status.rules.iter().map(row).collect();
    out.line("")?;
    out.table(&["RULE", "KIND", "PROFILE", "ENFORCED", "TEXT", "FROM", "HOOKS"], &rows)?;
    let mut said = BTreeSet::new();
    for rule in &status.rules {
        for why in rule.why.iter().filter(|why| said.insert((rule.enforced == Extent::None, *why))) {
            let what = if rule.enforced == Extent::None { "not enforced:" } else { "in part:" };
            out.line(&format!("{} {}", out.paint(Colour::Yellow, what), printable(why)))?;
        }
    }
    Ok(())
}

/// How much of it is enforced, or told.
const fn extent(rule: &RuleStatus) -> &'static str {
    match (rule.mode, rule.enforced) {
        (Mode::Enforce, Extent::Full) => "in full",
        (Mode::Enforce, Extent::Part) => "in part",
        (Mode::Enforce, Extent::None) => "NOT",
        (Mode::Report, Extent::Full) => "told only",
        (Mode::Report, Extent::Part) => "told in part",
        (Mode::Report, Extent::None) => "NOT TOLD",
    }
}
