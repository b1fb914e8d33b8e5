//! How addresses are named in maps, and what counts as the same address.

/// What a connection is made with, as rules tell it apart. On the wire a byte: `IPPROTO_*` of the protocol that stands for its
/// kin (`include/uapi/linux/in.h`).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Protocol(pub u8);

impl Protocol {
    /// Any: of a rule that names none.
    pub const ANY: Self = Self(0);
    /// ICMP and ICMPv6: echo requests without a raw socket. It has no ports.
    pub const ICMP: Self = Self(1);
    /// TCP, Multipath TCP included.
    pub const TCP: Self = Self(6);
    /// UDP, UDP-Lite included.
    pub const UDP: Self = Self(17);
    /// SCTP.
    pub const SCTP: Self = Self(132);

    /// Those that rules name.
    pub const ALL: [Self; 4] = [Self::ICMP, Self::TCP, Self::UDP, Self::SCTP];

    /// The protocol of a socket, by the number that the kernel has (`sock.sk_protocol`).
    #[inline(always)]
    #[must_use]
    pub const fn of(number: u16) -> Self {
        match number {
            // IPPROTO_MPTCP, IPPROTO_UDPLITE, IPPROTO_ICMPV6.
            262 => Self::TCP,
            136 => Self::UDP,
            58 => Self::ICMP,
            // Numbers that aren't protocols of the Internet's: no rule that names a protocol is about them.
            256.. => Self(255),
            number => Self(number as u8),
        }
    }

    /// The name that policy and command line use; nothing for others than [`Protocol::ALL`].
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::ICMP => Some("icmp"),
            Self::TCP => Some("tcp"),
            Self::UDP => Some("udp"),
            Self::SCTP => Some("sctp"),
            _ => None,
        }
    }

    /// The protocol with that name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == Some(name))
    }
}

/// Where a socket wants to go, or what it wants to listen at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The address; IPv4 mapped.
    pub addr: [u8; 16],
    /// Port in host order; 0 where the protocol has none.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// An address in a network table: what a longest-prefix match runs over.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NetKey {
    /// Index of the profile, big-endian, so that its bits come first in the prefix. The highest bit is set for what may be
    /// listened at ([`NetKey::listening`]).
    pub profile: [u8; 4],
    /// IPv6 address; IPv4 in its mapped form, `::ffff:a.b.c.d`.
    pub addr: [u8; 16],
}

impl NetKey {
    /// Bits of the profile, which every prefix has in full.
    pub const PROFILE_BITS: u32 = 32;
    /// Bits of a whole key.
    pub const BITS: u32 = 160;

    /// The key of an address as one profile sees it.
    #[inline(always)]
    #[must_use]
    pub const fn new(profile: u32, addr: [u8; 16]) -> Self {
        Self { profile: profile.to_be_bytes(), addr }
    }

    /// The profile that keys of addresses to listen at have.
    #[inline(always)]
    #[must_use]
    pub const fn listening(profile: u32) -> u32 {
        profile | 1 << 31
    }
}

/// An address that a session has from asking for a name.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NamedKey {
    /// The address, as [`effective`] has it; IPv4 mapped.
    pub addr: [u8; 16],
    /// The number of the session.
    pub session: u64,
}

impl NamedKey {
    /// The key of an address for one session.
    #[inline(always)]
    #[must_use]
    pub const fn new(session: u64, addr: [u8; 16]) -> Self {
        Self { addr, session }
    }
}

/// Who asks the daemon's resolver from some place.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Question {
    /// The number of the session.
    pub session: u64,
    /// The process.
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
}

/// From where a session asks the daemon's resolver for names, in the network name space of the daemon.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Asker {
    /// Port, in host order.
    pub port: u16,
    /// [`Protocol::UDP`] or [`Protocol::TCP`].
    pub protocol: Protocol,
    /// Zero.
    pub pad: u8,
}

/// IPv4 in its IPv6 form, `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
#[inline(always)]
#[must_use]
pub const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}

