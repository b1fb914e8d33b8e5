//! People's answers.

use std::{
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use agent_guard_common::{Verdict, subject::Answer};
use rustix::process::{Signal, pidfd_send_signal};
use ulid::Ulid;

use super::{Guard, lock, sessions::internal};
use crate::{
    api::{
        error::{ApiError, Code},
        types::{HoldInfo, HoldState, Time, Who},
    },
    hold::Given,
    session::proc,
};

/// How long an answer waits for the call to go on, before it returns all the same.
const PATIENCE: Duration = Duration::from_secs(5);

impl Guard {
    /// Answers a hold and wakes its process. Returns when the call has gone on or failed.
    pub(super) fn give(
        &self,
        id: Ulid,
        approve: bool,
        by: Who,
        comment: Option<String>,
    ) -> Result<HoldInfo, ApiError> {
        {
            let mut state = lock(&self.state);
            let hold = state.holds.get_mut(&id).ok_or_else(|| ApiError::not_found("approval", id))?;
            if !hold.waits() {
                let detail = format!("approval {id} was {} already", hold.info.state.name());
                return Err(ApiError::new(Code::Conflict, detail));
            }
            let verdict = if approve { Verdict::ALLOW } else { Verdict::DENY };
            let answer = Answer { verdict: u32::from(verdict.0), pad: 0 };
            let mut maps = lock(&self.maps);
            if !maps.waits(hold.number).map_err(internal)? {
                let detail = format!("the call of approval {id} doesn't wait any more");
                return Err(ApiError::new(Code::Conflict, detail));
            }
            maps.answer(hold.number, &answer).map_err(internal)?;
            hold.info.state = if approve { HoldState::Approved } else { HoldState::Denied };
            hold.info.answered = Some(Time::now());
            hold.answer = Some(Given { approve, by, comment, at: Time::now(), clock: proc::boot_clock() });
        }
        let limit = Instant::now() + PATIENCE;
        while self.wake(id)? && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(20));
        }
        let state = lock(&self.state);
        let hold = state.holds.get(&id).ok_or_else(|| ApiError::not_found("approval", id))?;
        Ok(HoldInfo { waited_ms: hold.waited_ms(), ..hold.info.clone() })
    }

    /// Wakes the process of an answered hold, unless the answer was used. Whether it still has to be.
    fn wake(&self, id: Ulid) -> Result<bool, ApiError> {
        let state = lock(&self.state);
        let Some(hold) = state.holds.get(&id).filter(|hold| hold.answer.is_some()) else { return Ok(false) };
        self.nudge(hold);
        Ok(true)
    }

    /// Sends a process on. It may have to be more than once: another thread's hold stops all threads again.
    pub(super) fn nudge(&self, hold: &crate::hold::Hold) {
        let Some(process) = &hold.process else { return };
        if let Err(error) = pidfd_send_signal(process.as_fd(), Signal::CONT) {
            tracing::debug!(%error, hold = %hold.info.id, "its process has gone");
        }
    }
}
