//! What the API needs: who may do what, and the answers.

use std::{os::fd::AsFd as _, sync::Arc};

use ulid::Ulid;

use super::{
    Guard, State, lock,
    policy::{Refused, no_policy, warnings},
    sessions::{internal, who},
};
use crate::{
    api::{
        backend::{Backend, EventLines, Peer},
        convert,
        error::{ApiError, Code},
        types::{
            Approvals, AttachSession, EventQuery, ExplainRequest, ExplanationView, HoldInfo, Killed,
            PolicyView, Reloaded, SessionAttached, SessionInfo, SessionStarted, SessionTree, Sessions,
            StartSession, Status, TreeProcess, Who,
        },
    },
    events::activity::{Activity, SessionKilled},
    session::{Session, processes::Process},
    sys,
};

/// Members of it may do what root may, except answer what was asked of root.
const GROUP: &str = "agent-guard";

impl Guard {
    /// A tagged caller is refused, whoever it runs as.
    fn untagged(&self, peer: &Peer) -> Result<(), ApiError> {
        match lock(&self.maps).tag_of(peer.pidfd.as_fd()) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(ApiError::new(
                Code::TaggedCaller,
                "an agent session can't talk to its guard; ask a person outside of it",
            )),
            // It has ended, or can't be looked at: nobody can say that it isn't tagged.
            Err(error) => Err(ApiError::new(
                Code::NotPermitted,
                format!("whether the caller belongs to a session can't be told: {error}"),
            )),
        }
    }

    fn admin(&self, peer: &Peer) -> bool {
        peer.uid == 0 || sys::in_group(peer.uid, peer.gid, GROUP)
    }

    fn require_admin(&self, peer: &Peer, what: &str) -> Result<(), ApiError> {
        self.untagged(peer)?;
        if self.admin(peer) {
            return Ok(());
        }
        Err(ApiError::new(Code::NotPermitted, format!("{what} needs root or membership of group {GROUP}")))
    }

    fn may_see(&self, peer: &Peer, session: &Session) -> bool {
        session.started_by.uid == peer.uid || self.admin(peer)
    }

    /// The session, if the caller may see it. Who may not isn't told whether there is one.
    pub(super) fn visible<'a>(
        &self,
        state: &'a State,
        peer: &Peer,
        id: Ulid,
    ) -> Result<&'a Session, ApiError> {
        let session = state.session_by_id(id).filter(|session| self.may_see(peer, session));
        session.ok_or_else(|| ApiError::not_found("session", id))
    }

    fn caller(&self, peer: &Peer) -> Who {
        who(peer.uid, sys::pid_of(peer.pidfd.as_fd()).ok().flatten())
    }

    fn may_see_hold(&self, peer: &Peer, state: &State, hold: &HoldInfo) -> bool {
        self.admin(peer)
            || state.session_by_id(hold.session).is_some_and(|session| self.may_see(peer, session))
    }
}

impl Backend for Guard {
    fn start_session(&self, peer: &Peer, request: StartSession) -> Result<SessionStarted, ApiError> {
        self.untagged(peer)?;
        self.start(peer, request)
    }

    fn attach_session(&self, peer: &Peer, request: AttachSession) -> Result<SessionAttached, ApiError> {
        self.untagged(peer)?;
        self.attach_tree(peer, self.admin(peer), request)
    }

    fn sessions(&self, peer: &Peer) -> Result<Sessions, ApiError> {
        self.untagged(peer)?;
        let state = lock(&self.state);
        let mut sessions: Vec<SessionInfo> = state
            .sessions
            .values()
            .filter(|session| self.may_see(peer, session))
            .map(|session| info(&state, session))
            .collect();
        sessions.sort_by_key(|session| std::cmp::Reverse((session.started, session.id)));
        Ok(Sessions { sessions })
    }

    fn session(&self, peer: &Peer, id: Ulid) -> Result<SessionInfo, ApiError> {
        self.untagged(peer)?;
        let state = lock(&self.state);
        let session = self.visible(&state, peer, id)?;
        Ok(info(&state, session))
    }

    fn tree(&self, peer: &Peer, id: Ulid) -> Result<SessionTree, ApiError> {
        self.untagged(peer)?;
        let state = lock(&self.state);
        let session = self.visible(&state, peer, id)?;
        Ok(tree_of(&state, session))
    }

    fn kill(&self, peer: &Peer, id: Ulid) -> Result<Killed, ApiError> {
        self.untagged(peer)?;
        let number = {
            let state = lock(&self.state);
            let session = self.visible(&state, peer, id)?;
            if session.ended.is_some() {
                return Err(ApiError::new(Code::Conflict, format!("session {id} has ended")));
            }
            session.number
        };
        let killed = self.kill_session(number)?;
        let state = lock(&self.state);
        for (number, processes) in &killed {
            let Some(session) = state.sessions.get(number) else { continue };
            self.log.say(Activity::SessionKilled(SessionKilled {
                actor: state.actor_of_root(session),
                by: self.caller(peer),
                through: None,
                processes: *processes,
            }));
        }
        let processes = killed.iter().fold(0, |sum: u64, (_, processes)| sum.saturating_add(*processes));
        Ok(Killed { session: id, processes })
    }

