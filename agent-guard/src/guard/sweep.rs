//! What has to be looked at from time to time: processes that ended, answers not yet used, losses.

use std::{os::fd::AsFd as _, time::Duration};

use agent_guard_common::event::count;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ulid::Ulid;

use super::{Guard, State, lock};
use crate::{
    api::types::Time,
    events::activity::{Activity, EventsLost, Outcome},
    hold::Hold,
    session::proc,
};

/// File with the losses that were told, below the state directory.
const LOST: &str = "losses";

/// Sweeps that must find a hold gone in the kernel before it counts as withdrawn: the record that says what became
/// of it may be on its way.
const MISSED: u32 = 3;

/// How long a record may be on its way.
const LATE: Duration = Duration::from_secs(2);

/// How long an answer may go unused.
const UNUSED_NS: u64 = 60_000_000_000;

impl Guard {
    /// Looks at everything. Called about four times a second by the thread that reads records, so that all records
    /// written before are taken in.
    ///
    /// `all` says whether all records were taken in: only then can a hold be called withdrawn, or a session ended,
    /// because nothing is known of it.
    pub fn sweep(&self, all: bool) {
        let mut state = lock(&self.state);
        if all {
            self.find_holds(&mut state);
            self.sweep_holds(&mut state);
            state.processes.prune();
            self.end_sessions(&mut state);
            self.sweep_enrollment(&mut state);
        }
        self.end_names(&mut state);
        self.say_losses(&mut state);
        drop(state);
        self.log.tick();
    }

    /// Takes up calls that wait although no record of them came: it was lost.
    fn find_holds(&self, state: &mut State) {
        let waiting = match lock(&self.maps).holds() {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::error!(%error, "the table of holds can't be read");
                return;
            }
        };
        let late = proc::boot_clock().saturating_sub(u64::try_from(LATE.as_nanos()).unwrap_or(u64::MAX));
        for (number, judged) in waiting {
            let known = state.holds.values().any(|hold| hold.number == number);
            if !known && judged.header.time < late {
                tracing::warn!(number, "a call waits whose record was lost");
                self.asked(state, &judged, Time::now());
            }
        }
    }

    fn sweep_holds(&self, state: &mut State) {
        let open: Vec<Ulid> = state.holds.iter().filter(|(_, hold)| hold.open()).map(|(id, _)| *id).collect();
        for id in open {
            let Some(hold) = state.holds.get_mut(&id) else { continue };
            // Never within a `match` on the locked maps: what is locked there stays so to its end.
            let waits = lock(&self.maps).waits(hold.number);
            let gone = match waits {
                Ok(waits) => ended(hold) || !waits,
                Err(error) => {
                    tracing::error!(%error, hold = %id, "whether a call still waits");
                    continue;
                }
            };
            if gone {
                // Its record may still be on its way, if the answer came before the end.
                hold.missed += 1;
                if hold.missed >= MISSED {
                    self.withdraw(state, id);
                }
                continue;
            }
            hold.missed = 0;
            let Some(given) = &hold.answer else { continue };
            if proc::boot_clock().saturating_sub(given.clock) < UNUSED_NS {
                self.nudge(hold);
            } else {
                // The process has left the call for something else. An answer must not lie about for later.
                self.withdraw(state, id);
            }
        }
    }

    /// Takes a hold out of the tables. If its process still waits in it after all, it asks anew.
    fn withdraw(&self, state: &mut State, id: Ulid) {
        let Some(hold) = state.holds.get(&id) else { return };
        if let Err(error) = lock(&self.maps).forget(hold.number) {
            tracing::error!(%error, hold = %id, "a hold that is over can't be forgotten");
            return;
        }
        self.nudge(hold);
        self.settle(state, id, Outcome::Withdrawn, Time::now());
    }

    /// What an earlier daemon has told of losses, if the kernel still counts on from there: counters of new maps begin
    /// anew. What isn't certain is told once more.
    pub(super) fn adopt_losses(&self) {
        let text = std::fs::read_to_string(self.config.state.join(LOST)).unwrap_or_default();
        let mut numbers = text.split_ascii_whitespace().map_while(|number| number.parse().ok());
        let told = [numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()];
        let counted = match lock(&self.maps).counts() {
            Ok([decisions, reports, ..]) => [decisions, reports],
            Err(error) => {
                tracing::error!(%error, "the counters can't be read");
                return;
            }
        };
        lock(&self.state).lost = carried_on(told, counted);
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
                // The next daemon must not tell it again.
                let text = format!("{decisions} {reports}");
                if let Err(error) = std::fs::write(self.config.state.join(LOST), text) {
                    tracing::warn!(%error, "which losses were told can't be kept");
                }
            }
        }
        state.lost_since = Some(now);
    }
}

/// Losses that were told, of what is counted now: none, if the counters have begun anew.
fn carried_on(told: [u64; 2], counted: [u64; 2]) -> [u64; 2] {
    let same = told.iter().zip(&counted).all(|(told, counted)| told <= counted);
    if same { told } else { [0; 2] }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_begin_anew_are_told_from_the_start() {
        assert_eq!(carried_on([3, 7], [3, 9]), [3, 7]);
        assert_eq!(carried_on([3, 7], [0, 0]), [0, 0]);
        assert_eq!(carried_on([3, 7], [5, 2]), [0, 0]);
    }
}
