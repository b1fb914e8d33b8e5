//! Verdicts, where they come from, and what can go wrong on the way to one.

/// What happens to an action. Ordered by strictness, so that the strictest of several is their
/// maximum. On the wire a byte.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[must_use]
pub struct Verdict(pub u8);

impl Verdict {
    /// No rule says anything. Never the end of a decision.
    pub const NONE: Self = Self(0);
    /// It happens.
    pub const ALLOW: Self = Self(1);
    /// It happens and is an event.
    pub const REPORT: Self = Self(2);
    /// It is frozen until people decide.
    pub const HOLD: Self = Self(3);
    /// It fails with `EPERM`.
    pub const DENY: Self = Self(4);
    /// It fails and the process is killed.
    pub const KILL: Self = Self(5);

    /// All verdicts that a policy can name, from the mildest.
    pub const ALL: [Self; 5] = [Self::ALLOW, Self::REPORT, Self::HOLD, Self::DENY, Self::KILL];

    /// The name that policy, command line and events use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ALLOW => "allow",
            Self::REPORT => "report",
            Self::HOLD => "hold",
            Self::DENY => "deny",
            Self::KILL => "kill",
            _ => "none",
        }
    }

    /// The verdict with that name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.name() == name)
    }

    /// The stricter of two.
    pub const fn stricter(self, other: Self) -> Self {
        if other.0 > self.0 { other } else { self }
    }

    /// Whether the action goes on at once.
    #[must_use]
    pub const fn goes_on(self) -> bool {
        matches!(self, Self::ALLOW | Self::REPORT)
    }
}

/// Which part of the policy a verdict comes from. On the wire a byte.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Source(pub u8);

impl Source {
    /// Nothing decided yet.
    pub const NONE: Self = Self(0);
    /// A `[[critical]]` rule.
    pub const CRITICAL: Self = Self(1);
    /// A rule of the session's profile.
    pub const RULE: Self = Self(2);
    /// `files.scope`.
    pub const SCOPE: Self = Self(3);
    /// `files.outside`.
    pub const OUTSIDE: Self = Self(4);
    /// `network.connect`: what nothing else names.
    pub const NETWORK: Self = Self(5);
    /// What no program can do without and nothing is lost by.
    pub const BUILTIN: Self = Self(6);
    /// The session itself: killed.
    pub const SESSION: Self = Self(7);
    /// The decision could not be made; see [`Fault`].
    pub const FAULT: Self = Self(8);
    /// `system`.
    pub const SYSTEM: Self = Self(9);
    /// The guard itself, which no policy lets a session touch.
    pub const GUARD: Self = Self(10);

    /// `exec`.
    pub const EXEC: Self = Self(11);
    /// `enroll`.
    pub const ENROLL: Self = Self(12);

    /// The name that command line and events use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CRITICAL => "critical",
            Self::RULE => "rule",
            Self::SCOPE => "scope",
            Self::OUTSIDE => "outside",
            Self::NETWORK => "network",
            Self::BUILTIN => "builtin",
            Self::SESSION => "session",
            Self::FAULT => "fault",
            Self::SYSTEM => "system",
            Self::GUARD => "guard",
            Self::EXEC => "exec",
            Self::ENROLL => "enroll",
            _ => "none",
        }
    }
}

/// Why a decision could not be made, or a verdict not be carried out as it is. Every fault ends in
/// a denial and is part of the event. On the wire a byte.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fault(pub u8);

impl Fault {
    /// None.
    pub const NONE: Self = Self(0);
    /// A kernel object could not be read.
    pub const READ: Self = Self(1);
    /// The object lies deeper than a walk goes.
    pub const DEPTH: Self = Self(2);
    /// No policy generation is in force, or a table of it is missing.
    pub const GENERATION: Self = Self(3);
    /// The session's profile isn't part of the generation in force.
    pub const PROFILE: Self = Self(4);
    /// The session's slot holds another session.
    pub const SESSION: Self = Self(5);
    /// The call can't be started again (`io_uring`, kernel thread), so it can't be held.
    pub const UNHOLDABLE: Self = Self(6);
    /// The table of holds is full.
    pub const HOLDS_FULL: Self = Self(7);
    /// The signal that stops or kills the process could not be sent.
    pub const SIGNAL: Self = Self(8);
    /// An address that can't be understood.
    pub const ADDRESS: Self = Self(9);
    /// The tag could not be given to a new task.
    pub const TAG: Self = Self(10);

    /// There was no memory to look at names with.
    pub const MEMORY: Self = Self(11);

    /// A ring of another process, with files and threads of its own.
    pub const RING: Self = Self(12);
    /// No session was there for a program that must be in one.
    pub const NO_SESSION: Self = Self(13);
    /// A program that is enrolled has inherited a descriptor that nobody has judged.
    pub const INHERITED: Self = Self(14);

    /// A short text for people and events.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NONE => "none",
            Self::READ => "a kernel object could not be read",
            Self::DEPTH => "the object lies deeper than a walk goes",
            Self::GENERATION => "no policy generation is in force",
            Self::PROFILE => "the session's profile is not part of the policy in force",
            Self::SESSION => "the session is not known to the kernel any more",
            Self::UNHOLDABLE => "the call can't be started again, so it can't be held",
            Self::HOLDS_FULL => "the table of holds is full",
            Self::SIGNAL => "the process could not be stopped",
            Self::ADDRESS => "the address can't be understood",
            Self::MEMORY => "there was no memory to look at names with",
            Self::RING => "a ring (io_uring) of another process can't be taken over",
            Self::NO_SESSION => "there was no session for a program that must be in one",
            Self::INHERITED => "it has inherited a descriptor of a file that nobody has judged",
            Self::TAG => "the tag could not be given to the new task",
            _ => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_strictness() {
        let mut last = Verdict::NONE;
        for verdict in Verdict::ALL {
            assert!(verdict > last);
            assert_eq!(Verdict::from_name(verdict.name()), Some(verdict));
            assert_eq!(last.stricter(verdict), verdict);
            assert_eq!(verdict.stricter(last), verdict);
            last = verdict;
        }
        assert_eq!(Verdict::from_name("none"), None);
    }
}
