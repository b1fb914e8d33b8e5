//! What would happen, and why: the kernel's decision over the compiled tables.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use agent_guard_common::{
    Fault, ObjectKey, Op,
    decide::{self, Decision, Walk},
    object::{effective, mapped},
};
use serde::{Deserialize, Serialize};

use super::{
    compile::{Compiled, RuleInfo},
    resolve::{Device, Filesystem, Object},
    walk,
};

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// What would happen.
    pub verdict: String,
    /// What the policy says; differs where the profile only reports.
    pub policy: String,
    /// Which part of the policy says so.
    pub source: String,
    /// The rule that decides, where a single one does.
    pub rule: Option<RuleInfo>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// No such profile.
    #[error("the policy has no profile {0:?}; `agent-guard policy show` lists them")]
    UnknownProfile(String),
    /// No such operation.
    #[error("{0:?} is no operation on files: use read, execute, write, create, delete, rename or metadata")]
    NotAFileOp(&'static str),
    /// Not a whole path.
    #[error("{} is not an absolute path without `.` and `..`", .0.display())]
    NotAbsolute(PathBuf),
    /// The path can't be looked at.
    #[error("can't look at {}: {source}", path.display())]
    Lookup {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tables are wrong.
    #[error("the policy can't be judged by: {}", .0.text())]
    Fault(Fault),
}

/// Explains an operation on a file. What doesn't exist is judged by the deepest directory above it that
/// does; so creating at a path that exists stands for creating in it. Deleting and moving are about a symbolic
/// link itself, everything else about what it leads to. A session's terminal is known to the session only:
/// here it is a device like others.
///
/// # Errors
///
/// [`ExplainError`]
pub fn explain_path(
    compiled: &Compiled,
    fs: &dyn Filesystem,
    profile: &str,
    op: Op,
    path: &Path,
) -> Result<Explanation, ExplainError> {
    if !Op::FILE.contains(&op) {
        return Err(ExplainError::NotAFileOp(op.name()));
    }
    let index = index(compiled, profile)?;
    let fail = |source| ExplainError::Lookup { path: path.into(), source };
    let object = deepest(fs, op, path)?;
    if op == Op::WRITE
        && let Some(Device::Character(number)) = object.device
        && needs_no_rule(number)
    {
        return Ok(explanation(compiled, Decision::builtin()));
    }
    let mut walk = Walk::new(index, op);
    for (key, chain) in walk::chain(fs, &object).map_err(fail)? {
        walk.step(compiled, &key, chain);
    }
    if op == Op::WRITE && object.device.is_some() {
        walk.ignore_scope();
    }
    walk.finish(compiled).map(|decision| explanation(compiled, decision)).map_err(ExplainError::Fault)
}

/// Explains a connection.
///
/// # Errors
///
/// [`ExplainError`]
pub fn explain_connect(
    compiled: &Compiled,
    profile: &str,
    addr: IpAddr,
    port: u16,
) -> Result<Explanation, ExplainError> {
    let addr = match addr {
        IpAddr::V4(addr) => mapped(addr.octets()),
        IpAddr::V6(addr) => addr.octets(),
    };
    let index = index(compiled, profile)?;
    let decision = decide::connect(compiled, index, effective(addr), port);
    decision.map(|decision| explanation(compiled, decision)).map_err(ExplainError::Fault)
}

fn index(compiled: &Compiled, profile: &str) -> Result<u32, ExplainError> {
    compiled.profile_index(profile).ok_or_else(|| ExplainError::UnknownProfile(profile.to_owned()))
}

/// Whether a device can be written to without a rule: `null`, `zero`, `full`, `random`, `urandom`
/// (`drivers/char/mem.c`) and `tty`.
fn needs_no_rule(device: u32) -> bool {
    [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0)]
        .into_iter()
        .any(|(major, minor)| device == ObjectKey::dev(major, minor))
}

/// The object at a path, or else the deepest directory above it.
fn deepest(fs: &dyn Filesystem, op: Op, path: &Path) -> Result<Object, ExplainError> {
    // `components` drops inner `.` and double slashes; `..` would need the file system.
    let normal = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if !path.is_absolute() || !normal {
        return Err(ExplainError::NotAbsolute(path.into()));
    }
    let path: PathBuf = path.components().collect();
    let mut follow = !matches!(op, Op::DELETE | Op::RENAME);
    for candidate in path.ancestors() {
        match fs.lookup(candidate, follow) {
            Ok(object) => return Ok(object),
            Err(error) if error.kind() == io::ErrorKind::NotFound => follow = true,
            Err(source) => return Err(ExplainError::Lookup { path: candidate.into(), source }),
        }
    }
    Err(ExplainError::Lookup { path, source: io::ErrorKind::NotFound.into() })
}

fn explanation(compiled: &Compiled, decision: Decision) -> Explanation {
    Explanation {
        verdict: decision.verdict.name().to_owned(),
        policy: decision.policy.name().to_owned(),
        source: decision.source.name().to_owned(),
        rule: compiled.rule(decision.rule).cloned(),
    }
}
