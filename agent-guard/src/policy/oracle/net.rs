//! The same for connections, names of hosts, and what is listened at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_guard_common::{Protocol, Source, Verdict};

use super::{
    super::model::{AbstractRule, NamePattern, NameRule, NetRule, Policy, Ports, Profile},
    Answer, answer,
};

/// Judges a connection to an address that a session has from asking for these names. None if there is no such profile.
#[must_use]
pub fn connect(
    policy: &Policy,
    profile: &str,
    names: &[&str],
    addr: IpAddr,
    port: u16,
    protocol: Protocol,
) -> Option<Answer> {
    let profile = policy.profile(profile)?;
    let address = by_address(&profile.network, goes_to(addr), port, protocol);
    let mut names: Vec<_> = names.iter().filter_map(|name| by_name(profile, name, port, protocol)).collect();
    names.sort_by_key(|rule| (rule.origin.line, rule.origin.column));
    let mut strictest = address.map(|rule| (rule.verdict, &rule.origin));
    for NameRule { verdict, origin, .. } in names {
        // Of those that are as strict, what is said of the address, then what is said first.
        if strictest.is_none_or(|(old, _)| *verdict > old) {
            strictest = Some((*verdict, origin));
        }
    }
    Some(match strictest {
        Some((verdict, origin)) => answer(profile, verdict, Source::RULE, Some(origin.line)),
        None => answer(profile, profile.connect, Source::NETWORK, None),
    })
}

/// Judges listening at an address: at the unspecified one at every address, of both families for that of IPv6. None if there is no
/// such profile.
#[must_use]
pub fn listen(policy: &Policy, profile: &str, addr: IpAddr, port: u16, protocol: Protocol) -> Option<Answer> {
    let profile = policy.profile(profile)?;
    let one = |addr: IpAddr| match by_address(&profile.listen, addr, port, protocol) {
        Some(rule) => answer(profile, rule.verdict, Source::RULE, Some(rule.origin.line)),
        None => answer(profile, Verdict::DENY, Source::NETWORK, None),
    };
    let first = one(ipv4_within(addr));
    if addr != IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        return Some(first);
    }
    let other = one(Ipv4Addr::UNSPECIFIED.into());
    Some(if other.verdict > first.verdict { other } else { first })
}

/// Whether a name is looked up: whether a connection to what it stands for could come of it, on any port. None if there is no such
/// profile.
#[must_use]
pub fn looked_up(policy: &Policy, profile: &str, name: &str) -> Option<bool> {
    let profile = policy.profile(profile)?;
    let ends =
        |ports: &Ports| [ports.low.saturating_sub(1), ports.low, ports.high, ports.high.saturating_add(1)];
    let ports = profile.names.iter().flat_map(|rule| ends(&rule.ports)).chain([0, u16::MAX]);
    let verdict = |port, protocol| match by_name(profile, name, port, protocol) {
        Some(rule) => rule.verdict,
        None => profile.connect,
    };
    let protocols = || Protocol::ALL.into_iter().chain([Protocol(255)]);
    let mut all = ports.flat_map(|port| protocols().map(move |protocol| (port, protocol)));
    Some(all.any(|(port, protocol)| !matches!(verdict(port, protocol), Verdict::DENY | Verdict::KILL)))
}

/// The rule about an address: the most specific network, then as [`narrower`] says.
fn by_address(rules: &[NetRule], addr: IpAddr, port: u16, protocol: Protocol) -> Option<&NetRule> {
    let mut best: Option<(u8, &NetRule)> = None;
    for rule in rules.iter().filter(|rule| is_about(&rule.ports, port, protocol)) {
        for prefix in &rule.prefixes {
            let better = |(bits, old): (u8, &NetRule)| {
                if bits == prefix.bits {
                    return narrower((&rule.ports, rule.verdict), (&old.ports, old.verdict));
                }
                prefix.bits > bits
            };
            if contains(prefix.addr, prefix.bits, addr) && best.is_none_or(better) {
                best = Some((prefix.bits, rule));
            }
        }
    }
    best.map(|(_, rule)| rule)
}

