//! The circumstances in which an operation is measured.

use crate::ops::Op;

/// What confines the measured process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Confinement {
    /// Nothing; the guard isn't loaded.
    Bare,
    /// A Landlock ruleset with three rules that allow the operation; the guard isn't loaded.
    Landlock,
    /// A seccomp filter that asks a supervisor, who lets everything go on; the guard isn't loaded.
    Notify,
    /// Nothing, but the guard is loaded and judges others.
    Untagged,
    /// A session that may do it.
    Allowed,
    /// A session that may not.
    Denied,
    /// As `Allowed`, with so many rules in the policy.
    Rules(usize),
    /// As `Untagged`, and the policy enrolls programs, a user and units: others.
    Enrolling,
}

/// A case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// Its name in results.
    pub(crate) name: &'static str,
    /// What confines the process.
    pub(crate) confinement: Confinement,
    /// Number of directories above the file.
    pub(crate) depth: usize,
}

impl Case {
    const fn new(name: &'static str, confinement: Confinement, depth: usize) -> Self {
        Self { name, confinement, depth }
    }

    /// Whether the operation can be measured so: what is never judged can't be denied.
    pub(crate) fn fits(&self, op: Op) -> bool {
        match self.confinement {
            Confinement::Denied => op.can_be_denied(),
            Confinement::Enrolling => op.executes(),
            _ => true,
        }
    }
}

/// How deep files are where nothing else is said.
pub(crate) const USUAL: usize = 6;

/// All cases, in the order of the table.
pub(crate) const ALL: [Case; 12] = [
    Case::new("bare", Confinement::Bare, USUAL),
    Case::new("untagged", Confinement::Untagged, USUAL),
    Case::new("untagged_enroll", Confinement::Enrolling, USUAL),
    Case::new("tagged_d2", Confinement::Allowed, 2),
    Case::new("tagged_d6", Confinement::Allowed, USUAL),
    Case::new("tagged_d12", Confinement::Allowed, 12),
    Case::new("denied_d6", Confinement::Denied, USUAL),
    Case::new("rules_10", Confinement::Rules(10), USUAL),
    Case::new("rules_1000", Confinement::Rules(1000), USUAL),
    Case::new("rules_100000", Confinement::Rules(100_000), USUAL),
    Case::new("landlock_d6", Confinement::Landlock, USUAL),
    Case::new("unotify_d6", Confinement::Notify, USUAL),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_bare_comes_first() {
        assert_eq!(ALL[0].confinement, Confinement::Bare);
        for (at, case) in ALL.iter().enumerate() {
            assert!(ALL.iter().skip(at + 1).all(|other| other.name != case.name), "{}", case.name);
        }
    }

    #[test]
    fn what_is_not_judged_cannot_be_denied() {
        let denied = ALL.iter().find(|case| case.name == "denied_d6").unwrap();
        assert!(denied.fits(Op::OpenWrite));
        assert!(!denied.fits(Op::Stat));
        let enrolling = ALL.iter().find(|case| case.name == "untagged_enroll").unwrap();
        assert!(enrolling.fits(Op::VforkExec) && !enrolling.fits(Op::OpenRead));
        assert!(ALL[0].fits(Op::Stat));
    }
}
