//! Which addresses a session has learned, by which names, and for how long.

use std::collections::{BTreeMap, BTreeSet};

use agent_guard_common::{Verdict, rules::MAX_NAMED_PORTS, rules::Named, rules::PortRule};

use crate::policy;

/// Addresses that one session can have learned, at most: a small part of what the kernel has room for, which others need, too.
const MOST: usize = 4096;
/// Names of one address that are remembered, at most.
const MOST_NAMES: usize = 64;

/// An address as the kernel has it; IPv4 mapped.
pub(super) type Addr = [u8; 16];

/// What one session has learned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::guard) struct Learned {
    /// By address its names, each with the time until which it may be connected to by it: nanoseconds since boot.
    addresses: BTreeMap<Addr, BTreeMap<String, u64>>,
    /// When something ends, the soonest first.
    ends: BTreeSet<(u64, Addr)>,
}

/// A session has learned more than there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the session has asked for more names than are remembered")]
pub(super) struct Full;

/// More rules are about one address than fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the names of an address have more rules about ports than the kernel looks at ({MAX_NAMED_PORTS})")]
pub(super) struct TooManyRules;

impl Learned {
    /// Learns an address of a name. One that may not be connected to any more makes room, the one whose time was over first, and
    /// is answered: the kernel has to forget it, too.
    pub(super) fn learn(
        &mut self,
        name: &str,
        addr: Addr,
        until: u64,
        now: u64,
    ) -> Result<Option<Addr>, Full> {
        let full = !self.addresses.contains_key(&addr) && self.addresses.len() >= MOST;
        let old = if full { Some(self.oldest(now).ok_or(Full)?) } else { None };
        if let Some(old) = &old {
            self.addresses.remove(old);
        }
        let names = self.addresses.entry(addr).or_default();
        if !names.contains_key(name) && names.len() >= MOST_NAMES {
            let old = names.iter().min_by_key(|(_, until)| **until).filter(|(_, until)| **until <= now);
            let old = old.ok_or(Full)?.0.clone();
            names.remove(&old);
        }
        let end = names.entry(name.to_owned()).or_default();
        *end = until.max(*end);
        self.ends.insert((*end, addr));
        Ok(old)
    }

    /// Of the addresses that may not be connected to any more the one whose time was over first.
    fn oldest(&self, now: u64) -> Option<Addr> {
        let ended = self.addresses.iter().filter_map(|(addr, names)| {
            let last = names.values().copied().max().unwrap_or_default();
            (last <= now).then_some((last, *addr))
        });
        ended.min().map(|(_, addr)| addr)
    }

    /// All addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Addr> {
        self.addresses.keys()
    }

    /// Everything: names, addresses, and until when.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, Addr, u64)> {
        let all = self.addresses.iter();
        all.flat_map(|(addr, names)| names.iter().map(|(name, until)| (name.as_str(), *addr, *until)))
    }

    /// How much that is.
    pub(super) fn len(&self) -> usize {
        self.addresses.values().map(BTreeMap::len).sum()
    }

    /// The names of an address.
    pub(super) fn names(&self, addr: &Addr) -> impl Iterator<Item = &str> {
        self.addresses.get(addr).into_iter().flatten().map(|(name, _)| name.as_str())
    }

    /// Those that it may be connected to by now.
    pub(super) fn live<'l>(&'l self, addr: &Addr, now: u64) -> impl Iterator<Item = &'l str> + use<'l> {
        let names = self.addresses.get(addr).into_iter().flatten();
        names.filter(move |(_, until)| **until > now).map(|(name, _)| name.as_str())
    }

    /// Addresses of which a name has ended since this was asked last.
    pub(super) fn ended(&mut self, now: u64) -> Vec<Addr> {
        let later = self.ends.split_off(&(now + 1, [0; 16]));
        let ended = std::mem::replace(&mut self.ends, later);
        let ended: BTreeSet<Addr> = ended.into_iter().map(|(_, addr)| addr).collect();
        ended.into_iter().filter(|addr| self.addresses.contains_key(addr)).collect()
    }

    /// What the kernel is to know of an address: what the rules about its names say, until the first of those ends that may be
    /// connected to now. Then this is to be asked again.
    pub(super) fn named(
        &self,
        addr: &Addr,
        now: u64,
        rules: impl Fn(&str) -> Vec<PortRule>,
    ) -> Result<Named, TooManyRules> {
        let names = self.addresses.get(addr);
        let (mut live, mut before) = (Vec::new(), Vec::new());
        let mut until = u64::MAX;
        for (name, end) in names.into_iter().flatten() {
            let said = rules(name);
            if *end > now {
                until = until.min(*end);
                live.push(said.clone());
            }
            before.push(said);
        }
        let until = if live.is_empty() { 0 } else { until };
        Ok(Named { until, ports: merged(&live)?, before: merged(&before)? })
    }
}