/// The rule about a name: the name itself, then the longest that it is below, then every name; then as [`narrower`] says.
#[must_use]
pub fn by_name<'p>(profile: &'p Profile, name: &str, port: u16, protocol: Protocol) -> Option<&'p NameRule> {
    let matches = |pattern: &NamePattern| match pattern {
        NamePattern::Exact(own) => (own == name).then_some(1000),
        NamePattern::Below(base) => {
            let (labels, own): (Vec<_>, Vec<_>) = (name.split('.').collect(), base.split('.').collect());
            (labels.len() > own.len() && labels.ends_with(&own)).then_some(own.len())
        }
        NamePattern::Every => Some(0),
    };
    let mut best: Option<(usize, &NameRule)> = None;
    for rule in profile.names.iter().filter(|rule| is_about(&rule.ports, port, protocol)) {
        let Some(specific) = matches(&rule.pattern) else { continue };
        let better = |(other, old): (usize, &NameRule)| {
            if other == specific {
                return narrower((&rule.ports, rule.verdict), (&old.ports, old.verdict));
            }
            specific > other
        };
        if best.is_none_or(better) {
            best = Some((specific, rule));
        }
    }
    best.map(|(_, rule)| rule)
}

fn is_about(ports: &Ports, port: u16, protocol: Protocol) -> bool {
    (ports.low..=ports.high).contains(&port) && [Protocol::ANY, protocol].contains(&ports.protocol)
}

/// The narrowest range of ports, then one that names the protocol, then the strictest, then the first.
fn narrower(new: (&Ports, Verdict), old: (&Ports, Verdict)) -> bool {
    let width = |ports: &Ports| ports.high - ports.low;
    if width(new.0) != width(old.0) {
        return width(new.0) < width(old.0);
    }
    let (new_names, old_names) = (new.0.protocol != Protocol::ANY, old.0.protocol != Protocol::ANY);
    if new_names != old_names {
        return new_names;
    }
    new.1 > old.1
}

/// Judges a connection to an abstract name. None if there is no such profile.
#[must_use]
pub fn abstract_name(policy: &Policy, profile: &str, name: &[u8]) -> Option<Answer> {
    let profile = policy.profile(profile)?;
    let about = |rule: &&AbstractRule| {
        let own = rule.name.as_bytes();
        if rule.begins { name.starts_with(own) } else { name == own }
    };
    // The whole name, then the longest beginning, then the strictest, then the first.
    let rank = |rule: &AbstractRule| (!rule.begins, rule.name.len(), rule.verdict);
    let mut best: Option<&AbstractRule> = None;
    for rule in profile.abstracts.iter().filter(about) {
        if best.is_none_or(|old| rank(rule) > rank(old)) {
            best = Some(rule);
        }
    }
    Some(match best {
        Some(rule) => answer(profile, rule.verdict, Source::RULE, Some(rule.origin.line)),
        None => answer(profile, profile.connect, Source::NETWORK, None),
    })
}

/// Where a connection ends up: the unspecified address is this host.
fn goes_to(addr: IpAddr) -> IpAddr {
    match ipv4_within(addr) {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    }
}

/// The IPv4 address that one of IPv6 has in it: mapped, translated, of NAT64, of 6to4, compatible.
fn ipv4_within(addr: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = addr else { return addr };
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into();
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => v4(high, low),
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => addr,
        [0, 0, 0, 0, 0, 0, high, low] => v4(high, low),
        _ => addr,
    }
}

fn contains(network: IpAddr, bits: u8, addr: IpAddr) -> bool {
    let same = |a: &[u8], b: &[u8]| {
        (0..usize::from(bits)).all(|bit| {
            let one = |bytes: &[u8]| bytes.get(bit / 8).map(|byte| byte >> (7 - bit % 8) & 1);
            one(a) == one(b)
        })
    };
    match (network, addr) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(&a.octets(), &b.octets()),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(&a.octets(), &b.octets()),
        _ => false,
    }
}
