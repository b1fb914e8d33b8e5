//! What passes between the daemon and the kernel side while a tree that runs already is tagged.

/// Whether a tree is being attached. Written by the daemon.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attaching {
    /// Number of the session, once there is one.
    pub session: u64,
    /// Its slot.
    pub slot: u32,
    /// [`Attaching::OFF`], [`Attaching::WATCH`] or [`Attaching::TAG`].
    pub phase: u32,
}

/// What has become of it. Counted by the kernel side, set to zero by the daemon before it begins.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Tasks that were tagged.
    pub tagged: u64,
    /// Times that something could not be noted or found out: the attach can't be relied on.
    pub lost: u64,
}

impl Attaching {
    /// Nothing is attached. The zero of a new map.
    pub const OFF: u32 = 0;
    /// The tree is watched: who leaves it, because its parent ends, is noted as belonging to it.
    pub const WATCH: u32 = 1;
    /// Besides, whoever belongs to it is tagged.
    pub const TAG: u32 = 2;
}

/// A process that belongs to the tree although its parents may not say so: number, and when it started, because numbers
/// are used again.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Relative {
    /// When it started, in ticks of [`crate::subject::Guard::TICK`] since boot: as `/proc` tells it.
    pub start: u64,
    /// Number of the process, in the initial name space.
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
}

/// A task, as the kernel side's iterator tells it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Member {
    /// When its process started, nanoseconds since boot.
    pub start: u64,
    /// Number of the session it is tagged with; 0 for none.
    pub session: u64,
    /// Number of the process.
    pub tgid: u32,
    /// Number of the thread.
    pub tid: u32,
    /// [`Member::INSIDE`] and others.
    pub state: u32,
    /// Zero.
    pub pad: u32,
}

impl Member {
    /// Belongs to the tree.
    pub const INSIDE: u32 = 1;
    /// The same, and is ending.
    pub const ENDING: u32 = 2;
    /// Doesn't belong to it and is ending: began to before it was watched, perhaps, so nobody has noted its children.
    pub const ENDING_OUTSIDE: u32 = 3;
    /// Belongs to the tree, and there was no memory for its tag.
    pub const NOT_TAGGED: u32 = 4;
    /// Belongs to the tree and has ended; as a process's first thread it still stands for the others.
    pub const ENDED: u32 = 5;
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Attaching {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Progress {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Relative {}
    // SAFETY: plain integers, `repr(C)`, no padding (see the tests).
    unsafe impl aya::Pod for super::Member {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_padding() {
        assert_eq!(size_of::<Attaching>(), 16);
        assert_eq!(size_of::<Progress>(), 16);
        assert_eq!(size_of::<Relative>(), 16);
        assert_eq!(size_of::<Member>(), 32);
    }
}
