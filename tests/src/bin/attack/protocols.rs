//! Protocols besides TCP and UDP, and ways into a connection that aren't the first `connect`.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use socket2::Socket;

use crate::Attack;
use crate::net::{Kind, connect, socket};
use crate::sys::{args, errno, errno_of, in_fork};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("fastopen-connect", fastopen_connect),
    ("connect-nonblocking", connect_nonblocking),
    ("connect-udplite", |a| connect_and_send(a, Kind::UdpLite)),
    ("sendto-udplite", |a| sendto(a, Kind::UdpLite, b"x")),
    ("connect-sctp", |a| connect(a, Kind::Sctp)),
    ("sendto-sctp", |a| sendto(a, Kind::SctpMany, b"x")),
    ("connectx-sctp", connectx),
    ("connect-dccp", connect_dccp),
    ("ping", ping),
    ("ping-connected", ping_connected),
    ("connect-in-namespace", connect_in_namespace),
    ("sendmsg-source", sendmsg_source),
];

/// An echo request with an empty checksum, which the kernel fills in: type 8 of ICMP (RFC 792), 128 of ICMPv6 (RFC 4443, 4.1).
fn echo_request(six: bool) -> [u8; 8] {
    [if six { 128 } else { 8 }, 0, 0, 0, 0, 0, 0, 1]
}

fn connect_and_send(a: &[&str], kind: Kind) -> Result<i32> {
    let [to] = args(a)?;
    let (socket, address) = socket(to, kind)?;
    Ok(errno_of(socket.connect(&address).and_then(|()| socket.send(b"x"))))
}

fn sendto(a: &[&str], kind: Kind, bytes: &[u8]) -> Result<i32> {
    let [to] = args(a)?;
    let (socket, address) = socket(to, kind)?;
    Ok(errno_of(socket.send_to(bytes, &address)))
}

fn set(socket: &Socket, level: i32, option: i32, value: i32) -> Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value))?;
    // SAFETY: a number and its size, which live through the call.
    let done = errno(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length)
    });
    anyhow::ensure!(done == 0, "option {level}/{option}: {}", tests::errno_name(done));
    Ok(())
}

/// `connect` returns at once and says nothing; the first write sends the first packet.
fn fastopen_connect(a: &[&str]) -> Result<i32> {
    let [to] = args(a)?;
    let (socket, address) = socket(to, Kind::Tcp)?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
    Ok(errno_of(socket.connect(&address).and_then(|()| socket.send(b"x"))))
}

/// Whether the kernel begins with it.
fn connect_nonblocking(a: &[&str]) -> Result<i32> {
    let [to] = args(a)?;
    let (socket, address) = socket(to, Kind::Tcp)?;
    socket.set_nonblocking(true).context("can't keep from waiting")?;
    match errno_of(socket.connect(&address)) {
        libc::EINPROGRESS => Ok(0),
        other => Ok(other),
    }
}

/// `sctp_connectx(3)`: one association to several addresses of the same peer.
fn connectx(a: &[&str]) -> Result<i32> {
    /// `SCTP_SOCKOPT_CONNECTX` (`include/uapi/linux/sctp.h`).
    const CONNECTX: i32 = 110;
    let mut list = Vec::new();
    let mut first = None;
    for to in a {
        let (socket, address) = socket(to, Kind::Sctp)?;
        // SAFETY: the address' own storage, of the length that it has.
        let bytes = unsafe {
            std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), usize::try_from(address.len())?)
        };
        list.extend_from_slice(bytes);
        first.get_or_insert(socket);
    }
    let socket = first.context("no address")?;
    let length = libc::socklen_t::try_from(list.len())?;
    // SAFETY: a list of addresses and its size, which live through the call.
    Ok(errno(unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_SCTP, CONNECTX, list.as_ptr().cast(), length)
    }))
}

fn connect_dccp(a: &[&str]) -> Result<i32> {
    /// `SOL_DCCP` and `DCCP_SOCKOPT_SERVICE` (`include/linux/socket.h`, `include/uapi/linux/dccp.h`).
    const SERVICE: (i32, i32) = (269, 2);
    let [to] = args(a)?;
    let (socket, address) = socket(to, Kind::Dccp)?;
    set(&socket, SERVICE.0, SERVICE.1, 42)?;
    Ok(errno_of(socket.connect(&address)))
}

/// The group may make such sockets by `net.ipv4.ping_group_range` only.
fn ping(a: &[&str]) -> Result<i32> {
    let [to] = args(a)?;
    sendto(a, Kind::Icmp, &echo_request(to.starts_with('[')))
}

fn ping_connected(a: &[&str]) -> Result<i32> {
    let [to] = args(a)?;
    let (socket, address) = socket(to, Kind::Icmp)?;
    let bytes = echo_request(to.starts_with('['));
    Ok(errno_of(socket.connect(&address).and_then(|()| socket.send(&bytes))))
}

/// In another network name space, by its name: `connect-in-namespace NAME ADDRESS`.
fn connect_in_namespace(a: &[&str]) -> Result<i32> {
    let [name, to] = args(a)?;
    let path = format!("/run/netns/{name}");
    let namespace = std::fs::File::open(&path).with_context(|| format!("can't open {path}"))?;
    in_fork(|| {
        // SAFETY: takes a descriptor that lives through the call; a child with one thread.
        let entered = errno(unsafe { libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWNET) });
        // What must not be mistaken for the outcome.
        if entered != 0 { libc::ENODEV } else { connect(&[to], Kind::Tcp).unwrap_or(libc::ENODEV) }
    })
}

/// A message with a source address of its own (`IP_PKTINFO`), which changes the route but not the destination:
/// `sendmsg-source SOURCE ADDRESS`.
fn sendmsg_source(a: &[&str]) -> Result<i32> {
    let [source, to] = args(a)?;
    let source: std::net::Ipv4Addr = source.parse().context("the first is no IPv4 address")?;
    let (socket, address) = socket(to, Kind::Udp)?;
    let mut message = crate::uring::Message::new(&address);
    // struct in_pktinfo: interface, local address, and one that is ignored (`include/uapi/linux/in.h`).
    let info = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from(source).to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let mut control = [0_u64; 4];
    message.header.msg_control = control.as_mut_ptr().cast();
    let size = u32::try_from(size_of_val(&info))?;
    // SAFETY: the buffer is aligned, larger than one such control message, and lives through the call.
    let sent = unsafe {
        message.header.msg_controllen = usize::try_from(libc::CMSG_SPACE(size))?;
        let first = libc::CMSG_FIRSTHDR(&raw const *message.header);
        (*first).cmsg_level = libc::IPPROTO_IP;
        (*first).cmsg_type = libc::IP_PKTINFO;
        (*first).cmsg_len = usize::try_from(libc::CMSG_LEN(size))?;
        libc::CMSG_DATA(first).cast::<libc::in_pktinfo>().write_unaligned(info);
        libc::sendmsg(socket.as_raw_fd(), &raw const *message.header, 0)
    };
    Ok(errno(i64::try_from(sent)?))
}
