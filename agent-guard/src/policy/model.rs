//! What a policy says, in the words of the contract.

mod network;

use std::{fmt, path::PathBuf};

use agent_guard_common::{Op, Verdict};
use serde::{Deserialize, Serialize};

use super::{enroll::Enroll, exec::Exec, persistence::Persistence, system::System};

pub use network::{
    AbstractRule, Denied, NameLimits, NamePattern, NameRule, NetRule, Ports, Prefix, Rate, Resolver, Zone,
};

/// Where something stands in the policy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the source.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// What all sources together say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// `[[critical]]`, in the order of the sources.
    pub critical: Vec<FileRule>,
    /// The guard's own files: as critical, whatever the sources say.
    pub own: Vec<FileRule>,
    /// `[profile.NAME]`, by name.
    pub profiles: Vec<Profile>,
    /// Home directories besides those in `/home` and `/root`, see [`Policy::persist`].
    pub homes: Vec<PathBuf>,
    /// `[[enroll]]`, in the order of the sources.
    pub enroll: Vec<Enroll>,
    /// `[resolver]`.
    pub resolver: Resolver,
    /// Names of the sources.
    pub files: Vec<String>,
    /// SHA-256 of the sources, in hexadecimal.
    pub digest: String,
}

impl Policy {
    /// The profile with that name.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }
}

/// What a path begins with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Base {
    /// `/`.
    Root,
    /// `${cwd}`: where a session was started.
    Cwd,
    /// `${home}`.
    Home,
    /// `${tmp}`.
    Tmp,
}

impl Base {
    /// As policies write it; nothing for `/`.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Cwd => "${cwd}",
            Self::Home => "${home}",
            Self::Tmp => "${tmp}",
        }
    }

    /// Whether each session has another one.
    #[must_use]
    pub const fn is_variable(self) -> bool {
        !matches!(self, Self::Root)
    }
}

/// A component of a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// That name.
    Name(String),
    /// `*`: any name.
    Any,
}

/// The forms that a path can have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Form {
    /// `/a/*/b`, `${cwd}/a`.
    Below(Base, Vec<Part>),
    /// `**/a/b`: the last is a name.
    Anywhere(Vec<Part>),
    /// `**/*.x`: all names that end so.
    Ending(String),
}

/// A path, as policies write it. It names what it leads to and all below.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathPattern {
    /// What it is.
    pub form: Form,
}

impl PathPattern {
    /// A path of that form.
    #[must_use]
    pub const fn new(form: Form) -> Self {
        Self { form }
    }

    /// Whether each session has another one.
    #[must_use]
    pub const fn is_variable(&self) -> bool {
        matches!(&self.form, Form::Below(base, _) if base.is_variable())
    }

    /// Whether it begins with `**`.
    #[must_use]
    pub const fn is_anywhere(&self) -> bool {
        !matches!(self.form, Form::Below(..))
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = match &self.form {
            Form::Ending(text) => return write!(f, "**/*{text}"),
            Form::Anywhere(parts) => {
                f.write_str("**")?;
                parts
            }
            Form::Below(base, parts) => {
                f.write_str(if parts.is_empty() && *base == Base::Root { "/" } else { base.text() })?;
                parts
            }
        };
        parts.iter().try_for_each(|part| match part {
            Part::Name(name) => write!(f, "/{name}"),
            Part::Any => f.write_str("/*"),
        })
    }
}

/// Whether a profile blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Verdicts are carried out.
    Enforce,
    /// Everything is judged and logged, nothing is blocked but what is critical.
    Report,
}

/// `degraded`: what becomes of rules about files and the system where the kernel has no LSM for the guard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Degraded {
    /// A policy with such a profile is refused.
    #[default]
    Refuse,
    /// It comes into force, and what isn't enforced is reported.
    Report,
}

/// `[profile.NAME]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// `mode`.
    pub mode: Mode,
    /// `files.scope`.
    pub scope: Vec<ScopePath>,
    /// `files.outside`, one verdict an operation.
    pub outside: Outside,
    /// `files.rule`.
    pub rules: Vec<FileRule>,
    /// `files.persistence`.
    pub persistence: Persistence,
    /// `degraded`.
    pub degraded: Degraded,
    /// `network.connect`: what nothing else names.
    pub connect: Verdict,
    /// Addresses in `network.allow` and its kin.
    pub network: Vec<NetRule>,
    /// Names of hosts in there.
    pub names: Vec<NameRule>,
    /// `network.names`.
    pub limits: NameLimits,
    /// `network.listen`: what may be listened at. Everything else is denied.
    pub listen: Vec<NetRule>,
    /// `network.denied`.
    pub denied: Denied,
    /// Files of Unix sockets in there: about [`Op::CONNECT`].
    pub sockets: Vec<FileRule>,
    /// Abstract names of Unix sockets in there.
    pub abstracts: Vec<AbstractRule>,
    /// `exec`.
    pub exec: Exec,
    /// `system`.
    pub system: System,
    /// Where its name stands first.
    pub origin: Origin,
}

/// One entry of `files.scope`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScopePath {
    /// Not of the forms that begin with `**`.
    pub path: PathPattern,
    /// Where it stands.
    pub origin: Origin,
}

/// `files.outside`: what happens to what no rule and no scope names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outside([Verdict; Op::COUNT]);

impl Default for Outside {
    /// What changes something is denied.
    fn default() -> Self {
        let mut outside = Self([Verdict::DENY; Op::COUNT]);
        for op in [Op::READ, Op::EXECUTE] {
            outside.set(op, Verdict::ALLOW);
        }
        outside
    }
}

impl Outside {
    /// The verdict for an operation.
    pub fn get(&self, op: Op) -> Verdict {
        self.0.get(usize::from(op.0)).copied().unwrap_or(Verdict::DENY)
    }

    /// Changes the verdict for an operation.
    pub fn set(&mut self, op: Op, verdict: Verdict) {
        if let Some(slot) = self.0.get_mut(usize::from(op.0)) {
            *slot = verdict;
        }
    }

    /// As the tables have it.
    #[must_use]
    pub fn bytes(&self) -> [u8; Op::COUNT] {
        self.0.map(|verdict| verdict.0)
    }
}

/// An entry of `[[critical]]` or of `files.rule`, a Unix socket in `network`, or a rule that comes with the program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileRule {
    /// What it is about; without a variable where it is critical.
    pub path: PathPattern,
    /// Operations it is about, in the order of their numbers.
    pub ops: Vec<Op>,
    /// What happens.
    pub verdict: Verdict,
    /// Why, for people.
    pub reason: Option<String>,
    /// Where its path stands.
    pub origin: Origin,
}
