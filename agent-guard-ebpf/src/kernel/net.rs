//! Sockets and addresses.

use agent_guard_common::{
    Fault,
    net::{effective, inner, mapped},
    object::AbstractName,
};

use aya_ebpf::helpers::generated::{bpf_skc_to_unix_sock, bpf_sock_from_file};

use super::{File, Path, load, offset, probe, probe_at};

/// `AF_UNSPEC`, `AF_UNIX`, `AF_INET`, `AF_INET6` (`include/linux/socket.h`).
const AF_UNSPEC: u16 = 0;
pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;

/// `SOCK_SEQPACKET` (`include/linux/net.h`).
pub const SOCK_SEQPACKET: u16 = 5;

/// `IPPROTO_UDP`, `IPPROTO_UDPLITE` (`include/uapi/linux/in.h`).
const IPPROTO_UDP: u16 = 17;
const IPPROTO_UDPLITE: u16 = 136;

/// `TCP_LISTEN` (`include/net/tcp_states.h`): also of protocols that aren't TCP.
const LISTENS: u8 = 10;

/// `struct socket *`.
#[derive(Clone, Copy)]
pub struct Socket(pub *const u8);

/// `struct sock *`.
#[derive(Clone, Copy)]
pub struct Sock(pub *const u8);

/// `struct unix_sock *`, typed.
#[derive(Clone, Copy)]
pub struct UnixSocket(*const u8);

/// Place of the path in a `struct sockaddr_un` (`include/uapi/linux/un.h`).
const SUN_PATH: u64 = 2;

/// `struct msghdr *`.
#[derive(Clone, Copy)]
pub struct Message(pub *const u8);

/// Where a socket wants to go.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Address {
    /// Family of the address, `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Port in host order.
    pub port: u16,
    /// The address that the kernel goes to; IPv4 mapped.
    pub addr: [u8; 16],
}

impl Address {
    /// None.
    pub const NONE: Self = Self { family: 0, port: 0, addr: [0; 16] };
}

/// An address that was read word by word, which is four loads instead of sixteen.
#[inline(always)]
fn octets(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: of the same size, and bytes can be anything.
    unsafe { core::mem::transmute(words) }
}

impl Socket {
    /// The one behind a file; none if that is no socket.
    #[inline(always)]
    pub fn of(file: File) -> Option<Self> {
        // SAFETY: the helper takes a file, which the verifier checks.
        let socket = unsafe { bpf_sock_from_file(file.0.cast_mut().cast()) };
        if socket.is_null() { None } else { Some(Self(socket.cast_const().cast())) }
    }

    /// What is behind it; none for a socket that is being closed.
    #[inline(always)]
    pub fn sk(self) -> Option<Sock> {
        let sk = load!(self.0, socket_sk, *const u8);
        if sk.is_null() { None } else { Some(Sock(sk)) }
    }
}

impl Sock {
    /// Address family of the socket, not of an address, which the caller chooses.
    #[inline(always)]
    pub fn family(self) -> u16 {
        load!(self.0, sock_family, u16)
    }

