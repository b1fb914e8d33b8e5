//! Abstract names of Unix sockets. Those that are files are rules on files ([`super::files`]).
//!
//! A name is decided by the rule for just that name, else by the longest that it begins with. So what is to be compared is,
//! for each name that a rule of either has, that very name, and the names that begin so and that no longer rule has.

use std::collections::BTreeSet;

use agent_guard_common::{
    Verdict,
    object::{AbstractKey, AbstractName},
};

use super::{Compared, Side};
use crate::policy::sockets::key;

impl Compared<'_> {
    /// Compares what is said of every abstract name.
    pub(super) fn abstracts(&mut self) {
        let known = |side: Side<'_>| {
            let profile = side.index.to_be_bytes();
            let of = self.compiled.abstracts.keys().filter(move |(_, name)| name.profile == profile);
            of.filter_map(|(bits, name)| {
                let length = usize::try_from(bits / 8).ok()?.checked_sub(5)?;
                name.bytes.get(..length).map(<[u8]>::to_vec)
            })
        };
        let names: BTreeSet<Vec<u8>> =
            known(self.outer).chain(known(self.inner)).chain([Vec::new()]).collect();
        // By the rules that decide, 0 for none.
        let mut found = BTreeSet::new();
        for name in &names {
            for whole in [true, false] {
                let (bound, rule) = self.decides_name(self.outer, name, whole);
                let (mine, own) = self.decides_name(self.inner, name, whole);
                if mine < bound {
                    found.insert((own, rule, mine.0, bound.0));
                }
            }
        }
        for (own, rule, mine, bound) in found {
            self.say_connect((own, Verdict(mine)), (rule, Verdict(bound)));
        }
    }

    /// What happens to a name, if it is `whole`; else to those that begin so.
    fn decides_name(&self, side: Side<'_>, name: &[u8], whole: bool) -> (Verdict, u32) {
        let rule = |name: &[u8], whole: bool| {
            let (AbstractKey { name: mut at, .. }, length) = key(name)?;
            at.profile = side.index.to_be_bytes();
            at.whole = if whole { u8::try_from(length + 1).ok()? } else { 0 };
            self.compiled.abstracts.get(&(AbstractName::bits(length), at))
        };
        let exactly = if whole { rule(name, true) } else { None };
        let begins = || (0..=name.len()).rev().find_map(|length| rule(name.get(..length)?, false));
        let entry = exactly.or_else(begins);
        let (verdict, number) = entry.map_or((side.entry.connect, 0), |entry| {
            (u8::try_from(entry.verdict).unwrap_or(u8::MAX), entry.rule)
        });
        (side.happens(Verdict(verdict)), number)
    }
}
