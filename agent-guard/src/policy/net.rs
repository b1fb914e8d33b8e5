//! Addresses in a policy: `10.0.0.0/8:443`, `[fd00::]/8:443`, `localhost:8000-8100`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::model::Prefix;

/// What one entry stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Networks {
    pub(super) prefixes: Vec<Prefix>,
    pub(super) low: u16,
    pub(super) high: u16,
}

/// Why an entry can't be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Unusable {
    /// A form of the policy language that isn't enforced.
    Later(String),
    /// Wrong; and what to do about it.
    Wrong(String, String),
}

const FORMS: &str = "write ADDRESS, ADDRESS/BITS, ADDRESS:PORT or ADDRESS/BITS:FIRST-LAST, with an IPv6 address in brackets before /BITS or :PORT";

/// Reads an entry of `network.allow` that is no Unix socket.
pub(super) fn parse(text: &str) -> Result<Networks, Unusable> {
    let parts = split(text)?;
    let (low, high) = parts.ports.map_or(Ok((0, u16::MAX)), |ports| read_ports(text, ports))?;
    if parts.host == "localhost" {
        if parts.bits.is_some() {
            return Err(wrong(format!("`localhost` in {text:?} takes no prefix length"), "remove it"));
        }
        let prefixes = vec![
            Prefix { addr: Ipv4Addr::new(127, 0, 0, 0).into(), bits: 8 },
            Prefix { addr: Ipv6Addr::LOCALHOST.into(), bits: 128 },
        ];
        return Ok(Networks { prefixes, low, high });
    }
    let addr = read_address(text, &parts)?;
    Ok(Networks { prefixes: vec![prefix(text, addr, parts.bits)?], low, high })
}

struct Parts<'a> {
    host: &'a str,
    bracketed: bool,
    bits: Option<&'a str>,
    ports: Option<&'a str>,
}

fn split(text: &str) -> Result<Parts<'_>, Unusable> {
    if let Some(rest) = text.strip_prefix('[') {
        let malformed = || wrong(format!("{text:?} is not an address"), FORMS);
        let (host, rest) = rest.split_once(']').ok_or_else(malformed)?;
        let (bits, rest) = match rest.strip_prefix('/') {
            Some(rest) => {
                rest.split_once(':').map_or((Some(rest), None), |(bits, ports)| (Some(bits), Some(ports)))
            }
            None if rest.is_empty() => (None, None),
            None => (None, Some(rest.strip_prefix(':').ok_or_else(malformed)?)),
        };
        return Ok(Parts { host, bracketed: true, bits, ports: rest });
    }
    // Two colons before any slash: IPv6 without brackets, so without a port.
    let host = text.split_once('/').map_or(text, |(host, _)| host);
    if host.matches(':').count() > 1 {
        let bits = text.split_once('/').map(|(_, bits)| bits);
        return Ok(Parts { host, bracketed: false, bits, ports: None });
    }
    let (host, ports) = text.split_once(':').map_or((text, None), |(host, ports)| (host, Some(ports)));
    let (host, bits) = host.split_once('/').map_or((host, None), |(host, bits)| (host, Some(bits)));
    Ok(Parts { host, bracketed: false, bits, ports })
}

fn read_address(text: &str, parts: &Parts<'_>) -> Result<IpAddr, Unusable> {
    let host = parts.host;
    if parts.bracketed || host.contains(':') {
        let addr = host.parse::<Ipv6Addr>();
        return addr
            .map(IpAddr::V6)
            .map_err(|_malformed| wrong(format!("{text:?} is not an IPv6 address"), FORMS));
    }
    if let Ok(addr) = host.parse::<Ipv4Addr>() {
        return Ok(addr.into());
    }
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '*');
    if host.chars().all(named) && host.chars().any(|c| c.is_ascii_alphabetic() || c == '*') {
        return Err(Unusable::Later(format!("the host name {host:?}")));
    }
    Err(wrong(format!("{text:?} is not an address"), FORMS))
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    // `parse` takes a sign too.
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn read_ports(text: &str, ports: &str) -> Result<(u16, u16), Unusable> {
    let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
    match (number::<u16>(low), number::<u16>(high)) {
        (Some(low), Some(high)) if low > high => Err(wrong(
            format!("the first port in {text:?} is greater than the last"),
            format!("write {high}-{low}"),
        )),
        (Some(low), Some(high)) if low > 0 => Ok((low, high)),
        _ => Err(wrong(
            format!("{ports:?} in {text:?} is not a port"),
            "ports are numbers from 1 to 65535, or two of them with a hyphen",
        )),
    }
}

