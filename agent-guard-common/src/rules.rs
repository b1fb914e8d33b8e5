//! The compiled tables: what a policy generation looks like in maps.
//!
//! | table | key | value | bound |
//! |---|---|---|---|
//! | head | 0 | [`Head`] | 1 |
//! | filter | word | 64 bits, see [`crate::names`] | [`crate::names::FILTER_WORDS`] |
//! | objects | [`ObjectKey`] | number of a place | sized to the policy |
//! | names | [`NameKey`] | number of a place | sized to the policy |
//! | shapes | hash of a name | [`Shapes`] | sized to the policy |
//! | places | number | [`Place`] | sized to the policy |
//! | sides | [`SideKey`] | [`Side`] | sized to the policy and its sessions |
//! | profiles | index | [`Profile`] | [`MAX_PROFILES`] |
//! | commands | state | [`CommandState`] | sized to the policy |
//! | programs | [`ObjectKey`] | number of a program | sized to the policy |
//! | networks | prefix of [`NetKey`] | [`NetEntry`] | sized to the policy |
//! | named | [`NamedKey`] | [`Named`] | [`MAX_NAMED`] |
//! | abstracts | prefix of [`AbstractName`](crate::object::AbstractName) | [`AbstractEntry`] | sized to the policy |
//!
//! A *place* is what all rules together say of one path: where it leads to (an object) and how it is called (names)
//! have the same place.

use crate::{
    names::Shapes,
    net::{NamedKey, NetKey, Protocol},
    object::{AbstractKey, NameKey, ObjectKey, SideKey},
    op::Op,
    verdict::Verdict,
};

/// Profiles of one generation, at most: [`Place::profiles`] has one bit for each.
pub const MAX_PROFILES: u32 = 64;

/// Port rules of one address prefix, at most, those of the prefixes around it included.
pub const MAX_PORTS: usize = 16;
/// Port rules of one address that has names, at most.
pub const MAX_NAMED_PORTS: usize = 8;
/// Addresses that sessions have from asking for names, at most, all together.
pub const MAX_NAMED: u32 = 1 << 16;

/// A rule in one word: its verdict, then its number counted down from 0. So the greater of two is the stricter, and of
/// two that are as strict the one with the lower number. 0, the default, is no rule.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slot(u64);

impl Slot {
    /// No rule.
    pub const NONE: Self = Self(0);

    /// A rule: its verdict and its number in the generation's list.
    #[must_use]
    pub const fn new(verdict: Verdict, number: u32) -> Self {
        Self((verdict.0 as u64) << 32 | number.wrapping_neg() as u64)
    }

    /// The stricter of two; of two that are as strict the one with the lower number.
    #[inline(always)]
    #[must_use]
    pub const fn stricter(self, other: Self) -> Self {
        if other.0 > self.0 { other } else { self }
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
        (self.0 as u32).wrapping_neg()
    }
}

/// Rules of one object, one slot an operation.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpRules {
    slots: [Slot; Op::COUNT],
}

const _: () = assert!(Op::COUNT.is_power_of_two());

impl OpRules {
    /// The rule for an operation.
    ///
    /// VERIFIER: masked instead of compared: one that looks at impossible ways (Linux 6.1) sees a read from nowhere on them.
    #[inline(always)]
    #[must_use]
    pub fn slot(&self, op: Op) -> Slot {
        self.slots.get(usize::from(op.0) & (Op::COUNT - 1)).copied().unwrap_or(Slot::NONE)
    }

    /// The rule for an operation: verdict and number. Nothing where there is none.
    #[must_use]
    pub fn get(&self, op: Op) -> Option<(Verdict, u32)> {
        let slot = if usize::from(op.0) < Op::COUNT { self.slot(op) } else { Slot::NONE };
        slot.is_some().then(|| (slot.verdict(), slot.rule()))
    }

    /// Sets the rule for an operation.
    pub fn set(&mut self, op: Op, verdict: Verdict, number: u32) {
        if let Some(slot) = self.slots.get_mut(usize::from(op.0)) {
            *slot = Slot::new(verdict, number);
        }
    }
}

