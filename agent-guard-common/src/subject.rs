//! How sessions and their tasks are named in maps.

/// Sessions at the same time, at most. Slot 0 is never used.
pub const MAX_SESSIONS: u32 = 1024;

/// What the kernel keeps for each task of a session, in task storage. Goes away with the task.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tag {
    /// The session's number, never used twice since boot.
    pub session: u64,
    /// Slot of the session in the table of sessions.
    pub slot: u32,
    /// Zero.
    pub pad: u32,
    /// The hold this task waits in; 0 for none.
    pub hold: u64,
    /// What the hold was asked for, see [`crate::digest`]. An answer covers this and nothing else.
    pub digest: u64,
    /// What was approved last. An approved open for writing includes the truncation that is part of the
    /// same call, which has a hook of its own.
    pub granted: u64,
}

/// What the kernel knows of a session.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Session {
    /// The session's number; a tag with another number is of a session that has ended.
    pub id: u64,
    /// Index of its profile.
    pub profile: u32,
    /// [`Session::LIVE`] or [`Session::KILLED`]; 0 for an unused slot.
    pub state: u32,
    /// Its terminal's device in the kernel's encoding, 0 for none.
    pub tty: u32,
    /// What its own paths are kept under, see [`crate::object::SideKey::session`]. Never used twice since boot.
    pub binding: u32,
    /// Zero.
    pub pad: u32,
    /// Zero.
    pub pad2: u32,
}

impl Session {
    /// In use.
    pub const LIVE: u32 = 1;
    /// Ended by `session kill`: whatever is judged is killed, and nothing can fork.
    pub const KILLED: u32 = 2;
}

/// People's answer to a hold.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// [`crate::Verdict::ALLOW`] or [`crate::Verdict::DENY`]; everything else denies.
    pub verdict: u32,
    /// Zero.
    pub pad: u32,
}

/// What the daemon tells the kernel side once.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Guard {
    /// Secret key of [`crate::digest`], chosen when the maps are made.
    pub key: [u64; 2],
    /// The control socket: tagged tasks can't connect to it.
    pub socket: crate::ObjectKey,
    /// The last binding that a session was given, see [`Session::binding`]. For the daemon.
    pub bindings: u64,
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Tag {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Session {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Answer {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Guard {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_padding() {
        assert_eq!(size_of::<Tag>(), 40);
        assert_eq!(size_of::<Session>(), 32);
        assert_eq!(size_of::<Answer>(), 8);
        assert_eq!(size_of::<Guard>(), 40);
    }
}
