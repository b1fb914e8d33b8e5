//! Holds: calls that wait for people.

use std::os::fd::OwnedFd;

use agent_guard_common::event::Judged;
use ulid::Ulid;

use crate::{
    api::types::{HoldInfo, HoldState, Time, Who},
    events::activity::{Actor, Decided},
    session::processes::time_of,
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
    /// The same by a clock that nobody sets, nanoseconds since boot.
    pub clock: u64,
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
pub fn id(record: &Judged) -> Ulid {
    Ulid::from_parts(time_of(record.header.time).ms(), u128::from(record.hold))
}
