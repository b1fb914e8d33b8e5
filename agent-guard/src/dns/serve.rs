//! Sockets: datagrams and connections in, answers out.
//!
//! The server of hickory-server has no bound on connections, tries again at once, and forever, when it is out of descriptors, and
//! logs each query. So messages are taken in here; what they say is still read and written by hickory-proto.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use super::{Transport, answer::Answerer, books::Place};

/// Datagrams that are being answered. What comes meanwhile waits in the socket, and is lost if there is too much of it: who
/// sends it asks again.
const MOST_DATAGRAMS: usize = 2048;
/// Bytes of a query in a datagram. A name has at most 255; the rest is for options.
const LONGEST_DATAGRAM: usize = 4096;
/// Connections of all sessions. Each session has a limit of its own, too.
const MOST_CONNECTIONS: usize = 512;
/// Connections of those whom the guard doesn't know. Any process of the host can make some; they take no session's place.
const MOST_STRANGERS: usize = 32;
/// How long nothing is taken in after something has gone wrong with the socket itself.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers datagrams for as long as it is let.
pub(super) async fn datagrams(socket: UdpSocket, answerer: Arc<Answerer>) {
    let (socket, mut tasks) = (Arc::new(socket), JoinSet::new());
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    loop {
        reap(&mut tasks);
        if tasks.len() >= MOST_DATAGRAMS {
            tasks.join_next().await;
        }
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "receiving queries");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(query) = buffer.get(..length).map(<[u8]>::to_vec) else { continue };
        let (socket, answerer) = (Arc::clone(&socket), Arc::clone(&answerer));
        tasks.spawn(async move {
            let Some(answer) = answerer.answer(&query, Transport::Udp, from).await else { return };
            if let Err(error) = socket.send_to(&answer, from).await {
                tracing::debug!(%error, %from, "an answer doesn't arrive");
            }
        });
    }
}

/// Answers over connections for as long as it is let.
pub(super) async fn connections(listener: TcpListener, answerer: Arc<Answerer>) {
    let places = [MOST_CONNECTIONS, MOST_STRANGERS].map(|most| Arc::new(Semaphore::new(most)));
    let mut tasks = JoinSet::new();
    loop {
        reap(&mut tasks);
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting connections");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(place) = place(&answerer, &places, from) else {
            answerer.no_connection(from);
            continue;
        };
        let answerer = Arc::clone(&answerer);
        tasks.spawn(async move {
            let _place = place;
            if let Err(error) = converse(stream, from, &answerer).await {
                tracing::debug!(%error, %from, "a connection");
            }
        });
    }
}

/// Takes away what has ended. What has panicked has given no answer.
fn reap(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.try_join_next() {
        if let Err(error) = ended {
            tracing::error!(%error, "answering a query");
        }
    }
}

/// A place for a connection, if there is one.
fn place(
    answerer: &Answerer,
    [clients, strangers]: &[Arc<Semaphore>; 2],
    from: SocketAddr,
) -> Option<(OwnedSemaphorePermit, Option<Place>)> {
    let its = answerer.connection(from).ok()?;
    let all = if its.is_some() { clients } else { strangers };
    Some((Arc::clone(all).try_acquire_owned().ok()?, its))
}

/// Answers one query after the other (RFC 7766, section 6.2.1.1; each with its length in front: RFC 1035, section 4.2.2) until
/// the client has no more, or says nothing for too long.
async fn converse(mut stream: TcpStream, from: SocketAddr, answerer: &Answerer) -> io::Result<()> {
    let idle = answerer.state().config.idle;
    let mut query = Vec::new();
    loop {
        let length = match timeout(idle, stream.read_u16()).await? {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            length => length?,
        };
        query.resize(length.into(), 0);
        timeout(idle, stream.read_exact(&mut query)).await??;
        let Some(answer) = answerer.answer(&query, Transport::Tcp, from).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let mut message = length.to_be_bytes().to_vec();
        message.extend_from_slice(&answer);
        timeout(idle, stream.write_all(&message)).await??;
    }
}
