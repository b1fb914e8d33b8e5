//! THE decision: from a session's profile, an operation and an object to a verdict.
//!
//! Written once and compiled twice: the kernel's hooks run it over maps, `policy explain` and
//! `policy check` over plain tables. It is pure; who calls it supplies the objects.
//!
//! For files the caller walks from the object up to the root. At each level, which is an object and its name, it tells
//! [`Walk`] which places it has found there, and says [`Walk::up`] when the level is done. The order is from the object
//! outwards, so the first level with a rule is the deepest; within a level the strictest rule counts.

use crate::{
    object::{Chain, SideKey},
    op::Op,
    rules::{MAX_PROFILES, Place, Profile, Slot, Tables},
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

/// Rules that were met: those of one level, or the deepest of a chain.
#[derive(Clone, Copy, Debug)]
struct Met {
    critical: Slot,
    rule: Slot,
}

/// What is met through one [`Chain`].
#[derive(Clone, Copy, Debug)]
struct Lane {
    /// The deepest of all levels that are done.
    met: Met,
    /// The level that is done, but for what is said of everything below the next one.
    below: Met,
    /// The level that is being looked at.
    here: Met,
}

/// Whose walk it is, and for what.
#[derive(Clone, Copy)]
struct Whose {
    profile: u32,
    binding: u32,
    op: Op,
}

impl Whose {
    /// Adds what a place says to what others at the level say. Not 0 if it is in scope.
    #[inline(always)]
    fn say<T: Tables>(self, tables: &T, number: u32, place: &Place, met: &mut Met) -> u32 {
        let mut scope = 0;
        met.critical = met.critical.stricter(place.critical.slot(self.op));
        // VERIFIER: one key, the stack is short.
        let mut key = SideKey { place: number, side: self.profile };
        // Of a profile that can't be, `finish` says so.
        if place.profiles & (1 << (self.profile % MAX_PROFILES)) != 0
            && let Some(side) = tables.side(&key)
        {
            met.rule = met.rule.stricter(side.rules.slot(self.op));
            scope |= side.scope;
        }
        key.side = SideKey::session(self.binding);
        if place.flags & Place::SESSIONS != 0
            && let Some(side) = tables.side(&key)
        {
            met.rule = met.rule.stricter(side.rules.slot(self.op));
            scope |= side.scope;
        }
        scope
    }
}

impl Lane {
    /// The level is done.
    #[inline(always)]
    fn up(&mut self) {
        self.met.unless_met(self.below);
        self.below = self.here;
        self.here = Met { critical: Slot::NONE, rule: Slot::NONE };
    }
}

impl Met {
    /// Takes what a level has, unless a deeper one had something.
    #[inline(always)]
    fn unless_met(&mut self, level: Self) {
        if !self.critical.is_some() {
            self.critical = level.critical;
        }
        if !self.rule.is_some() {
            self.rule = level.rule;
        }
    }
}

/// A walk from an object to the root.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    profile: u32,
    binding: u32,
    op: Op,
    /// Not 0 once an ancestor is in scope.
    in_scope: u32,
    /// Not 0 if the tables name a place that isn't there.
    broken: u32,
    /// Not 0 once there is a level below the one that is being looked at.
    deeper: u32,
    /// Levels until all that was met has come to where it counts. 0 on most levels of most walks, which then have
    /// nothing to do.
    pending: u32,
    tree: Lane,
    mount: Lane,
}

impl Walk {
    /// Starts a walk for one operation, of one profile and the binding of a session.
    #[inline(always)]
    #[must_use]
    pub const fn new(profile: u32, binding: u32, op: Op) -> Self {
        Self::seeded(profile, binding, op, 0)
    }

    /// As [`Walk::new`], for the kernel: `zero` is 0, read from where the verifier doesn't know that.
    ///
    /// VERIFIER: a walk that begins with constants has other known values on every path through every
    /// step, and each combination is verified on its own. Begun with values that it knows nothing of, all paths
    /// through a step end alike and are verified once.
    #[inline(always)]
    #[must_use]
    pub const fn seeded(profile: u32, binding: u32, op: Op, zero: u32) -> Self {
        let nothing = Slot::seeded(zero);
        let met = Met { critical: nothing, rule: nothing };
        let lane = Lane { met, below: met, here: met };
        Self {
            profile,
            binding,
            op,
            in_scope: zero,
            broken: zero,
            deeper: zero,
            pending: zero,
            tree: lane,
            mount: lane,
        }
    }

