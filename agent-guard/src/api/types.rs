//! What crosses the control socket: requests and answers, with their stable field names.
//!
//! Everything here is data. The authoritative description for other programs is
//! `docs/openapi.json`; a test keeps the two equal.

use serde::{Deserialize, Serialize};
use ulid::Ulid;

mod policy;
mod status;

pub use policy::{
    ExplainRequest, ExplainedObject, ExplanationView, NameLimitsView, PolicyView, ProfileView, Reloaded,
    ResolverView, RuleView, ZoneView,
};
pub use status::{Counters, Extent, HookInfo, HookState, Lost, RuleStatus, Status};

pub use super::time::Time;

/// Largest body of a request that the daemon reads.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;

/// A person, as the kernel names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// User id.
    pub uid: u32,
    /// Its name, if it has one on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// User who logged in, whatever `su` and `sudo` did since (`/proc/self/loginuid`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// Terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<String>,
}

/// `POST /v1/sessions`: put the caller's own process into a new session.
///
/// `pid` and `start_time` are the caller's own; the daemon compares them with what the kernel says
/// of the peer, so that a proxy or a forwarded socket can't have somebody else's process tagged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartSession {
    /// Profile of the policy. Inside of a session it can be left out: then it is that session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What the session is for, in the words of who starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// A name for people; not unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The command that the caller is about to execute. Not UTF-8: replacement characters.
    pub command: Vec<String>,
    /// The caller's working directory, as a hint for people; the daemon asks the kernel.
    pub cwd: String,
    /// The caller's process id.
    pub pid: u32,
    /// Field 22 of the caller's `/proc/self/stat`: start time in clock ticks since boot.
    pub start_time: u64,
}

/// Answer to [`StartSession`]: the caller's process has the tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStarted {
    /// The session.
    pub id: Ulid,
    /// Its profile.
    pub profile: String,
    /// Whether the profile blocks.
    pub mode: Mode,
    /// Policy generation in force when it began.
    pub generation: u32,
}

/// `POST /v1/sessions/attach`: make a session of a running process and all that it has started.
///
/// `pid` and `start_time` are those of the process, as the caller sees them: a caller in another pid namespace
/// can't have somebody else's process tagged by mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachSession {
    /// Process id.
    pub pid: u32,
    /// Field 22 of its `/proc/PID/stat`: start time in clock ticks since boot.
    pub start_time: u64,
    /// Profile of the policy.
    pub profile: String,
    /// What the session is for, in the words of who attaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// A name for people; not unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Answer to [`AttachSession`]: every thread of the tree has the tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionAttached {
    /// The session.
    pub id: Ulid,
    /// Its profile.
    pub profile: String,
    /// Whether the profile blocks.
    pub mode: Mode,
    /// Policy generation in force when it began.
    pub generation: u32,
    /// Its processes.
    pub processes: Vec<u32>,
    /// How many threads they have together.
    pub threads: u64,
    /// Whatever was a descendant at this time or later belongs to it: nanoseconds since boot (`CLOCK_BOOTTIME`).
    pub since_ns: u64,
}

/// How a session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Its first process asked for it and became the command.
    #[default]
    Run,
    /// It was attached to a tree that ran already.
    Attach,
    /// The policy enrolls it.
    Enroll,
}

impl Origin {
    /// The name that command line and events use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Attach => "attach",
            Self::Enroll => "enroll",
        }
    }
}

/// Whether a profile blocks or only reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Verdicts are carried out.
    Enforce,
    /// Verdicts are events only, except those of `[[critical]]` rules.
    Report,
}

impl Mode {
    /// The name that policy, command line and events use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Report => "report",
        }
    }
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// It has processes, or its first one is about to begin.
    Running,
    /// `session kill`: whatever it still tries is killed.
    Killed,
    /// Its last process has ended.
    Ended,
}

