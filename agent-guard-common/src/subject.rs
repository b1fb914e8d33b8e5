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
    /// What was approved while a program is being executed, which has several hooks and begins again for each that holds it: not
    /// asked again until it runs.
    pub executing: [u64; Self::EXECUTING],
    /// The generation that `judged` is of; 0 for none.
    pub generation: u32,
    /// What the session's profile judges of operations on files, see [`crate::rules::Profile::judged`].
    pub judged: u32,
    /// VERIFIER: the operation that the event about an opened file names, while that is judged: the stack is short.
    pub named: u32,
    /// Zero.
    pub pad2: u32,
    /// VERIFIER: a pointer is no number; written here and read back it is one.
    pub number: u64,
    /// What the mount that the task used last is mounted on.
    pub lane: Lane,
    /// Directories that the task used last.
    pub directories: [Directory; Self::DIRECTORIES],
}

impl Tag {
    /// Questions that one execution can ask; one with more is asked from the first again.
    pub const EXECUTING: usize = 4;
    /// Directories that a task remembers.
    pub const DIRECTORIES: usize = 2;
}

/// A directory whose print is known, and what must be as it was for it to be so still. For the kernel side.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Directory {
    /// What its print begins with.
    pub begin: u64,
    /// Its object, as in a print.
    pub object: u64,
    /// The kernel's hash of its name and the directory above.
    pub name: u64,
    /// The mount that it was reached through: a `struct vfsmount *`, 0 if that wasn't known.
    pub mount: u64,
    /// Renames of directories in all file systems so far.
    pub renames: u64,
    /// The task's mount name space and its changes so far.
    pub mounts: u64,
    /// Its print; 0 if there is none.
    pub print: u64,
}

/// What a mount is mounted on, up to the root of the name space, as a [`Directory`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lane {
    /// The mount: a `struct vfsmount *`, 0 for none.
    pub mount: u64,
    /// The task's mount name space and its changes so far.
    pub mounts: u64,
    /// Renames of directories so far; 0 if no rename matters.
    pub renames: u64,
    /// Its print.
    pub print: u64,
}

/// Which session a process belongs to, where programs can't look at its tag.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Belonging {
    /// The session's number.
    pub session: u64,
    /// Its slot.
    pub slot: u32,
    /// Zero.
    pub pad: u32,
}

/// What the kernel knows of a session.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Session {
    /// The session's number; a tag with another number is of a session that has ended.
    pub id: u64,
    /// Index of its profile, in generations with an even number and in those with an odd one: whose rules a nested session
    /// has can change, and does so with the generation and at no other time.
    pub profiles: [u32; 2],
    /// What its own paths are kept under, as above, see [`crate::object::SideKey::session`]. Never used twice since boot.
    pub bindings: [u32; 2],
    /// [`Session::LIVE`] or [`Session::KILLED`]; 0 for an unused slot.
    pub state: u32,
    /// Its terminal's device in the kernel's encoding, 0 for none.
    pub tty: u32,
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

    /// Index of its profile in a generation.
    ///
    /// VERIFIER: masked instead of compared, see [`crate::rules::OpRules::slot`].
    #[inline(always)]
    #[must_use]
    pub fn profile(&self, generation: u32) -> u32 {
        self.profiles.get((generation & 1) as usize).copied().unwrap_or(u32::MAX)
    }

    /// What its own paths are kept under in a generation.
    #[inline(always)]
    #[must_use]
    pub fn binding(&self, generation: u32) -> u32 {
        self.bindings.get((generation & 1) as usize).copied().unwrap_or(0)
    }
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
    /// The socket for sessions: tagged tasks can always connect to it.
    pub inside: crate::ObjectKey,
    /// When the daemon started, in ticks of [`Guard::TICK`] since boot: as `/proc` tells it.
    pub start: u64,
    /// The daemon's process, in the initial name space; 0 while there is none.
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
    /// Major numbers of character devices that pass commands on to disks, besides those that are always the same; 0 for none.
    pub disks: [u32; Self::DISKS],
    /// The last binding that a session was given, see [`Session::bindings`]. For the daemon.
    pub bindings: u64,
    /// The program that the host's service manager executes for each service, in its control group, and that becomes the
    /// service then: it is the manager's own and not enrolled. Zero if there is none.
    pub executor: crate::ObjectKey,
    /// The network name space of the daemon, by its number (`SO_NETNS_COOKIE`).
    pub namespace: u64,
    /// The ports of its resolver, for IPv4 and for IPv6, in host order; 0 where there is none.
    pub resolver: [u16; 2],
    /// Zero.
    pub pad2: u32,
}

impl Guard {
    /// Nanoseconds of a tick (`USER_HZ`, `include/asm-generic/param.h`).
    pub const TICK: u64 = 10_000_000;

    /// Kinds of such devices, at most.
    pub const DISKS: usize = 8;
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Tag {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Belonging {}
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
        assert_eq!(size_of::<Tag>(), 40 + 32 + 8 + 8 + 8 + 32 + 2 * 56);
        assert_eq!(size_of::<Session>(), 40);
        assert_eq!(size_of::<Answer>(), 8);
        assert_eq!(size_of::<Guard>(), 40 + 16 + 32 + 2 * 16 + 16);
    }

    #[test]
    fn rules_change_with_the_generation() {
        let session = Session { profiles: [1, 2], bindings: [3, 4], ..Session::default() };
        assert_eq!([6, 7].map(|generation| session.profile(generation)), [1, 2]);
        assert_eq!([6, 7].map(|generation| session.binding(generation)), [3, 4]);
    }
}
