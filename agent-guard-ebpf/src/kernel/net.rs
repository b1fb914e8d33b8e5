//! Sockets and addresses.

use agent_guard_common::{
    Fault,
    object::{effective, mapped},
};

use super::{Untyped, load, offset, probe, probe_at};

/// `AF_UNSPEC`, `AF_INET`, `AF_INET6` (`include/linux/socket.h`).
const AF_UNSPEC: u16 = 0;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// `IPPROTO_UDP`, `IPPROTO_UDPLITE` (`include/uapi/linux/in.h`).
const IPPROTO_UDP: u32 = 17;
const IPPROTO_UDPLITE: u32 = 136;

/// `struct socket *`.
#[derive(Clone, Copy)]
pub struct Socket(pub *const u8);

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

impl Socket {
    /// Address family of the socket (not of an address, which the caller chooses) and protocol, `IPPROTO_*`. None for a
    /// socket that is being closed.
    #[inline(always)]
    fn sock(self) -> Option<(u16, u32)> {
        let sk = load!(self.0, socket_sk, *const u8);
        if sk.is_null() {
            return None;
        }
        Some((load!(sk, sock_family, u16), load!(sk, sock_protocol, u16) as u32))
    }

    /// Protocol, `IPPROTO_*`.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        self.sock().map_or(0, |(_, protocol)| protocol as u16)
    }

    /// What an address means to this socket. False where it means no destination: sockets of other families, and
    /// a connect that takes the destination away.
    ///
    /// The address is the kernel's own copy (`move_addr_to_kernel`), so it can't change any more.
    #[inline(always)]
    pub fn destination(self, at: u64, length: u32, sending: bool, to: &mut Address) -> Result<bool, Fault> {
        let Some((family, protocol)) = self.sock() else { return Err(Fault::READ) };
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
}

impl Message {
    /// Address that the message names, and its length; none for a connected socket.
    #[inline(always)]
    pub fn name(self) -> Option<(u64, u32)> {
        let at = load!(self.0, msghdr_msg_name, u64);
        if at == 0 { None } else { Some((at, load!(self.0, msghdr_msg_namelen, u32))) }
    }
}

/// Where a Unix socket is bound to; dentry 0 for nowhere.
#[inline(always)]
pub fn unix_path(sk: u64) -> Option<Untyped> {
    let path = sk.wrapping_add(offset!(unix_sock_path) as u64);
    Some(Untyped { dentry: probe!(path, path_dentry, u64)?, mount: probe!(path, path_mnt, u64)? })
}
