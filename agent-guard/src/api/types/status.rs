//! The guard's status on the wire.

use serde::{Deserialize, Serialize};

use super::Mode;
pub use crate::kernel::enforcement::Extent;

/// Whether a hook is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookState {
    /// It judges.
    Attached,
    /// No rule of the policy needs it, so it isn't attached and costs nothing.
    Idle,
    /// It should judge, and somebody has taken it away.
    Gone,
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

/// Something that the policy in force says, and what enforces it: a rule, or what a profile says of everything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Its number in the generation's list; nothing for what isn't a rule of that list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// Which part of the policy it belongs to: `critical`, `files`, `outside`, `network`, `connect`, `system`, `guard`.
    pub kind: String,
    /// Profile; nothing for what concerns all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// It, as a person would say it.
    pub text: String,
    /// Operations that it is about.
    pub operations: Vec<String>,
    /// Its verdict.
    pub verdict: String,
    /// Whether the verdict is carried out or only told.
    pub mode: Mode,
    /// Policy file.
    pub file: String,
    /// Line in it; 0 for what is built in.
    pub line: u32,
    /// How much of it is enforced; where `mode` is `report`, how much of it is told.
    pub enforced: Extent,
    /// Hooks at work that do it. None for what is allowed and needs no hook.
    pub hooks: Vec<String>,
    /// Why it isn't enforced in full.
    pub why: Vec<String>,
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
    /// Actions that would have been denied, held or killed, had the profile enforced.
    pub would_have: u64,
    /// Those of them that the policy denies.
    pub would_have_denied: u64,
    /// Those of them that the policy holds.
    pub would_have_held: u64,
    /// Those of them that the policy kills for.
    pub would_have_killed: u64,
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
    /// What the policy in force says, each with what enforces it.
    pub rules: Vec<RuleStatus>,
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
