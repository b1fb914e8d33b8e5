//! Holds: calls that wait for people.

use std::os::fd::OwnedFd;

use agent_guard_common::event::Judged;
use ulid::Ulid;

use crate::{
    api::types::{HoldInfo, HoldState, Time, Who},
    events::activity::{Actor, Decided},
    session::proc,
};

/// A call that waits, or did.
#[derive(Debug)]
pub struct Hold {
    /// Number, for the kernel.
    pub number: u64,
    /// For answers.
    pub info: HoldInfo,
    /// The process; nothing if it had gone when the daemon heard of it.
    pub process: Option<OwnedFd>,
    /// For events.
    pub actor: Actor,
    /// For events.
    pub decided: Decided,
    /// What people said, until the kernel has used it.
    pub answer: Option<Given>,
    /// Sweeps in a row that found nothing waiting in the kernel.
    pub missed: u32,
}

/// People's answer.
#[derive(Clone, Debug)]
pub struct Given {
    /// What it is.
    pub approve: bool,
    /// Whose.
    pub by: Who,
    /// Why.
    pub comment: Option<String>,
    /// When.
    pub at: Time,
}

impl Hold {
    /// Whether nobody has decided and the process is still there.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.info.state == HoldState::Waiting
    }

    /// Whether the kernel still has to hear, or to use, the answer.
    #[must_use]
    pub fn open(&self) -> bool {
        self.waits() || self.answer.is_some()
    }

    /// How long it has waited, or did.
    #[must_use]
    pub fn waited_ms(&self) -> u64 {
        self.info.answered.unwrap_or_else(Time::now).ms().saturating_sub(self.info.asked.ms())
    }
}

/// Id of a hold: the same for every daemon that hears of it since boot. Its time is when the call was frozen, its
/// random part the kernel's number.
#[must_use]
pub fn id(record: &Judged, boot_time_ms: u64) -> Ulid {
    let ms = boot_time_ms.saturating_add(record.header.time / 1_000_000);
    Ulid::from_parts(ms, u128::from(record.hold))
}

/// When the host was started, in milliseconds since the epoch: to the second, so that all daemons agree on it
/// (`btime` in `/proc/stat`).
#[must_use]
pub fn stable_boot_time_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok());
    seconds.map_or_else(proc::boot_time_ms, |seconds| seconds.saturating_mul(1000))
}
