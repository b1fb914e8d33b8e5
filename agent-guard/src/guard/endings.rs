//! How sessions end: killed, or because nobody of them is left.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use agent_guard_common::subject::Session as Slot;
use rustix::process::{Signal, pidfd_send_signal};

use super::{
    Guard, State, lock,
    sessions::{internal, slot_of},
};
use crate::{
    api::{
        error::{ApiError, Code},
        types::{SessionState, Time},
    },
    events::activity::{Activity, SessionEnded},
    session::proc,
};

/// Ended sessions that `session list` still shows.
const ENDED_KEPT: usize = 64;

/// When a look at all processes found none of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Empty {
    /// When the look began, nanoseconds since boot.
    since: u64,
    /// Reports that had been lost by then.
    lost: u64,
}

/// How long a kill may take.
const KILL_LIMIT: Duration = Duration::from_secs(20);

impl Guard {
    /// The living processes of sessions, with descriptors; each with the number of its session.
    fn members(&self, numbers: &[u64]) -> Vec<(u32, u64, OwnedFd)> {
        let Ok(pids) = proc::all() else { return Vec::new() };
        let maps = lock(&self.maps);
        let members = pids.into_iter().filter_map(|pid| {
            let process = proc::open(pid).ok()?;
            let tag = maps.tag_of(process.as_fd()).ok()??;
            let member = numbers.contains(&tag.session) && !proc::stat(pid).ok()?.dead();
            member.then_some((pid, tag.session, process))
        });
        members.collect()
    }

    /// Kills all processes of a session, and of all sessions that were started in it; returns the numbers of these sessions,
    /// its own first, and how many processes each had.
    pub(super) fn kill_session(&self, number: u64) -> Result<Vec<(u64, u64)>, ApiError> {
        let numbers = {
            let mut state = lock(&self.state);
            if !state.sessions.contains_key(&number) {
                return Err(ApiError::new(Code::Conflict, "the session has ended"));
            }
            let nested = state.running().filter(|session| session.is_in(number));
            let numbers: Vec<u64> =
                [number].into_iter().chain(nested.map(|session| session.number)).collect();
            // From here on nothing of them can fork, or start a session, so looking for members comes to an end.
            numbers.iter().try_for_each(|number| self.mark_killed(&mut state, *number))?;
            numbers
        };
        let mut killed = std::collections::BTreeSet::new();
        let limit = Instant::now() + KILL_LIMIT;
        loop {
            let members = self.members(&numbers);
            if members.is_empty() {
                break;
            }
            for (pid, session, process) in &members {
                if pidfd_send_signal(process, Signal::KILL).is_ok() {
                    killed.insert((*session, *pid));
                }
            }
            if Instant::now() > limit {
                let left: Vec<_> = members.iter().map(|(pid, ..)| pid.to_string()).collect();
                let detail = format!("processes {} don't end although they were killed", left.join(", "));
                return Err(ApiError::new(Code::Unavailable, detail));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let count = |number: u64| killed.iter().filter(|(session, _)| *session == number).count();
        let counted = |number| (number, u64::try_from(count(number)).unwrap_or(u64::MAX));
        Ok(numbers.into_iter().map(counted).collect())
    }

    fn mark_killed(&self, state: &mut State, number: u64) -> Result<(), ApiError> {
        let Some(session) = state.sessions.get_mut(&number) else { return Ok(()) };
        session.state = SessionState::Killed;
        if let Err(error) = self.store.write(session) {
            tracing::warn!(%error, "the session's file");
        }
        let slot = slot_of(session, Slot::KILLED);
        lock(&self.maps).set_session(session.slot, &slot).map_err(internal)
    }

    /// Ends sessions that have no living process. The kernel has the last word, but while all processes are looked at one
    /// after another, one that makes a child and ends can slip by. So nobody may be found, and then no record of that time
    /// may tell of a child: whoever slips by makes one. To be called with all records taken in that are older than the call
    /// before.
    pub(super) fn end_sessions(&self, state: &mut State) {
        let quiet = |number: &u64| state.processes.living(*number).next().is_none();
        let may_end = state.running().filter(|session| !state.enrolled.keeps(session));
        let mut quiet: Vec<u64> = may_end.map(|session| session.number).filter(quiet).collect();
        state.empty.retain(|number, _| quiet.contains(number));
        let lost = match lock(&self.maps).counts() {
            Ok([_, reports, ..]) => reports,
            Err(error) => {
                tracing::error!(%error, "the counters can't be read");
                return;
            }
        };
        quiet.retain(|number| {
            let ended = state
                .empty
                .remove(number)
                .is_some_and(|empty| state.processes.last_fork(*number) < empty.since && lost == empty.lost);
            if ended {
                self.end(state, *number);
            }
            !ended
        });
        if quiet.is_empty() {
            return;
        }
        let empty = Empty { since: proc::boot_clock(), lost };
        let tagged = self.tagged_processes();
        for number in quiet {
            let mut members = tagged.iter().filter(|(_, session)| *session == number).peekable();
            if members.peek().is_none() {
                state.empty.insert(number, empty);
            }
            for (pid, _) in members {
                if let Err(error) = state.processes.found(*pid, number) {
                    tracing::debug!(%error, pid, "gone meanwhile");
                }
            }
        }
    }

    fn end(&self, state: &mut State, number: u64) {
        let Some(session) = state.sessions.get(&number).cloned() else { return };
        let actor = state.actor_of_root(&session);
        let killed = session.state == SessionState::Killed;
        let now = Time::now();
        if let Err(error) = lock(&self.maps).set_session(session.slot, &Slot::default()) {
            tracing::error!(%error, "the slot of a session that has ended");
            return;
        }
        if let Err(error) = self.store.remove(session.id) {
            tracing::warn!(%error, "the file of a session that has ended");
        }
        if let Some(session) = state.sessions.get_mut(&number) {
            session.state = SessionState::Ended;
            session.ended = Some(now);
        }
        state.processes.forget(number);
        self.forget_names(state, number);
        self.unbind(state, session.binding);
        // They may have been kept for this one alone.
        session.outer.iter().for_each(|outer| self.unbind(state, outer.rules.binding));
        let duration_ms = now.ms().saturating_sub(session.started.ms());
        self.log.say(Activity::SessionEnded(SessionEnded { actor, duration_ms, killed }));
        let mut ended: Vec<_> =
            state.sessions.values().filter_map(|session| Some((session.ended?, session.number))).collect();
        ended.sort_unstable();
        let surplus = ended.len().saturating_sub(ENDED_KEPT);
        for (_, number) in ended.into_iter().take(surplus) {
            state.sessions.remove(&number);
        }
    }
}
