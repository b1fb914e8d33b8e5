//! What is acted on.

use std::net::{IpAddr, SocketAddr};

use crate::api::types::ProcessInfo;

/// What is acted on.
#[derive(Clone, Debug)]
pub enum Object {
    /// A file, and for a rename or a link the name that it gets.
    File(FileRef, Option<FileRef>),
    /// An address.
    Address(AddressRef),
    /// A Unix socket.
    Socket(SocketRef),
    /// The system, or another process.
    System(SystemRef),
    /// A program that is executed.
    Command(CommandRef),
    /// A name that is asked for.
    Name(NameRef),
}

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct CommandRef {
    /// Its file.
    pub file: FileRef,
    /// What it is executed with; the first is how it is called.
    pub arguments: Vec<String>,
    /// Whether there is more than that.
    pub cut: bool,
}

impl CommandRef {
    /// As one line, for people.
    #[must_use]
    pub fn line(&self) -> String {
        let more = if self.cut { " ..." } else { "" };
        format!("{}{more}", self.arguments.join(" "))
    }
}

/// Something done to the system.
#[derive(Clone, Debug)]
pub struct SystemRef {
    /// What, beside the operation: a signal, a capability, a family of addresses; may be empty.
    pub what: String,
    /// The process that it is done to.
    pub target: Option<ProcessInfo>,
}

/// A file.
#[derive(Clone, Debug)]
pub struct FileRef {
    /// Its path in the daemon's mount namespace; for people.
    pub path: String,
    /// Whether the path's beginning is missing.
    pub cut: bool,
    /// Device as `major:minor`; empty for what doesn't exist yet.
    pub dev: String,
    /// Inode; 0 for what doesn't exist yet.
    pub ino: u64,
    /// File type and mode; 0 for what doesn't exist yet.
    pub mode: u32,
}

/// An address.
#[derive(Clone, Debug)]
pub struct AddressRef {
    /// IP address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// `IPPROTO_*`.
    pub protocol: u32,
    /// The names that the session has it from; of more than one it can't be told which it goes by.
    pub names: Vec<String>,
    /// Whether it is one of the host's, that is listened or accepted at.
    pub local: bool,
}

/// A name that is asked for.
#[derive(Clone, Debug)]
pub struct NameRef {
    /// The name.
    pub name: String,
    /// For which records (RFC 1035, 3.2.2), as `AAAA`.
    pub record: Option<String>,
    /// Addresses that were handed out.
    pub addresses: Vec<IpAddr>,
    /// Those that the name has and that were not.
    pub withheld: Vec<IpAddr>,
    /// What became of it.
    pub outcome: QueryOutcome,
    /// More about that, for people.
    pub detail: Option<String>,
    /// From where it was asked.
    pub from: SocketAddr,
}

/// What became of a question for a name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum QueryOutcome {
    /// It was answered.
    Answered,
    /// There are no such records.
    Empty,
    /// There is no such name.
    Unknown,
    /// The policy doesn't allow it.
    Refused,
    /// It was too much, or looked like a message.
    Limited,
    /// It leads to private addresses only, which no rule allows.
    Rebinding,
    /// Nobody could answer it.
    Failed,
    /// It was no question that is answered to anybody.
    Unsupported,
}

impl QueryOutcome {
    /// The name that events use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Empty => "no_records",
            Self::Unknown => "no_such_name",
            Self::Refused => "refused",
            Self::Limited => "limited",
            Self::Rebinding => "rebinding",
            Self::Failed => "failed",
            Self::Unsupported => "unsupported",
        }
    }

    /// Whether the guard has stopped it.
    #[must_use]
    pub const fn is_stopped(self) -> bool {
        matches!(self, Self::Refused | Self::Limited | Self::Rebinding | Self::Unsupported)
    }
}

/// A Unix socket: by the file that it is bound to, or by its abstract name.
#[derive(Clone, Debug)]
pub enum SocketRef {
    /// Its file.
    File(FileRef),
    /// Its abstract name; what is no text is written as `\x` and two digits.
    Abstract(String),
}

impl SocketRef {
    /// As policies write it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::File(file) => format!("unix:{}", file.path),
            Self::Abstract(name) => format!("unix:@{name}"),
        }
    }
}
