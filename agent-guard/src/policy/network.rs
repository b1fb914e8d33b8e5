//! From addresses to the table of networks.
//!
//! The kernel looks up the longest prefix only, so the entry of a prefix has the rules of all prefixes around
//! it too. IPv4 is looked up in its IPv6 form, `::ffff:a.b.c.d`, and an IPv6 prefix says nothing of it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use agent_guard_common::{
    NetKey, Verdict,
    object::mapped,
    rules::{MAX_PORTS, NetEntry, PortRule},
};

use super::{
    diagnostic::Diagnostic,
    model::{NetRule, Policy, Prefix, Profile},
    net::first_address,
    rules::Numbers,
};

/// Bits of `::ffff:0:0/96`, where IPv4 is.
const MAPPED_BITS: u8 = 96;

/// A key with all bits beyond a prefix cleared; the bits of the profile always belong to it.
pub(super) fn first_key(key: &NetKey, bits: u32) -> NetKey {
    let bits = bits.saturating_sub(NetKey::PROFILE_BITS).min(128);
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    NetKey { profile: key.profile, addr: (u128::from_be_bytes(key.addr) & mask).to_be_bytes() }
}

/// Makes the table of networks; `indexes` are those of the profiles.
pub(super) fn compile(
    policy: &Policy,
    indexes: &[u32],
) -> Result<BTreeMap<(u32, NetKey), NetEntry>, Vec<Diagnostic>> {
    let mut table = BTreeMap::new();
    let mut mistakes = Vec::new();
    let mut numbers = Numbers::networks(policy);
    for (profile, &index) in policy.profiles.iter().zip(indexes) {
        let mut rules = Rules::default();
        for rule in &profile.network {
            let number = numbers.take();
            for prefix in &rule.prefixes {
                rules.lengths.insert((prefix.addr.is_ipv4(), prefix.bits));
                rules.by_prefix.entry((prefix.addr, prefix.bits)).or_default().push((number, rule));
            }
        }
        let prefixes: Vec<_> = rules.by_prefix.keys().copied().collect();
        for &(addr, bits) in &prefixes {
            let prefix = Prefix { addr, bits };
            match entry(&rules, prefix) {
                Ok(entry) => {
                    table.insert(table_key(index, prefix), entry);
                }
                Err(rules) => mistakes.push(too_many(profile, prefix, &rules)),
            }
        }
        if prefixes.iter().any(|&(addr, bits)| covers_mapped(addr, bits)) {
            let ipv4 = Prefix { addr: IpAddr::V4([0; 4].into()), bits: 0 };
            table.entry(table_key(index, ipv4)).or_default();
        }
    }
    if mistakes.is_empty() { Ok(table) } else { Err(mistakes) }
}

/// Whether the kernel would find IPv4 addresses in an IPv6 prefix.
fn covers_mapped(addr: IpAddr, bits: u8) -> bool {
    let ipv4 = IpAddr::V6(Ipv6Addr::from(mapped([0; 4])));
    addr.is_ipv6() && bits < MAPPED_BITS && first_address(ipv4, bits) == addr
}

fn table_key(index: u32, prefix: Prefix) -> (u32, NetKey) {
    let (addr, bits) = match prefix.addr {
        IpAddr::V4(addr) => (mapped(addr.octets()), MAPPED_BITS.saturating_add(prefix.bits)),
        IpAddr::V6(addr) => (addr.octets(), prefix.bits),
    };
    (NetKey::PROFILE_BITS + u32::from(bits), NetKey::new(index, addr))
}

/// The rules of a profile, with their numbers, by prefix.
#[derive(Default)]
struct Rules<'p> {
    by_prefix: BTreeMap<(IpAddr, u8), Vec<(u32, &'p NetRule)>>,
    /// Whether IPv4, and bits, of all prefixes.
    lengths: BTreeSet<(bool, u8)>,
}

impl<'p> Rules<'p> {
    /// Those of a prefix and of the prefixes around it, each with its narrowest.
    fn around(&self, prefix: Prefix) -> Vec<Around<'p>> {
        let family = prefix.addr.is_ipv4();
        let mut seen = BTreeSet::new();
        let mut around = Vec::new();
        for &(_, bits) in self.lengths.range((family, 0)..=(family, prefix.bits)).rev() {
            let rules = self.by_prefix.get(&(first_address(prefix.addr, bits), bits));
            for &(number, rule) in rules.into_iter().flatten() {
                if seen.insert(number) {
                    around.push(Around { bits, number, rule });
                }
            }
        }
        around
    }
}

/// A rule, and the bits of the narrowest of its prefixes around the one that is looked at.
struct Around<'p> {
    bits: u8,
    number: u32,
    rule: &'p NetRule,
}

/// The entry of a prefix: the most specific prefix first, then the narrowest range, then the strictest. Rules
/// that never decide are left out. If there are too many, the ones that would be needed.
fn entry<'p>(rules: &Rules<'p>, prefix: Prefix) -> Result<NetEntry, Vec<&'p NetRule>> {
    let mut around = rules.around(prefix);
    around.sort_by_key(|Around { bits, number, rule }| {
        (Reverse(*bits), rule.high - rule.low, Reverse(rule.verdict), *number)
    });
    let mut needed: Vec<Around<'_>> = Vec::new();
    for next in around {
        if !shadowed(&needed, next.rule) {
            needed.push(next);
        }
    }
    if needed.len() > MAX_PORTS {
        return Err(needed.into_iter().map(|around| around.rule).collect());
    }
    let mut entry = NetEntry::default();
    for (slot, Around { number, rule, .. }) in entry.ports.iter_mut().zip(needed) {
        debug_assert_ne!(rule.verdict, Verdict::NONE);
        *slot =
            PortRule { low: rule.low, high: rule.high, verdict: rule.verdict.0, pad: [0; 3], rule: number };
    }
    Ok(entry)
}

/// Whether each port of a rule is decided by those before it.
fn shadowed(before: &[Around<'_>], rule: &NetRule) -> bool {
    let mut ranges: Vec<_> = before.iter().map(|around| (around.rule.low, around.rule.high)).collect();
    ranges.sort_unstable();
    let mut open = u32::from(rule.low);
    for (low, high) in ranges {
        if u32::from(low) <= open {
            open = open.max(u32::from(high) + 1);
        }
    }
    open > u32::from(rule.high)
}

fn too_many(profile: &Profile, prefix: Prefix, rules: &[&NetRule]) -> Diagnostic {
    let last = rules.iter().map(|rule| &rule.origin).max().unwrap_or(&profile.origin);
    let names: Vec<_> =
        rules.iter().map(|rule| format!("`{}` (line {})", rule.text, rule.origin.line)).collect();
    let message = format!(
        "profile `{}` has {} port rules for {prefix}, and there is room for {MAX_PORTS}: {}",
        profile.name,
        rules.len(),
        names.join(", ")
    );
    Diagnostic::error(last, message).help("join ports into ranges, or allow the network without ports")
}
