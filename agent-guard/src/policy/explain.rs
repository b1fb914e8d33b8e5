//! What would happen, and why: the kernel's decision over tables.

use std::{
    ffi::OsString,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use agent_guard_common::{
    Fault, ObjectKey, Op, Source,
    decide::{self, Command, Decision, Walk},
    enroll::PROFILE,
    object::{effective, mapped},
    rules::Tables,
};
use serde::{Deserialize, Serialize};

use super::{
    commands,
    fs::{Device, Filesystem, Object},
    rules::{RuleInfo, source},
    session::NO_SESSION,
    sockets,
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
    #[error("no operation {0:?}: use read, execute, write, create, delete, rename or metadata")]
    UnknownOp(String),
    /// Neither the one question nor the other.
    #[error("an operation and a path, an address to connect to, or a command")]
    NoQuestion,
    /// No address to connect to.
    #[error("{address:?}: {what}")]
    NoAddress {
        /// What was given.
        address: String,
        /// What is wrong with it.
        what: &'static str,
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
    /// The tables are wrong.
    #[error("the policy can't be judged by: {}", .0.text())]
    Fault(Fault),
}

/// What somebody wants to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// An operation on a file.
    File(Op, PathBuf),
    /// A connection to a port of any of these addresses.
    Connect(Vec<IpAddr>, u16),
    /// A connection to a Unix socket by its path.
    Socket(PathBuf),
    /// A connection to a Unix socket by its abstract name.
    Abstract(String),
    /// The execution of a program with arguments, of which the first is how it is called.
    Exec(Vec<String>),
}

impl Question {
    /// About an operation on a file, by its name.
    ///
    /// # Errors
    ///
    /// [`ExplainError::UnknownOp`]
    pub fn file(op: &str, path: &Path) -> Result<Self, ExplainError> {
        let known = Op::from_name(op).ok_or_else(|| ExplainError::UnknownOp(op.to_owned()))?;
        Ok(Self::File(known, path.into()))
    }

    /// About a connection to `unix:PATH`, `unix:@NAME`, or `HOST:PORT`, where the host is an address or `localhost`: names are not looked up, because
    /// what they mean to a session isn't decided by name in this version.
    ///
    /// # Errors
    ///
    /// [`ExplainError::NoAddress`]
    pub fn connect(to: &str) -> Result<Self, ExplainError> {
        let bad = |what| ExplainError::NoAddress { address: to.to_owned(), what };
        if let Some(socket) = to.strip_prefix("unix:") {
            return match socket.strip_prefix('@') {
                Some(name) if sockets::key(name.as_bytes()).is_none() => Err(bad("no name is that long")),
                Some(name) => Ok(Self::Abstract(name.to_owned())),
                None => Ok(Self::Socket(socket.into())),
            };
        }
        let (host, port) =
            to.rsplit_once(':').ok_or_else(|| bad("HOST:PORT, unix:PATH or unix:@NAME is wanted"))?;
        let port = port.parse().map_err(|_number| bad("the port must be a number up to 65535"))?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host == "localhost" {
            return Ok(Self::Connect(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], port));
        }
        let address = host
            .parse()
            .map_err(|_address| bad("an address or localhost is wanted; names are not judged yet"))?;
        Ok(Self::Connect(vec![address], port))
    }

    /// Name of the operation.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::File(op, _) => op.name(),
            Self::Connect(..) | Self::Socket(_) | Self::Abstract(_) => Op::CONNECT.name(),
            Self::Exec(_) => Op::EXEC.name(),
        }
    }
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
        Question::Connect(addresses, port) => addresses
            .iter()
            .map(|address| {
                let answer = explain_connect(view, who.0, *address, *port)?;
                Ok((format!("{address} port {port}"), answer))
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

/// Explains a connection to a Unix socket by its abstract name.
///
/// # Errors
///
/// [`ExplainError`]
pub fn explain_abstract<T: Tables>(
    view: &View<'_, T>,
    profile: u32,
    name: &[u8],
) -> Result<Explanation, ExplainError> {
    let decision = match sockets::key(name) {
        Some((mut key, length)) => decide::abstract_name(view.tables, profile, &mut key, length),
        None => Err(Fault::ADDRESS),
    };
    decision.map(|decision| explanation(view, decision)).map_err(ExplainError::Fault)
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
    let rule = view.rule(decision.rule);
    Explanation {
        verdict: decision.verdict.name().to_owned(),
        policy: decision.policy.name().to_owned(),
        source: source(decision.source, rule.map(|rule| rule.kind)).to_owned(),
        rule: rule.cloned(),
    }
}
