//! Enrollment: programs that become part of a session by themselves. What passes between the daemon and the kernel side.
//!
//! A task that executes a program is enrolled by what it executes (the daemon makes a session for it, and leaves a [`Seat`]
//! for its process before the kernel goes on), by its control group, or by its user (both have a *standing* session, which is
//! there all the time).

/// The profile that says which programs are enrolled: the policy's paths, under operation [`crate::Op::CONNECT`], which no
/// other rule of that profile uses. Of control groups it has the automaton that reads their paths.
pub const PROFILE: u32 = crate::rules::MAX_PROFILES - 1;

/// The number of the session that a task has while the kernel side finds out whether it is enrolled.
pub const SESSION: u64 = 1;

/// Its slot. In use while a policy enrolls programs by what they are.
pub const SLOT: u32 = 0;

/// Standing sessions, at most; number 0 is never used.
pub const MAX_STANDING: u32 = 64;
/// Users that are enrolled, at most.
pub const MAX_USERS: u32 = 1024;
/// Control groups that are enrolled, at most.
pub const MAX_CGROUPS: u32 = 65_536;
/// Processes that have a seat at the same time, at most.
pub const MAX_SEATS: u32 = 1024;

/// Where an enrolled task goes. All zero is nowhere: whoever should have one isn't let run.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seat {
    /// Number of the session.
    pub session: u64,
    /// Its slot.
    pub slot: u32,
    /// The rule that enrolls, by its number in the generation's list, for events.
    pub rule: u32,
}

/// Control groups that may be enrolled and could not be noted: as the kernel side counts them, and as far as the daemon has looked
/// after them. Where the counts differ, nothing is executed in a group that isn't noted and has the number of the first of them, or
/// a greater one: they only grow (`__kernfs_new_node`, fs/kernfs/dir.c).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// The number of the first; 0 for none.
    pub first: u64,
    /// How many there were so far.
    pub count: u64,
}

impl Missed {
    /// Whether a group that isn't noted may be one of those.
    #[inline(always)]
    #[must_use]
    pub const fn may_have(self, looked: Self, group: u64) -> bool {
        let first = match (self.first, looked.first) {
            (0, 0) => return false,
            (0, first) | (first, 0) => first,
            (one, other) => {
                if one < other {
                    one
                } else {
                    other
                }
            }
        };
        self.count != looked.count && group >= first
    }
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Seat {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Missed {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_padding() {
        assert_eq!((size_of::<Seat>(), size_of::<Missed>()), (16, 16));
    }

    #[test]
    fn what_was_missed() {
        let missed = |first, count| Missed { first, count };
        assert!(!missed(0, 0).may_have(missed(0, 0), 7));
        assert!(missed(5, 1).may_have(missed(0, 0), 5) && !missed(5, 1).may_have(missed(0, 0), 4));
        assert!(!missed(5, 3).may_have(missed(0, 3), 9));
        assert!(
            missed(5, 3).may_have(missed(2, u64::MAX), 3) && missed(0, 0).may_have(missed(2, u64::MAX), 2)
        );
        assert!(!missed(0, 0).may_have(missed(2, u64::MAX), 1));
    }
}
