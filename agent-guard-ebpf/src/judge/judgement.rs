//! What a judgement is.

use agent_guard_common::{Fault, Source, Verdict, decide::Decision};

/// A decision, or why there is none, in one word: verdict, policy's verdict, source, fault, rule, from the top. So
/// the strictest of several is the greatest.
///
/// VERIFIER: a `Result` leaves some of its bytes undefined, and the compiler moves those around too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Judgement(pub(crate) u64);

impl Judgement {
    #[inline(always)]
    fn new(decision: Decision, fault: Fault) -> Self {
        Self(
            (decision.verdict.0 as u64) << 56
                | (decision.policy.0 as u64) << 48
                | (decision.source.0 as u64) << 40
                | (fault.0 as u64) << 32
                | decision.rule as u64,
        )
    }

    /// No decision: a denial.
    #[inline(always)]
    pub fn fault(fault: Fault) -> Self {
        Self::new(Decision::new(Verdict::DENY, Source::FAULT, 0), fault)
    }

    /// A decision.
    #[inline(always)]
    pub fn decided(decision: Decision) -> Self {
        Self::new(decision, Fault::NONE)
    }

    /// Nothing was judged yet: milder than everything.
    #[inline(always)]
    pub fn none() -> Self {
        Self(0)
    }

    /// What needs no rule.
    #[inline(always)]
    pub fn builtin() -> Self {
        Self::decided(Decision::builtin())
    }

    /// A question for a name, which goes to the daemon's resolver.
    #[inline(always)]
    pub(super) fn question() -> Self {
        Self(Self::builtin().0 | 1)
    }

    /// Whether it is about a question for a name.
    #[inline(always)]
    pub fn is_question(self) -> bool {
        self.0 == Self::question().0
    }

    /// What no policy lets a session do: it would reach the guard itself.
    #[inline(always)]
    pub fn guarded() -> Self {
        Self::decided(Decision::new(Verdict::DENY, Source::GUARD, 0))
    }

    /// A program that must be in a session can't be.
    #[inline(always)]
    pub fn unseated(rule: u32, fault: Fault) -> Self {
        Self::new(Decision::new(Verdict::DENY, Source::ENROLL, rule), fault)
    }

    /// Whether it is about what needs no rule.
    #[inline(always)]
    pub fn is_builtin(self) -> bool {
        self.decision().source.0 == Source::BUILTIN.0 && self.what_went_wrong().0 == Fault::NONE.0
    }

    /// The stricter of two.
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        if other.0 > self.0 { other } else { self }
    }

    /// The same, mixed with a zero that the verifier doesn't know.
    ///
    /// VERIFIER: else it follows every constant that a judgement can be through all that comes after. Only once: twice
    /// would be nothing.
    #[inline(always)]
    pub fn forget(self, zero: u32) -> Self {
        Self(self.0 ^ (u64::from(zero) << 32 | u64::from(zero)))
    }

    /// The decision: for a fault the denial.
    #[inline(always)]
    pub fn decision(self) -> Decision {
        Decision {
            verdict: Verdict((self.0 >> 56) as u8),
            policy: Verdict((self.0 >> 48) as u8),
            source: Source((self.0 >> 40) as u8),
            rule: self.0 as u32,
        }
    }

    /// What went wrong.
    #[inline(always)]
    pub fn what_went_wrong(self) -> Fault {
        Fault((self.0 >> 32) as u8)
    }
}

impl From<Result<Decision, Fault>> for Judgement {
    #[inline(always)]
    fn from(result: Result<Decision, Fault>) -> Self {
        match result {
            Ok(decision) => Self::decided(decision),
            Err(fault) => Self::fault(fault),
        }
    }
}
