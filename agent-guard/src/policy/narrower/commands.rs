//! Commands: the automata of both profiles read everything that can be read, side by side.

use std::collections::{BTreeSet, HashSet};

use agent_guard_common::{
    Verdict,
    rules::{Slot, Tables as _},
};

use super::{Compared, Side};

/// Pairs of states that are looked at, at most.
const MOST: usize = 1 << 18;

impl Compared<'_> {
    /// Compares what is said of every command there can be.
    pub(super) fn commands(&mut self) {
        let begin = (self.outer.entry.commands, self.inner.entry.commands);
        let (mut seen, mut waiting) = (HashSet::from([begin]), vec![begin]);
        let mut lacking = BTreeSet::new();
        while let Some((outer, inner)) = waiting.pop() {
            // The outer session has no rule any more.
            let Some(state) = self.compiled.command(outer).filter(|_| outer != 0) else { continue };
            let other = self.compiled.command(inner).filter(|_| inner != 0);
            let said = other.map_or(Slot::NONE, |other| other.rule);
            if happens(self.inner, said) < happens(self.outer, state.rule) {
                lacking.insert(state.rule.rule());
            }
            for byte in 0..=u8::MAX {
                let next = (state.after(byte), other.map_or(0, |other| other.after(byte)));
                if next.0 != 0 && seen.insert(next) {
                    waiting.push(next);
                }
            }
            if seen.len() > MOST {
                let message = "the rules about commands are too many to be compared".to_owned();
                return self.say(message, self.inner_origin());
            }
        }
        for rule in lacking {
            let (text, origin) = self.rule(rule);
            let message = format!(
                "profile \"{}\" is milder about some commands that {text} of profile \"{}\" is about",
                self.inner.rules.profile, self.outer.rules.profile
            );
            self.say(message, origin);
        }
    }
}

/// What no rule is about may be executed as far as these rules go.
fn happens(side: Side<'_>, rule: Slot) -> Verdict {
    if rule.is_some() { side.happens(rule.verdict()) } else { Verdict::ALLOW }
}
