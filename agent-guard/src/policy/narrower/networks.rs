//! Connections: at each prefix that one of the two knows, and for each range of ports that their rules tell apart.

use std::collections::BTreeSet;

use agent_guard_common::{
    NetKey, Verdict,
    object::mapped,
    rules::{NetEntry, PortRule},
};

use super::{Compared, Side};
use crate::policy::network::first_key;

/// Bits of a prefix, and its first address.
type Prefix = (u32, [u8; 16]);

/// All IPv4, and everything.
const ALL: [Prefix; 2] = [(96, mapped([0; 4])), (0, [0; 16])];

impl Compared<'_> {
    /// Compares what is said of every address and port.
    pub(super) fn networks(&mut self) {
        let known = |side: Side<'_>| {
            let profile = side.index.to_be_bytes();
            let of = self.compiled.networks.keys().filter(move |(_, key)| key.profile == profile);
            of.map(|(bits, key)| (bits.saturating_sub(NetKey::PROFILE_BITS), key.addr))
        };
        let prefixes: BTreeSet<Prefix> =
            ALL.into_iter().chain(known(self.outer)).chain(known(self.inner)).collect();
        // By the rules that decide, 0 for none.
        let mut found = BTreeSet::new();
        for prefix in prefixes {
            let (outer, inner) = (self.entry(self.outer, prefix), self.entry(self.inner, prefix));
            for port in starts(outer, inner) {
                let ((bound, rule), (mine, own)) =
                    (decides(self.outer, outer, port), decides(self.inner, inner, port));
                if mine < bound {
                    found.insert((own, rule, mine.0, bound.0));
                }
            }
        }
        for (own, rule, mine, bound) in found {
            self.say_connect((own, Verdict(mine)), (rule, Verdict(bound)));
        }
    }

    pub(super) fn say_connect(&mut self, (own, mine): (u32, Verdict), (rule, bound): (u32, Verdict)) {
        let what = |number: u32| if number == 0 { "`connect`".to_owned() } else { self.rule(number).0 };
        let message = format!(
            "connections: {} of profile \"{}\" says {} where {} of profile \"{}\" says {}",
            what(own),
            self.inner.rules.profile,
            mine.name(),
            what(rule),
            self.outer.rules.profile,
            bound.name()
        );
        let origin = if own == 0 { self.inner_origin() } else { self.rule(own).1 };
        self.say(message, origin);
    }

    /// What is found for addresses of a prefix that no longer one has.
    fn entry(&self, side: Side<'_>, (bits, addr): Prefix) -> Option<&NetEntry> {
        let key = NetKey::new(side.index, addr);
        let bits = NetKey::PROFILE_BITS + bits;
        let all = (NetKey::PROFILE_BITS..=bits).rev();
        all.filter_map(|bits| self.compiled.networks.get(&(bits, first_key(&key, bits)))).next()
    }
}

fn ports(entry: Option<&NetEntry>) -> impl Iterator<Item = &PortRule> {
    let ports = entry.into_iter().flat_map(|entry| &entry.ports);
    ports.take_while(|rule| rule.verdict != Verdict::NONE.0)
}

/// The first ports of all ranges in which the answers don't change.
fn starts(outer: Option<&NetEntry>, inner: Option<&NetEntry>) -> BTreeSet<u16> {
    let rules = ports(outer).chain(ports(inner));
    let ends = rules.flat_map(|rule| [Some(rule.low), rule.high.checked_add(1)]);
    ends.flatten().chain([0]).collect()
}

/// What happens, and the rule that says so.
fn decides(side: Side<'_>, entry: Option<&NetEntry>, port: u16) -> (Verdict, u32) {
    let rule = ports(entry).find(|rule| rule.low <= port && port <= rule.high);
    let (verdict, number) = rule.map_or((side.entry.connect, 0), |rule| (rule.verdict, rule.rule));
    (side.happens(Verdict(verdict)), number)
}
