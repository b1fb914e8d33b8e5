//! Families of sockets: what is no connection over IPv4, IPv6 or Unix sockets, or knows no address to judge.

use std::os::fd::AsRawFd;

use anyhow::{Context, Result};

use crate::Attack;
use crate::sys::{args, errno, open, own};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("socket", |a| args(a).and_then(|[name]| Ok(socket(find(name)?)))),
    ("socketpair", |a| args(a).and_then(|[name]| Ok(socketpair(find(name)?)))),
    ("open-tun", |_| Ok(open_tun())),
];

/// Family, type and protocol, as `socket(2)` takes them.
#[derive(Clone, Copy)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) domain: i32,
    pub(crate) kind: i32,
    pub(crate) protocol: i32,
}

const fn family(name: &'static str, domain: i32, kind: i32, protocol: i32) -> Family {
    Family { name, domain, kind, protocol }
}

/// By name. Numbers that the C library has no name for are those of `include/linux/socket.h` and `include/uapi/linux`.
const FAMILIES: &[Family] = &[
    family("tcp", libc::AF_INET, libc::SOCK_STREAM, 0),
    family("udp6", libc::AF_INET6, libc::SOCK_DGRAM, 0),
    family("unix", libc::AF_UNIX, libc::SOCK_STREAM, 0),
    family("netlink-route", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
    family("netlink-audit", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
    family("netlink-connector", libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_CONNECTOR),
    family("netlink-sock-diag", libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_SOCK_DIAG),
    family("netlink-generic", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_GENERIC),
    family("netlink-netfilter", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
    family("netlink-uevent", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT),
    family("raw", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP),
    family("raw-own-header", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW),
    family("raw6", libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
    family("packet", libc::AF_PACKET, libc::SOCK_RAW, 0),
    family("packet-dgram", libc::AF_PACKET, libc::SOCK_DGRAM, 0),
    // SOCK_PACKET of AF_INET, which the kernel turns into a packet socket (`__sock_create`).
    family("packet-old", libc::AF_INET, 10, 0),
    family("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
    family("vsock-dgram", libc::AF_VSOCK, libc::SOCK_DGRAM, 0),
    family("alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
    family("bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW, 1),
    family("xdp", libc::AF_XDP, libc::SOCK_RAW, 0),
    family("smc", 43, libc::SOCK_STREAM, 0),
    family("smc6", 43, libc::SOCK_STREAM, 1),
    // IPPROTO_SMC, from 6.11 on.
    family("smc-inet", libc::AF_INET, libc::SOCK_STREAM, 256),
    family("rds", libc::AF_RDS, libc::SOCK_SEQPACKET, 0),
    family("tipc", libc::AF_TIPC, libc::SOCK_SEQPACKET, 0),
    // KCMPROTO_CONNECTED.
    family("kcm", 41, libc::SOCK_SEQPACKET, 0),
    family("dccp", libc::AF_INET, 6, 33),
    family("l2tp", libc::AF_INET, libc::SOCK_DGRAM, 115),
    family("sctp", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
];

/// A family by its name.
pub(crate) fn find(name: &str) -> Result<Family> {
    FAMILIES
        .iter()
        .find(|family| family.name == name)
        .copied()
        .with_context(|| format!("no family of sockets is called {name}"))
}

fn socket(family: Family) -> i32 {
    // SAFETY: takes numbers.
    let made = own(unsafe { libc::socket(family.domain, family.kind | libc::SOCK_CLOEXEC, family.protocol) });
    made.err().unwrap_or_default()
}

fn socketpair(family: Family) -> i32 {
    let mut pair = [-1; 2];
    let kind = family.kind | libc::SOCK_CLOEXEC;
    // SAFETY: takes numbers, and two descriptors for the kernel to fill.
    let made = errno(unsafe { libc::socketpair(family.domain, kind, family.protocol, pair.as_mut_ptr()) });
    if made == 0 {
        pair.into_iter().for_each(|fd| drop(own(fd)));
    }
    made
}

/// A network device whose other end is this process; it goes with the descriptor.
fn open_tun() -> i32 {
    /// `TUNSETIFF`, and `IFF_TUN | IFF_NO_PI` (`include/uapi/linux/if_tun.h`).
    const SET: (libc::c_ulong, i16) = (0x4004_54ca, 0x1001);
    let file = match open("/dev/net/tun", libc::O_RDWR) {
        Ok(file) => file,
        Err(errno) => return errno,
    };
    // SAFETY: plain bytes, for which zero means no name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags = SET.1;
    // SAFETY: a structure that lives through the call.
    errno(unsafe { libc::ioctl(file.as_raw_fd(), SET.0, &raw mut request) })
}
