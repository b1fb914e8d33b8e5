//! Lists of rules about ports, of which the first that is about a port and its protocol decides.

mod merge;

use std::cmp::Reverse;

use agent_guard_common::{Protocol, Verdict, rules::PortRule};

pub use merge::{TooMany, merge};

/// What a rule comes behind in a list, where nothing else says so: the narrowest range first, then one that names a protocol, then
/// the strictest, then the first.
pub(super) fn rank(rule: &PortRule) -> (u16, bool, Reverse<Verdict>, u32) {
    let width = rule.high.saturating_sub(rule.low);
    (width, rule.protocol == Protocol::ANY, Reverse(Verdict(rule.verdict)), rule.rule)
}

/// Whether all that a rule is about is decided by rules before it.
pub(super) fn shadowed(before: &[PortRule], rule: &PortRule) -> bool {
    // There are more protocols than rules can name, so only rules about any shadow one about any.
    let about = |other: &&PortRule| other.protocol == Protocol::ANY || other.protocol == rule.protocol;
    let mut ranges: Vec<_> = before.iter().filter(about).map(|other| (other.low, other.high)).collect();
    ranges.sort_unstable();
    let mut open = u32::from(rule.low);
    for (low, high) in ranges {
        if u32::from(low) <= open {
            open = open.max(u32::from(high) + 1);
        }
    }
    open > u32::from(rule.high)
}

/// Puts a rule at the end of a list, unless it never decides.
pub(super) fn add(list: &mut Vec<PortRule>, rule: PortRule) {
    if !shadowed(list, &rule) {
        list.push(rule);
    }
}

/// The rules of a list, up to its end.
pub(super) fn listed(list: &[PortRule]) -> impl Iterator<Item = &PortRule> {
    list.iter().take_while(|rule| rule.verdict != Verdict::NONE.0)
}

/// The rule that decides.
pub(super) fn first(list: &[PortRule], port: u16, protocol: Protocol) -> Option<&PortRule> {
    listed(list).find(|rule| rule.is_about(port, protocol))
}

/// First ports of all ranges in which nothing changes that these rules say.
pub(super) fn starts<'r>(rules: impl IntoIterator<Item = &'r PortRule>) -> std::collections::BTreeSet<u16> {
    let ends = rules.into_iter().flat_map(|rule| [Some(rule.low), rule.high.checked_add(1)]);
    ends.flatten().chain([0]).collect()
}
