//! What the API needs of the rest of the daemon.

use std::{os::fd::OwnedFd, sync::Arc};

use tokio::sync::mpsc;
use ulid::Ulid;

use super::{
    error::ApiError,
    types::{
        Approvals, AttachSession, EventQuery, ExplainRequest, ExplanationView, HoldInfo, Killed, PolicyView,
        Reloaded, SessionAttached, SessionInfo, SessionStarted, SessionTree, Sessions, StartSession, Status,
    },
};

/// Who calls, as the kernel says it: nothing here comes from the request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Effective user id when the socket was connected.
    pub uid: u32,
    /// Effective group id when the socket was connected.
    pub gid: u32,
    /// Process that connected the socket.
    pub pid: u32,
    /// The same process, so that a pid which is used again can't be mistaken for it.
    pub pidfd: Arc<OwnedFd>,
}

/// Lines of JSON, one event each, without the newline. The backend stops when the receiver is gone.
pub type EventLines = mpsc::Receiver<String>;

/// The daemon behind the API. It decides who may do what, the tagged caller included; the API only
/// says who calls.
///
/// The methods may block: each call runs on a thread where that is allowed.
pub trait Backend: Send + Sync + 'static {
    /// Makes a session and gives the caller's process its tag.
    ///
    /// # Errors
    ///
    /// If the process isn't tagged when this returns.
    fn start_session(&self, peer: &Peer, request: StartSession) -> Result<SessionStarted, ApiError>;

    /// Makes a session of a running process and all that it has started.
    ///
    /// # Errors
    ///
    /// If not all of it is tagged when this returns, or it has something open that the session couldn't open.
    fn attach_session(&self, peer: &Peer, request: AttachSession) -> Result<SessionAttached, ApiError>;

    /// The sessions that the caller may see.
    ///
    /// # Errors
    ///
    /// If the caller may not ask.
    fn sessions(&self, peer: &Peer) -> Result<Sessions, ApiError>;

    /// One session.
    ///
    /// # Errors
    ///
    /// If there is none that the caller may see.
    fn session(&self, peer: &Peer, id: Ulid) -> Result<SessionInfo, ApiError>;

    /// Its processes.
    ///
    /// # Errors
    ///
    /// If there is none that the caller may see.
    fn tree(&self, peer: &Peer, id: Ulid) -> Result<SessionTree, ApiError>;

    /// Kills all of its processes.
    ///
    /// # Errors
    ///
    /// If the caller may not, or it has ended.
    fn kill(&self, peer: &Peer, id: Ulid) -> Result<Killed, ApiError>;

    /// The holds that the caller may see; `all` with those that were answered.
    ///
    /// # Errors
    ///
    /// If the caller may not ask.
    fn holds(&self, peer: &Peer, all: bool) -> Result<Approvals, ApiError>;

    /// One hold.
    ///
    /// # Errors
    ///
    /// If there is none that the caller may see.
    fn hold(&self, peer: &Peer, id: Ulid) -> Result<HoldInfo, ApiError>;

    /// Answers a hold.
    ///
    /// # Errors
    ///
    /// If the caller may not, or it doesn't wait any more.
    fn answer(
        &self,
        peer: &Peer,
        id: Ulid,
        approve: bool,
        comment: Option<String>,
    ) -> Result<HoldInfo, ApiError>;

    /// The policy in force.
    ///
    /// # Errors
    ///
    /// If the caller may not ask, or there is none.
    fn policy(&self, peer: &Peer) -> Result<PolicyView, ApiError>;

    /// Reads the policy again.
    ///
    /// # Errors
    ///
    /// If the caller may not, or the policy has errors: then the old one stays in force.
    fn reload(&self, peer: &Peer) -> Result<Reloaded, ApiError>;

    /// What the policy in force would say.
    ///
    /// # Errors
    ///
    /// If the caller may not ask, or the question can't be answered.
    fn explain(&self, peer: &Peer, request: ExplainRequest) -> Result<ExplanationView, ApiError>;

    /// Events, those of the past first. See [`crate::events::log::EventLog::stream`].
    ///
    /// # Errors
    ///
    /// If the caller may not ask, or the log can't be read.
    fn events(&self, peer: &Peer, query: EventQuery) -> Result<EventLines, ApiError>;

    /// How the guard is.
    ///
    /// # Errors
    ///
    /// If the caller may not ask.
    fn status(&self, peer: &Peer) -> Result<Status, ApiError>;
}
