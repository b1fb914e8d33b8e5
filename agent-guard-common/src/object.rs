//! How objects are named in maps.

/// A file system object: the superblock's device, the inode's number, and which of the inodes that have had this
/// number it is.
///
/// `dev` has the kernel's own encoding, `major << 20 | minor` (`MKDEV` in `include/linux/kdev_t.h`),
/// not the one that `stat(2)` hands out.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ObjectKey {
    /// Inode number (`inode.i_ino`).
    pub ino: u64,
    /// Device of the superblock (`super_block.s_dev`).
    pub dev: u32,
    /// `inode.i_generation`: another one when a file system uses a number again. 0 where a file system has none.
    pub igen: u32,
}

impl ObjectKey {
    /// Stands for "in any directory" where a [`NameKey`] has its anchor. No file system has inode 0 on device 0.
    pub const ANYWHERE: Self = Self { ino: 0, dev: 0, igen: 0 };

    /// The object with that device, inode number and inode generation.
    #[must_use]
    pub const fn new(dev: u32, ino: u64, igen: u32) -> Self {
        Self { ino, dev, igen }
    }

    /// The kernel's encoding of a device.
    #[must_use]
    pub const fn dev(major: u32, minor: u32) -> u32 {
        (major << 20) | (minor & 0x000f_ffff)
    }
}

/// A name, or a chain of names, below a directory; see [`crate::names`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NameKey {
    /// The directory that the chain begins in, or [`ObjectKey::ANYWHERE`].
    pub anchor: ObjectKey,
    /// [`crate::names::chain`] or [`crate::names::suffix`].
    pub name: u64,
}

/// A place as one profile, or one session, sees it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SideKey {
    /// Number of the place.
    pub place: u32,
    /// Index of the profile, or [`SideKey::session`].
    pub side: u32,
}

impl SideKey {
    /// What a session's own paths (`${cwd}` and others) are kept under: its binding, behind all profiles.
    #[inline(always)]
    #[must_use]
    pub const fn session(binding: u32) -> u32 {
        crate::rules::MAX_PROFILES.wrapping_add(binding)
    }
}

/// How the kernel knows a file that the daemon has open; written by the kernel side's iterator.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Identified {
    /// Inode number.
    pub ino: u64,
    /// Inode number of the root of its file system.
    pub root_ino: u64,
    /// The descriptor.
    pub fd: u32,
    /// Device of the superblock.
    pub dev: u32,
    /// Inode generation.
    pub igen: u32,
    /// Inode generation of the root of its file system.
    pub root_igen: u32,
}

/// Through what an ancestor contains an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chain {
    /// Through directories of the object's own file system. Nobody can fake that by mounting.
    Tree,
    /// Through the place where a file system is mounted. Whoever may mount can choose that, so it
    /// makes an answer stricter, never milder.
    Mount,
}

/// An abstract name of a Unix socket, or what such names begin with, as one profile sees it: what a longest-prefix match runs
/// over. Names have any bytes, so none can mark their end: a whole name carries its length before it, where what names begin
/// with has 0.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AbstractName {
    /// Index of the profile.
    pub profile: [u8; 4],
    /// 1 more than the length of a whole name; 0 for what names begin with.
    pub whole: u8,
    /// The bytes, without the zero byte that the kernel has before them.
    pub bytes: [u8; Self::ROOM],
}

impl AbstractName {
    /// Bytes of the longest name: a `sockaddr_un` has 108 for it, of which the first is zero.
    pub const MAX: u32 = 107;
    /// More than that.
    ///
    /// VERIFIER: so that a length is in bounds once it is masked.
    pub const ROOM: usize = 127;

    /// Bits that count of a name of that length.
    #[inline(always)]
    #[must_use]
    pub const fn bits(length: u32) -> u32 {
        8 * (5 + length)
    }
}

/// A name that is looked up, and how many of its bits count.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbstractKey {
    /// Bits that count.
    pub bits: u32,
    /// The name.
    pub name: AbstractName,
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: plain integers, `repr(C)`, no padding.
    unsafe impl aya::Pod for super::ObjectKey {}
    // SAFETY: plain integers, `repr(C)`, no padding.
    unsafe impl aya::Pod for super::NameKey {}
    // SAFETY: plain integers, `repr(C)`, no padding.
    unsafe impl aya::Pod for super::SideKey {}
    // SAFETY: plain integers, `repr(C)`, no padding.
    unsafe impl aya::Pod for super::Identified {}
    // SAFETY: bytes.
    unsafe impl aya::Pod for super::AbstractName {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_no_padding() {
        assert_eq!(size_of::<ObjectKey>(), 16);
        assert_eq!(size_of::<NameKey>(), 24);
        assert_eq!(size_of::<SideKey>(), 8);
        assert_eq!(size_of::<Identified>(), 32);
        assert_eq!(size_of::<AbstractName>(), 5 + AbstractName::ROOM);
        assert_eq!(size_of::<AbstractKey>(), 4 + size_of::<AbstractName>());
    }

    #[test]
    fn device_encoding() {
        assert_eq!(ObjectKey::dev(254, 1), 254 << 20 | 1);
    }
}