    /// Tells the walk that the level it looks at has this place, by whatever way it was found. `chain` says what that
    /// way led through: a chain of names that climbs over a mount point is [`Chain::Mount`] at a level of the tree too.
    #[inline(always)]
    pub fn meet<T: Tables>(&mut self, tables: &T, number: u32, chain: Chain) {
        let Some(place) = tables.place(number) else {
            self.broken |= 1;
            return;
        };
        self.pending = 2;
        let whose = Whose { profile: self.profile, binding: self.binding, op: self.op };
        let (lane, counts) = match chain {
            Chain::Tree => (&mut self.tree, u32::MAX),
            // A scope that is only reached over a mount point is none.
            Chain::Mount => (&mut self.mount, 0),
        };
        self.in_scope |= whose.say(tables, number, place, &mut lane.here) & counts;
        // Of the object itself nothing is said by what is said of everything in it.
        if place.below != 0 && self.deeper != 0 {
            match tables.place(place.below) {
                Some(below) => {
                    self.in_scope |= whose.say(tables, place.below, below, &mut lane.below) & counts;
                }
                None => self.broken |= 1,
            }
        }
    }

    /// The level is done: the next one is the directory it is in.
    ///
    /// What a place says of everything directly below it is known one level later only, so a level counts when the next
    /// one is done.
    #[inline(always)]
    pub fn up(&mut self, chain: Chain) {
        if self.leave_level() {
            self.carry(chain);
        }
    }

    /// The first half of [`Walk::up`]: true if there is a second one, [`Walk::carry`]. On most levels of most walks there
    /// isn't.
    #[inline(always)]
    #[must_use]
    pub const fn leave_level(&mut self) -> bool {
        self.deeper = 1;
        self.pending != 0
    }

    /// Takes what was met one level on.
    #[inline(always)]
    pub fn carry(&mut self, chain: Chain) {
        self.pending = self.pending.saturating_sub(1);
        // Beyond its file system nothing is added to the object's own tree any more.
        if matches!(chain, Chain::Tree) {
            self.tree.up();
        }
        self.mount.up();
    }

    /// The object's own file system ends here: what comes is found over mount points. To be called at its root, instead
    /// of [`Walk::up`]: the root and the directory it is mounted on are one level. So are a root and a mount point
    /// further up: between those nothing is called.
    #[inline(always)]
    pub fn leave_file_system(&mut self) {
        if self.pending != 0 {
            self.tree.up();
            self.tree.up();
        }
    }

    /// What the object's own tree says: its critical rule, its other rule, and whether it is in scope. Ends the walk like
    /// [`Walk::finish`]; for whoever makes tables.
    #[must_use]
    pub fn own(mut self) -> (Slot, Slot, bool) {
        self.leave_file_system();
        (self.tree.met.critical, self.tree.met.rule, self.scoped())
    }

    /// Whether the scope counts, and has it. Who listens at a socket is somebody, wherever the socket is.
    #[inline(always)]
    const fn scoped(&self) -> bool {
        self.in_scope != 0 && self.op.0 != Op::CONNECT.0
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
    /// [`Fault::PROFILE`] if the generation doesn't know the profile, [`Fault::GENERATION`] if its tables are wrong.
    #[inline(always)]
    pub fn finish<T: Tables>(&mut self, tables: &T) -> Result<Decision, Fault> {
        self.leave_file_system();
        self.up(Chain::Mount);
        self.up(Chain::Mount);
        if self.broken != 0 {
            return Err(Fault::GENERATION);
        }
        let profile = profile(tables, self.profile)?;
        let (tree, mount) = (self.tree.met, self.mount.met);
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
        let (tree, mount) = (self.tree.met, self.mount.met);
        if tree.rule.is_some() {
            return Ok(Decision::of(tree.rule, Source::RULE).under(profile));
        }
        let rest = if self.scoped() {
            Decision::new(Verdict::ALLOW, Source::SCOPE, 0)
        } else {
            // VERIFIER: masked instead of compared, see [`crate::rules::OpRules::slot`].
            let verdict = profile.outside.get(usize::from(self.op.0) & (Op::COUNT - 1));
            let source = if self.op.0 == Op::CONNECT.0 { Source::NETWORK } else { Source::OUTSIDE };
            Decision::new(known(verdict.copied().map_or(Verdict::NONE, Verdict))?, source, 0)
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

/// The profile with that index.
#[inline(always)]
fn profile<T: Tables>(tables: &T, index: u32) -> Result<&Profile, Fault> {
    match tables.profile(index) {
        Some(profile) if profile.flags & Profile::PRESENT != 0 => Ok(profile),
        _ => Err(Fault::PROFILE),
    }
}

pub use single::{Command, abstract_name, capability, command, connect, listen, system};

mod single;
#[cfg(test)]
mod tests;
