//! Addresses and their prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{super::model::Prefix, For, Unusable, number, wrong};

pub(super) const FORMS: &str = "write ADDRESS, ADDRESS/BITS, ADDRESS:PORT or ADDRESS/BITS:FIRST-LAST, with an IPv6 address in brackets \
                                before /BITS or :PORT";

/// Forms of IPv6 addresses that have an IPv4 address in them, those of [`agent_guard_common::net::inner`]: what they begin with, and
/// how many bits that has. The IPv4 address comes behind it.
const CARRIERS: [(Ipv6Addr, u8); 5] = [
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    (Ipv6Addr::UNSPECIFIED, 96),
    (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

/// The network that an entry names.
pub(super) fn prefix(
    text: &str,
    addr: IpAddr,
    bits: Option<&str>,
    what_for: For,
) -> Result<Prefix, Unusable> {
    let family = if addr.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => family,
        Some(bits) => number::<u8>(bits).filter(|&bits| bits <= family).ok_or_else(|| {
            wrong(
                format!("{bits:?} in {text:?} is not a prefix length"),
                format!("it is a number from 0 to {family}"),
            )
        })?,
    };
    let network = first_address(addr, bits);
    if network != addr {
        let suggested = Prefix { addr: network, bits };
        return Err(wrong(
            format!("{text:?} has bits set beyond its prefix of {bits} bits"),
            format!("write `{suggested}` for the whole network, or the address without a prefix length"),
        ));
    }
    let prefix = match addr {
        IpAddr::V6(addr) => carried(text, addr, bits)?.unwrap_or(Prefix { addr: addr.into(), bits }),
        IpAddr::V4(_) => Prefix { addr, bits },
    };
    unspecified(text, prefix, what_for).map(|()| prefix)
}

/// The IPv4 network that a network of IPv6 stands for: connections to its addresses are judged as such to IPv4.
fn carried(text: &str, addr: Ipv6Addr, bits: u8) -> Result<Option<Prefix>, Unusable> {
    let is_in = |&&(base, begins): &&(Ipv6Addr, u8)| {
        bits >= begins && first_address(addr.into(), begins) == IpAddr::from(base)
    };
    let Some(&(base, begins)) = CARRIERS.iter().find(is_in) else { return Ok(None) };
    if base.is_unspecified() && addr.to_bits() <= 1 {
        // `::` and `::1` have no IPv4 address in them, and so near to them nobody means one.
        if bits == 128 {
            return Ok(None);
        }
        return Err(wrong(
            format!("{text:?} has `::1` and addresses that have IPv4 addresses in them"),
            "write `::1` for this host, and an IPv4 network for the others",
        ));
    }
    if bits == begins {
        return Err(wrong(
            format!(
                "{text:?} is all of IPv4: what goes to these addresses is judged by the IPv4 address in them"
            ),
            "write the IPv4 network that is meant; every IPv4 address is `0.0.0.0/0`",
        ));
    }
    let behind = 96_u8.saturating_sub(begins);
    let v4 = Ipv4Addr::from_bits(u32::try_from(addr.to_bits() >> behind & u128::from(u32::MAX)).unwrap_or(0));
    let prefix = Prefix { addr: v4.into(), bits: bits.saturating_sub(begins).min(32) };
    if addr.to_bits() & ((1 << behind) - 1) != 0 {
        return Err(wrong(
            format!("{text:?} names more than the IPv4 address in it, and only that is judged"),
            format!("write `{prefix}`"),
        ));
    }
    Ok(Some(prefix))
}

/// Refuses what is about an address that stands for others.
fn unspecified(text: &str, prefix: Prefix, what_for: For) -> Result<(), Unusable> {
    if !prefix.addr.is_unspecified() || prefix.bits == 0 {
        return Ok(());
    }
    let (v4, family) = if prefix.addr.is_ipv4() { (true, 32) } else { (false, 128) };
    let (loopback, all) = if v4 { ("127.0.0.1", "0.0.0.0/0") } else { ("[::1]", "[::]/0") };
    match what_for {
        // Who may bind it listens at all addresses, not only at those of this network.
        For::Listening => Err(wrong(
            format!("{text:?} has the unspecified address, which stands for every address of this host's"),
            format!(
                "write `{all}` for every address, `localhost` for this host alone, or a network without it"
            ),
        )),
        For::Connecting if prefix.bits == family => Err(wrong(
            format!("{text:?} names the unspecified address, which no connection goes to"),
            format!("write `{loopback}` for this host or `{all}` for every address"),
        )),
        For::Connecting => Ok(()),
    }
}

/// The address with all bits beyond the prefix cleared.
pub(in super::super) fn first_address(addr: IpAddr, bits: u8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits.into())).unwrap_or(0);
            Ipv4Addr::from_bits(addr.to_bits() & mask).into()
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0);
            Ipv6Addr::from_bits(addr.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_guard_common::net::{inner, mapped};
    use proptest::prelude::*;

    use super::*;

    /// What the kernel takes an address for, if that is IPv4.
    fn carries_ipv4(addr: Ipv6Addr) -> Option<Ipv4Addr> {
        let form = inner(addr.octets());
        let [.., a, b, c, d] = form;
        (form == mapped([a, b, c, d])).then(|| Ipv4Addr::new(a, b, c, d))
    }

    fn v6(text: &str) -> Result<String, String> {
        let (addr, bits) = text.split_once('/').map_or((text, None), |(addr, bits)| (addr, Some(bits)));
        let found = prefix(text, IpAddr::V6(addr.parse().unwrap()), bits, For::Connecting);
        found.map(|prefix| prefix.to_string()).map_err(|Unusable(message, help)| format!("{message} {help}"))
    }

    #[test]
    fn ipv4_within_ipv6() {
        for (text, prefix) in [
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:128.0.0.0/97", "128.0.0.0/1"),
            ("::10.1.2.3", "10.1.2.3/32"),
            ("::10.0.0.0/104", "10.0.0.0/8"),
            ("::2", "0.0.0.2/32"),
            ("::ffff:0:10.1.2.0/120", "10.1.2.0/24"),
            ("64:ff9b::10.1.2.3", "10.1.2.3/32"),
            ("64:ff9b::/97", "0.0.0.0/1"),
            ("2002:a01:203::/48", "10.1.2.3/32"),
            ("2002:a00::/24", "10.0.0.0/8"),
            ("2002:a01:203::/64", "10.1.2.3/32"),
            ("2002:a01:203::", "10.1.2.3/32"),
        ] {
            assert_eq!(v6(text).as_deref(), Ok(prefix), "{text}");
        }
        // Those are other addresses, or hold such a range and more.
        for text in
            ["64:ff9b:1::a01:203/128", "64:ff9b::/64", "2000::/3", "::1/128", "::/95", "::/0", "::1:0:0:0/80"]
        {
            assert_eq!(v6(text), Ok(format!("[{}", text.replacen('/', "]/", 1))));
        }
        for text in ["::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "2002::/16"] {
            assert!(v6(text).unwrap_err().contains("every IPv4 address is `0.0.0.0/0`"), "{text}");
        }
        for text in ["::/96", "::/127", "::/120"] {
            assert!(v6(text).unwrap_err().contains("write `::1` for this host"), "{text}");
        }
        for text in ["2002:a01:203:5::/64", "2002:a01:203::1"] {
            assert!(v6(text).unwrap_err().contains("write `10.1.2.3/32`"), "{text}");
        }
    }

    proptest! {
        /// A network that is taken for IPv4 has all addresses that the kernel takes for that, and no other.
        #[test]
        fn what_is_in_a_network(
            form in proptest::sample::select(CARRIERS.to_vec()),
            v4 in any::<u32>(),
            more in 1_u8..=112,
            other in any::<u128>(),
        ) {
            let (base, begins) = form;
            let bits = begins.saturating_add(more).min(128);
            let addr = base.to_bits() | u128::from(v4) << (96 - begins);
            let IpAddr::V6(addr) = first_address(Ipv6Addr::from_bits(addr).into(), bits) else { panic!() };
            let Ok(Some(prefix)) = carried("", addr, bits) else { return Ok(()) };
            let hosts = u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
            let within = Ipv6Addr::from_bits(addr.to_bits() | other & hosts);
            let found = carries_ipv4(within).unwrap();
            prop_assert_eq!(first_address(found.into(), prefix.bits), prefix.addr);
            let [a, b, c, d] = v4.to_be_bytes();
            let in_prefix = first_address(Ipv4Addr::new(a, b, c, d).into(), prefix.bits) == prefix.addr;
            prop_assert!(in_prefix);
        }
    }
}
