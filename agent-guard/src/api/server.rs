//! Takes connections, finds out who calls, and keeps any one of them from holding up the others.

use std::{
    collections::HashMap,
    future::Future,
    io,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

use super::{
    backend::{Backend, Peer},
    routes::{Streams, router},
};

/// Connections to the control socket at the same time.
pub const MOST: usize = 512;
/// Connections to the socket for sessions at the same time. They take nothing away from those who aren't in one.
pub const MOST_OF_SESSIONS: usize = 64;
/// Connections of one user at the same time; root has what there is.
const MOST_PER_USER: usize = 32;
/// How long a client has for the head of its request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a request takes at most, unless it streams.
const WHOLE_TIME: Duration = Duration::from_secs(120);
/// How long requests that are under way have when the daemon stops.
const GRACE: Duration = Duration::from_secs(2);

/// Why the server stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listening socket can't be used.
    #[error("accept on the control socket: {0}")]
    Accept(io::Error),
}

/// Answers requests, over so many connections at the same time at most, until told to stop.
///
/// # Errors
///
/// If the listening socket can't be used.
pub async fn serve(
    listener: UnixListener,
    backend: Arc<dyn Backend>,
    most: usize,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let router = router(backend);
    let users = Users::default();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if connections.len() < most {
                        accept(stream, &router, &users, &mut connections);
                    } else {
                        tracing::warn!("too many connections to the control socket; one was closed");
                    }
                }
                Err(error) if passes(&error) => {
                    tracing::warn!(%error, "accept on the control socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(ServeError::Accept(error)),
            },
        }
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    drop(tokio::time::timeout(GRACE, ended).await);
    Ok(())
}

/// Failures to accept that go away by themselves (accept(2)).
fn passes(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::CONNABORTED, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::INTR]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn accept(stream: UnixStream, router: &Router, users: &Users, connections: &mut JoinSet<()>) {
    let peer = match peer_of(&stream) {
        Ok(peer) => peer,
        // Who is gone already gets no answer.
        Err(error) => return tracing::debug!(%error, "who called is not known"),
    };
    let Some(place) = users.place(peer.uid) else {
        return tracing::warn!(uid = peer.uid, "too many connections of one user; one was closed");
    };
    let router = router.clone();
    connections.spawn(async move {
        converse(stream, router, peer).await;
        drop(place);
    });
}

/// Who calls, as the kernel says it.
fn peer_of(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid != 0);
    let pid = pid.ok_or_else(|| io::Error::other("the peer is in another pid namespace"))?;
    let pidfd = crate::sys::peer_pidfd(stream.as_fd())?;
    Ok(Peer { uid: credentials.uid(), gid: credentials.gid(), pid, pidfd: Arc::new(pidfd) })
}

/// One request and its answer.
async fn converse(stream: UnixStream, router: Router, peer: Peer) {
    let streams = Arc::new(AtomicBool::new(false));
    let mark = Arc::clone(&streams);
    let router = router.layer(Extension(peer)).layer(from_fn(move |request, next| {
        let mark = Arc::clone(&mark);
        async move { note_stream(request, next, &mark).await }
    }));
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let result = tokio::select! {
        result = &mut connection => result,
        () = tokio::time::sleep(WHOLE_TIME) => {
            if !streams.load(Ordering::Acquire) {
                return tracing::warn!("a request on the control socket took too long");
            }
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to the control socket ended early");
    }
}

async fn note_stream(request: Request, next: Next, mark: &AtomicBool) -> Response {
    let response = next.run(request).await;
    mark.store(response.extensions().get::<Streams>().is_some(), Ordering::Release);
    response
}

/// How many connections each user has.
#[derive(Clone, Default)]
struct Users(Arc<Mutex<HashMap<u32, usize>>>);

/// One connection of a user; gives its place back when it ends.
struct Place {
    users: Users,
    uid: u32,
}

impl Users {
    fn place(&self, uid: u32) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(uid).or_default();
        if uid != 0 && *count >= MOST_PER_USER {
            return None;
        }
        *count += 1;
        Some(Place { users: self.clone(), uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.users.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests;
