//! The compiled tables: what a policy generation looks like in maps.
//!
//! | table | key | value | bound |
//! |---|---|---|---|
//! | objects | [`ObjectKey`] | [`ObjectEntry`] | sized to the policy |
//! | profile objects | [`ProfileKey`] | [`ProfileEntry`] | sized to the policy |
//! | profiles | index | [`Profile`] | [`MAX_PROFILES`] |
//! | networks | prefix of [`NetKey`] | [`NetEntry`] | sized to the policy |

use crate::{
    object::{NetKey, ObjectKey, ProfileKey},
    op::Op,
    verdict::Verdict,
};

/// Profiles of one generation, at most: [`ObjectEntry::profiles`] has one bit for each.
pub const MAX_PROFILES: u32 = 64;

/// Port rules of one address prefix, at most, those of the prefixes around it included.
pub const MAX_PORTS: usize = 16;

/// A rule in one word: number and verdict. 0, the default, is no rule.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slot(u64);

impl Slot {
    /// A rule: its verdict and its number in the generation's list.
    #[must_use]
    pub const fn new(verdict: Verdict, number: u32) -> Self {
        Self((verdict.0 as u64) << 32 | number as u64)
    }

    /// No rule, read from where the verifier doesn't know that it is 0. See [`crate::decide::Walk::seeded`].
    #[inline(always)]
    pub(crate) const fn seeded(zero: u32) -> Self {
        Self((zero as u64) << 32 | zero as u64)
    }

    /// Whether there is a rule.
    #[inline(always)]
    #[must_use]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Its verdict; [`Verdict::NONE`] where there is none.
    #[inline(always)]
    pub const fn verdict(self) -> Verdict {
        Verdict((self.0 >> 32) as u8)
    }

    /// Its number in the generation's list; 0 where there is none.
    #[inline(always)]
    #[must_use]
    pub const fn rule(self) -> u32 {
        self.0 as u32
    }
}

/// Rules of one object, one slot an operation.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpRules {
    slots: [Slot; Op::COUNT],
}

impl OpRules {
    /// The rule for an operation.
    #[inline(always)]
    #[must_use]
    pub fn slot(&self, op: Op) -> Slot {
        match self.slots.get(usize::from(op.0)) {
            Some(slot) => *slot,
            None => Slot(0),
        }
    }

    /// The rule for an operation: verdict and number. Nothing where there is none.
    #[must_use]
    pub fn get(&self, op: Op) -> Option<(Verdict, u32)> {
        let slot = self.slot(op);
        slot.is_some().then(|| (slot.verdict(), slot.rule()))
    }

    /// Sets the rule for an operation.
    pub fn set(&mut self, op: Op, verdict: Verdict, number: u32) {
        if let Some(slot) = self.slots.get_mut(usize::from(op.0)) {
            *slot = Slot::new(verdict, number);
        }
    }
}

/// What all profiles together say of an object.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ObjectEntry {
    /// `[[critical]]` rules.
    pub critical: OpRules,
    /// One bit for each profile that has a [`ProfileEntry`] here.
    pub profiles: u64,
}

/// What one profile says of an object.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProfileEntry {
    /// The profile's rules.
    pub rules: OpRules,
    /// 1 where the object is in `files.scope`.
    pub scope: u32,
    /// Zero.
    pub pad: u32,
}

/// A profile: what it says of everything that no rule names.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Profile {
    /// [`Profile::PRESENT`] and others.
    pub flags: u32,
    /// Verdict of `network.connect`.
    pub connect: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// Verdicts of `files.outside`, one an operation.
    pub outside: [u8; Op::COUNT],
}

impl Profile {
    /// The slot is in use.
    pub const PRESENT: u32 = 1;
    /// `mode = "report"`: judge and log everything, block nothing.
    pub const REPORT_ONLY: u32 = 2;
}

/// A range of ports and what happens to it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortRule {
    /// First port.
    pub low: u16,
    /// Last port.
    pub high: u16,
    /// [`Verdict`]; [`Verdict::NONE`] ends the list.
    pub verdict: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// Number of the rule in the generation's list.
    pub rule: u32,
}

/// What a profile says of an address prefix: the rules of the prefix and of all prefixes around
/// it, the most specific first. The first whose range has the port decides.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NetEntry {
    /// The rules.
    pub ports: [PortRule; MAX_PORTS],
}

/// Where a decision looks things up: maps in the kernel, plain tables in user space.
pub trait Tables {
    /// What all profiles say of an object.
    fn object(&self, key: &ObjectKey) -> Option<&ObjectEntry>;
    /// What one profile says of an object.
    fn profile_object(&self, key: &ProfileKey) -> Option<&ProfileEntry>;
    /// A profile by its index.
    fn profile(&self, index: u32) -> Option<&Profile>;
    /// The entry of the longest prefix that has the address.
    fn network(&self, key: &NetKey) -> Option<&NetEntry>;
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::ObjectEntry {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::ProfileEntry {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Profile {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::NetEntry {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_padding() {
        assert_eq!(size_of::<OpRules>(), 64);
        assert_eq!(size_of::<ObjectEntry>(), 72);
        assert_eq!(size_of::<ProfileEntry>(), 72);
        assert_eq!(size_of::<Profile>(), 16);
        assert_eq!(size_of::<NetEntry>(), 12 * MAX_PORTS);
    }

    #[test]
    fn op_rules() {
        let mut rules = OpRules::default();
        assert_eq!(rules.get(Op::DELETE), None);
        rules.set(Op::DELETE, Verdict::HOLD, 7);
        assert_eq!(rules.get(Op::DELETE), Some((Verdict::HOLD, 7)));
        assert_eq!(rules.get(Op::WRITE), None);
        assert_eq!(rules.get(Op(200)), None);
    }
}