    fn holds(&self, peer: &Peer, all: bool) -> Result<Approvals, ApiError> {
        self.untagged(peer)?;
        let state = lock(&self.state);
        let approvals = state
            .holds
            .values()
            .filter(|hold| (all || hold.waits()) && self.may_see_hold(peer, &state, &hold.info))
            .map(|hold| HoldInfo { waited_ms: hold.waited_ms(), ..hold.info.clone() })
            .collect();
        Ok(Approvals { approvals })
    }

    fn hold(&self, peer: &Peer, id: Ulid) -> Result<HoldInfo, ApiError> {
        self.untagged(peer)?;
        let state = lock(&self.state);
        let hold = state.holds.get(&id).filter(|hold| self.may_see_hold(peer, &state, &hold.info));
        let hold = hold.ok_or_else(|| ApiError::not_found("approval", id))?;
        Ok(HoldInfo { waited_ms: hold.waited_ms(), ..hold.info.clone() })
    }

    fn answer(
        &self,
        peer: &Peer,
        id: Ulid,
        approve: bool,
        comment: Option<String>,
    ) -> Result<HoldInfo, ApiError> {
        self.untagged(peer)?;
        if peer.uid != 0 {
            return Err(ApiError::new(Code::NotPermitted, "only root answers holds"));
        }
        self.give(id, approve, self.caller(peer), comment)
    }

    fn policy(&self, peer: &Peer) -> Result<PolicyView, ApiError> {
        self.untagged(peer)?;
        let state = lock(&self.state);
        let Some(in_force) = &state.in_force else { return Err(no_policy()) };
        let mut view = convert::policy(
            &in_force.summary,
            in_force.generation,
            in_force.loaded,
            &in_force.compiled.warnings,
            |rule| self.hooks_of(rule),
        );
        view.warnings = warnings(&state);
        Ok(view)
    }

    fn reload(&self, peer: &Peer) -> Result<Reloaded, ApiError> {
        self.require_admin(peer, "reloading the policy")?;
        if let Err(error) = self.log.reopen() {
            tracing::error!(%error, "the event log can't be opened anew");
        }
        self.reload_policy(Some(self.caller(peer))).map_err(|refused| match refused {
            Refused::Invalid(diagnostics) => convert::invalid_policy(&diagnostics),
            Refused::Source(error) => ApiError::new(Code::InvalidPolicy, error.to_string()),
            Refused::Kernel(error) => internal(error),
        })
    }

    fn explain(&self, peer: &Peer, request: ExplainRequest) -> Result<ExplanationView, ApiError> {
        self.untagged(peer)?;
        self.explanation(peer, &request)
    }

    fn events(&self, peer: &Peer, query: EventQuery) -> Result<EventLines, ApiError> {
        self.untagged(peer)?;
        if !self.admin(peer) {
            let Some(id) = query.session else {
                return Err(ApiError::new(
                    Code::NotPermitted,
                    format!("all events are for root and group {GROUP}; yours are there with --session ID"),
                ));
            };
            let state = lock(&self.state);
            self.visible(&state, peer, id)?;
        }
        Arc::clone(&self.log).stream(query).map_err(internal)
    }

    fn status(&self, peer: &Peer) -> Result<Status, ApiError> {
        self.untagged(peer)?;
        self.how_it_is().map_err(internal)
    }
}

pub(super) fn info(state: &State, session: &Session) -> SessionInfo {
    let processes = state.processes.living(session.number).count();
    session.info(u64::try_from(processes).unwrap_or(u64::MAX))
}

/// A session's processes.
pub(super) fn tree_of(state: &State, session: &Session) -> SessionTree {
    let mut living: Vec<&Process> = state.processes.living(session.number).collect();
    living.sort_by_key(|process| (process.start, process.pid));
    SessionTree { session: session.id, origin: session.origin, processes: tree(state, &living) }
}

/// A flat tree: each process before its children.
fn tree(state: &State, living: &[&Process]) -> Vec<TreeProcess> {
    let inside = |pid: u32| living.iter().any(|process| process.pid == pid);
    let mut out = Vec::new();
    let mut stack: Vec<(&Process, u32)> =
        living.iter().rev().filter(|process| !inside(process.ppid)).map(|process| (*process, 0)).collect();
    while let Some((process, depth)) = stack.pop() {
        let waits = |hold: &&crate::hold::Hold| hold.waits() && hold.info.process.pid == process.pid;
        out.push(TreeProcess {
            process: process.info(),
            parent: process.ppid,
            depth,
            hold: state.holds.values().find(waits).map(|hold| hold.info.id),
        });
        let children =
            living.iter().rev().filter(|child| child.ppid == process.pid && child.pid != process.pid);
        stack.extend(children.map(|child| (*child, depth + 1)));
        if out.len() >= living.len() {
            break;
        }
    }
    out
}
