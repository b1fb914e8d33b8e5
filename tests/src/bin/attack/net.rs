//! Sockets: every call that names a destination.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::Attack;
use crate::sys::{args, errno, errno_of};
use crate::unix;
use crate::uring::Message;

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("connect", |a| connect(a, Kind::Tcp)),
    ("connect-udp", connect_udp),
    ("connect-mptcp", |a| connect(a, Kind::Mptcp)),
    ("connect-seqpacket", |a| connect(a, Kind::Seqpacket)),
    ("connect-unspec-again", connect_unspec_again),
    ("connect-again-udp", connect_again_udp),
    ("fastopen", fastopen),
    ("sendto", sendto),
    ("sendto-connected", sendto_connected),
    ("sendto-unspec", sendto_unspec),
    ("sendmsg", sendmsg),
    ("sendmmsg", sendmmsg),
];

/// What a socket speaks.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    Mptcp,
    Seqpacket,
    UdpLite,
    Sctp,
    /// SCTP with many associations at one socket.
    SctpMany,
    Dccp,
    /// Echo requests, without a raw socket.
    Icmp,
}

/// `SOCK_DCCP` and `IPPROTO_DCCP` (`include/linux/net.h`, `include/uapi/linux/in.h`).
const DCCP: (i32, i32) = (6, 33);

/// A socket for an address, and the address as the kernel takes it. `[::ffff:1.2.3.4]:5` makes it an IPv6
/// socket that talks IPv4; `unix:PATH` and `unix:@NAME` make it a Unix socket.
pub(crate) fn socket(to: &str, kind: Kind) -> Result<(Socket, SockAddr)> {
    if let Some(address) = unix::address(to)? {
        return Ok((unix::socket(kind)?, address));
    }
    let address: SocketAddr = to.parse().with_context(|| format!("{to:?} is no address with a port"))?;
    let (kind, protocol) = match kind {
        Kind::Tcp => (Type::STREAM, Protocol::TCP),
        Kind::Udp => (Type::DGRAM, Protocol::UDP),
        Kind::Mptcp => (Type::STREAM, Protocol::MPTCP),
        Kind::UdpLite => (Type::DGRAM, Protocol::from(libc::IPPROTO_UDPLITE)),
        Kind::Sctp => (Type::STREAM, Protocol::SCTP),
        Kind::SctpMany => (Type::SEQPACKET, Protocol::SCTP),
        Kind::Dccp => (Type::from(DCCP.0), Protocol::from(DCCP.1)),
        Kind::Icmp if address.is_ipv6() => (Type::DGRAM, Protocol::ICMPV6),
        Kind::Icmp => (Type::DGRAM, Protocol::ICMPV4),
        Kind::Seqpacket => bail!("only Unix sockets are like that"),
    };
    let socket =
        Socket::new(Domain::for_address(address), kind, Some(protocol)).context("can't make a socket")?;
    if address.is_ipv6() {
        socket.set_only_v6(false).context("can't let the socket talk IPv4")?;
    }
    Ok((socket, address.into()))
}

/// An address for a socket that there is.
pub(crate) fn address(to: &str) -> Result<SockAddr> {
    match unix::address(to)? {
        Some(address) => Ok(address),
        None => Ok(to.parse::<SocketAddr>().context("the second is no address")?.into()),
    }
}

pub(crate) fn connect(a: &[&str], kind: Kind) -> Result<i32> {
    let [to] = args(a)?;
    let (socket, address) = socket(to, kind)?;
    Ok(errno_of(socket.connect(&address)))
}

/// Connects, then sends one byte, so that the other side can tell.
fn connect_udp(a: &[&str]) -> Result<i32> {
    let [to] = args(a)?;
    let (socket, address) = socket(to, Kind::Udp)?;
    Ok(errno_of(socket.connect(&address).and_then(|()| socket.send(b"x"))))
}

