//! Sessions: start, adopt, find. How they end is in `endings`.

use std::{collections::HashMap, os::fd::AsFd as _};

use agent_guard_common::subject::{MAX_SESSIONS, Session as Slot, Tag};
use ulid::Ulid;

use super::{
    Error, Guard, State,
    known::{check_length, nameless, shortened},
    lock,
};
use crate::{
    api::{
        backend::Peer,
        error::{ApiError, Code},
        types::{Mode, Origin, SessionStarted, SessionState, StartSession, Time, Who},
    },
    events::activity::{Activity, Actor, SessionRef, SessionStarted as Started},
    policy::model,
    session::{Session, proc, processes::Process},
    sys,
};

impl Guard {
    /// Takes up the sessions of an earlier daemon: those whose file and slot agree.
    pub(super) fn adopt_sessions(&self) -> Result<(), Error> {
        let (sessions, errors) = self.store.read()?;
        for error in errors {
            tracing::error!(%error, "a session's file can't be read; its processes stay judged, but it has no name");
        }
        Self::settle_rules(&mut lock(&self.maps))?;
        let generation = lock(&self.maps).outer.generation()?;
        let mut slots: HashMap<u64, (u32, Slot)> =
            lock(&self.maps).sessions()?.into_iter().map(|(at, slot)| (slot.id, (at, slot))).collect();
        let mut state = lock(&self.state);
        for session in sessions {
            if slots.remove(&session.number).is_some() {
                state.sessions.insert(session.number, session);
            } else if let Err(error) = self.store.remove(session.id) {
                tracing::warn!(%error, "the file of a session that is no more");
            }
        }
        for (number, (at, slot)) in slots {
            let session = nameless(number, at, &slot, generation);
            tracing::error!(session = %session.id, "a session whose file is lost; its processes are judged as before");
            state.sessions.insert(number, session);
        }
        for (pid, number) in self.tagged_processes() {
            if let Err(error) = state.processes.found(pid, number) {
                tracing::debug!(%error, pid, "gone meanwhile");
            }
        }
        Ok(())
    }

    /// All tagged processes and their sessions, as the kernel says it. A process whose first thread has ended, but
    /// not the others, counts.
    pub(super) fn tagged_processes(&self) -> Vec<(u32, u64)> {
        let Ok(pids) = proc::all() else { return Vec::new() };
        let maps = lock(&self.maps);
        let tagged = pids.into_iter().filter_map(|pid| {
            let process = proc::open(pid).ok()?;
            let tag = maps.tag_of(process.as_fd()).ok()??;
            // On trial, while the kernel side finds out whether a program is enrolled.
            let tag = Some(tag).filter(|tag| tag.session != agent_guard_common::enroll::SESSION)?;
            (!proc::stat(pid).ok()?.dead()).then_some((pid, tag.session))
        });
        tagged.collect()
    }

    /// Starts a session with the caller's own process.
    pub(super) fn start(&self, peer: &Peer, request: StartSession) -> Result<SessionStarted, ApiError> {
        let pid = Self::check_caller(peer, &request)?;
        check_length("name", request.name.as_deref(), 128)?;
        check_length("task", request.task.as_deref(), 4096)?;
        let mut state = lock(&self.state);
        let profile = required_profile(&request)?;
        let (generation, index, mode) = state.profile(&profile)?;
        let mut session = self.describe(&state, peer, pid, (profile, index, mode), request)?;
        self.bind(&mut state, &mut session)?;
        if let Err(error) = self.put_to_work(&session, peer) {
            self.unbind(&mut state, session.binding);
            return Err(error);
        }
        Ok(self.has_begun(&mut state, session, generation))
    }

