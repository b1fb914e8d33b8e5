//! THE decision: from a session's profile, an operation and an object to a verdict.
//!
//! Written once and compiled twice: the kernel's hooks run it over maps, `policy explain` and
//! `policy check` over plain tables. It is pure; who calls it supplies the objects.
//!
//! For files the caller walks from the object up to the root and shows every ancestor to
//! [`Walk::step`]; the order is from the object outwards, so the first rule met is the deepest.

use crate::{
    object::{Chain, NetKey, ObjectKey, ProfileKey},
    op::Op,
    rules::{MAX_PROFILES, Profile, Slot, Tables},
    verdict::{Fault, Source, Verdict},
};

/// What was decided, and by what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// What the policy says. Differs from `verdict` where the profile only reports.
    pub policy: Verdict,
    /// Which part of the policy says so.
    pub source: Source,
    /// Number of the rule in the generation's list; 0 where no single rule decided.
    pub rule: u32,
}

impl Decision {
    /// A decision as the policy says it.
    pub const fn new(verdict: Verdict, source: Source, rule: u32) -> Self {
        Self { verdict, policy: verdict, source, rule }
    }

    /// A decision by a rule.
    #[inline(always)]
    const fn of(slot: Slot, source: Source) -> Self {
        Self::new(slot.verdict(), source, slot.rule())
    }

    /// What needs no rule.
    pub const fn builtin() -> Self {
        Self::new(Verdict::ALLOW, Source::BUILTIN, 0)
    }

    /// The stricter of two: a call that does several things is as strict as the strictest.
    pub const fn stricter(self, other: Self) -> Self {
        if other.verdict.0 > self.verdict.0
            || (other.verdict.0 == self.verdict.0 && other.policy.0 > self.policy.0)
        {
            other
        } else {
            self
        }
    }

    /// `mode = "report"` blocks nothing, except what is critical: no profile reaches below that.
    #[inline(always)]
    fn under(self, profile: &Profile) -> Self {
        let report = profile.flags & Profile::REPORT_ONLY != 0
            && self.source != Source::CRITICAL
            && !self.verdict.goes_on();
        Self { verdict: if report { Verdict::REPORT } else { self.verdict }, ..self }
    }
}

/// The first rules met along one chain: the deepest.
#[derive(Clone, Copy, Debug)]
struct Met {
    critical: Slot,
    rule: Slot,
}

/// A walk from an object to the root.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    profile: u32,
    op: Op,
    /// Not 0 once an ancestor is in scope.
    in_scope: u32,
    tree: Met,
    mount: Met,
}

impl Walk {
    /// Starts a walk for one operation of one profile.
    #[inline(always)]
    #[must_use]
    pub const fn new(profile: u32, op: Op) -> Self {
        Self::seeded(profile, op, 0)
    }

    /// As [`Walk::new`], for the kernel: `zero` is 0, read from where the verifier doesn't know that.
    ///
    /// VERIFIER: a walk that begins with constants has other known values on every path through every
    /// step, and each combination is verified on its own. Begun with values that it knows nothing of, all paths
    /// through a step end alike and are verified once.
    #[inline(always)]
    #[must_use]
    pub const fn seeded(profile: u32, op: Op, zero: u32) -> Self {
        let nothing = Slot::seeded(zero);
        let met = Met { critical: nothing, rule: nothing };
        Self { profile, op, in_scope: zero, tree: met, mount: met }
    }

    /// Shows the walk the object itself, then each ancestor, from the deepest to the root.
    #[inline(always)]
    pub fn step<T: Tables>(&mut self, tables: &T, key: &ObjectKey, chain: Chain) {
        let Some(entry) = tables.object(key) else { return };
        let met = match chain {
            Chain::Tree => &mut self.tree,
            Chain::Mount => &mut self.mount,
        };
        if !met.critical.is_some() {
            met.critical = entry.critical.slot(self.op);
        }
        // Of a profile that can't be, `finish` says so.
        if entry.profiles & (1 << (self.profile % MAX_PROFILES)) != 0 {
            let key = ProfileKey { ino: key.ino, dev: key.dev, profile: self.profile };
            if let Some(entry) = tables.profile_object(&key) {
                if !met.rule.is_some() {
                    met.rule = entry.rules.slot(self.op);
                }
                if matches!(chain, Chain::Tree) {
                    self.in_scope |= entry.scope;
                }
            }
        }
    }