/// What is true of a whole generation.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// Bit `n` is set if a rule is about names that end in `n + 1` bytes ([`crate::names::suffix`]).
    pub suffixes: u32,
    /// Zero.
    pub pad: u32,
}

/// What the policy says of a place.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// `[[critical]]` rules.
    pub critical: OpRules,
    /// One bit for each profile that has a [`Side`] here.
    pub profiles: u64,
    /// Number of the place that everything directly below has (`/home/*`); 0 for none.
    pub below: u32,
    /// [`Place::SESSIONS`].
    pub flags: u32,
}

impl Place {
    /// Sessions have sides of their own here.
    pub const SESSIONS: u32 = 1;
}

/// What one profile, or one session, says of a place.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Side {
    /// The profile's rules.
    pub rules: OpRules,
    /// 1 where the place is in `files.scope`.
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
    /// Verdict of `exec.anonymous`: programs that no path leads to.
    pub anonymous: u8,
    /// What nothing in `network.listen` names.
    pub listen: u8,
    /// Zero.
    pub pad: u8,
    /// One bit for each operation that anything but `allow` can be said of, critical rules and rules of the session's own
    /// paths included ([`Op::mask`]). Others needn't be judged. Connections always are.
    pub judged: u64,
    /// Capabilities that a session may use: bits by their numbers.
    pub capabilities: u64,
    /// Verdicts of `files.outside`, one an operation; for [`Op::CONNECT`] that of `network.connect`.
    pub outside: [u8; Op::COUNT],
    /// Verdicts of `system`, one an operation: the last five bits of its number are its place.
    pub system: [u8; Op::SYSTEM_COUNT],
    /// The first [`CommandState`]; 0 if there are no rules about commands.
    pub commands: u32,
    /// Zero.
    pub pad2: u32,
}

impl Profile {
    /// The slot is in use.
    pub const PRESENT: u32 = 1;
    /// `mode = "report"`: judge and log everything, block nothing.
    pub const REPORT_ONLY: u32 = 2;
    /// Names are asked of the daemon only, wherever the question is sent to.
    pub const NAMES: u32 = 4;
    /// `network.denied = "ECONNREFUSED"`: what a connection that is denied fails with.
    pub const REFUSED: u32 = 8;

    /// Whether an operation has to be judged.
    #[inline(always)]
    #[must_use]
    pub const fn judges(&self, op: Op) -> bool {
        self.judged & op.mask() != 0
    }
}

/// States of all command rules together, at most: a byte leads to one of them by 16 bits.
pub const MAX_COMMAND_STATES: usize = 1 << 16;

/// A state of the automaton that reads what a program is executed with. Rules about commands are compiled into one for each
/// profile; state 0 is of all of them: from there no rule can come true any more.
///
/// It reads the number of the program as one byte (0 for one that no rule knows), then its arguments, each with the zero byte
/// at its end. The state that it is in then says what the rules say.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandState {
    /// The rule that decides if this is the end.
    pub rule: Slot,
    /// The next state for each byte.
    pub next: [u16; 256],
}

impl CommandState {
    /// No rule, wherever it goes on.
    pub const DEAD: Self = Self { rule: Slot::NONE, next: [0; 256] };

    /// The next state.
    #[inline(always)]
    #[must_use]
    pub fn after(&self, byte: u8) -> u32 {
        // VERIFIER: a byte is always one of 256.
        self.next.get(usize::from(byte)).copied().unwrap_or(0) as u32
    }
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
    /// The protocol; [`Protocol::ANY`] for all.
    pub protocol: Protocol,
    /// Zero.
    pub pad: [u8; 2],
    /// Number of the rule in the generation's list.
    pub rule: u32,
}

impl PortRule {
    /// Whether it is about a port of a protocol.
    #[inline(always)]
    #[must_use]
    pub const fn is_about(&self, port: u16, protocol: Protocol) -> bool {
        self.low <= port
            && port <= self.high
            && (self.protocol.0 == Protocol::ANY.0 || self.protocol.0 == protocol.0)
    }

