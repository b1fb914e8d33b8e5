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

#[cfg(feature = "user")]
mod pod {
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Seat {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_padding() {
        assert_eq!(size_of::<Seat>(), 16);
    }
}
