//! Whether one session is certainly at least as strict as another: what a session within a session must be.
//!
//! The answer is read off the tables that the kernel judges by, not off the text: two paths can lead to the same thing, and what
//! a path led to when the policy was loaded needn't be there any more. It errs on the side of no.
//!
//! | part | what must be so |
//! |---|---|
//! | files, rules ([`files`]) | at every key where the outer session has a rule, the inner one has one that is as strict; where only the inner one has a rule, that is as strict as anything the outer one could say |
//! | files, scope ([`scope`]) | what is in the scope of the inner one is in that of the outer one |
//! | files, outside | each operation as strict |
//! | commands ([`commands`]) | for each command as strict: both automata read together |
//! | connections ([`networks`], [`hosts`], [`sockets`]) | for each prefix, port and protocol, each name, and each abstract name, as strict; Unix sockets that are files are as rules on files |
//! | listening ([`networks`]) | for each prefix, port and protocol as strict |
//! | names that a `*` allows ([`hosts`]) | each limit as strict |
//! | system, capabilities, programs without a path, what isn't enforced without an LSM | each as strict |
//!
//! "As strict" is about what happens: of a profile that only reports nothing is stricter than `report`. What is critical is the
//! same for all.
//!
//! The rules hold whatever is renamed, linked or mounted later, for each is compared at each key that it is bound to. The scope
//! is compared by where things are: a directory that is in both, and that somebody later moves out of the scope of the outer
//! session, stays in that of the inner one until the policy is loaded anew.

mod commands;
mod files;
mod hosts;
mod networks;
mod scope;
mod sockets;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use agent_guard_common::{
    Op, Verdict,
    rules::{Profile as Entry, Tables as _},
    system::CAPABILITIES,
};

use super::{
    fs::Filesystem,
    model::{Degraded, Origin, Policy, Profile},
    session::SessionPaths,
    tables::Compiled,
};

/// The rules that a session has.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Name of the profile.
    pub profile: &'a str,
    /// What its own paths are kept under in the tables.
    pub binding: u32,
    /// Its own paths; none if nothing is said of them.
    pub paths: Option<&'a SessionPaths>,
}

/// Something that the inner session might do and the outer one might not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wider {
    /// What.
    pub message: String,
    /// Where the policy says so; line 0 for what comes with the program.
    pub origin: Option<Origin>,
}

impl fmt::Display for Wider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) if origin.line > 0 => write!(f, "{origin}: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}

/// Whether a session with the inner rules is certainly as strict as one with the outer rules, by these tables.
///
/// # Errors
///
/// What might be wider.
pub fn narrower(
    policy: &Policy,
    compiled: &Compiled,
    fs: &dyn Filesystem,
    outer: Rules<'_>,
    inner: Rules<'_>,
) -> Result<(), Vec<Wider>> {
    if outer.profile == inner.profile && outer.binding == inner.binding {
        return Ok(());
    }
    // Everything is denied to a session whose profile is gone.
    let Some(inner) = Side::of(policy, compiled, inner) else { return Ok(()) };
    let Some(outer) = Side::of(policy, compiled, outer) else {
        let message = format!(
            "the policy has no profile \"{}\" any more, so the session that this one is in may do nothing",
            outer.profile
        );
        return Err(vec![Wider { message, origin: None }]);
    };
    let mut compared = Compared { compiled, outer, inner, found: Vec::new() };
    compared.files();
    compared.scope(fs);
    compared.commands();
    compared.networks();
    compared.hosts();
    compared.abstracts();
    compared.system();
    if compared.found.is_empty() { Ok(()) } else { Err(compared.found) }
}

/// A session, as the tables and the policy have it.
#[derive(Clone, Copy)]
struct Side<'a> {
    rules: Rules<'a>,
    index: u32,
    entry: &'a Entry,
    profile: &'a Profile,
}

impl<'a> Side<'a> {
    fn of(policy: &'a Policy, compiled: &'a Compiled, rules: Rules<'a>) -> Option<Self> {
        let index = compiled.profile_index(rules.profile)?;
        let entry = compiled.profile(index)?;
        Some(Self { rules, index, entry, profile: policy.profile(rules.profile)? })
    }

    /// What happens where the policy says so. Not for what is critical.
    fn happens(&self, verdict: Verdict) -> Verdict {
        let softened = self.entry.flags & Entry::REPORT_ONLY != 0 && !verdict.goes_on();
        if softened { Verdict::REPORT } else { verdict }
    }

