//! What would happen, and why: the kernel's decision over tables.

mod network;
mod question;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use agent_guard_common::{
    Fault, ObjectKey, Op, Source,
    decide::{self, Command, Decision, Walk},
    enroll::PROFILE,
    rules::Tables,
};
use serde::{Deserialize, Serialize};

use super::{
    commands,
    fs::{Device, Filesystem, Object},
    ports::TooMany,
    rules::{RuleInfo, source},
    session::NO_SESSION,
    tables::{Compiled, View},
    walk,
};

pub use network::{explain_abstract, explain_connect, explain_listen, explain_names};
pub use question::{Question, Service};

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
    #[error("no operation {0:?}: use read, execute, write, create, delete, rename or metadata")]
    UnknownOp(String),
    /// Neither the one question nor the other.
    #[error("an operation and a path, something to connect to, an address to listen at, or a command")]
    NoQuestion,
    /// No address to connect to or to listen at.
    #[error("{address:?}: {what}")]
    NoAddress {
        /// What was given.
        address: String,
        /// What is wrong with it.
        what: String,
    },
    /// An operation on something else.
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
    /// Names that have the same address.
    #[error("what is said of these names can't be said of one address: {0}")]
    Names(#[from] TooMany),
    /// The tables are wrong.
    #[error("the policy can't be judged by: {}", .0.text())]
    Fault(Fault),
}

/// Answers a question for a profile by its index and a session by its binding: each object, and what would happen to it.
///
/// # Errors
///
/// [`ExplainError`]
pub fn ask<T: Tables>(
    view: &View<'_, T>,
    fs: &dyn Filesystem,
    who: (u32, u32),
    question: &Question,
) -> Result<Vec<(String, Explanation)>, ExplainError> {
    match question {
        Question::File(op, path) => {
            explain_path(view, fs, who, *op, path).map(|answer| vec![(path.display().to_string(), answer)])
        }
        Question::Exec(command) => explain_command(view, fs, who, command),
        Question::Socket(path) => explain_socket(view, fs, who, path)
            .map(|answer| vec![(format!("unix:{}", path.display()), answer)]),
        Question::Abstract(name) => {
            let answer = explain_abstract(view, who.0, name.as_bytes())?;
            Ok(vec![(format!("unix:@{name}"), answer)])
        }
        Question::Connect(addresses, service) => addresses
            .iter()
            .map(|address| {
                let answer = explain_connect(view, who.0, *address, *service)?;
                Ok((format!("{address} {service}"), answer))
            })
            .collect(),
        Question::Name { name, address, service } => {
            let answer = explain_names(view, who.0, &[name], *address, *service)?;
            let at = address.map(|address| format!(" at {address}")).unwrap_or_default();
            Ok(vec![(format!("{name}{at} {service}"), answer)])
        }
        Question::Listen(addresses, service) => addresses
            .iter()
            .map(|address| {
                let answer = explain_listen(view, who.0, *address, *service)?;
                Ok((format!("{address} {service}"), answer))
            })
            .collect(),
    }
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
    explain_object(view, fs, (profile, binding), op, path)
}

fn explain_object<T: Tables>(
    view: &View<'_, T>,
    fs: &dyn Filesystem,
    (profile, binding): (u32, u32),
    op: Op,
    path: &Path,
) -> Result<Explanation, ExplainError> {
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

/// The rule that enrolls a program, if one does. What isn't there is told by its name.
///
/// # Errors
///
/// [`ExplainError`]
pub fn explain_enrollment<T: Tables>(
    view: &View<'_, T>,
    fs: &dyn Filesystem,
    path: &Path,
) -> Result<Option<RuleInfo>, ExplainError> {
    let (object, missing) = deepest(fs, Op::EXECUTE, path)?;
    let fail = |source| ExplainError::Lookup { path: path.into(), source };
    let mut walk = Walk::new(PROFILE, NO_SESSION, Op::CONNECT);
    walk::walk(view, &mut walk, &walk::levels(fs, &object, &missing).map_err(fail)?);
    let decision = walk.finish(view.tables).map_err(ExplainError::Fault)?;
    Ok(view.rule(decision.rule).filter(|_| decision.source == Source::RULE).cloned())
}

/// Explains the execution of a program: whether its file may be executed, and with these arguments. A name is looked for where
/// the policy looks for it.
///
/// # Errors
///
/// [`ExplainError`]
pub fn explain_command<T: Tables>(
    view: &View<'_, T>,
    fs: &dyn Filesystem,
    who: (u32, u32),
    command: &[String],
) -> Result<Vec<(String, Explanation)>, ExplainError> {
    let Some(name) = command.first() else { return Err(ExplainError::NoQuestion) };
    let paths =
        if name.contains('/') { vec![PathBuf::from(name)] } else { commands::in_path(name).collect() };
    let found = paths.iter().find_map(|path| fs.lookup(path, true).ok());
    let program = found.as_ref().map_or(0, |object| view.tables.program(&object.key));
    let mut answers = Vec::new();
    if let Some(object) = &found {
        let answer = explain_path(view, fs, who, Op::EXECUTE, &object.path)?;
        answers.push((object.path.display().to_string(), answer));
    }
    let decide = || {
        let mut reading = Command::begin(view.tables, who.0, program)?;
        for byte in command.iter().flat_map(|argument| argument.bytes().chain([0])) {
            if reading.goes_on() {
                reading.read(view.tables, byte)?;
            }
        }
        decide::command(view.tables, who.0, reading, false)
    };
    let decision = decide().map_err(ExplainError::Fault)?;
    answers.push((command.join(" "), explanation(view, decision)));
    Ok(answers)
}

/// Explains a connection to a Unix socket by its path. That a session may always go to what it has made itself isn't known
/// here.
///
/// # Errors
///
/// [`ExplainError`]
pub fn explain_socket<T: Tables>(
    view: &View<'_, T>,
    fs: &dyn Filesystem,
    who: (u32, u32),
    path: &Path,
) -> Result<Explanation, ExplainError> {
    explain_object(view, fs, who, Op::CONNECT, path)
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
    let rule = view.rule(decision.rule);
    Explanation {
        verdict: decision.verdict.name().to_owned(),
        policy: decision.policy.name().to_owned(),
        source: source(decision.source, rule.map(|rule| rule.kind)).to_owned(),
        rule: rule.cloned(),
    }
}
