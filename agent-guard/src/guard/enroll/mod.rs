//! Enrollment: sessions of programs, users and control groups that nobody starts with `run`.
//!
//! A program that is enrolled by what it is ([`programs`]) has a session of its own, made while whoever executes it waits.
//! Users and control groups have standing sessions ([`standing`]), which the kernel side puts them into by itself.

mod marks;
mod programs;
mod standing;

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use agent_guard_common::{
    attach::Relative,
    enroll::{PROFILE, SESSION, SLOT},
    subject::Session as Slot,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(super) use self::marks::Asking;
use super::{Guard, State, lock};
use crate::{
    kernel,
    policy::{Compiled, Diagnostic, Policy},
    session::proc,
    sys,
};

/// Programs that wait for a session at the same time, at most; others wait in the kernel.
const AT_ONCE: usize = 32;
/// How long a process may take from being told to go on until it has its seat.
const SEAT_LIMIT: Duration = Duration::from_secs(5);
/// How often the service manager's program is looked at.
const EXECUTOR_EVERY: Duration = Duration::from_secs(10);
/// How often the thread looks at whether there is something new to ask about.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// What is known of enrollment.
#[derive(Default)]
pub(crate) struct Enrolled {
    /// Sessions by number that nobody is in yet, and for whom they are.
    seats: HashMap<u64, Reservation>,
    /// Standing sessions by what they are known by: numbers in the kernel's table.
    standing: BTreeMap<String, u32>,
    /// What isn't as the policy wants it.
    problems: Vec<String>,
    /// Control groups that are enrolled and not known to the kernel side.
    unnoted: Option<String>,
    /// When it was last tried to note those.
    tried: Option<Instant>,
    /// When the service manager's program was looked at.
    looked: Option<Instant>,
}

/// A session that a process is about to take.
struct Reservation {
    process: Relative,
    since: Instant,
}

impl Enrolled {
    /// Whether a session may have nobody in it.
    pub(super) fn keeps(&self, session: &crate::session::Session) -> bool {
        let standing = session.enrolled.as_ref().is_some_and(|key| self.standing.contains_key(key));
        self.seats.contains_key(&session.number)
            || (standing && session.state == crate::api::types::SessionState::Running)
    }

    /// What isn't as the policy wants it, so that the guard isn't whole.
    pub(super) fn problems(&self) -> impl Iterator<Item = &String> {
        self.problems.iter().chain(&self.unnoted)
    }
}

/// What can't be enrolled on this host: no such user, the guard itself, a control group where there are none.
pub(super) fn mistakes(policy: &Policy) -> Vec<Diagnostic> {
    standing::mistakes(policy).into_iter().chain(programs::mistakes(policy)).collect()
}

impl Guard {
    /// Nobody waits for an earlier daemon any more.
    pub(super) fn adopt_enrollment(&self) -> Result<(), kernel::Error> {
        lock(&self.maps).clear_seats()
    }

    /// To be called before a policy is published: what it enrolls by what it is can be asked about, and there is room for the
    /// control groups. Nothing changes for the policy in force, which stays if the next one can't be published.
    pub(super) fn before_enrolling(
        policy: &Policy,
        compiled: &Compiled,
    ) -> Result<Option<Arc<Asking>>, kernel::Error> {
        standing::too_many(policy, compiled).map_err(kernel::Error::Groups)?;
        if policy.enrolls_programs() { Asking::new(policy).map(Arc::new).map(Some) } else { Ok(None) }
    }

    /// To be called once a policy is in force: whom it enrolls is.
    pub(super) fn after_enrolling(&self, state: &mut State, asking: Option<Arc<Asking>>) {
        state.enrolled.problems.clear();
        let slot = match asking {
            Some(_) => Slot { id: SESSION, profiles: [PROFILE; 2], state: Slot::LIVE, ..Slot::default() },
            None => Slot::default(),
        };
        if let Err(error) = lock(&self.maps).set_session(SLOT, &slot) {
            state.enrolled.problem(format!("which programs are enrolled can't be told: {error}"));
        }
        *lock(&self.asking) = asking;
        self.stand(state);
    }

    /// Looks at what has become of seats and of standing sessions. Called by every sweep.
    pub(super) fn sweep_enrollment(&self, state: &mut State) {
        let late: Vec<u64> = state
            .enrolled
            .seats
            .iter()
            .filter(|(_, reserved)| reserved.since.elapsed() > SEAT_LIMIT)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            self.take_back(state, number);
        }
        self.stand_again(state);
        self.look_at_executor(state);
        self.look_after_groups(state);
    }

    /// The service manager may have been upgraded.
    fn look_at_executor(&self, state: &mut State) {
        let due = state.enrolled.looked.is_none_or(|looked| looked.elapsed() > EXECUTOR_EVERY);
        if state.enrolled.standing.is_empty() || !due {
            return;
        }
        state.enrolled.looked = Some(Instant::now());
        if let Err(error) = self.tell_executor() {
            tracing::error!(%error, "the service manager's own program can't be looked at");
        }
    }

    /// A session's first process has executed its program: people are told.
    pub(super) fn seated(&self, state: &mut State, number: u64) {
        if state.enrolled.seats.remove(&number).is_some() {
            self.say_enrolled(state, number);
        }
    }

    /// Ends a session that nobody has come to.
    fn take_back(&self, state: &mut State, number: u64) {
        let Some(reserved) = state.enrolled.seats.remove(&number) else { return };
        match lock(&self.maps).take_seat(&reserved.process) {
            // It was taken, and the record of it was lost.
            Ok(false) => self.say_enrolled(state, number),
            Ok(true) => {
                if let Some(session) = state.sessions.remove(&number) {
                    tracing::debug!(session = %session.id, "a program that was to be enrolled wasn't executed");
                    self.abandon(state, &session);
                }
            }
            Err(error) => {
                tracing::error!(%error, "whether a seat was taken");
                state.enrolled.seats.insert(number, reserved);
            }
        }
    }

    /// Answers the kernel's questions until it is told to stop.
    pub fn answer_questions(self: &Arc<Self>, stop: &AtomicBool) {
        let working = Arc::new(AtomicUsize::new(0));
        let mut before: Option<Arc<Asking>> = None;
        while !stop.load(Ordering::Relaxed) {
            let asking = lock(&self.asking).clone();
            // Who has begun to wait under an earlier policy is answered, too.
            if let Some(old) = before.filter(|old| !asking.as_ref().is_some_and(|new| Arc::ptr_eq(old, new)))
            {
                self.answer_all(&old, &working);
            }
            match &asking {
                Some(asking) => self.wait_for_questions(asking, &working),
                None => std::thread::sleep(Duration::from_millis(200)),
            }
            before = asking;
        }
    }

    fn wait_for_questions(self: &Arc<Self>, asking: &Arc<Asking>, working: &Arc<AtomicUsize>) {
        let changes = asking.changes();
        let mut fds = [
            PollFd::from_borrowed_fd(asking.fanotify.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(changes, PollFlags::IN),
        ];
        if let Err(error) = poll(&mut fds, Some(&TURN))
            && error != rustix::io::Errno::INTR
        {
            tracing::error!(%error, "waiting for programs to be enrolled");
            std::thread::sleep(Duration::from_millis(200));
        }
        if asking.look_again() {
            self.resolve_again(asking);
        }
        self.answer_all(asking, working);
    }

    fn answer_all(self: &Arc<Self>, asking: &Arc<Asking>, working: &Arc<AtomicUsize>) {
        while working.load(Ordering::Relaxed) < AT_ONCE {
            let questions = match asking.fanotify.questions() {
                Ok(questions) if questions.is_empty() => return,
                Ok(questions) => questions,
                Err(error) => {
                    tracing::error!(%error, "questions about programs can't be read");
                    return;
                }
            };
            for question in questions {
                let (guard, asking, working) = (Arc::clone(self), Arc::clone(asking), Arc::clone(working));
                working.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || {
                    guard.answer_one(&asking, &question);
                    working.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
    }

    fn answer_one(&self, asking: &Asking, question: &sys::fanotify::Question) {
        let allow = self.enroll_program(asking, question);
        if let Err(error) = asking.fanotify.answer(question, allow) {
            tracing::error!(%error, "a program that is to be enrolled waits for an answer");
        }
    }

    /// The names that the policy says may lead somewhere else now: then it is looked up anew.
    fn resolve_again(&self, asking: &Asking) {
        let _settling = asking.settle();
        match asking.mark() {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(
                    "a program that is enrolled is another one now; the policy is looked up again"
                );
                if let Err(error) = self.look_up_again() {
                    tracing::error!(%error, "the policy can't be looked up again");
                }
            }
            Err(error) => tracing::error!(%error, "programs to be enrolled"),
        }
    }
}

impl Enrolled {
    fn problem(&mut self, what: String) {
        if !self.problems.contains(&what) {
            tracing::error!("{what}");
            self.problems.push(what);
        }
    }
}

/// A process, as the kernel side names it.
fn relative(pid: u32) -> std::io::Result<Relative> {
    Ok(Relative { start: proc::stat(pid)?.start, tgid: pid, pad: 0 })
}