    fn outside(&self, op: Op) -> Verdict {
        self.happens(byte(&self.entry.outside, usize::from(op.0)))
    }
}

/// A verdict in a table; one that isn't there is a fault, which denies.
fn byte(verdicts: &[u8], at: usize) -> Verdict {
    verdicts.get(at).copied().map_or(Verdict::DENY, Verdict)
}

/// Two sessions, and what has been found.
struct Compared<'a> {
    compiled: &'a Compiled,
    outer: Side<'a>,
    inner: Side<'a>,
    found: Vec<Wider>,
}

impl Compared<'_> {
    fn say(&mut self, message: String, origin: Option<Origin>) {
        self.found.push(Wider { message, origin });
    }

    /// A rule of the tables in words, and where it stands.
    fn rule(&self, number: u32) -> (String, Option<Origin>) {
        match self.compiled.rule(number) {
            Some(rule) => {
                let origin = Origin { file: rule.file.clone(), line: rule.line, column: rule.column };
                (format!("`{}`", rule.text()), Some(origin))
            }
            None => ("a rule".to_owned(), None),
        }
    }

    /// Where a profile stands.
    fn inner_origin(&self) -> Option<Origin> {
        Some(self.inner.profile.origin.clone())
    }

    /// Operations on the system, capabilities, and programs that no path leads to.
    fn system(&mut self) {
        let (outer, inner) = (self.outer, self.inner);
        let of = |side: Side<'_>, op: Op| {
            side.happens(byte(&side.entry.system, usize::from(op.0) & (Op::SYSTEM_COUNT - 1)))
        };
        for op in Op::SYSTEM {
            let (mine, bound) = (of(inner, op), of(outer, op));
            if mine < bound {
                let origin = inner.profile.system.origin(op).or(Some(&inner.profile.origin)).cloned();
                self.say(milder(op.name(), inner, mine, outer, bound), origin);
            }
        }
        let (mine, bound) = [inner, outer].map(|side| side.happens(Verdict(side.entry.anonymous))).into();
        if mine < bound {
            self.say(milder("anonymous programs", inner, mine, outer, bound), self.inner_origin());
        }
        if (inner.profile.degraded, outer.profile.degraded) == (Degraded::Report, Degraded::Refuse) {
            let message = format!(
                "profile \"{}\" says `degraded = \"report\"`, profile \"{}\" doesn't",
                inner.rules.profile, outer.rules.profile
            );
            self.say(message, self.inner_origin());
        }
        let all = (1_u64 << CAPABILITIES.len()) - 1;
        let used = inner.entry.capabilities & !outer.entry.capabilities & all;
        let lacked = !outer.entry.capabilities & all != 0;
        if used != 0 {
            let named = (0..).zip(CAPABILITIES).filter(|(number, _)| used >> number & 1 != 0);
            let names: Vec<&str> = named.map(|(_, name)| name).collect();
            let message = format!(
                "capabilities of profile \"{}\" that profile \"{}\" doesn't have: {}",
                inner.rules.profile,
                outer.rules.profile,
                names.join(", ")
            );
            self.say(message, self.inner_origin());
        } else if lacked && inner.happens(Verdict::DENY) < outer.happens(Verdict::DENY) {
            let message = format!(
                "profile \"{}\" only reports the use of capabilities, profile \"{}\" denies it",
                inner.rules.profile, outer.rules.profile
            );
            self.say(message, self.inner_origin());
        }
    }
}

/// What is said where the inner session is milder.
fn milder(what: &str, inner: Side<'_>, mine: Verdict, outer: Side<'_>, bound: Verdict) -> String {
    format!(
        "{what}: profile \"{}\" says {}, profile \"{}\" says {}",
        inner.rules.profile,
        mine.name(),
        outer.rules.profile,
        bound.name()
    )
}

/// Operations by what is to be said of them.
#[derive(Default)]
struct Grouped(BTreeMap<(u32, u8), Vec<Op>>);

impl Grouped {
    fn add(&mut self, rule: u32, verdict: Verdict, op: Op) {
        let ops = self.0.entry((rule, verdict.0)).or_default();
        if !ops.contains(&op) {
            ops.push(op);
        }
    }

    fn into_iter(self) -> impl Iterator<Item = (u32, Verdict, String)> {
        self.0.into_iter().map(|((rule, verdict), ops)| {
            let names: Vec<&str> = ops.iter().map(|op| op.name()).collect();
            (rule, Verdict(verdict), names.join(", "))
        })
    }
}