/// The IPv4 address that an IPv6 address stands for, mapped; any other address as it is.
///
/// Compatible (RFC 4291, 2.5.5.1; not `::` and `::1`), translated (`::ffff:0:a.b.c.d`, RFC 2765, 2.1), of a translator with the
/// well-known prefix (`64:ff9b::/96`, RFC 6052, 2.1) and of 6to4 (`2002::/16`, RFC 3056, 2).
#[inline(always)]
#[must_use]
pub const fn inner(addr: [u8; 16]) -> [u8; 16] {
    let whole = u128::from_be_bytes(addr);
    let (head, tail) = ((whole >> 64) as u64, whole as u64);
    let v4 = if head >> 48 == 0x2002 {
        (head >> 16) as u32
    } else {
        let carries = match (head, tail >> 32) {
            (0, 0) => tail > 1,
            (0, 0xffff_0000) | (0x0064_ff9b_0000_0000, 0) => true,
            _ => false,
        };
        if !carries {
            return addr;
        }
        tail as u32
    };
    mapped(v4.to_be_bytes())
}

/// The address that the kernel really goes to: the one inside of another, and for the unspecified address the host itself
/// (`ip_route_connect`, `__ip6_datagram_connect` and `tcp_v6_connect`, Linux 6.1).
#[inline(always)]
#[must_use]
pub fn effective(addr: [u8; 16]) -> [u8; 16] {
    const LOOPBACK4: [u8; 16] = mapped([127, 0, 0, 1]);
    const LOOPBACK6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let addr = inner(addr);
    if addr == [0; 16] {
        LOOPBACK6
    } else if addr == mapped([0; 4]) {
        LOOPBACK4
    } else {
        addr
    }
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: bytes.
    unsafe impl aya::Pod for super::NetKey {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::NamedKey {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Asker {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Question {}
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn v6(text: &str) -> [u8; 16] {
        text.parse::<Ipv6Addr>().unwrap().octets()
    }

    #[test]
    fn keys_have_no_padding() {
        assert_eq!(size_of::<NetKey>() * 8, NetKey::BITS as usize);
        assert_eq!(size_of::<NamedKey>(), 24);
        assert_eq!(size_of::<Asker>(), 4);
        assert_eq!(size_of::<Question>(), 16);
    }

    #[test]
    fn unspecified_is_loopback() {
        assert_eq!(effective(mapped([0; 4])), mapped([127, 0, 0, 1]));
        assert_eq!(effective([0; 16]), v6("::1"));
        assert_eq!(effective(v6("::1")), v6("::1"));
        assert_eq!(effective(mapped([10, 0, 0, 1])), mapped([10, 0, 0, 1]));
        assert_eq!(effective(v6("64:ff9b::0.0.0.0")), mapped([127, 0, 0, 1]));
    }

    #[test]
    fn forms_of_ipv4() {
        for form in [
            "::ffff:10.1.2.3",
            "::10.1.2.3",
            "::ffff:0:10.1.2.3",
            "64:ff9b::10.1.2.3",
            "2002:a01:203::",
            "2002:a01:203:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert_eq!(inner(v6(form)), mapped([10, 1, 2, 3]), "{form}");
        }
        for other in [
            "::",
            "::1",
            "fd00::1",
            "64:ff9b:1::10.1.2.3",
            "64:ff9b::1:0:0",
            "2001:db8::a01:203",
            "::1:a01:203",
        ] {
            assert_eq!(inner(v6(other)), v6(other), "{other}");
        }
    }

    #[test]
    fn protocols() {
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::of(protocol.0.into()), protocol);
            assert_eq!(Protocol::from_name(protocol.name().unwrap()), Some(protocol));
        }
        assert_eq!([262, 136, 58].map(Protocol::of), [Protocol::TCP, Protocol::UDP, Protocol::ICMP]);
        assert_eq!(Protocol::of(256 + 6), Protocol::TCP);
        assert_ne!(Protocol::of(256 + 17), Protocol::UDP);
        assert_eq!(Protocol::from_name("any"), None);
    }
}