    /// As a rule in one word; the list's end is none.
    #[inline(always)]
    #[must_use]
    pub const fn slot(&self) -> Slot {
        if self.verdict == Verdict::NONE.0 { Slot::NONE } else { Slot::new(Verdict(self.verdict), self.rule) }
    }
}

/// What a profile says of an address prefix: the rules of the prefix and of all prefixes around
/// it, the most specific first. The first whose range has the port decides.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NetEntry {
    /// The rules.
    pub ports: [PortRule; MAX_PORTS],
}

/// What the rules about names say of an address that a session has got by asking for names: those of all these names, the
/// strictest first. The first that is about the port and the protocol counts.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Named {
    /// Nanoseconds since boot until when it may be connected to.
    pub until: u64,
    /// The rules for those who connect until then.
    pub ports: [PortRule; MAX_NAMED_PORTS],
    /// And for sockets that have gone there before: a connection outlasts the name.
    pub before: [PortRule; MAX_NAMED_PORTS],
}

/// What a profile says of an abstract name of a Unix socket, or of all that begin so.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AbstractEntry {
    /// [`Verdict`].
    pub verdict: u32,
    /// Number of the rule in the generation's list.
    pub rule: u32,
}

/// Where a decision looks things up: maps in the kernel, plain tables in user space.
pub trait Tables {
    /// Whether a bit of the filter is set.
    fn may_have(&self, bit: u32) -> bool;
    /// Place of an object.
    fn object(&self, key: &ObjectKey) -> Option<u32>;
    /// Place of a name.
    fn name(&self, key: &NameKey) -> Option<u32>;
    /// Shapes of the chains that end in a name, by its hash.
    fn shapes(&self, name: u64) -> Option<&Shapes>;
    /// A place.
    fn place(&self, number: u32) -> Option<&Place>;
    /// What a profile or a session says of a place.
    fn side(&self, key: &SideKey) -> Option<&Side>;
    /// A profile by its index.
    fn profile(&self, index: u32) -> Option<&Profile>;
    /// A state of the automata that read commands; state 0 is in no table.
    fn command(&self, number: u32) -> Option<&CommandState>;
    /// The number of a program that rules about commands know; 0 for any other.
    fn program(&self, key: &ObjectKey) -> u8;
    /// The entry of the longest prefix that has the address.
    fn network(&self, key: &NetKey) -> Option<&NetEntry>;
    /// What a session has an address from.
    fn named(&self, key: &NamedKey) -> Option<&Named>;
    /// The entry with the most bits of those that count.
    fn abstract_name(&self, key: &AbstractKey) -> Option<&AbstractEntry>;
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Head {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Place {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Side {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Profile {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::NetEntry {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Named {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::AbstractEntry {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::CommandState {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_padding() {
        assert_eq!(size_of::<OpRules>(), 64);
        assert_eq!(size_of::<Place>(), 80);
        assert_eq!(size_of::<Side>(), 72);
        assert_eq!(size_of::<Head>(), 8);
        assert_eq!(size_of::<Profile>(), 72);
        assert_eq!(size_of::<CommandState>(), 520);
        assert_eq!(size_of::<NetEntry>(), 12 * MAX_PORTS);
        assert_eq!(size_of::<Named>(), 8 + 2 * 12 * MAX_NAMED_PORTS);
        assert_eq!(size_of::<AbstractEntry>(), 8);
    }

    #[test]
    fn slots() {
        let slot = |verdict, number| Slot::new(verdict, number);
        for number in [1, 2, u32::MAX] {
            let some = slot(Verdict::HOLD, number);
            assert_eq!((some.verdict(), some.rule(), some.is_some()), (Verdict::HOLD, number, true));
        }
        assert_eq!(
            (Slot::NONE.verdict(), Slot::NONE.rule(), Slot::NONE.is_some()),
            (Verdict::NONE, 0, false)
        );
        let (one, two, strict) =
            (slot(Verdict::HOLD, 1), slot(Verdict::HOLD, 2), slot(Verdict::DENY, u32::MAX));
        for (a, b, wins) in [(one, two, one), (two, strict, strict), (Slot::NONE, two, two)] {
            assert_eq!((a.stricter(b), b.stricter(a)), (wins, wins));
        }
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