/// Connects where it may, lets go, and connects the same socket where it may not.
fn connect_unspec_again(a: &[&str]) -> Result<i32> {
    let [allowed, to] = args(a)?;
    let (socket, first) = socket(allowed, Kind::Tcp)?;
    socket.connect(&first).context("can't connect where it is allowed")?;
    // SAFETY: plain integers, for which zero means an unspecified family.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = libc::socklen_t::try_from(size_of_val(&nowhere))?;
    // SAFETY: an address of that length, which lives through the call.
    let gone = errno(unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) });
    anyhow::ensure!(gone == 0, "can't disconnect: {}", tests::errno_name(gone));
    let second: SocketAddr = to.parse().context("the second is no address")?;
    Ok(errno_of(socket.connect(&second.into())))
}

/// A datagram socket can be connected elsewhere at any time.
fn connect_again_udp(a: &[&str]) -> Result<i32> {
    let [allowed, to] = args(a)?;
    let (socket, first) = socket(allowed, Kind::Udp)?;
    socket.connect(&first).context("can't connect where it is allowed")?;
    Ok(errno_of(socket.connect(&address(to)?).and_then(|()| socket.send(b"x"))))
}

/// TCP that sends with its first packet, and so needs no connect.
fn fastopen(a: &[&str]) -> Result<i32> {
    let [to] = args(a)?;
    let (socket, address) = socket(to, Kind::Tcp)?;
    Ok(errno_of(socket.send_to_with_flags(b"x", &address, libc::MSG_FASTOPEN)))
}

fn sendto(a: &[&str]) -> Result<i32> {
    let [to] = args(a)?;
    let (socket, address) = socket(to, Kind::Udp)?;
    Ok(errno_of(socket.send_to(b"x", &address)))
}

/// From a socket that is connected where it may be.
fn sendto_connected(a: &[&str]) -> Result<i32> {
    let [allowed, to] = args(a)?;
    let (socket, first) = socket(allowed, Kind::Udp)?;
    socket.connect(&first).context("can't connect where it is allowed")?;
    Ok(errno_of(socket.send_to(b"x", &address(to)?)))
}

/// The kernel takes an unspecified family for IPv4 (`udp_sendmsg`).
fn sendto_unspec(a: &[&str]) -> Result<i32> {
    let [to] = args(a)?;
    let (socket, address) = socket(to, Kind::Udp)?;
    let (SocketAddr::V4(_), length) = (address.as_socket().context("no address")?, address.len()) else {
        anyhow::bail!("only IPv4 sockets take an unspecified family for their own");
    };
    // SAFETY: the storage is as large as any address, and a copy.
    let mut unnamed = unsafe { address.as_ptr().cast::<libc::sockaddr_in>().read() };
    unnamed.sin_family = libc::sa_family_t::try_from(libc::AF_UNSPEC)?;
    let (byte, at) = (b"x".as_ptr().cast(), (&raw const unnamed).cast());
    // SAFETY: one byte and an address of that length, which live through the call.
    let sent = unsafe { libc::sendto(socket.as_raw_fd(), byte, 1, 0, at, length) };
    Ok(errno(i64::try_from(sent)?))
}

fn sendmsg(a: &[&str]) -> Result<i32> {
    let [to] = args(a)?;
    let (socket, address) = socket(to, Kind::Udp)?;
    let message = Message::new(&address);
    // SAFETY: the message and all it points to live through the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const *message.header, 0) };
    Ok(errno(i64::try_from(sent)?))
}

/// Two messages in one call, the first where it may go: a call that is judged by its first only lets the
/// second through. Answers the errno of sending the second alone if the first went and the second didn't.
fn sendmmsg(a: &[&str]) -> Result<i32> {
    let [allowed, to] = args(a)?;
    let (socket, first) = socket(allowed, Kind::Udp)?;
    let second = address(to)?;
    let (first, second) = (Message::new(&first), Message::new(&second));
    let mut both = [&first, &second].map(|message| libc::mmsghdr { msg_hdr: *message.header, msg_len: 0 });
    // SAFETY: two messages that, with all they point to, live through the call.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), both.as_mut_ptr(), 2, 0) };
    match sent {
        2 => Ok(0),
        1 => {
            let [_, last] = &mut both;
            // SAFETY: one message that, with all it points to, lives through the call.
            Ok(errno(unsafe { libc::sendmmsg(socket.as_raw_fd(), last, 1, 0) }))
        }
        other => Ok(errno(other)),
    }
}
