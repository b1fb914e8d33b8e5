//! What several lists say together: names that have the same address.
//!
//! For each range of ports in which nothing changes and for each protocol there is a cell with what is said. Then one rule after
//! the other is peeled off: all cells that it is about say the same. Where one is peeled off, those below can be about anything.

use std::cmp::Reverse;

use agent_guard_common::{
    Protocol,
    rules::{MAX_NAMED_PORTS, PortRule, Slot},
};

use super::{listed, starts};

/// What several lists say together doesn't fit into one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("more than {MAX_NAMED_PORTS} rules about ports would be needed for one address")]
pub struct TooMany;

/// Ranges of ports that so many rules can tell apart.
const MOST_RANGES: usize = 2 * MAX_NAMED_PORTS + 1;

/// For every port and protocol the strictest of what each list says (of two that are as strict the lower number); a list that has no
/// rule about it says nothing. Few rules, of which the first that is about a port and its protocol counts, and behind them
/// no more than empty ones.
///
/// # Errors
///
/// [`TooMany`], if that needs more than [`MAX_NAMED_PORTS`] rules. One list that is no longer always fits.
pub fn merge(lists: &[&[PortRule]]) -> Result<[PortRule; MAX_NAMED_PORTS], TooMany> {
    let mut lists: Vec<&[PortRule]> = lists.to_vec();
    lists.sort_by_cached_key(|list| listed(list).map(key).collect::<Vec<_>>());
    lists.dedup_by(|one, other| listed(one).eq(listed(other)));
    let peeled = Grid::new(&lists).and_then(Grid::peel);
    let rules = match (peeled, lists.as_slice()) {
        (peeled, [alone]) => {
            let mut rules = Vec::new();
            listed(alone).for_each(|rule| super::add(&mut rules, *rule));
            peeled.ok().filter(|peeled| peeled.len() < rules.len()).unwrap_or(rules)
        }
        (peeled, _) => peeled?,
    };
    let mut merged = [PortRule::default(); MAX_NAMED_PORTS];
    merged.get_mut(..rules.len()).ok_or(TooMany)?.copy_from_slice(&rules);
    Ok(merged)
}

fn key(rule: &PortRule) -> (u16, u16, Protocol, u8, u32) {
    (rule.low, rule.high, rule.protocol, rule.verdict, rule.rule)
}

/// Cells by protocol, then by range. None where a rule was peeled off; [`Slot::NONE`] where nobody says anything.
struct Grid {
    /// First and last ports.
    ranges: Vec<(u16, u16)>,
    /// [`Protocol::ANY`] here is every protocol that no rule names.
    columns: Vec<(Protocol, Vec<Option<Slot>>)>,
}

impl Grid {
    fn new(lists: &[&[PortRule]]) -> Result<Self, TooMany> {
        let all = || lists.iter().flat_map(|list| listed(list));
        let mut protocols: Vec<_> = all().map(|rule| rule.protocol).chain([Protocol::ANY]).collect();
        protocols.sort_unstable();
        protocols.dedup();
        let mut grid = Self {
            ranges: Vec::new(),
            columns: protocols.into_iter().map(|protocol| (protocol, Vec::new())).collect(),
        };
        for port in starts(all()) {
            let cells: Vec<_> =
                grid.columns.iter().map(|(protocol, _)| Some(said(lists, port, *protocol))).collect();
            let same = grid.columns.iter().zip(&cells).all(|((_, column), cell)| column.last() == Some(cell));
            match grid.ranges.last_mut() {
                Some((_, high)) if same => *high = u16::MAX,
                last => {
                    if let Some((_, high)) = last {
                        *high = port.saturating_sub(1);
                    }
                    grid.ranges.push((port, u16::MAX));
                    grid.columns.iter_mut().zip(cells).for_each(|((_, column), cell)| column.push(cell));
                }
            }
            if grid.ranges.len() > MOST_RANGES {
                return Err(TooMany);
            }
        }
        Ok(grid)
    }

    /// Takes rules off until nothing is left.
    fn peel(mut self) -> Result<Vec<PortRule>, TooMany> {
        let mut rules = Vec::new();
        while let Some(best) = self.best() {
            if rules.len() == MAX_NAMED_PORTS {
                return Err(TooMany);
            }
            let (low, _) = self.ranges.get(best.first).copied().unwrap_or_default();
            let (_, high) = self.ranges.get(best.last).copied().unwrap_or_default();
            rules.push(PortRule {
                low,
                high,
                verdict: best.says.verdict().0,
                protocol: best.protocol,
                pad: [0; 2],
                rule: best.says.rule(),
            });
            for column in about(&mut self.columns, best.protocol) {
                column.iter_mut().take(best.last + 1).skip(best.first).for_each(|cell| *cell = None);
            }
        }
        Ok(rules)
    }

