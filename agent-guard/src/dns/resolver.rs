//! The resolver as a whole: its sockets, its tasks, and what it works with.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hickory_resolver::net::NetError;
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

use super::{
    Config, Scope,
    answer::{Answerer, State},
    hosts::Hosts,
    serve,
    upstream::Upstreams,
};

/// How often the host's files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often a port is looked for that is free for datagrams and for connections.
const TRIES: usize = 16;

/// Why the resolver can't start, or can't work as it is told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no socket to be had.
    #[error("can't listen on {address} for {what}")]
    Listen {
        /// Where it should have been; port 0 stands for any.
        address: SocketAddr,
        /// What it should have been for.
        what: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// A zone can't be used.
    #[error("the zone {name:?} can't be used: {error}")]
    Zone {
        /// As it was given.
        name: String,
        /// What is wrong with it.
        error: String,
    },
    /// The part that asks name servers can't be set up.
    #[error("name servers can't be asked")]
    Client(#[source] NetError),
}

/// Where the resolver listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// For datagrams, and for connections, over IPv4. The ports are the same, if one was free for both.
    pub v4: (SocketAddr, SocketAddr),
    /// The same over IPv6; `None` if this host has no IPv6 loopback.
    pub v6: Option<(SocketAddr, SocketAddr)>,
}

/// The resolver. It ends when it is dropped.
pub struct Resolver {
    addresses: Addresses,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    answerer: Arc<Answerer>,
    /// What the files of the host were when they were read. Held while another state is made, so that none is lost.
    read: Mutex<Stamps>,
}

/// What tells a file from what it was before.
type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

/// Of the two files of the host.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamps {
    resolv_conf: Stamp,
    hosts: Stamp,
}

impl Resolver {
    /// Listens on loopback, and answers from then on.
    ///
    /// # Errors
    ///
    /// If there are no sockets to be had, or the configuration can't be used. That there is no IPv6 is none.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(config: Config, scope: Arc<dyn Scope>) -> Result<Self, Error> {
        let stamps = Stamps::of(&config);
        let state = State {
            upstreams: Arc::new(Upstreams::new(&config)?),
            hosts: Arc::new(Hosts::read(&config.hosts)),
            config,
        };
        let shared =
            Arc::new(Shared { answerer: Arc::new(Answerer::new(scope, state)), read: Mutex::new(stamps) });
        let v4 = listen(Ipv4Addr::LOCALHOST.into())?;
        let v6 = match listen(Ipv6Addr::LOCALHOST.into()) {
            Err(Error::Listen { address, source, .. }) if no_such_family(&source) => {
                tracing::warn!(%address, %source, "no IPv6 loopback: DNS is answered over IPv4 only");
                None
            }
            listening => Some(listening?),
        };
        let addresses = Addresses { v4: v4.addresses, v6: v6.as_ref().map(|pair| pair.addresses) };
        let mut tasks = vec![tokio::spawn(look_after(Arc::clone(&shared)))];
        for pair in [Some(v4), v6].into_iter().flatten() {
            tasks.push(tokio::spawn(serve::datagrams(pair.socket, Arc::clone(&shared.answerer))));
            tasks.push(tokio::spawn(serve::connections(pair.listener, Arc::clone(&shared.answerer))));
        }
        Ok(Self { addresses, shared, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Works with another configuration from the next query on; nothing that was learned with the old one is kept. Reads the
    /// host's files.
    ///
    /// # Errors
    ///
    /// If it can't be used: the old one stays.
    pub fn reconfigure(&self, config: Config) -> Result<(), Error> {
        let mut read = self.shared.read();
        let stamps = Stamps::of(&config);
        let upstreams = Arc::new(Upstreams::new(&config)?);
        let hosts = Arc::new(Hosts::read(&config.hosts));
        self.shared.answerer.set_state(State { config, upstreams, hosts });
        *read = stamps;
        Ok(())
    }

    /// Whether all of it is at work. If not, something has gone wrong that shouldn't be possible, and DNS is answered in part
    /// or not at all.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// Ends, and waits until nothing is left of it.
    pub async fn stop(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!(%error, "a task of the resolver has panicked");
            }
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    /// What is behind the lock is whole at any time.
    fn read(&self) -> MutexGuard<'_, Stamps> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the host's files anew if they have changed.
    fn look(&self) {
        let mut read = self.read();
        let state = self.answerer.state();
        let stamps = Stamps::of(&state.config);
        if stamps == *read {
            return;
        }
        let config = state.config.clone();
        let mut upstreams = Arc::clone(&state.upstreams);
        if stamps.resolv_conf != read.resolv_conf && config.upstreams.is_empty() {
            match Upstreams::new(&config) {
                Ok(new) => upstreams = Arc::new(new),
                Err(error) => {
                    tracing::error!(%error, "the host's name servers have changed and can't be used");
                    return;
                }
            }
        }
        let hosts = if stamps.hosts == read.hosts {
            Arc::clone(&state.hosts)
        } else {
            Arc::new(Hosts::read(&config.hosts))
        };
        self.answerer.set_state(State { config, upstreams, hosts });
        *read = stamps;
    }
}

impl Stamps {
    fn of(config: &Config) -> Self {
        Self { resolv_conf: stamp(&config.resolv_conf), hosts: stamp(&config.hosts) }
    }
}

fn stamp(path: &Path) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    let (modified, changed) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
    Some((file.dev(), file.ino(), file.size(), modified, changed))
}

/// Does what has to be done from time to time.
async fn look_after(shared: Arc<Shared>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        shared.answerer.books().tidy(std::time::Instant::now());
        let files = Arc::clone(&shared);
        if let Err(error) = tokio::task::spawn_blocking(move || files.look()).await {
            tracing::error!(%error, "looking at the host's files");
        }
    }
}

/// A socket for datagrams and one for connections.
struct Pair {
    socket: UdpSocket,
    listener: TcpListener,
    addresses: (SocketAddr, SocketAddr),
}

fn listen(loopback: IpAddr) -> Result<Pair, Error> {
    let any = SocketAddr::new(loopback, 0);
    let mut last = None;
    for _ in 0..TRIES {
        let (socket, at) = datagrams_at(any)?;
        match connections_at(at) {
            Ok((listener, both)) => return Ok(Pair { socket, listener, addresses: (at, both) }),
            Err(_taken) => last = Some((socket, at)),
        }
    }
    let (socket, at) = match last {
        Some(last) => last,
        None => datagrams_at(any)?,
    };
    let (listener, other) = connections_at(any)?;
    Ok(Pair { socket, listener, addresses: (at, other) })
}

fn datagrams_at(address: SocketAddr) -> Result<(UdpSocket, SocketAddr), Error> {
    let error = |source| Error::Listen { address, what: "datagrams", source };
    let socket = std::net::UdpSocket::bind(address).map_err(error)?;
    socket.set_nonblocking(true).map_err(error)?;
    let socket = UdpSocket::from_std(socket).map_err(error)?;
    let at = socket.local_addr().map_err(error)?;
    Ok((socket, at))
}

fn connections_at(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let error = |source| Error::Listen { address, what: "connections", source };
    let listener = std::net::TcpListener::bind(address).map_err(error)?;
    listener.set_nonblocking(true).map_err(error)?;
    let listener = TcpListener::from_std(listener).map_err(error)?;
    let at = listener.local_addr().map_err(error)?;
    Ok((listener, at))
}

/// Whether the kernel has no such addresses: the protocol, or the address on this host.
fn no_such_family(error: &io::Error) -> bool {
    [libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT].map(Some).contains(&error.raw_os_error())
}
