//! The guard's status on the wire.

use serde::{Deserialize, Serialize};

/// Whether a hook is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookState {
    /// It judges.
    Attached,
    /// No rule of the policy needs it, so it isn't attached and costs nothing.
    Idle,
    /// This kernel doesn't have it.
    Absent,
}

/// A hook and what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookInfo {
    /// Name in the kernel.
    pub name: String,
    /// Whether it is at work.
    pub state: HookState,
    /// What it enforces, for people.
    pub enforces: String,
}

/// What was counted since the guard's maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Actions judged.
    pub judged: u64,
    /// Actions denied.
    pub denied: u64,
    /// Actions held.
    pub held: u64,
    /// Processes killed.
    pub killed: u64,
    /// Actions that would have been blocked, had the profile enforced.
    pub would_have: u64,
    /// Decisions that could not be made; each ended in a denial.
    pub faults: u64,
}

/// What was lost since the guard's maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Records of denials, holds and kills.
    pub decisions: u64,
    /// Records of everything else.
    pub reports: u64,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Of what kernel side and daemon share.
    pub abi: u32,
    /// The running kernel's release.
    pub kernel: String,
    /// The daemon's process.
    pub pid: u32,
    /// How long the daemon runs.
    pub uptime_ms: u64,
    /// Policy generation in force; 0 for none.
    pub generation: u32,
    /// Digest of its text.
    pub policy_digest: String,
    /// The control socket.
    pub socket: String,
    /// Hooks.
    pub hooks: Vec<HookInfo>,
    /// Sessions that run.
    pub sessions: u64,
    /// Calls that wait for an answer.
    pub holds_waiting: u64,
    /// What was counted.
    pub counters: Counters,
    /// What was lost.
    pub lost: Lost,
    /// What doesn't work as it should. Empty when all is well.
    pub degraded: Vec<String>,
    /// What somebody should look at, although all that is in force is enforced: a policy on disk that is refused, a
    /// session whose profile is gone.
    #[serde(default)]
    pub warnings: Vec<String>,
}
