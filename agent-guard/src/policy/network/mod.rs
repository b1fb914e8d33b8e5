//! Networks: what the policy says of them, and the table of addresses that it becomes.
//!
//! The kernel looks up the longest prefix only, so the entry of a prefix has the rules of all prefixes around
//! it too. IPv4 is looked up in its IPv6 form, `::ffff:a.b.c.d`, and an IPv6 prefix says nothing of it.

mod check;
mod limits;
mod resolver;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use agent_guard_common::{
    NetKey, Verdict,
    net::mapped,
    rules::{MAX_PORTS, NetEntry, PortRule},
};

use super::{
    diagnostic::Diagnostic,
    model::{NetRule, Policy, Prefix, Profile},
    net::first_address,
    ports,
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

/// Makes the table of networks: of those to connect to, and under [`NetKey::listening`] of those to listen at; `indexes` are those of
/// the profiles.
pub(super) fn compile(policy: &Policy, indexes: &[u32]) -> Result<Table, Vec<Diagnostic>> {
    let mut compiler = Compiler::default();
    let (mut connect, mut listen) = (Numbers::networks(policy), Numbers::listen(policy));
    for (profile, &index) in policy.profiles.iter().zip(indexes) {
        compiler.add(profile, index, Rules::new(&profile.network, &mut connect));
        compiler.add(profile, NetKey::listening(index), Rules::new(&profile.listen, &mut listen));
    }
    let Compiler { table, mistakes } = compiler;
    if mistakes.is_empty() { Ok(table) } else { Err(mistakes) }
}

type Table = BTreeMap<(u32, NetKey), NetEntry>;

#[derive(Default)]
struct Compiler {
    table: Table,
    mistakes: Vec<Diagnostic>,
}

impl Compiler {
    /// Adds rules of a profile under an index.
    fn add(&mut self, profile: &Profile, index: u32, rules: Rules<'_>) {
        for &(addr, bits) in rules.by_prefix.keys() {
            let prefix = Prefix { addr, bits };
            match entry(&rules, prefix) {
                Ok(entry) => {
                    self.table.insert(table_key(index, prefix), entry);
                }
                Err(rules) => self.mistakes.push(too_many(profile, prefix, &rules)),
            }
        }
        if rules.by_prefix.keys().any(|&(addr, bits)| covers_mapped(addr, bits)) {
            let ipv4 = Prefix { addr: IpAddr::V4([0; 4].into()), bits: 0 };
            self.table.entry(table_key(index, ipv4)).or_default();
        }
    }
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
    fn new(all: &'p [NetRule], numbers: &mut Numbers) -> Self {
        let mut rules = Self::default();
        for rule in all {
            let number = numbers.take();
            for prefix in &rule.prefixes {
                rules.lengths.insert((prefix.addr.is_ipv4(), prefix.bits));
                rules.by_prefix.entry((prefix.addr, prefix.bits)).or_default().push((number, rule));
            }
        }
        rules
    }

    /// Those of a prefix and of the prefixes around it, each with the bits of its narrowest.
    fn around(&self, prefix: Prefix) -> Vec<(u8, PortRule, &'p NetRule)> {
        let family = prefix.addr.is_ipv4();
        let mut seen = BTreeSet::new();
        let mut around = Vec::new();
        for &(_, bits) in self.lengths.range((family, 0)..=(family, prefix.bits)).rev() {
            let rules = self.by_prefix.get(&(first_address(prefix.addr, bits), bits));
            for &(number, rule) in rules.into_iter().flatten() {
                if seen.insert(number) {
                    around.push((bits, rule.ports.rule(rule.verdict, number), rule));
                }
            }
        }
        around
    }
}

/// The entry of a prefix: the most specific prefix first, then as [`ports::rank`] says. Rules that never decide are left out. If there
/// are too many, the ones that would be needed.
fn entry<'p>(rules: &Rules<'p>, prefix: Prefix) -> Result<NetEntry, Vec<&'p NetRule>> {
    let mut around = rules.around(prefix);
    around.sort_by_key(|(bits, rule, _)| (Reverse(*bits), ports::rank(rule)));
    let (mut needed, mut from) = (Vec::new(), Vec::new());
    for (_, rule, net) in around {
        debug_assert_ne!(net.verdict, Verdict::NONE);
        if !ports::shadowed(&needed, &rule) {
            needed.push(rule);
            from.push(net);
        }
    }
    let mut entry = NetEntry::default();
    let Some(room) = entry.ports.get_mut(..needed.len()) else { return Err(from) };
    room.copy_from_slice(&needed);
    Ok(entry)
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
    Diagnostic::error(last, message).help("join ports into ranges, or name the network without ports")
}
