//! `doctor`: what this host can enforce, for people and for programs.

use std::{collections::BTreeSet, path::Path};

use super::{
    exit::{Exit, Failure},
    output::{Colour, Out, printable},
};
use crate::{
    config::Config,
    doctor::{self, Check, Need, Operation, Outcome, Report, Running, State},
    kernel::{enforcement::Extent, host::Host},
};

/// Ends with a failure unless all is known to be enforced.
pub(super) fn doctor(out: &Out, config: &Path) -> Result<Exit, Failure> {
    let report = doctor::examine(&Host::this(), &Running, Config::read(config));
    if out.json {
        out.value(&report)?;
    } else {
        people(out, &report)?;
    }
    Ok(if report.outcome == Outcome::Full { Exit::Done } else { Exit::Failed })
}

fn people(out: &Out, report: &Report) -> Result<(), Failure> {
    let Report { version, kernel, outcome, checks, operations, root } = report;
    let (colour, meaning) = meaning(*outcome);
    out.line(&format!(
        "agent-guard {version} on Linux {}: {}",
        printable(kernel),
        out.paint(colour, meaning)
    ))?;
    out.line("")?;
    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|Check { name, state, needed_for, found, .. }| {
            let need = match needed_for {
                Need::Enforcement => "enforcement",
                Need::Service => "service",
                Need::Advice => "advice",
            };
            let state =
                if *state == State::Ok { state.name().to_owned() } else { state.name().to_uppercase() };
            vec![(*name).to_owned(), state, need.to_owned(), found.clone()]
        })
        .collect();
    out.table(&["CHECK", "STATE", "FOR", "FOUND"], &rows)?;
    for check in checks.iter().filter(|check| !check.advice.is_empty()) {
        out.line("")?;
        out.line(&format!("{}:", out.paint(Colour::Yellow, check.name)))?;
        check.advice.iter().try_for_each(|step| out.line(&format!("  {}", printable(step))))?;
    }
    out.line("")?;
    let rows: Vec<Vec<String>> = operations.iter().map(row).collect();
    out.table(&["OPERATION", "ENFORCED", "CAN WAIT", "HOOKS"], &rows)?;
    let why: BTreeSet<&String> = operations.iter().flat_map(|operation| &operation.why).collect();
    why.into_iter()
        .try_for_each(|why| out.line(&format!("{} {}", out.paint(Colour::Yellow, "why:"), printable(why))))?;
    if !root {
        out.line("asked without root, who can look at more: sudo agent-guard doctor")?;
    }
    Ok(())
}

const fn meaning(outcome: Outcome) -> (Colour, &'static str) {
    match outcome {
        Outcome::Full => (Colour::Green, "this host enforces every operation in full"),
        Outcome::Degraded => (Colour::Yellow, "this host doesn't enforce everything in full"),
        Outcome::Impossible => (Colour::Red, "this host can't enforce anything as it is"),
        Outcome::Unknown => (Colour::Yellow, "nothing speaks against it, but not all could be looked at"),
    }
}

fn row(operation: &Operation) -> Vec<String> {
    let Operation { operation, enforced, hold, hooks, .. } = operation;
    let enforced = match enforced {
        Extent::Full => "in full",
        Extent::Part => "in part",
        Extent::None => "NOT",
    };
    let hold = match hold {
        Extent::Full => "yes",
        Extent::Part => "in part",
        Extent::None => "no",
    };
    let hooks = if hooks.is_empty() { "-".to_owned() } else { hooks.join(" ") };
    vec![(*operation).to_owned(), enforced.to_owned(), hold.to_owned(), hooks]
}