fn merged(lists: &[Vec<PortRule>]) -> Result<[PortRule; MAX_NAMED_PORTS], TooManyRules> {
    let lists: Vec<&[PortRule]> = lists.iter().map(Vec::as_slice).collect();
    policy::merge(&lists).map_err(|_more| TooManyRules)
}

/// What the kernel is to know of an address whose rules don't fit any more under another policy: nothing goes there.
pub(super) fn nothing() -> Named {
    let mut named = Named::default();
    let deny = PortRule { high: u16::MAX, verdict: Verdict::DENY.0, ..PortRule::default() };
    for list in [&mut named.ports, &mut named.before] {
        if let Some(first) = list.first_mut() {
            *first = deny;
        }
    }
    named.until = u64::MAX;
    named
}

#[cfg(test)]
mod tests {
    use agent_guard_common::{Protocol, net::mapped};

    use super::*;

    const A: Addr = mapped([192, 0, 2, 1]);
    const B: Addr = mapped([192, 0, 2, 2]);

    /// `web` is allowed by 443, `db` held by 5432, and nothing is said of others.
    fn rules(name: &str) -> Vec<PortRule> {
        let rule = |port, verdict: Verdict, rule| PortRule {
            low: port,
            high: port,
            verdict: verdict.0,
            protocol: Protocol::ANY,
            pad: [0; 2],
            rule,
        };
        match name {
            "web" => vec![rule(443, Verdict::ALLOW, 1)],
            "db" => vec![rule(5432, Verdict::HOLD, 2)],
            _ => Vec::new(),
        }
    }

    fn said(list: &[PortRule]) -> Vec<(u16, u8)> {
        list.iter().filter(|rule| rule.verdict != 0).map(|rule| (rule.low, rule.verdict)).collect()
    }

    #[test]
    fn names_end_one_by_one() {
        let mut learned = Learned::default();
        learned.learn("web", A, 100, 0).unwrap();
        learned.learn("db", A, 200, 0).unwrap();
        learned.learn("web", B, 300, 0).unwrap();
        let (web, db) = ((443, Verdict::ALLOW.0), (5432, Verdict::HOLD.0));
        let named = learned.named(&A, 0, rules).unwrap();
        assert_eq!(
            (named.until, said(&named.ports), said(&named.before)),
            (100, vec![web, db], vec![web, db])
        );
        assert_eq!(learned.live(&A, 0).collect::<Vec<_>>(), ["db", "web"]);
        assert_eq!(learned.ended(99), Vec::<Addr>::new());
        assert_eq!(learned.ended(100), [A]);
        assert_eq!(learned.ended(100), Vec::<Addr>::new(), "told once");
        let named = learned.named(&A, 100, rules).unwrap();
        assert_eq!((named.until, said(&named.ports), said(&named.before)), (200, vec![db], vec![web, db]));
        assert_eq!(learned.ended(300), [A, B]);
        let named = learned.named(&A, 300, rules).unwrap();
        assert_eq!((named.until, said(&named.ports), said(&named.before)), (0, vec![], vec![web, db]));
        assert_eq!(learned.names(&A).collect::<Vec<_>>(), ["db", "web"]);
        assert_eq!(learned.live(&A, 300).count(), 0);
    }

    #[test]
    fn asked_again_it_lasts_longer_never_shorter() {
        let mut learned = Learned::default();
        learned.learn("web", A, 100, 0).unwrap();
        learned.learn("web", A, 50, 0).unwrap();
        assert_eq!(learned.named(&A, 0, rules).unwrap().until, 100);
        learned.learn("web", A, 150, 0).unwrap();
        assert_eq!(learned.named(&A, 120, rules).unwrap().until, 150);
    }

    #[test]
    fn what_has_ended_makes_room() {
        let mut learned = Learned::default();
        let addr = |number: u32| mapped(number.to_be_bytes());
        for number in 0..u32::try_from(MOST).unwrap() {
            learned.learn("web", addr(number), 100, 0).unwrap();
        }
        assert_eq!(learned.learn("web", addr(u32::MAX), 100, 99), Err(Full));
        assert_eq!(learned.learn("web", addr(5), 100, 99), Ok(None));
        learned.learn("web", addr(0), 101, 99).unwrap();
        assert_eq!(learned.learn("web", addr(u32::MAX), 200, 100), Ok(Some(addr(1))));
        assert_eq!(learned.learn("web", addr(u32::MAX), 200, 100), Ok(None));
        assert_eq!(learned.addresses().count(), MOST);
        for number in 0..MOST_NAMES {
            learned.learn(&format!("name{number}"), A, 300, 200).unwrap();
        }
        assert_eq!(learned.learn("one more", A, 300, 200), Err(Full));
        learned.learn("one more", A, 400, 300).unwrap();
    }

    #[test]
    fn nothing_goes_where_rules_do_not_fit() {
        let named = nothing();
        for list in [named.ports, named.before] {
            assert!(list[0].is_about(0, Protocol::ICMP) && list[0].is_about(65535, Protocol::TCP));
            assert_eq!(list[0].verdict, Verdict::DENY.0);
        }
    }
}
