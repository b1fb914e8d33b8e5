//! Addresses that no name of the Internet's leads to: whoever runs a name server could have a session go to the host's own
//! network by it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_guard_common::net::{inner, mapped};

/// The address as rules and the kernel's tables have it: IPv4 mapped, and that inside of an IPv6 address instead of it.
pub(super) fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => mapped(addr.octets()),
        IpAddr::V6(addr) => inner(addr.octets()),
    }
}

/// Whether an address isn't one of the Internet's: the registries of special addresses (RFC 6890) without what is globally
/// reachable and without documentation, which nobody has.
pub(super) fn is_private(addr: IpAddr) -> bool {
    match Ipv6Addr::from(octets(addr)).to_canonical() {
        IpAddr::V4(addr) => private4(addr),
        IpAddr::V6(addr) => private6(addr),
    }
}

fn private4(addr: Ipv4Addr) -> bool {
    let [a, b, c, _] = addr.octets();
    addr.is_private()
        || addr.is_loopback()
        || addr.is_link_local()
        || addr.is_multicast()
        || a == 0
        // Reserved, and everybody.
        || a >= 240
        // Shared among the customers of a provider (RFC 6598).
        || (a == 100 && b & 0xc0 == 64)
        // Protocol assignments (RFC 6890), and measuring (RFC 2544).
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && b & 0xfe == 18)
}

fn private6(addr: Ipv6Addr) -> bool {
    let [first, second, third, ..] = addr.segments();
    addr.is_loopback()
        || addr.is_unspecified()
        || addr.is_multicast()
        || addr.is_unique_local()
        || addr.is_unicast_link_local()
        // Of a site (RFC 3879), and a translator's own (RFC 8215): where that leads, it alone knows.
        || first & 0xffc0 == 0xfec0
        || (first == 0x64 && second == 0xff9b && third == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_not() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "fc00::1",
            "ff02::1",
            "fec0::1",
            "64:ff9b:1::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::127.0.0.1",
            "2002:a00:1::",
        ] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.9",
            "198.20.0.1",
            "2606:4700::1111",
            "2001:db8::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::",
        ] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn one_form_for_each() {
        for form in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3"] {
            assert_eq!(octets(form.parse().unwrap()), mapped([10, 1, 2, 3]));
        }
    }
}