impl SessionState {
    /// The name that command line and events use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Killed => "killed",
            Self::Ended => "ended",
        }
    }
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its id.
    pub id: Ulid,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// Its profile.
    pub profile: String,
    /// Whether the profile blocks.
    pub mode: Mode,
    /// What it is for, in the words of who started it.
    pub task: Option<String>,
    /// The command it was started with.
    pub command: Vec<String>,
    /// The directory it was started in.
    pub cwd: String,
    /// When it began.
    pub started: Time,
    /// When it ended.
    pub ended: Option<Time>,
    /// Where it is in its life.
    pub state: SessionState,
    /// Who started it.
    pub started_by: Who,
    /// Its first process.
    pub root_pid: u32,
    /// How it began.
    pub origin: Origin,
    /// The session that it was started in.
    pub parent: Option<Ulid>,
    /// How many processes it has now.
    pub processes: u64,
}

/// `GET /v1/sessions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Newest first.
    pub sessions: Vec<SessionInfo>,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Process id.
    pub pid: u32,
    /// When it started. With the pid it names the process for good.
    pub started: Time,
    /// Path of its program.
    pub exe: String,
    /// Its arguments, joined by spaces; what the process says of itself, so for people only.
    pub cmd_line: String,
    /// Real user id.
    pub uid: u32,
    /// Its name, if it has one on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A process in a session's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeProcess {
    /// The process.
    #[serde(flatten)]
    pub process: ProcessInfo,
    /// Its parent process, inside the session or outside it.
    pub parent: u32,
    /// Distance from the root it is shown under: 0 for a root.
    pub depth: u32,
    /// The hold that it waits in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Ulid>,
}

/// `GET /v1/sessions/{id}/tree`: a flat list, each process before its children, so that no depth of
/// forking makes the answer unreadable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTree {
    /// The session.
    pub session: Ulid,
    /// How it began.
    pub origin: Origin,
    /// Depth first, siblings by start time.
    pub processes: Vec<TreeProcess>,
}

/// `POST /v1/sessions/{id}/kill`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    /// The session.
    pub session: Ulid,
    /// Processes that were killed.
    pub processes: u64,
}

/// Where a hold is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldState {
    /// The process is frozen; nobody has decided.
    Waiting,
    /// The call went on.
    Approved,
    /// The call failed.
    Denied,
    /// The process ended or left the call before anybody decided.
    Withdrawn,
}

impl HoldState {
    /// The name that command line and events use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// A frozen call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldInfo {
    /// Its id.
    pub id: Ulid,
    /// The session.
    pub session: Ulid,
    /// The session's name.
    pub session_name: Option<String>,
    /// The session's profile.
    pub profile: String,
    /// The frozen process.
    pub process: ProcessInfo,
    /// What it tries: `delete`, `connect`, ...
    pub operation: String,
    /// Path of the object.
    pub path: Option<String>,
    /// Where a rename or a link would put it.
    pub target_path: Option<String>,
    /// The command that it wants to execute.
    pub command_line: Option<String>,
    /// Address it wants to connect to; `unix:@NAME` for a Unix socket with an abstract name. One that is a file has a path.
    pub address: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// The rule that asks.
    pub rule: Option<RuleView>,
    /// When it was frozen.
    pub asked: Time,
    /// Where it is in its life.
    pub state: HoldState,
    /// Who decided.
    pub answered_by: Option<Who>,
    /// When.
    pub answered: Option<Time>,
    /// What they said.
    pub comment: Option<String>,
    /// How long it has waited, or did wait.
    pub waited_ms: u64,
}

/// `GET /v1/approvals`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approvals {
    /// Oldest first.
    pub approvals: Vec<HoldInfo>,
}

/// `POST /v1/approvals/{id}/approve` and `/deny`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// `GET /v1/events`, as the backend gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Go on with what happens from now on.
    pub follow: bool,
    /// Of this session only.
    pub session: Option<Ulid>,
    /// With these verdicts only; empty for all, and for events that have none.
    pub verdicts: Vec<String>,
    /// Not older than this. Nothing: with `follow` from now on, without it everything kept.
    pub since: Option<Time>,
}
