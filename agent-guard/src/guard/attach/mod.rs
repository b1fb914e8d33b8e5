//! Attaching: a tree that runs already becomes a session, and nobody of it is missed.

mod rights;
mod watch;

use std::{
    os::fd::AsFd as _,
    path::Path,
    sync::{MutexGuard, TryLockError},
};

use agent_guard_common::{
    attach::{Member, Relative},
    subject::Session as Slot,
};

use self::{
    rights::processes,
    watch::{Watch, tagged},
};
use super::{
    Guard, State,
    known::check_length,
    lock,
    sessions::{internal, slot_of, who},
};
use crate::{
    api::{
        backend::Peer,
        error::{ApiError, Code},
        types::{AttachSession, Origin, SessionAttached, StartSession},
    },
    events::activity::{Activity, SessionStarted},
    session::{Session, proc},
    sys,
};

/// Why nothing was attached.
pub(super) type Refusal = ApiError;

/// It isn't safe, or can't be done.
fn refused<T>(why: String) -> Result<T, Refusal> {
    Err(ApiError::new(Code::Unavailable, why))
}

impl Guard {
    /// Makes a session of a process and all that it has started. `admin`: the caller may take everybody's.
    pub(super) fn attach_tree(
        &self,
        peer: &Peer,
        admin: bool,
        request: AttachSession,
    ) -> Result<SessionAttached, ApiError> {
        check_length("name", request.name.as_deref(), 128)?;
        check_length("task", request.task.as_deref(), 4096)?;
        let _only = self.one_at_a_time()?;
        let root = root(&request)?;
        let watch = Watch::begin(self, root)?;
        let members = watch.members()?;
        if !processes(&members).contains(&root.tgid) {
            return refused(format!("process {} has ended, or is the kernel's own", root.tgid));
        }
        self.check_untagged(&members)?;
        Self::check_members(peer, admin, root.tgid, &members)?;
        let (session, generation) = self.prepare(peer, root.tgid, &request)?;
        let (id, profile, mode) = (session.id, session.profile.clone(), session.mode);
        // What it has open is looked at without a lock: that can take time.
        let looked = self.check_rights(&watch, &session, &members);
        let (members, session) = self.take(&watch, session, generation, looked)?;
        // From here on there is no way back: a tag is never taken away.
        let whole = members.and_then(|members| {
            Self::check_members(peer, admin, root.tgid, &members)?;
            // What was opened since the first look was judged by nobody.
            self.check_rights(&watch, &session, &members)?;
            lock(&self.state).still(generation)?;
            watch.members()
        });
        let members = whole.map_err(|mut error| {
            error.detail = format!(
                "session {id} has begun and stays, but it isn't what was asked for: {}. What is tagged is judged by \
                 {profile} and stays so; `agent-guard session kill {id}` ends it",
                error.detail
            );
            error
        })?;
        Ok(SessionAttached {
            id,
            profile,
            mode,
            generation,
            processes: processes(&members),
            threads: u64::try_from(members.len()).unwrap_or(u64::MAX),
            since_ns: watch.since,
        })
    }

    /// A session that has file and slot, and nobody in it; and the generation that it was made for.
    fn prepare(&self, peer: &Peer, root: u32, request: &AttachSession) -> Result<(Session, u32), ApiError> {
        let mut state = lock(&self.state);
        let (generation, index, mode) = state.profile(&request.profile)?;
        let profile = (request.profile.clone(), index, mode);
        let mut session = self.describe(&state, peer, root, profile, as_started(root, request))?;
        session.origin = Origin::Attach;
        session.started_by = who(peer.uid, sys::pid_of(peer.pidfd.as_fd()).ok().flatten());
        if state.has_own_paths(&session.profile) {
            same_directory(&session)?;
        }
        self.bind(&mut state, &mut session)?;
        match self.begin(&session) {
            Ok(()) => Ok((session, generation)),
            Err(error) => {
                self.unbind(&mut state, session.binding);
                Err(error)
            }
        }
    }

    /// Tags the tree and takes the session in, if it may be; else nothing is left of the session. Its tasks, or why not all
    /// of them are tagged.
    fn take(
        &self,
        watch: &Watch<'_>,
        session: Session,
        generation: u32,
        looked: Result<(), ApiError>,
    ) -> Result<(Result<Vec<Member>, ApiError>, Session), ApiError> {
        let mut state = lock(&self.state);
        let may = looked.and_then(|()| state.still(generation)).and_then(|()| watch.members());
        if let Err(error) = may.and_then(|members| self.check_untagged(&members)) {
            self.abandon(&mut state, &session);
            return Err(error);
        }
        let tagged = watch.tag(&session);
        let members = match &tagged {
            Ok(members) => members.clone(),
            Err(_) => watch.members().unwrap_or_default(),
        };
        self.take_in(&mut state, session.clone(), &members);
        Ok((tagged, session))
    }