fn prefix(text: &str, addr: IpAddr, bits: Option<&str>) -> Result<Prefix, Unusable> {
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
    let prefix = unmapped(Prefix { addr, bits });
    let (v4, family) = if prefix.addr.is_ipv4() { (true, 32) } else { (false, 128) };
    if prefix.addr.is_unspecified() && prefix.bits == family {
        let (loopback, all) = if v4 { ("127.0.0.1", "0.0.0.0/0") } else { ("[::1]", "[::]/0") };
        return Err(wrong(
            format!("{text:?} names the unspecified address, which no connection goes to"),
            format!("write `{loopback}` for this host or `{all}` for every address"),
        ));
    }
    Ok(prefix)
}

/// The address with all bits beyond the prefix cleared.
pub(super) fn first_address(addr: IpAddr, bits: u8) -> IpAddr {
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

/// IPv4 in its IPv6 form is IPv4.
fn unmapped(prefix: Prefix) -> Prefix {
    match (prefix.addr, prefix.bits.checked_sub(96)) {
        (IpAddr::V6(addr), Some(bits)) => match addr.to_ipv4_mapped() {
            Some(addr) => Prefix { addr: addr.into(), bits },
            None => prefix,
        },
        _ => prefix,
    }
}

fn wrong(message: String, help: impl Into<String>) -> Unusable {
    Unusable::Wrong(message, help.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (String, u16, u16) {
        let networks = parse(text).unwrap();
        assert_eq!(networks.prefixes.len(), 1, "{text}");
        (networks.prefixes[0].to_string(), networks.low, networks.high)
    }

    #[test]
    fn forms() {
        for (text, prefix, low, high) in [
            ("10.20.0.0/16:5432", "10.20.0.0/16", 5432, 5432),
            ("10.1.2.3", "10.1.2.3/32", 0, 65535),
            ("10.1.2.3:443", "10.1.2.3/32", 443, 443),
            ("10.1.2.3:8000-8100", "10.1.2.3/32", 8000, 8100),
            ("0.0.0.0/0", "0.0.0.0/0", 0, 65535),
            ("[fd00::]/8:443", "[fd00::]/8", 443, 443),
            ("[fd00::]/8", "[fd00::]/8", 0, 65535),
            ("[::1]:80", "[::1]/128", 80, 80),
            ("[::1]", "[::1]/128", 0, 65535),
            ("::1", "[::1]/128", 0, 65535),
            ("fd00::/8", "[fd00::]/8", 0, 65535),
            ("::/0", "[::]/0", 0, 65535),
            ("::ffff:10.1.2.3", "10.1.2.3/32", 0, 65535),
            ("[::ffff:10.0.0.0]/104:1-65535", "10.0.0.0/8", 1, 65535),
            ("::ffff:0:0/96", "0.0.0.0/0", 0, 65535),
        ] {
            assert_eq!(one(text), (prefix.to_owned(), low, high), "{text}");
        }
        let networks = parse("localhost:80").unwrap();
        let texts: Vec<_> = networks.prefixes.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["127.0.0.0/8", "[::1]/128"]);
        assert_eq!((networks.low, networks.high), (80, 80));
    }

    #[test]
    fn mistakes() {
        for text in [
            "",
            ":",
            "/",
            "[",
            "[]",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[10.0.0.1]:1",
            "10.0.0",
            "10.0.0.1:",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            "10.0.0.1:+1",
            "10.0.0.1:9-8",
            "10.0.0.1:1-",
            "10.0.0.1/33",
            "10.0.0.1/",
            "10.0.0.1/+8",
            "::1/129",
            "fe80::1%eth0",
            "0.0.0.0",
            "0.0.0.0:80",
            "::",
            "[::]:80",
            "0.0.0.0/32",
            "::/128",
            "10.20.1.0/16",
            "[fd00::1]/8:443",
            "::ffff:0:0/95",
            "localhost/8",
            "10.0.0.1 ",
            "010.0.0.1",
            "1234",
            "fd00::/8:443",
            "::ffff:0.0.0.0/128",
        ] {
            assert!(matches!(parse(text), Err(Unusable::Wrong(..))), "{text:?}: {:?}", parse(text));
        }
    }

    #[test]
    fn the_network_is_suggested() {
        for (text, suggested) in [("10.20.1.0/16", "`10.20.0.0/16`"), ("[fd00::1]/8", "`[fd00::]/8`")] {
            let Err(Unusable::Wrong(_, help)) = parse(text) else { panic!("{text}") };
            assert!(help.contains(suggested), "{help}");
        }
    }

    #[test]
    fn not_enforced_yet() {
        for text in ["api.example.org:443", "*.crates.io:443", "example", "host_1:22"] {
            assert!(matches!(parse(text), Err(Unusable::Later(_))), "{text:?}");
        }
    }
}
