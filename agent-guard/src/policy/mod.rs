//! The policy: from text to the tables that the kernel judges by.
//!
//! ```text
//! source ─ parse ─ check ─▶ model ─ resolve ─▶ bindings ─ compile ─▶ tables
//!                                                            └▶ explain, summary
//! ```
//!
//! Terms:
//!
//! - A *source* is a policy file: its name and its text.
//! - A *policy* ([`Policy`]) is what all sources together say, in the words of the contract; every
//!   part knows its [`Origin`].
//! - A *rule* is one entry of `[[critical]]`, of `files.rule`, of a list of `network` or of `exec.rule`, one that comes with the
//!   program (of `files.persistence`, of the guard's own files), or one of whom `[[enroll]]` names. Rules are numbered from 1 in that order; the kernel knows them
//!   by number.
//! - A *pattern* ([`PathPattern`]) is a path as a policy writes it.
//! - A *key* is what the kernel finds a rule by: an object, or a chain of names below a directory. A *binding* is
//!   a rule (or a scope) at a key; its *depth* is the number of components of the path.
//! - A *place* is what all bindings at a key say.
//! - A *generation* is one set of tables ([`Compiled`]).
//! - *Hosts* are known by name to the daemon's resolver alone ([`Hosts`]); the kernel judges the addresses that it finds.
//! - A *diagnostic* is a mistake in a policy, at a line and a column.
#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod case;
pub mod diagnostic;
pub mod enroll;
pub mod exec;
pub mod explain;
pub mod fs;
pub mod hosts;
pub mod model;
pub mod narrower;
#[doc(hidden)]
pub mod oracle;
pub mod rules;
pub mod session;
pub mod source;
pub mod summary;
pub mod tables;
#[doc(hidden)]
pub mod world;

mod check;
mod commands;
mod compile;
mod demand;
mod edit;
mod host;
mod mountinfo;
mod net;
mod network;
mod parse;
mod paths;
mod persistence;
mod ports;
mod protected;
mod resolve;
mod sockets;
mod system;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeMap;

pub use demand::{Demand, Part, demands, unenforceable};
pub use diagnostic::{Diagnostic, Level};
pub use enroll::{By, Enroll, Target};
pub use exec::{CommandPattern, CommandRule, Exec};
pub use explain::{
    Explanation, Service, explain_abstract, explain_connect, explain_enrollment, explain_listen,
    explain_names, explain_path, explain_socket,
};
pub use fs::{Device, Filesystem, Identify, Identity, Mount, Object};
pub use host::HostFilesystem;
pub use hosts::{Hosts, NameRuling, Wildcard};
pub use model::{Origin, PathPattern, Policy};
pub use narrower::{Rules, Wider, narrower};
pub use persistence::Persistence;
pub use ports::{TooMany, merge};
pub use protected::Own;
pub use rules::{RuleInfo, RuleKind};
pub use session::{Changes, SessionPaths};
pub use source::Source;
pub use summary::PolicySummary;
pub use system::System;
pub use tables::{Compiled, View};

/// The key of names in tables that nobody judges by but this process: secret from nobody.
pub const TRIAL_KEY: [u64; 2] = [1, 1];

/// Reads the policy out of its sources.
///
/// # Errors
///
/// Every mistake of every source, in the order of the sources.
pub fn load(sources: Vec<Source>) -> Result<Policy, Vec<Diagnostic>> {
    check::policy(&sources)
}

/// Makes the tables of a policy: looks up what its paths lead to, then compiles.
///
/// `assigned` are the indexes that profiles have had since the guard started: running sessions know
/// their profile by index only, so a profile keeps its index, and nobody else gets it. `key` is the secret that
/// names are hashed with. `sessions` are those that run and have paths of their own; those whose profile the policy
/// doesn't have any more say nothing.
///
/// # Errors
///
/// Every path that can't be looked up, or else everything that doesn't fit into the tables.
pub fn build(
    policy: &Policy,
    fs: &dyn Filesystem,
    assigned: &BTreeMap<String, u32>,
    key: [u64; 2],
    sessions: &[SessionPaths],
) -> Result<Compiled, Vec<Diagnostic>> {
    let resolved = resolve::resolve(policy, fs, key)?;
    let commands = commands::compile(policy, fs)?;
    let mut compiled = compile::compile(resolved, commands, assigned, key)?;
    for session in sessions {
        compiled.bind_session(policy, fs, session)?;
    }
    Ok(compiled)
}
