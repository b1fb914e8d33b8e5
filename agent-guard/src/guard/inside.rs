//! The API as sessions have it, over a socket of their own: whoever calls there can read the session that they belong to, start
//! another one in it, and nothing else. The control socket stays out of their reach, whatever the daemon believes of a caller.

use std::{os::fd::AsFd as _, sync::Arc};

use agent_guard_common::subject::Tag;
use ulid::Ulid;

use super::{
    Guard, State,
    backend::{info, tree_of},
    lock,
};
use crate::{
    api::{
        backend::{Backend, EventLines, Peer},
        error::{ApiError, Code},
        types::{
            Approvals, AttachSession, EventQuery, ExplainRequest, ExplanationView, HoldInfo, Killed,
            PolicyView, Reloaded, SessionAttached, SessionInfo, SessionStarted, SessionTree, Sessions,
            StartSession, Status,
        },
    },
    session::Session,
};

/// The daemon, for sessions.
pub(super) struct Inside(pub(super) Arc<Guard>);

impl Inside {
    /// The caller's tag, read anew for each request.
    fn tag(&self, peer: &Peer) -> Result<Tag, ApiError> {
        match lock(&self.0.maps).tag_of(peer.pidfd.as_fd()) {
            Ok(Some(tag)) => Ok(tag),
            Ok(None) => Err(ApiError::new(
                Code::NotPermitted,
                "this socket is for agent sessions, and the caller belongs to none: use the control socket",
            )),
            Err(error) => Err(ApiError::new(
                Code::NotPermitted,
                format!("which session the caller belongs to can't be told: {error}"),
            )),
        }
    }

    /// Asks about the caller's own session; about another one as if there were none.
    fn own<T>(
        &self,
        peer: &Peer,
        id: Option<Ulid>,
        ask: impl FnOnce(&State, &Session) -> T,
    ) -> Result<T, ApiError> {
        let tag = self.tag(peer)?;
        let state = lock(&self.0.state);
        let own = state.sessions.get(&tag.session);
        match own.filter(|own| id.is_none_or(|id| id == own.id)) {
            Some(own) => Ok(ask(&state, own)),
            None => Err(refused("about another session nothing can be asked")),
        }
    }
}

fn refused(what: &str) -> ApiError {
    let detail = format!(
        "an agent session reads itself and starts sessions within itself: {what}; ask a person outside of it"
    );
    ApiError::new(Code::TaggedCaller, detail)
}

fn no<T>(what: &str) -> Result<T, ApiError> {
    Err(refused(what))
}

impl Backend for Inside {
    fn start_session(&self, peer: &Peer, request: StartSession) -> Result<SessionStarted, ApiError> {
        self.tag(peer)?;
        self.0.start_nested(peer, request)
    }

    fn attach_session(&self, _: &Peer, _: AttachSession) -> Result<SessionAttached, ApiError> {
        no("it attaches nothing")
    }

    fn sessions(&self, peer: &Peer) -> Result<Sessions, ApiError> {
        self.own(peer, None, |state, own| Sessions { sessions: vec![info(state, own)] })
    }

    fn session(&self, peer: &Peer, id: Ulid) -> Result<SessionInfo, ApiError> {
        self.own(peer, Some(id), info)
    }

    fn tree(&self, peer: &Peer, id: Ulid) -> Result<SessionTree, ApiError> {
        self.own(peer, Some(id), tree_of)
    }

    fn kill(&self, _: &Peer, _: Ulid) -> Result<Killed, ApiError> {
        no("it kills none")
    }

    fn holds(&self, _: &Peer, _: bool) -> Result<Approvals, ApiError> {
        no("what waits for people isn't shown to it")
    }

    fn hold(&self, _: &Peer, _: Ulid) -> Result<HoldInfo, ApiError> {
        no("what waits for people isn't shown to it")
    }

    fn answer(&self, _: &Peer, _: Ulid, _: bool, _: Option<String>) -> Result<HoldInfo, ApiError> {
        no("it answers nothing")
    }

    fn policy(&self, _: &Peer) -> Result<PolicyView, ApiError> {
        no("the policy isn't shown to it")
    }

    fn reload(&self, _: &Peer) -> Result<Reloaded, ApiError> {
        no("it loads no policy")
    }

    fn explain(&self, _: &Peer, _: ExplainRequest) -> Result<ExplanationView, ApiError> {
        no("the policy isn't explained to it")
    }

    fn events(&self, _: &Peer, _: EventQuery) -> Result<EventLines, ApiError> {
        no("events aren't shown to it")
    }

    fn status(&self, _: &Peer) -> Result<Status, ApiError> {
        no("how the guard is isn't shown to it")
    }
}
