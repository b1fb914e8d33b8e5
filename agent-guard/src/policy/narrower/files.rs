//! Rules about files, and what is outside.
//!
//! For one walk from an object to the root, where each rule that the outer session meets (and that isn't `allow`) is met by
//! the inner one as well, at the same level and as strict, let `a` be the outer session's deepest rule and `b` the inner
//! one's. If `b` is deeper than `a`, no rule of the outer session is at its level, so it is one of those that only the inner
//! session has: as strict as anything the outer one could say. If both are at one level, the strictest of the inner
//! one's are as strict as those of the outer one. If `a` is deeper, it is `allow`, or the inner session says nothing milder
//! anywhere. That holds within the object's own file system and over mount points alike.

use agent_guard_common::{
    Op, Verdict,
    object::SideKey,
    rules::{OpRules, Place, Side as Said, Slot, Tables as _},
};

use super::{Compared, Grouped, Side, milder};

/// Operations that rules on paths are about.
fn operations() -> impl Iterator<Item = Op> {
    Op::FILE.into_iter().chain([Op::CONNECT])
}

/// What both say at one place.
struct Pair {
    outer: OpRules,
    inner: OpRules,
    inner_scope: bool,
}

impl Compared<'_> {
    /// Compares them at every place.
    pub(super) fn files(&mut self) {
        let pairs: Vec<Pair> =
            self.compiled.places.iter().filter_map(|(at, place)| self.pair(*at, place)).collect();
        let (outer, inner) = (self.outer, self.inner);
        let (mut lacking, mut reaching) = (Grouped::default(), Grouped::default());
        let mut outside = Vec::new();
        for op in operations() {
            let most = strictest(outer, &pairs, op);
            let least = mildest(inner, &pairs, op);
            for pair in &pairs {
                let (bound, mine) = (pair.outer.slot(op), pair.inner.slot(op));
                let (limit, own) = (outer.happens(bound.verdict()), inner.happens(mine.verdict()));
                if bound.is_some() && limit > Verdict::ALLOW {
                    if !(mine.is_some() && own >= limit) && least < limit {
                        lacking.add(bound.rule(), limit, op);
                    }
                } else if mine.is_some() && !bound.is_some() && own < most {
                    reaching.add(mine.rule(), most, op);
                }
            }
            // What nothing names of connections is compared with those to addresses.
            if op != Op::CONNECT && inner.outside(op) < outer.outside(op) {
                outside.push(op);
            }
        }
        for (rule, _, ops) in lacking.into_iter() {
            let (text, origin) = self.rule(rule);
            let message = format!(
                "profile \"{}\" has no rule that is as strict as {text} of profile \"{}\", at the same path: {ops}",
                inner.rules.profile, outer.rules.profile
            );
            self.say(message, origin);
        }
        for (rule, most, ops) in reaching.into_iter() {
            let (text, origin) = self.rule(rule);
            let message = format!(
                "{text} of profile \"{}\" might decide where profile \"{}\" says {}: {ops}",
                inner.rules.profile,
                outer.rules.profile,
                most.name()
            );
            self.say(message, origin);
        }
        for op in outside {
            let what = format!("{} outside of the scope", op.name());
            let message = milder(&what, inner, inner.outside(op), outer, outer.outside(op));
            self.say(message, self.inner_origin());
        }
    }

    fn pair(&self, at: u32, place: &Place) -> Option<Pair> {
        let (outer, inner) = (self.said(self.outer, at, place), self.said(self.inner, at, place));
        let pair = Pair { outer: outer.rules, inner: inner.rules, inner_scope: inner.scope != 0 };
        (outer != Said::default() || inner != Said::default()).then_some(pair)
    }

    /// What the session says there: its profile, and its own paths; of both the strictest.
    fn said(&self, side: Side<'_>, place: u32, of: &Place) -> Said {
        let mut said = Said::default();
        let mut add = |key: SideKey| {
            let Some(more) = self.compiled.side(&key) else { return };
            said.scope |= more.scope;
            for op in operations() {
                let slot = said.rules.slot(op).stricter(more.rules.slot(op));
                if slot.is_some() {
                    said.rules.set(op, slot.verdict(), slot.rule());
                }
            }
        };
        if of.profiles >> (side.index & 63) & 1 != 0 {
            add(SideKey { place, side: side.index });
        }
        if of.flags & Place::SESSIONS != 0 {
            add(SideKey { place, side: SideKey::session(side.rules.binding) });
        }
        said
    }
}

fn rules_of(pairs: &[Pair], op: Op, side: impl Fn(&Pair) -> &OpRules) -> impl Iterator<Item = Slot> {
    pairs.iter().map(move |pair| side(pair).slot(op)).filter(|slot| slot.is_some())
}

/// The strictest that the outer session can say.
fn strictest(side: Side<'_>, pairs: &[Pair], op: Op) -> Verdict {
    let rules = rules_of(pairs, op, |pair| &pair.outer);
    rules.map(|slot| side.happens(slot.verdict())).fold(side.outside(op), Verdict::max)
}

/// The mildest that the inner session can say.
fn mildest(side: Side<'_>, pairs: &[Pair], op: Op) -> Verdict {
    // No scope has sockets.
    if op != Op::CONNECT && pairs.iter().any(|pair| pair.inner_scope) {
        return Verdict::ALLOW;
    }
    let rules = rules_of(pairs, op, |pair| &pair.inner);
    rules.map(|slot| side.happens(slot.verdict())).fold(side.outside(op), Verdict::min)
}
