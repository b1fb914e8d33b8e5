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
//! - A *rule* is one entry of `[[critical]]`, of `files.rule` or of `network.allow`. Rules are numbered
//!   from 1 in that order; the kernel knows them by number.
//! - An *object* is what a path leads to when the policy is loaded: device and inode number. A
//!   *binding* is a rule (or a scope) at an object; its *depth* is the number of components of the
//!   rule's path.
//! - A *generation* is one set of tables ([`Compiled`]).
//! - A *diagnostic* is a mistake in a policy, at a line and a column.
#![forbid(unsafe_code)]

pub mod compile;
pub mod diagnostic;
pub mod explain;
pub mod model;
#[doc(hidden)]
pub mod oracle;
pub mod resolve;
pub mod source;
pub mod summary;
pub mod walk;

mod check;
mod host;
mod net;
mod network;
mod parse;
mod paths;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use compile::{Compiled, RuleInfo, RuleKind};
pub use diagnostic::{Diagnostic, Level};
pub use explain::{Explanation, explain_connect, explain_path};
pub use host::HostFilesystem;
pub use model::{Origin, Policy};
pub use resolve::{Device, Filesystem, Mount, Object, Resolved};
pub use source::Source;
pub use summary::PolicySummary;

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
/// their profile by index only, so a profile keeps its index, and nobody else gets it.
///
/// # Errors
///
/// Every path that leads nowhere, or else everything that doesn't fit into the tables.
pub fn build(
    policy: &Policy,
    fs: &dyn Filesystem,
    assigned: &BTreeMap<String, u32>,
) -> Result<Compiled, Vec<Diagnostic>> {
    let resolved = resolve::resolve(policy, fs)?;
    compile::compile(&resolved, assigned)
}
