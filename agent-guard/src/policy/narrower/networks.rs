//! Connections and what is listened at: at each prefix that one of the two knows, and for each range of ports and each protocol that
//! their rules tell apart.

use std::collections::BTreeSet;

use agent_guard_common::{NetKey, Protocol, Verdict, net::mapped, rules::PortRule};

use super::{Compared, Side};
use crate::policy::{
    network::first_key,
    ports::{first, starts},
};

/// Bits of a prefix, and its first address.
type Prefix = (u32, [u8; 16]);

/// All IPv4, and everything.
const ALL: [Prefix; 2] = [(96, mapped([0; 4])), (0, [0; 16])];

/// Protocols that rules name, and one that none does.
pub(super) const PROTOCOLS: [Protocol; 5] =
    [Protocol::ICMP, Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol(u8::MAX)];

/// What is compared.
#[derive(Clone, Copy)]
enum What {
    Connecting,
    Listening,
}

impl What {
    /// Under which index its prefixes are, and what is said of everything that no rule names.
    fn of(self, side: Side<'_>) -> (u32, Verdict) {
        match self {
            Self::Connecting => (side.index, Verdict(side.entry.connect)),
            Self::Listening => (NetKey::listening(side.index), Verdict(side.entry.listen)),
        }
    }
}

impl Compared<'_> {
    /// Compares what is said of every address and port.
    pub(super) fn networks(&mut self) {
        self.addresses(What::Connecting);
        self.addresses(What::Listening);
    }

    fn addresses(&mut self, what: What) {
        // By the rules that decide, 0 for none.
        let mut found = BTreeSet::new();
        for prefix in self.prefixes(what) {
            let (outer, inner) = (self.entry(self.outer, what, prefix), self.entry(self.inner, what, prefix));
            for (port, protocol) in questions(outer.iter().chain(inner)) {
                let (bound, rule) = decides(self.outer, what, outer, port, protocol);
                let (mine, own) = decides(self.inner, what, inner, port, protocol);
                if mine < bound {
                    found.insert((own, rule, mine.0, bound.0));
                }
            }
        }
        for (own, rule, mine, bound) in found {
            let (mine, bound) = (Verdict(mine), Verdict(bound));
            match what {
                What::Connecting => self.say_connect((own, mine), (rule, bound)),
                What::Listening => self.say_network("listening", "`listen`", (own, mine), (rule, bound)),
            }
        }
    }

    /// Prefixes that one of the two knows.
    fn prefixes(&self, what: What) -> BTreeSet<Prefix> {
        let known = |side: Side<'_>| {
            let profile = what.of(side).0.to_be_bytes();
            let of = self.compiled.networks.keys().filter(move |(_, key)| key.profile == profile);
            of.map(|(bits, key)| (bits.saturating_sub(NetKey::PROFILE_BITS), key.addr))
        };
        ALL.into_iter().chain(known(self.outer)).chain(known(self.inner)).collect()
    }

    /// Where only the outer session has a rule about an address, the inner one must have none about names that is milder: what it has
    /// from asking for such a name could be at that address.
    pub(super) fn addresses_of_names(&mut self) {
        let names = self.mildest_names();
        let mut found = BTreeSet::new();
        for prefix in self.prefixes(What::Connecting) {
            let outer = self.entry(self.outer, What::Connecting, prefix);
            let inner = self.entry(self.inner, What::Connecting, prefix);
            for (port, protocol) in questions(outer.iter().chain(inner).chain(&names)) {
                let (Some(bound), None) = (first(outer, port, protocol), first(inner, port, protocol)) else {
                    continue;
                };
                let mildest =
                    names.iter().filter(|rule| rule.is_about(port, protocol)).min_by_key(|rule| rule.verdict);
                let Some(name) = mildest else { continue };
                let (mine, bound_by) = (happens(self.inner, name), happens(self.outer, bound));
                if mine < bound_by {
                    found.insert((name.rule, bound.rule, mine.0, bound_by.0));
                }
            }
        }
        for (own, rule, mine, bound) in found {
            self.say_connect((own, Verdict(mine)), (rule, Verdict(bound)));
        }
    }

    pub(super) fn say_connect(&mut self, own: (u32, Verdict), rule: (u32, Verdict)) {
        self.say_network("connections", "`connect`", own, rule);
    }

    fn say_network(
        &mut self,
        what: &str,
        otherwise: &str,
        (own, mine): (u32, Verdict),
        (rule, bound): (u32, Verdict),
    ) {
        let named = |number: u32| if number == 0 { otherwise.to_owned() } else { self.rule(number).0 };
        let message = format!(
            "{what}: {} of profile \"{}\" says {} where {} of profile \"{}\" says {}",
            named(own),
            self.inner.rules.profile,
            mine.name(),
            named(rule),
            self.outer.rules.profile,
            bound.name()
        );
        let origin = if own == 0 { self.inner_origin() } else { self.rule(own).1 };
        self.say(message, origin);
    }

    /// What is found for addresses of a prefix that no longer one has.
    fn entry(&self, side: Side<'_>, what: What, (bits, addr): Prefix) -> &[PortRule] {
        let key = NetKey::new(what.of(side).0, addr);
        let bits = NetKey::PROFILE_BITS + bits;
        let all = (NetKey::PROFILE_BITS..=bits).rev();
        let mut found = all.filter_map(|bits| self.compiled.networks.get(&(bits, first_key(&key, bits))));
        found.next().map_or(&[], |entry| entry.ports.as_slice())
    }
}

/// A port of each range in which no answer changes, for each protocol.
pub(super) fn questions<'r>(
    rules: impl Iterator<Item = &'r PortRule>,
) -> impl Iterator<Item = (u16, Protocol)> {
    let ports = starts(rules.filter(|rule| rule.verdict != Verdict::NONE.0));
    let all = ports.into_iter().flat_map(|port| PROTOCOLS.map(|protocol| (port, protocol)));
    // That one has no ports.
    all.filter(|(port, protocol)| *protocol != Protocol::ICMP || *port == 0)
}

/// What happens where a rule decides.
fn happens(side: Side<'_>, rule: &PortRule) -> Verdict {
    side.happens(Verdict(rule.verdict))
}

/// What happens, and the rule that says so.
fn decides(side: Side<'_>, what: What, entry: &[PortRule], port: u16, protocol: Protocol) -> (Verdict, u32) {
    let rule = first(entry, port, protocol);
    let (verdict, number) = rule.map_or((what.of(side).1, 0), |rule| (Verdict(rule.verdict), rule.rule));
    (side.happens(verdict), number)
}
