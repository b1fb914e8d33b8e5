//! `doctor`: what a host can and can't enforce, and what to change. Needs neither the daemon nor an installation.

mod boot;
mod kernel;
mod mounts;
mod probe;
mod service;

use agent_guard_common::Op;
use serde::Serialize;

pub use probe::{Answer, Probe, Running};

use crate::{
    config::{self, Config},
    kernel::{
        enforcement::{Coverage, Enforcement, Extent, Holdable, State as ProgramState, holdable},
        host::Host,
        programs::PROGRAMS,
        support::{self, Tier},
    },
};

/// How something that was looked at is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, but not as it should.
    Degraded,
    /// Without it nothing works.
    Missing,
    /// It couldn't be looked at.
    Unknown,
}

impl State {
    /// The name that the output uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }
}

/// What depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Whether policies are enforced.
    Enforcement,
    /// Whether the service runs and tells as it should.
    Service,
    /// Nothing: good to know.
    Advice,
}

/// Something that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What depends on it.
    pub needed_for: Need,
    /// What was found.
    pub found: String,
    /// What to do, step by step.
    pub advice: Vec<String>,
}

impl Check {
    /// As it should be.
    fn ok(name: &'static str, needed_for: Need, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, needed_for, found: found.into(), advice: Vec::new() }
    }

    /// Not as it should be.
    fn not(name: &'static str, needed_for: Need, state: State, found: impl Into<String>) -> Self {
        Self { state, ..Self::ok(name, needed_for, found) }
    }

    /// The same with something to do.
    fn then(mut self, advice: impl Into<String>) -> Self {
        self.advice.push(advice.into());
        self
    }

    /// The same where only the network is judged: what LSM programs need isn't missing then, but all the rest is.
    fn but(self, tier: &Tier) -> Self {
        let state = match (tier, self.state) {
            (Tier::NetworkOnly(_), State::Missing) => State::Degraded,
            (_, state) => state,
        };
        Self { state, ..self }
    }

    /// The same with several things to do.
    fn steps(mut self, advice: Vec<String>) -> Self {
        self.advice.extend(advice);
        self
    }
}

/// What this host enforces of an operation.
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    /// Its name in policies.
    pub operation: &'static str,
    /// How much of it.
    pub enforced: Extent,
    /// How many of its calls can wait for people.
    pub hold: Extent,
    /// Hooks that do it.
    pub hooks: Vec<&'static str>,
    /// Why not all of it.
    pub why: Vec<String>,
}

/// What it all means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every operation is enforced in full.
    Full,
    /// Something isn't.
    Degraded,
    /// Nothing is.
    Impossible,
    /// Nothing speaks against it, but not all of what matters could be looked at.
    Unknown,
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of the program.
    pub version: &'static str,
    /// The running kernel's release.
    pub kernel: String,
    /// Whether it was asked by root, who can look at everything.
    pub root: bool,
    /// What it means.
    pub outcome: Outcome,
    /// What was looked at.
    pub checks: Vec<Check>,
    /// What this host enforces of each operation.
    pub operations: Vec<Operation>,
}

/// Looks at a host.
#[must_use]
pub fn examine(host: &Host, probe: &dyn Probe, config: Result<Config, config::Error>) -> Report {
    let btf = host.btf();
    let programs = probe.lsm_program();
    let refused = matches!(programs, Answer::No | Answer::Refused(_));
    // Where neither can be told, a check says so.
    let tier = support::tier(host, || Ok(!refused)).unwrap_or(Tier::All);
    let mut checks = kernel::checks(host, btf.as_ref(), probe, (&tier, programs));
    checks.push(service::configuration(&config));
    let config = config.unwrap_or_default();
    checks.extend(mounts::checks(host, &config));
    checks.extend(service::checks(host, &config, probe));
    let enforcement = match &btf {
        Ok(btf) => Enforcement::of_kernel(btf, host, &tier),
        Err(_) => Enforcement::new(
            PROGRAMS.iter().map(|program| (*program, ProgramState::Absent)),
            support::shortcomings(host),
        ),
    };
    let missing =
        checks.iter().filter(|check| check.state == State::Missing && check.needed_for == Need::Enforcement);
    let enforcement = enforcement.blocked(missing.map(|check| format!("{}: {}", check.name, check.found)));
    let operations: Vec<_> =
        Op::all().chain([Op::CAPABILITY]).map(|op| operation(op, &enforcement)).collect();
    Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: host.release(),
        root: probe.is_root(),
        outcome: outcome(&checks, &operations),
        checks,
        operations,
    }
}

fn operation(op: Op, enforcement: &Enforcement) -> Operation {
    let Coverage { hooks, extent, why } = enforcement.coverage(&[op]);
    let hold = match holdable(op) {
        Holdable::Yes => Extent::Full,
        Holdable::But(_) => Extent::Part,
        Holdable::No => Extent::None,
    };
    let hold = if enforcement.holds() { hold.min(extent) } else { Extent::None };
    Operation { operation: op.name(), enforced: extent, hold, hooks, why }
}

fn outcome(checks: &[Check], operations: &[Operation]) -> Outcome {
    let some =
        |state| checks.iter().any(|check| check.state == state && check.needed_for == Need::Enforcement);
    let extents = || operations.iter().map(|operation| operation.enforced);
    if some(State::Missing) || extents().all(|extent| extent == Extent::None) {
        Outcome::Impossible
    } else if some(State::Degraded) || extents().any(|extent| extent != Extent::Full) {
        Outcome::Degraded
    } else if some(State::Unknown) {
        Outcome::Unknown
    } else {
        Outcome::Full
    }
}

#[cfg(test)]
mod tests;