    fn one_at_a_time(&self) -> Result<MutexGuard<'_, ()>, ApiError> {
        match self.attaching.try_lock() {
            Ok(only) => Ok(only),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => refused("another tree is being attached; try again".to_owned()),
        }
    }

    /// Nobody of it may belong to a session.
    fn check_untagged(&self, members: &[Member]) -> Result<(), ApiError> {
        let Some((pid, session)) = tagged(self, members) else { return Ok(()) };
        let detail = format!(
            "process {pid} belongs to session {session} already; what is attached must belong to none"
        );
        Err(ApiError::new(Code::Conflict, detail))
    }

    /// Who may attach which tree.
    fn check_members(peer: &Peer, admin: bool, root: u32, members: &[Member]) -> Result<(), ApiError> {
        let pids = processes(members);
        if pids.contains(&std::process::id()) {
            let detail =
                format!("process {root} has started the guard itself, which can't be its own session");
            return Err(ApiError::new(Code::NotPermitted, detail));
        }
        if admin {
            return Ok(());
        }
        for pid in pids {
            match proc::all_uids(pid) {
                Ok(uids) if uids.iter().all(|uid| *uid == peer.uid) => {}
                Ok(_) => {
                    let detail = format!(
                        "process {pid} runs as another user than uid {}: attaching it needs root or membership of group \
                         agent-guard",
                        peer.uid
                    );
                    return Err(ApiError::new(Code::NotPermitted, detail));
                }
                Err(error) if crate::session::open::has_gone(&error) => {}
                Err(error) => return refused(format!("whose process {pid} is can't be told: {error}")),
            }
        }
        Ok(())
    }

    /// Writes file and slot, in that order, before anybody has the tag; takes them back if one fails.
    pub(super) fn begin(&self, session: &Session) -> Result<(), ApiError> {
        self.store.write(session).map_err(internal)?;
        let done = lock(&self.maps).set_session(session.slot, &slot_of(session, Slot::LIVE));
        done.map_err(|error| {
            if let Err(error) = self.store.remove(session.id) {
                tracing::warn!(%error, "the file of a session that did not start stays");
            }
            internal(error)
        })
    }

    /// Takes back what [`Guard::begin`] and `bind` have done.
    pub(super) fn abandon(&self, state: &mut State, session: &Session) {
        if let Err(error) = lock(&self.maps).set_session(session.slot, &Slot::default()) {
            tracing::error!(%error, "a slot of a session that did not start stays taken");
        }
        if let Err(error) = self.store.remove(session.id) {
            tracing::warn!(%error, "the file of a session that did not start stays");
        }
        self.unbind(state, session.binding);
    }

    /// The session is at work: whoever asks is told of it from now on.
    fn take_in(&self, state: &mut State, session: Session, members: &[Member]) {
        state.processes.forget(session.number);
        let pids = processes(members);
        for pid in &pids {
            if let Err(error) = state.processes.found(*pid, session.number) {
                tracing::debug!(%error, pid, "gone meanwhile");
            }
        }
        let actor = state.actor_of_root(&session);
        self.log.say(Activity::SessionStarted(SessionStarted {
            actor,
            policy: state.policy_ref(),
            command: session.command.clone(),
            cwd: session.cwd.clone(),
            origin: session.origin,
            parent: None,
            attached: pids,
        }));
        state.sessions.insert(session.number, session);
    }
}

impl State {
    /// What was judged by a generation says nothing about the next.
    fn still(&self, generation: u32) -> Result<(), ApiError> {
        match &self.in_force {
            Some(in_force) if in_force.generation == generation => Ok(()),
            _ => refused("the policy was loaded anew meanwhile".to_owned()),
        }
    }
}

/// The process that the caller means: number and start agree with what this daemon sees.
fn root(request: &AttachSession) -> Result<Relative, ApiError> {
    let pid = request.pid;
    if pid <= 1 {
        return Err(ApiError::new(
            Code::NotPermitted,
            "everything that runs descends from process 1: say which part",
        ));
    }
    let gone = |error: std::io::Error| {
        ApiError::new(Code::NotFound, format!("no process {pid} (a thread's number won't do): {error}"))
    };
    let process = proc::open(pid).map_err(gone)?;
    let stat = proc::stat(pid).map_err(gone)?;
    if stat.start != request.start_time {
        return Err(ApiError::new(
            Code::BadRequest,
            format!(
                "process {pid} isn't the one that the caller sees: it has ended, or the caller is in another pid namespace, \
                 from which this version can't attach"
            ),
        ));
    }
    // The descriptor was taken first: if it is still of that number, so was what was looked at.
    if sys::pid_of(process.as_fd()).map_err(gone)? != Some(pid) {
        return Err(gone(std::io::ErrorKind::NotFound.into()));
    }
    Ok(Relative { start: stat.start, tgid: pid, pad: 0 })
}

/// Whether the path of its directory means to us what it means to the process, which may have other mounts.
pub(super) fn same_directory(session: &Session) -> Result<(), ApiError> {
    let mounts = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/mnt")).ok();
    let root = std::fs::read_link(format!("/proc/{}/root", session.root_pid)).ok();
    let ours = mounts("self");
    if ours.is_some()
        && ours == mounts(&session.root_pid.to_string())
        && root.is_some_and(|root| root == Path::new("/"))
    {
        return Ok(());
    }
    refused(format!(
        "process {} is in another mount namespace or root directory, where the policy's paths mean something else",
        session.root_pid
    ))
}

/// As if the process had been started by `run`.
fn as_started(pid: u32, request: &AttachSession) -> StartSession {
    StartSession {
        profile: Some(request.profile.clone()),
        task: request.task.clone(),
        name: request.name.clone(),
        command: proc::words(pid),
        cwd: proc::cwd(pid).unwrap_or_default(),
        pid,
        start_time: request.start_time,
    }
}
