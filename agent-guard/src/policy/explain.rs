//! What would happen, and why: the kernel's decision over tables.

use std::{
    ffi::OsString,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use agent_guard_common::{
    Fault, ObjectKey, Op,
    decide::{self, Decision, Walk},
    object::{effective, mapped},
    rules::Tables,
};
use serde::{Deserialize, Serialize};

use super::{
    fs::{Device, Filesystem, Object},
    rules::RuleInfo,
    tables::{Compiled, View},
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

impl Compiled {
    /// Index of a profile.
    ///
    /// # Errors
    ///
    /// [`ExplainError::UnknownProfile`]
    pub fn index_of(&self, profile: &str) -> Result<u32, ExplainError> {
        self.profile_index(profile).ok_or_else(|| ExplainError::UnknownProfile(profile.to_owned()))
    }
}

/// Explains an operation on a file, of a profile by its index and of a session by its binding
/// ([`super::session::NO_SESSION`] for none). What doesn't exist is judged by its name and the directories above.
/// Creating, deleting and moving are about a symbolic link itself, everything else about what it leads to. A session's
/// terminal and its processes are known to the session only: here they are files like others.
///
/// # Errors
///
/// [`ExplainError`]
pub fn explain_path<T: Tables>(
    view: &View<'_, T>,
    fs: &dyn Filesystem,
    (profile, binding): (u32, u32),
    op: Op,
    path: &Path,
) -> Result<Explanation, ExplainError> {
    if !Op::FILE.contains(&op) {
        return Err(ExplainError::NotAFileOp(op.name()));
    }
    let (object, missing) = deepest(fs, op, path)?;
    let opened = matches!(op, Op::READ | Op::WRITE) && missing.is_empty();
    if opened
        && let Some(Device::Character(number)) = object.device
        && needs_no_rule(number)
    {
        return Ok(explanation(view, Decision::builtin()));
    }
    let fail = |source| ExplainError::Lookup { path: path.into(), source };
    let mut walk = Walk::new(profile, binding, op);
    walk::walk(view, &mut walk, &walk::levels(fs, &object, &missing).map_err(fail)?);
    if opened && object.device.is_some() {
        walk.ignore_scope();
    }
    walk.finish(view.tables).map(|decision| explanation(view, decision)).map_err(ExplainError::Fault)
}

/// Explains a connection.
///
/// # Errors
///
/// [`ExplainError`]
pub fn explain_connect<T: Tables>(
    view: &View<'_, T>,
    profile: u32,
    addr: IpAddr,
    port: u16,
) -> Result<Explanation, ExplainError> {
    let addr = match addr {
        IpAddr::V4(addr) => mapped(addr.octets()),
        IpAddr::V6(addr) => addr.octets(),
    };
    let decision = decide::connect(view.tables, profile, effective(addr), port);
    decision.map(|decision| explanation(view, decision)).map_err(ExplainError::Fault)
}

/// Whether a device can be read and written without a rule: `null`, `zero`, `full`, `random`, `urandom`
/// (`drivers/char/mem.c`) and `tty`.
fn needs_no_rule(device: u32) -> bool {
    [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0)]
        .into_iter()
        .any(|(major, minor)| device == ObjectKey::dev(major, minor))
}

/// The object at a path; or else the deepest directory above it, and the names that don't exist in there, the last
/// first.
fn deepest(fs: &dyn Filesystem, op: Op, path: &Path) -> Result<(Object, Vec<OsString>), ExplainError> {
    let path = walk::normal(path).ok_or_else(|| ExplainError::NotAbsolute(path.into()))?;
    let mut follow = !matches!(op, Op::CREATE | Op::DELETE | Op::RENAME);
    let mut missing = Vec::new();
    for candidate in path.ancestors() {
        match fs.lookup(candidate, follow) {
            Ok(object) => return Ok((object, missing)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                missing.extend(candidate.file_name().map(OsString::from));
                follow = true;
            }
            Err(source) => return Err(ExplainError::Lookup { path: candidate.into(), source }),
        }
    }
    Err(ExplainError::Lookup { path, source: io::ErrorKind::NotFound.into() })
}

fn explanation<T>(view: &View<'_, T>, decision: Decision) -> Explanation {
    Explanation {
        verdict: decision.verdict.name().to_owned(),
        policy: decision.policy.name().to_owned(),
        source: decision.source.name().to_owned(),
        rule: view.rule(decision.rule).cloned(),
    }
}
