//! Being reached: binding to addresses of the host's, listening, accepting.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::Attack;
use crate::connected;
use crate::sys::{args, errno_of};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("bind", bind),
    ("listen", listen),
    ("listen-unbound", listen_unbound),
    ("listen-twice", listen_twice),
    ("listen-keep", listen_keep),
    ("accept-kept", accept_kept),
    ("accept-fd", accept_fd),
];

/// How long somebody may take to connect.
const PATIENCE: Duration = Duration::from_secs(20);

/// A socket that can be bound, and where: `tcp`, `udp`, `mptcp`, `sctp`, `udplite`.
fn socket(kind: &str, at: &str) -> Result<(Socket, SockAddr)> {
    let address: SocketAddr = at.parse().with_context(|| format!("{at:?} is no address with a port"))?;
    let (kind, protocol) = match kind {
        "tcp" => (Type::STREAM, Protocol::TCP),
        "udp" => (Type::DGRAM, Protocol::UDP),
        "mptcp" => (Type::STREAM, Protocol::MPTCP),
        "sctp" => (Type::STREAM, Protocol::SCTP),
        "udplite" => (Type::DGRAM, Protocol::from(libc::IPPROTO_UDPLITE)),
        other => bail!("{other} is none of tcp, udp, mptcp, sctp and udplite"),
    };
    let socket =
        Socket::new(Domain::for_address(address), kind, Some(protocol)).context("can't make a socket")?;
    // What the attempt before has left doesn't keep this one from the address.
    socket.set_reuse_address(true).context("can't use the address again")?;
    if address.is_ipv6() {
        socket.set_only_v6(false).context("can't let the socket talk IPv4")?;
    }
    Ok((socket, address.into()))
}

/// `bind KIND ADDRESS`.
fn bind(a: &[&str]) -> Result<i32> {
    let [kind, at] = args(a)?;
    let (socket, address) = socket(kind, at)?;
    Ok(errno_of(socket.bind(&address)))
}

/// Binds and listens; the first errno of the two: `listen KIND ADDRESS`.
fn listen(a: &[&str]) -> Result<i32> {
    let [kind, at] = args(a)?;
    let (socket, address) = socket(kind, at)?;
    Ok(errno_of(socket.bind(&address).and_then(|()| socket.listen(8))))
}

/// Listens without a word about where: the kernel takes some port of all addresses. `listen-unbound 4|6`.
fn listen_unbound(a: &[&str]) -> Result<i32> {
    let [version] = args(a)?;
    let domain = if version == "6" { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).context("can't make a socket")?;
    Ok(errno_of(socket.listen(8)))
}

/// Beside somebody who listens at the same port (`SO_REUSEPORT`) already: the second's errno. `listen-twice KIND ADDRESS`.
fn listen_twice(a: &[&str]) -> Result<i32> {
    let [kind, at] = args(a)?;
    let ((first, address), (second, _)) = (socket(kind, at)?, socket(kind, at)?);
    for socket in [&first, &second] {
        socket.set_reuse_port(true).context("can't share the port")?;
    }
    match errno_of(first.bind(&address).and_then(|()| first.listen(8))) {
        0 => Ok(errno_of(second.bind(&address).and_then(|()| second.listen(8)))),
        failed => Ok(failed),
    }
}

/// Listens until the process ends, under a name: `listen-keep NAME KIND ADDRESS`.
fn listen_keep(a: &[&str]) -> Result<i32> {
    let [name, kind, at] = args(a)?;
    let (socket, address) = socket(kind, at)?;
    let outcome = errno_of(socket.bind(&address).and_then(|()| socket.listen(8)));
    if outcome == 0 {
        connected::keep(name, socket)?;
    }
    Ok(outcome)
}

/// Takes a connection that somebody has made: `accept-kept NAME`.
fn accept_kept(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    connected::with(name, accept)
}

/// The same at a descriptor that was inherited: `accept-fd FD`. `EBADF` if it is closed.
fn accept_fd(a: &[&str]) -> Result<i32> {
    let [fd] = args(a)?;
    connected::with_fd(fd, accept)
}

fn accept(socket: &Socket) -> Result<i32> {
    socket.set_read_timeout(Some(PATIENCE)).context("can't set how long to wait")?;
    let accepted = socket.accept();
    anyhow::ensure!(socket.as_raw_fd() >= 0, "the socket has gone");
    Ok(errno_of(accepted))
}