    /// The session is at work, with its first process: whoever asks is told of it from now on.
    pub(super) fn has_begun(&self, state: &mut State, session: Session, generation: u32) -> SessionStarted {
        let pid = session.root_pid;
        state.processes.forget(session.number);
        if let Err(error) = state.processes.found(pid, session.number) {
            tracing::warn!(%error, pid, "the session's first process can't be looked at");
        }
        let started = SessionStarted {
            id: session.id,
            profile: session.profile.clone(),
            mode: session.mode,
            generation,
        };
        let actor = state.actor_of_root(&session);
        self.log.say(Activity::SessionStarted(Started {
            actor,
            policy: state.policy_ref(),
            command: session.command.clone(),
            cwd: session.cwd.clone(),
            origin: session.origin,
            parent: session.outer.last().map(|outer| outer.id),
            attached: Vec::new(),
        }));
        state.sessions.insert(session.number, session);
        started
    }

    /// The caller must be the process that it says, and have one thread.
    pub(super) fn check_caller(peer: &Peer, request: &StartSession) -> Result<u32, ApiError> {
        let gone = || ApiError::new(Code::Conflict, "the calling process has ended");
        let pid = sys::pid_of(peer.pidfd.as_fd()).ok().flatten().ok_or_else(gone)?;
        let stat = proc::stat(pid).map_err(|_gone| gone())?;
        if pid != request.pid || stat.start != request.start_time {
            return Err(ApiError::new(
                Code::BadRequest,
                "pid and start_time are not the caller's own: a session starts with the process that asks \
                 (in another pid namespace this version can't start sessions)",
            ));
        }
        if stat.threads != 1 {
            let detail = format!(
                "the caller has {} threads; only a process with one can be tagged whole",
                stat.threads
            );
            return Err(ApiError::new(Code::BadRequest, detail));
        }
        Ok(pid)
    }

    /// A session that isn't known to anybody yet.
    pub(super) fn describe(
        &self,
        state: &State,
        peer: &Peer,
        pid: u32,
        (profile, index, mode): (String, u32, Mode),
        request: StartSession,
    ) -> Result<Session, ApiError> {
        let (number, slot) = self.next_session(state)?;
        Ok(Session {
            id: Ulid::new(),
            number,
            slot,
            profile,
            index,
            mode,
            name: request.name,
            task: request.task,
            command: shortened(request.command),
            cwd: proc::cwd(pid).unwrap_or(request.cwd),
            started: Time::now(),
            ended: None,
            state: SessionState::Running,
            started_by: who(peer.uid, Some(pid)),
            root_pid: pid,
            tty: proc::stat(pid).map_or(0, |stat| stat.tty_device()),
            binding: 0,
            paths: None,
            origin: Origin::Run,
            enrolled: None,
            standing: 0,
            outer: Vec::new(),
            instead: None,
        })
    }

    /// A number that no session has had, and a slot that none has.
    pub(super) fn next_session(&self, state: &State) -> Result<(u64, u32), ApiError> {
        let taken = lock(&self.maps).sessions().map_err(internal)?;
        let slot = (1..MAX_SESSIONS).find(|slot| !taken.iter().any(|(other, _)| other == slot));
        let Some(slot) = slot else {
            let detail = format!("{} sessions run, more than that can't be", taken.len());
            return Err(ApiError::new(Code::Unavailable, detail));
        };
        // Numbers grow with the clock since boot, so none comes twice, whatever daemon gives it.
        let last = state.sessions.keys().chain(taken.iter().map(|(_, slot)| &slot.id)).max().copied();
        let number = proc::boot_clock().max(last.unwrap_or_default().saturating_add(1));
        Ok((number, slot))
    }

    /// Writes file, slot and tag, in that order; takes them back if one fails.
    pub(super) fn put_to_work(&self, session: &Session, peer: &Peer) -> Result<(), ApiError> {
        self.store.write(session).map_err(internal)?;
        let slot = slot_of(session, Slot::LIVE);
        let mut maps = lock(&self.maps);
        let tag = Tag { session: session.number, slot: session.slot, ..Tag::default() };
        let process = peer.pidfd.as_fd();
        let done = maps.set_session(session.slot, &slot);
        let done = done.and_then(|()| {
            if session.outer.is_empty() { maps.tag(process, &tag) } else { maps.exchange(process, &tag) }
        });
        if let Err(error) = done {
            let undone = maps.set_session(session.slot, &Slot::default());
            if let Err(error) = undone {
                tracing::error!(%error, "a slot of a session that did not start stays taken");
            }
            if let Err(error) = self.store.remove(session.id) {
                tracing::warn!(%error, "the file of a session that did not start stays");
            }
            return Err(internal(error));
        }
        Ok(())
    }
}