    /// The rule that leaves the fewest changes from port to port; of several one about any protocol, then the narrowest. While
    /// something is left there is one that leaves fewer than there were: what is said of a single protocol from one change to
    /// the next, and where of none any more, what is said of all others.
    fn best(&self) -> Option<Peel> {
        let mut best: Option<(Rank, Peel)> = None;
        for (protocol, _) in &self.columns {
            let columns: Vec<&[Option<Slot>]> = self
                .columns
                .iter()
                .filter(|(other, _)| *protocol == Protocol::ANY || other == protocol)
                .map(|(_, column)| column.as_slice())
                .collect();
            for first in 0..self.ranges.len() {
                let mut says = None;
                for last in first..self.ranges.len() {
                    let mut cells = columns.iter().filter_map(|column| column.get(last).copied().flatten());
                    if !cells.all(|cell| cell.is_some() && *says.get_or_insert(cell) == cell) {
                        break;
                    }
                    let Some(says) = says else { continue };
                    let gain = columns.iter().map(|column| gain(column, first, last)).sum();
                    let rank = (gain, *protocol == Protocol::ANY, Reverse(last - first));
                    if gain > 0 && best.is_none_or(|(most, _)| rank > most) {
                        best = Some((rank, Peel { protocol: *protocol, first, last, says }));
                    }
                }
            }
        }
        best.map(|(_, peel)| peel)
    }
}

/// How much is gained by it, whether it is about any protocol, and how narrow it is.
type Rank = (usize, bool, Reverse<usize>);

/// A rule that can be peeled off: about these ranges.
#[derive(Clone, Copy)]
struct Peel {
    protocol: Protocol,
    first: usize,
    last: usize,
    says: Slot,
}

/// The columns that a rule for a protocol is about.
fn about(
    columns: &mut [(Protocol, Vec<Option<Slot>>)],
    protocol: Protocol,
) -> impl Iterator<Item = &mut Vec<Option<Slot>>> {
    columns
        .iter_mut()
        .filter(move |(other, _)| protocol == Protocol::ANY || *other == protocol)
        .map(|(_, column)| column)
}

/// How many stretches that say the same a column has fewer without some of its cells.
fn gain(column: &[Option<Slot>], first: usize, last: usize) -> usize {
    let stretches = |left_out: bool| {
        let cells = column.iter().enumerate();
        let cells = cells.filter(|(at, _)| !left_out || *at < first || *at > last);
        let mut before = None;
        cells.filter_map(|(_, cell)| *cell).filter(|cell| before.replace(*cell) != Some(*cell)).count()
    };
    stretches(false).saturating_sub(stretches(true))
}

/// The strictest that is said of a port.
fn said(lists: &[&[PortRule]], port: u16, protocol: Protocol) -> Slot {
    let first = |list: &&[PortRule]| {
        let about = |rule: &&PortRule| {
            rule.low <= port
                && port <= rule.high
                && (rule.protocol == Protocol::ANY || rule.protocol == protocol)
        };
        listed(list).find(about).map_or(Slot::NONE, PortRule::slot)
    };
    lists.iter().map(first).fold(Slot::NONE, Slot::stricter)
}

#[cfg(test)]
mod tests {
    use agent_guard_common::Verdict;
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn rule(low: u16, high: u16, protocol: Protocol, verdict: Verdict, number: u32) -> PortRule {
        PortRule { low, high, verdict: verdict.0, protocol, pad: [0; 2], rule: number }
    }

    const ANY: Protocol = Protocol::ANY;

    fn count(lists: &[&[PortRule]]) -> usize {
        listed(&merge(lists).unwrap()).count()
    }