    /// Protocol, `IPPROTO_*`.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        load!(self.0, sock_protocol, u16)
    }

    /// Type, `SOCK_*`.
    #[inline(always)]
    pub fn kind(self) -> u16 {
        load!(self.0, sock_type, u16)
    }

    /// Whether it listens.
    #[inline(always)]
    pub fn listens(self) -> bool {
        load!(self.0, sock_state, u8) == LISTENS
    }

    /// The network name space that it is in, by its number; 0 if that can't be told.
    #[inline(always)]
    pub fn namespace(self) -> u64 {
        let net = load!(self.0, sock_net, u64);
        probe!(net, net_cookie, u64).unwrap_or(0)
    }

    /// Whether it can be connected to many at once, and says of none where they are: SCTP's sockets that aren't connected one by
    /// one. Only of the Internet's families.
    #[inline(always)]
    pub fn has_many(self) -> bool {
        self.kind() == SOCK_SEQPACKET
    }

    /// Whether it is connected to nobody; only of the Internet's families.
    #[inline(always)]
    pub fn is_nowhere(self) -> bool {
        if load!(self.0, sock_dport, u16) != 0 {
            return false;
        }
        let Address { addr, .. } = self.peer();
        addr == [0; 16] || addr == mapped([0; 4])
    }

    /// Where it is connected to; only of the Internet's families. Port 0 and the unspecified address if it isn't.
    #[inline(always)]
    pub fn peer(self) -> Address {
        let port = u16::from_be(load!(self.0, sock_dport, u16));
        if self.family() == AF_INET {
            let addr = mapped(load!(self.0, sock_daddr, u32).to_ne_bytes());
            return Address { family: AF_INET, port, addr };
        }
        Address { family: AF_INET6, port, addr: octets(load!(self.0, sock_v6_daddr, [u32; 4])) }
    }

    /// What it is bound to; only of the Internet's families.
    #[inline(always)]
    pub fn local(self) -> Address {
        let port = load!(self.0, sock_num, u16);
        if self.family() == AF_INET {
            let addr = mapped(load!(self.0, sock_rcv_saddr, u32).to_ne_bytes());
            return Address { family: AF_INET, port, addr };
        }
        Address { family: AF_INET6, port, addr: inner(octets(load!(self.0, sock_v6_rcv_saddr, [u32; 4]))) }
    }

    /// What an address means to this socket. False where it means no destination: sockets of other families, and
    /// a connect that takes the destination away.
    ///
    /// The address is the kernel's own copy (`move_addr_to_kernel`), so it can't change any more.
    #[inline(always)]
    pub fn destination(self, at: u64, length: u32, sending: bool, to: &mut Address) -> Result<bool, Fault> {
        let (family, protocol) = (self.family(), self.protocol());
        if family != AF_INET && family != AF_INET6 {
            return Ok(false);
        }
        if length < 2 {
            return Ok(false); // The kernel refuses it too (`EINVAL`).
        }
        let named = probe_at::<u16>(at).ok_or(Fault::ADDRESS)?;
        // `udp_sendmsg` takes an unspecified family for IPv4. `udpv6_sendmsg` takes it for no address at all, but others
        // (`rawv6_sendmsg`, `l2tp_ip6_sendmsg`) for IPv6.
        let named = match (named, family) {
            (AF_UNSPEC, AF_INET) if sending => AF_INET,
            (AF_UNSPEC, AF_INET6) if sending && protocol != IPPROTO_UDP && protocol != IPPROTO_UDPLITE => {
                AF_INET6
            }
            _ => named,
        };
        // Where the address begins, and how long the whole must be.
        let (offset, whole) = match named {
            AF_INET => (4, 8),
            AF_INET6 if family == AF_INET6 => (8, 24),
            AF_UNSPEC => return Ok(false),
            // Families that these sockets don't take: what isn't understood isn't allowed.
            _ => return Err(Fault::ADDRESS),
        };
        if length < whole {
            return Err(Fault::ADDRESS);
        }
        let port = probe_at::<[u8; 2]>(at.wrapping_add(2)).ok_or(Fault::ADDRESS)?;
        to.family = named;
        to.port = u16::from_be_bytes(port);
        let at = at.wrapping_add(offset);
        let addr = if named == AF_INET { probe_at(at).map(mapped) } else { probe_at(at) };
        to.addr = effective(addr.ok_or(Fault::ADDRESS)?);
        Ok(true)
    }

    /// Where an address to bind to is. False where there is nothing to judge: sockets of other families, and no port, which
    /// is what clients bind to.
    ///
    /// The address is the kernel's own copy, as above.
    #[inline(always)]
    pub fn binding(self, at: u64, length: u32, to: &mut Address) -> Result<bool, Fault> {
        let family = self.family();
        if family != AF_INET && family != AF_INET6 {
            return Ok(false);
        }
        if length < 2 {
            return Ok(false); // The kernel refuses it too (`EINVAL`).
        }
        // `inet_bind` takes an unspecified family for IPv4, if the address is none.
        let (named, offset, whole) = match (probe_at::<u16>(at).ok_or(Fault::ADDRESS)?, family) {
            (AF_UNSPEC | AF_INET, AF_INET) => (AF_INET, 4, 8),
            (AF_INET6, AF_INET6) => (AF_INET6, 8, 24),
            _ => return Err(Fault::ADDRESS),
        };
        if length < whole {
            return Err(Fault::ADDRESS);
        }
        let port = probe_at::<[u8; 2]>(at.wrapping_add(2)).ok_or(Fault::ADDRESS)?;
        to.family = named;
        to.port = u16::from_be_bytes(port);
        let at = at.wrapping_add(offset);
        let addr = if named == AF_INET { probe_at(at).map(mapped) } else { probe_at(at) };
        to.addr = inner(addr.ok_or(Fault::ADDRESS)?);
        Ok(to.port != 0)
    }
}

impl Message {
    /// Address that the message names, and its length; none for a connected socket.
    #[inline(always)]
    pub fn name(self) -> Option<(u64, u32)> {
        let at = load!(self.0, msghdr_msg_name, u64);
        if at == 0 { None } else { Some((at, load!(self.0, msghdr_msg_namelen, u32))) }
    }
}

impl Sock {
    /// The same as a Unix socket, typed; none if it isn't one.
    #[inline(always)]
    pub fn unix(self) -> Option<UnixSocket> {
        // SAFETY: the helper takes a socket, which the verifier checks.
        let unix = unsafe { bpf_skc_to_unix_sock(self.0.cast_mut().cast()) };
        if unix.is_null() { None } else { Some(UnixSocket(unix.cast_const().cast())) }
    }
}

impl UnixSocket {
    /// Where it is bound to; only if it is bound to a file.
    #[inline(always)]
    pub fn path(self) -> Path {
        Path(self.0.wrapping_add(offset!(unix_sock_path)))
    }

    /// Its abstract name, where the kernel has it, and how long it is: none for a socket that is not bound. Of one that
    /// is bound to a file it must not be asked.
    #[inline(always)]
    pub fn abstract_name(self) -> Result<Option<(u64, u32)>, Fault> {
        let address = load!(self.0, unix_sock_addr, u64);
        if address == 0 {
            return Ok(None);
        }
        let length = probe!(address, unix_address_len, u32).ok_or(Fault::READ)?;
        let path = address.wrapping_add(offset!(unix_address_name) as u64).wrapping_add(SUN_PATH);
        let first = probe_at::<u8>(path).ok_or(Fault::READ)?;
        // The family, and the zero byte that no path begins with.
        let name = length.wrapping_sub(SUN_PATH as u32 + 1);
        if first != 0 || name > AbstractName::MAX {
            return Err(Fault::ADDRESS);
        }
        Ok(Some((path.wrapping_add(1), name)))
    }
}
