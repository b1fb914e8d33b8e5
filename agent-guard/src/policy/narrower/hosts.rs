//! Names of hosts: what is said of each name that one of the two knows, of those below it that no longer rule has, and of all others.
//!
//! What a rule about a name says is compared for each port and protocol; where there is none, `network.connect` counts. That isn't
//! all: rules about names and about addresses decide together, see [`Compared::addresses_of_names`].

use std::{collections::BTreeSet, time::Duration};

use agent_guard_common::{Protocol, Verdict, rules::PortRule};

use super::{Compared, Side, networks::questions};
use crate::policy::{
    model::{Mode, NameLimits, NamePattern, Rate},
    ports::first,
};

impl Compared<'_> {
    /// Compares what is said of every name.
    pub(super) fn hosts(&mut self) {
        let hosts = &self.compiled.hosts;
        let (outer, inner) = (self.outer, self.inner);
        let known = hosts.patterns(outer.index).chain(hosts.patterns(inner.index));
        let patterns: BTreeSet<NamePattern> = known.chain([NamePattern::Every]).collect();
        // By the rules that decide, 0 for none.
        let mut found = BTreeSet::new();
        for pattern in &patterns {
            let (theirs, own) = (hosts.list(outer.index, pattern), hosts.list(inner.index, pattern));
            for (port, protocol) in questions(theirs.iter().chain(&own)) {
                let (bound, rule) = decides(outer, &theirs, port, protocol);
                let (mine, number) = decides(inner, &own, port, protocol);
                if mine < bound {
                    found.insert((number, rule, mine.0, bound.0));
                }
            }
        }
        for (own, rule, mine, bound) in found {
            self.say_connect((own, Verdict(mine)), (rule, Verdict(bound)));
        }
        self.addresses_of_names();
        self.limits();
    }

    /// All rules about names of the inner session.
    pub(super) fn mildest_names(&self) -> Vec<PortRule> {
        let (hosts, index) = (&self.compiled.hosts, self.inner.index);
        let patterns = hosts.patterns(index).chain([NamePattern::Every]);
        let mut rules: Vec<PortRule> = Vec::new();
        let mut seen = BTreeSet::new();
        for rule in patterns.flat_map(|pattern| hosts.list(index, &pattern)) {
            // Of those about the same the mildest is enough, and any of them to tell of.
            if seen.insert((rule.low, rule.high, rule.protocol, rule.verdict)) {
                rules.push(rule);
            }
        }
        rules
    }

    /// How names may look, where a rule with `*` allows some.
    fn limits(&mut self) {
        let (outer, inner) = (self.outer, self.inner);
        let allows = |side: Side<'_>| {
            let names =
                side.profile.names.iter().filter(|rule| !matches!(rule.pattern, NamePattern::Exact(_)));
            names.map(|rule| rule.verdict).any(|verdict| verdict < Verdict::DENY)
        };
        // Where connections that nothing names aren't denied, every name is looked up, however it looks.
        let limited =
            |side: Side<'_>| side.profile.connect >= Verdict::DENY && side.profile.mode == Mode::Enforce;
        if !limited(outer) || !allows(outer) {
            return;
        }
        if !limited(inner) {
            let message = format!(
                "names: profile \"{}\" has every name looked up, profile \"{}\" only some",
                inner.rules.profile, outer.rules.profile
            );
            self.say(message, self.inner_origin());
            return;
        }
        if !allows(inner) {
            return;
        }
        for (key, mine, bound) in wider(&inner.profile.limits, &outer.profile.limits) {
            let message = format!(
                "names: `{key}` is {mine} in profile \"{}\", and {bound} in profile \"{}\"",
                inner.rules.profile, outer.rules.profile
            );
            self.say(message, self.inner_origin());
        }
    }
}

/// What happens to connections to what a name stands for, and the rule that says so.
fn decides(side: Side<'_>, list: &[PortRule], port: u16, protocol: Protocol) -> (Verdict, u32) {
    let rule = first(list, port, protocol);
    let (verdict, number) = rule.map_or((side.entry.connect, 0), |rule| (rule.verdict, rule.rule));
    (side.happens(Verdict(verdict)), number)
}

/// Limits that aren't as strict, with both.
fn wider(inner: &NameLimits, outer: &NameLimits) -> Vec<(&'static str, String, String)> {
    let numbers = [
        ("length", inner.length, outer.length),
        ("labels", inner.labels, outer.labels),
        ("label", inner.label, outer.label),
        ("long", inner.long, outer.long),
    ];
    let numbers = numbers.into_iter().filter(|(_, mine, bound)| mine > bound);
    let mut wider: Vec<_> =
        numbers.map(|(key, mine, bound)| (key, mine.to_string(), bound.to_string())).collect();
    if inner.entropy > outer.entropy {
        wider.push(("entropy", bits(inner.entropy), bits(outer.entropy)));
    }
    if !slower(inner.rate, outer.rate) {
        wider.push(("rate", inner.rate.to_string(), outer.rate.to_string()));
    }
    wider
}

fn bits(thousandths: u16) -> String {
    format!("{}", f64::from(thousandths) / 1000.0)
}

/// Whether a rate is no greater: neither at once nor in the long run.
fn slower(inner: Rate, outer: Rate) -> bool {
    let times = |per: Duration, count: u32| per.as_nanos().saturating_mul(u128::from(count));
    inner.count <= outer.count && times(outer.per, inner.count) <= times(inner.per, outer.count)
}