impl State {
    /// Generation in force, index and mode of a profile that sessions are to have.
    pub(super) fn profile(&self, name: &str) -> Result<(u32, u32, Mode), ApiError> {
        let Some(in_force) = &self.in_force else {
            return Err(ApiError::new(
                Code::Unavailable,
                "the policy on disk is invalid, so no session can start: see agent-guard status",
            ));
        };
        let Some(index) = in_force.compiled.profile_index(name) else {
            let known = in_force.compiled.profiles.iter().map(|(name, _, _)| name.as_str());
            return Err(ApiError::unknown_profile(name, known));
        };
        let profile = in_force.summary.profiles.iter().find(|profile| profile.name == name);
        let mode = profile.map_or(Mode::Enforce, |profile| match profile.mode {
            model::Mode::Enforce => Mode::Enforce,
            model::Mode::Report => Mode::Report,
        });
        Ok((in_force.generation, index, mode))
    }

    /// A session, as events say it.
    pub(super) fn session_ref(&self, number: u64) -> Option<SessionRef> {
        self.sessions.get(&number).map(session_ref)
    }

    /// Who did it: a process, its parents, its session.
    pub(super) fn actor(&self, process: &Process) -> Actor {
        Actor {
            process: process.info(),
            parents: self.processes.parents(process).iter().map(Process::info).collect(),
            session: self.session_ref(process.session),
        }
    }

    /// A session's first process.
    pub(super) fn actor_of_root(&self, session: &Session) -> Actor {
        let known = self.processes.living(session.number).find(|process| process.pid == session.root_pid);
        let mut actor = known.map(|process| self.actor(process)).unwrap_or_default();
        if actor.process.pid == 0 {
            actor.process.pid = session.root_pid;
            actor.process.started = session.started;
            actor.process.exe = session.command.first().cloned().unwrap_or_default();
            actor.process.cmd_line = session.command.join(" ");
            actor.process.uid = session.started_by.uid;
            actor.process.user.clone_from(&session.started_by.user);
        }
        actor.session = Some(session_ref(session));
        actor
    }
}

/// The profile that a request names.
fn required_profile(request: &StartSession) -> Result<String, ApiError> {
    let none = || {
        ApiError::new(Code::BadRequest, "`profile` is missing: only a session within a session has a default")
    };
    request.profile.clone().ok_or_else(none)
}

/// What the kernel knows of a session.
pub(super) fn slot_of(session: &Session, state: u32) -> Slot {
    let rules = session.rules();
    Slot {
        id: session.number,
        profiles: [rules.index; 2],
        bindings: [rules.binding; 2],
        state,
        tty: session.tty,
        ..Slot::default()
    }
}

fn session_ref(session: &Session) -> SessionRef {
    SessionRef {
        id: session.id,
        name: session.name.clone(),
        profile: session.profile.clone(),
        mode: session.mode,
        task: session.task.clone(),
        started: session.started,
        started_by: session.started_by.clone(),
    }
}

/// A person, as the kernel names them.
pub(super) fn who(uid: u32, pid: Option<u32>) -> Who {
    Who {
        uid,
        user: sys::user_name(uid),
        login_uid: pid.and_then(proc::login_uid),
        tty: pid.and_then(|pid| proc::stat(pid).ok()?.tty_name()),
    }
}

/// A failure that is nobody's mistake.
pub(super) fn internal(error: impl std::error::Error) -> ApiError {
    tracing::error!(%error, "a request failed");
    ApiError::new(Code::Internal, error.to_string())
}