    #[test]
    fn as_few_as_possible() {
        let https = rule(443, 443, ANY, Verdict::ALLOW, 1);
        let again = rule(443, 443, ANY, Verdict::ALLOW, 9);
        assert_eq!(merge(&[&[https], &[again]]).unwrap()[..2], [https, PortRule::default()]);
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[&[], &[PortRule::default(), https]]), 0);
        // A port of its own within a range.
        let all = rule(0, u16::MAX, ANY, Verdict::DENY, 2);
        assert_eq!(merge(&[&[https, all]]).unwrap()[..3], [https, all, PortRule::default()]);
        // A protocol of its own around a range of all.
        let (tcp, middle) =
            (rule(1, 100, Protocol::TCP, Verdict::ALLOW, 3), rule(50, 60, ANY, Verdict::HOLD, 4));
        assert_eq!(merge(&[&[tcp], &[middle]]).unwrap()[..3], [middle, tcp, PortRule::default()]);
        // The stricter one hides the other.
        let (wide, strict) = (rule(1, 100, ANY, Verdict::ALLOW, 5), rule(1, 200, ANY, Verdict::DENY, 6));
        assert_eq!(merge(&[&[wide], &[strict]]).unwrap()[..2], [strict, PortRule::default()]);
    }

    #[test]
    fn no_more_than_there_is_room_for() {
        let ports = |numbers: std::ops::Range<u16>| -> Vec<PortRule> {
            numbers.map(|at| rule(at * 10, at * 10, ANY, Verdict::ALLOW, at.into())).collect()
        };
        assert_eq!(count(&[&ports(1..9)]), 8);
        assert_eq!(merge(&[&ports(1..10)]), Err(TooMany));
        assert_eq!(merge(&[&ports(1..9), &ports(20..21)]), Err(TooMany));
        assert_eq!(count(&[&ports(1..9), &ports(3..6)]), 8);
        let many: Vec<Vec<PortRule>> = (1..2000).map(|at| ports(at..at + 1)).collect();
        let many: Vec<&[PortRule]> = many.iter().map(Vec::as_slice).collect();
        assert_eq!(merge(&many), Err(TooMany));
    }

    fn some_rule() -> impl Strategy<Value = PortRule> {
        let ports = prop_oneof![
            3 => (0_u16..12, 0_u16..8).prop_map(|(low, more)| (low, low + more)),
            1 => Just((0, u16::MAX)),
            1 => (65530_u16..=65535).prop_map(|low| (low, u16::MAX)),
        ];
        let protocols = select(vec![ANY, ANY, Protocol::TCP, Protocol::UDP, Protocol::ICMP]);
        (ports, protocols, select(Verdict::ALL.to_vec()), 1_u32..20)
            .prop_map(|((low, high), protocol, verdict, number)| rule(low, high, protocol, verdict, number))
    }

    /// Every port that could make a difference, of every protocol, and one that no rule names.
    fn questions() -> impl Iterator<Item = (u16, Protocol)> {
        let ports = (0..24).chain(65525..=65535);
        ports.flat_map(|port| {
            Protocol::ALL.into_iter().chain([Protocol(255)]).map(move |protocol| (port, protocol))
        })
    }

    fn naive(lists: &[Vec<PortRule>], port: u16, protocol: Protocol) -> Slot {
        let mut strictest = Slot::NONE;
        for list in lists {
            for rule in list {
                if rule.is_about(port, protocol) {
                    strictest = strictest.stricter(rule.slot());
                    break;
                }
            }
        }
        strictest
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_strictest_of_what_each_says(lists in vec(vec(some_rule(), 0..5), 0..5)) {
            let slices: Vec<&[PortRule]> = lists.iter().map(Vec::as_slice).collect();
            let Ok(merged) = merge(&slices) else { return Ok(()) };
            for (port, protocol) in questions() {
                let found = super::super::first(&merged, port, protocol).map_or(Slot::NONE, PortRule::slot);
                prop_assert_eq!(found, naive(&lists, port, protocol), "{} {:?}\n{:?}", port, protocol, merged);
            }
        }

        /// One list always fits, and in no other order or number of copies are lists more or less.
        #[test]
        fn order_and_copies_say_nothing(lists in vec(vec(some_rule(), 0..4), 1..4)) {
            let mut slices: Vec<&[PortRule]> = lists.iter().map(Vec::as_slice).collect();
            let merged = merge(&slices);
            slices.reverse();
            slices.extend(slices.clone());
            prop_assert_eq!(merge(&slices), merged);
            for list in &lists {
                let alone = merge(&[list]).unwrap();
                prop_assert!(listed(&alone).count() <= list.len());
            }
        }

        /// What was merged can be merged again.
        #[test]
        fn step_by_step(lists in vec(vec(some_rule(), 0..3), 2..4)) {
            let slices: Vec<&[PortRule]> = lists.iter().map(Vec::as_slice).collect();
            let (Some((last, before)), Ok(all)) = (slices.split_last(), merge(&slices)) else { return Ok(()) };
            let Ok(before) = merge(before) else { return Ok(()) };
            let Ok(stepwise) = merge(&[&before, last]) else { return Ok(()) };
            for (port, protocol) in questions() {
                let first = |list| super::super::first(list, port, protocol).map(PortRule::slot);
                prop_assert_eq!(first(&stepwise), first(&all));
            }
        }
    }
}
