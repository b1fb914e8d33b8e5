//! What has to be looked at from time to time: processes that ended, answers not yet used, losses.

use std::os::fd::AsFd as _;

use agent_guard_common::event::count;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ulid::Ulid;

use super::{Guard, State, lock};
use crate::{
    api::types::Time,
    events::activity::{Activity, EventsLost, Outcome},
    hold::Hold,
};

/// Sweeps that must find a hold gone in the kernel before it counts as withdrawn: the record that says what became
/// of it may be on its way.
const MISSED: u32 = 3;

impl Guard {
    /// Looks at everything. Called about four times a second by the thread that reads records, so that all records
    /// written before are taken in.
    pub fn sweep(&self) {
        let mut state = lock(&self.state);
        self.sweep_holds(&mut state);
        self.end_sessions(&mut state);
        self.say_losses(&mut state);
        drop(state);
        self.log.tick();
    }

    fn sweep_holds(&self, state: &mut State) {
        let open: Vec<Ulid> = state.holds.iter().filter(|(_, hold)| hold.open()).map(|(id, _)| *id).collect();
        for id in open {
            let Some(hold) = state.holds.get_mut(&id) else { continue };
            let number = hold.number;
            if ended(hold) {
                // Its record may still be on its way, if the answer came before the end.
                hold.missed += 1;
                if hold.missed < MISSED {
                    continue;
                }
                if let Err(error) = lock(&self.maps).forget(number) {
                    tracing::error!(%error, hold = %id, "a hold whose process has gone can't be forgotten");
                    continue;
                }
                self.settle(state, id, Outcome::Withdrawn, Time::now());
                continue;
            }
            match lock(&self.maps).waits(number) {
                Ok(true) => {
                    hold.missed = 0;
                    if hold.answer.is_some() {
                        self.nudge(hold);
                    }
                }
                Ok(false) => {
                    hold.missed += 1;
                    if hold.missed >= MISSED {
                        self.settle(state, id, Outcome::Withdrawn, Time::now());
                    }
                }
                Err(error) => tracing::error!(%error, hold = %id, "whether a call still waits"),
            }
        }
    }

    /// What the rings had no room for becomes an event itself.
    fn say_losses(&self, state: &mut State) {
        let counts = match lock(&self.maps).counts() {
            Ok(counts) => counts,
            Err(error) => {
                tracing::error!(%error, "the counters can't be read");
                return;
            }
        };
        let [decisions, reports, ..] = counts;
        debug_assert_eq!((count::LOST_DECISIONS, count::LOST_REPORTS), (0, 1));
        let now = Time::now();
        let from = state.lost_since.unwrap_or(now);
        let [told_decisions, told_reports] = &mut state.lost;
        for (kind, lost, told) in
            [("decisions", decisions, told_decisions), ("reports", reports, told_reports)]
        {
            if lost > *told {
                self.log.say(Activity::EventsLost(EventsLost {
                    kind: kind.to_owned(),
                    place: "ring buffer".to_owned(),
                    count: lost - *told,
                    from,
                    to: now,
                }));
                *told = lost;
            }
        }
        state.lost_since = Some(now);
    }
}

/// Whether the process of a hold has ended.
fn ended(hold: &Hold) -> bool {
    let Some(process) = &hold.process else { return true };
    let mut fds = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    // A descriptor of a process becomes readable when it ends (`pidfd_open(2)`).
    match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(ready) => ready > 0,
        Err(_) => false,
    }
}
