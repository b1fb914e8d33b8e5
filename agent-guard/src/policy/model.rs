//! What a policy says, in the words of the contract.

use std::{fmt, net::IpAddr, path::PathBuf};

use agent_guard_common::{Op, Verdict};
use serde::{Deserialize, Serialize};

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
    /// `[profile.NAME]`, by name.
    pub profiles: Vec<Profile>,
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

/// Whether a profile blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Verdicts are carried out.
    Enforce,
    /// Everything is judged and logged, nothing is blocked but what is critical.
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
    /// `network.connect`: what nothing else names.
    pub connect: Verdict,
    /// `network.allow`.
    pub network: Vec<NetRule>,
    /// Where its name stands first.
    pub origin: Origin,
}

/// One entry of `files.scope`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScopePath {
    /// Absolute and normal.
    pub path: PathBuf,
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
        for op in UNENFORCED {
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

/// An entry of `[[critical]]` or of `files.rule`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileRule {
    /// Absolute and normal.
    pub path: PathBuf,
    /// Operations it is about, in the order of their numbers.
    pub ops: Vec<Op>,
    /// What happens.
    pub verdict: Verdict,
    /// Why, for people.
    pub reason: Option<String>,
    /// Where its path stands.
    pub origin: Origin,
}

/// An entry of `network.allow`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetRule {
    /// As written.
    pub text: String,
    /// What it stands for.
    pub prefixes: Vec<Prefix>,
    /// First port.
    pub low: u16,
    /// Last port.
    pub high: u16,
    /// What happens.
    pub verdict: Verdict,
    /// Where it stands.
    pub origin: Origin,
}

/// A network: the addresses of one family that begin with the same bits. IPv4 written as
/// `::ffff:a.b.c.d` is IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// First address.
    pub addr: IpAddr,
    /// Number of bits.
    pub bits: u8,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            IpAddr::V4(addr) => write!(f, "{addr}/{}", self.bits),
            IpAddr::V6(addr) => write!(f, "[{addr}]/{}", self.bits),
        }
    }
}

/// Operations on files that this version judges.
pub const ENFORCED: [Op; 4] = [Op::WRITE, Op::CREATE, Op::DELETE, Op::RENAME];

/// Operations on files that policies can name and this version doesn't judge.
pub const UNENFORCED: [Op; 3] = [Op::READ, Op::EXECUTE, Op::METADATA];