    /// Takes the scope out of consideration: what is acted on isn't lost with the directory it is in. A device node is
    /// a way to the device, wherever somebody has made it.
    #[inline(always)]
    pub fn ignore_scope(&mut self) {
        self.in_scope = 0;
    }

    /// Ends the walk: `critical` first and always, else the deepest rule, else the scope, else what
    /// the profile says of everything outside.
    ///
    /// What is only reached through a mount point makes the answer stricter, never milder: whoever may mount
    /// chooses where.
    ///
    /// # Errors
    ///
    /// [`Fault::PROFILE`] if the generation doesn't know the profile.
    #[inline(always)]
    pub fn finish<T: Tables>(self, tables: &T) -> Result<Decision, Fault> {
        let profile = match tables.profile(self.profile) {
            Some(profile) if profile.flags & Profile::PRESENT != 0 => profile,
            _ => return Err(Fault::PROFILE),
        };
        let Self { tree, mount, .. } = self;
        let mut decision = if tree.critical.is_some() {
            Decision::of(tree.critical, Source::CRITICAL)
        } else {
            self.ordinary(profile)?
        };
        if mount.critical.is_some() && !tree.critical.is_some() {
            let critical = Decision::of(mount.critical, Source::CRITICAL);
            decision = decision.stricter(critical);
        }
        Ok(decision)
    }

    /// What the profile says.
    #[inline(always)]
    fn ordinary(&self, profile: &Profile) -> Result<Decision, Fault> {
        let Self { tree, mount, .. } = self;
        if tree.rule.is_some() {
            return Ok(Decision::of(tree.rule, Source::RULE).under(profile));
        }
        let rest = if self.in_scope != 0 {
            Decision::new(Verdict::ALLOW, Source::SCOPE, 0)
        } else {
            let verdict = profile.outside.get(usize::from(self.op.0)).copied().map_or(Verdict::NONE, Verdict);
            Decision::new(known(verdict)?, Source::OUTSIDE, 0)
        };
        let rest = rest.under(profile);
        if mount.rule.is_some() {
            let rule = Decision::of(mount.rule, Source::RULE);
            return Ok(rest.stricter(rule.under(profile)));
        }
        Ok(rest)
    }
}

/// A table that says nothing where it must say something is a fault, never an answer.
#[inline(always)]
fn known(verdict: Verdict) -> Result<Verdict, Fault> {
    if verdict.0 >= Verdict::ALLOW.0 && verdict.0 <= Verdict::KILL.0 {
        Ok(verdict)
    } else {
        Err(Fault::PROFILE)
    }
}

/// Decides about a connection (or a message sent without one) to an address.
///
/// `addr` is the address that the kernel goes to ([`crate::object::effective`]), IPv4 mapped;
/// `port` is in host order. Of the rules of the longest prefix the first with the port decides, else what
/// the profile says of connections that nothing names.
///
/// # Errors
///
/// [`Fault::PROFILE`] if the generation doesn't know the profile.
#[inline(always)]
pub fn connect<T: Tables>(tables: &T, profile: u32, addr: [u8; 16], port: u16) -> Result<Decision, Fault> {
    let entry = match tables.profile(profile) {
        Some(entry) if entry.flags & Profile::PRESENT != 0 => entry,
        _ => return Err(Fault::PROFILE),
    };
    if let Some(net) = tables.network(&NetKey::new(profile, addr)) {
        for rule in &net.ports {
            if rule.verdict == Verdict::NONE.0 {
                break;
            }
            if rule.low <= port && port <= rule.high {
                let verdict = known(Verdict(rule.verdict))?;
                return Ok(Decision::new(verdict, Source::RULE, rule.rule).under(entry));
            }
        }
    }
    Ok(Decision::new(known(Verdict(entry.connect))?, Source::NETWORK, 0).under(entry))
}

#[cfg(test)]
mod tests;
