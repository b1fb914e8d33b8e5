//! The same for connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_guard_common::Source;

use super::{
    super::model::{AbstractRule, NetRule, Policy},
    Answer, answer,
};

/// Judges a connection. None if there is no such profile.
#[must_use]
pub fn connect(policy: &Policy, profile: &str, addr: IpAddr, port: u16) -> Option<Answer> {
    let profile = policy.profile(profile)?;
    let addr = match addr.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    let mut best: Option<(u8, &NetRule)> = None;
    for rule in &profile.network {
        if port < rule.low || port > rule.high {
            continue;
        }
        for prefix in &rule.prefixes {
            if contains(prefix.addr, prefix.bits, addr)
                && best.is_none_or(|old| better((prefix.bits, rule), old))
            {
                best = Some((prefix.bits, rule));
            }
        }
    }
    Some(match best {
        Some((_, rule)) => answer(profile, rule.verdict, Source::RULE, Some(rule.origin.line)),
        None => answer(profile, profile.connect, Source::NETWORK, None),
    })
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

/// The most specific prefix, then the narrowest range of ports, then the strictest, then the first.
fn better(new: (u8, &NetRule), old: (u8, &NetRule)) -> bool {
    let width = |rule: &NetRule| rule.high - rule.low;
    if new.0 != old.0 {
        return new.0 > old.0;
    }
    if width(new.1) != width(old.1) {
        return width(new.1) < width(old.1);
    }
    new.1.verdict > old.1.verdict
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
