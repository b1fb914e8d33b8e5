//! Files, directory entries, mounts.

use agent_guard_common::ObjectKey;

use super::{Inode, RENAME_LOCK, load, offset, probe, probe_at};

/// `struct path *`.
#[derive(Clone, Copy)]
pub struct Path(pub *const u8);

/// `struct dentry *`, typed.
#[derive(Clone, Copy)]
pub struct Dentry(pub *const u8);

/// `struct vfsmount *`, typed.
#[derive(Clone, Copy)]
pub struct VfsMount(pub *const u8);

/// `struct file *`.
#[derive(Clone, Copy)]
pub struct File(pub *const u8);

/// `struct vm_area_struct *`.
#[derive(Clone, Copy)]
pub struct Vma(pub *const u8);

/// `struct iattr *`.
#[derive(Clone, Copy)]
pub struct Attributes(pub *const u8);

/// A dentry and the mount it was reached through, as plain numbers for probe reads.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Untyped {
    /// `struct dentry *`.
    pub dentry: u64,
    /// `struct vfsmount *`.
    pub mount: u64,
}

impl Untyped {
    /// None.
    pub const NONE: Self = Self { dentry: 0, mount: 0 };
}

/// `MNT_INTERNAL` (`include/linux/mount.h`): made by the kernel itself, reachable by no path.
pub const MNT_INTERNAL: u32 = 0x4000;
/// `FMODE_READ`, `FMODE_WRITE`, `FMODE_CREATED` (`include/linux/fs.h`, the same from 6.1 to 7.2).
const FMODE_READ: u32 = 0x1;
const FMODE_WRITE: u32 = 0x2;
const FMODE_CREATED: u32 = 0x10_0000;
/// `O_TRUNC`, `O_PATH`, `__O_TMPFILE` (`include/uapi/asm-generic/fcntl.h`).
const O_TRUNC: u32 = 0o1000;
const O_PATH: u32 = 0o1000_0000;
const O_TMPFILE: u32 = 0o2000_0000;
/// `__FMODE_EXEC` (`include/linux/fs.h`): among a file's flags, and no `open` can set it.
const FMODE_EXEC: u32 = 0x20;

impl Path {
    /// Where the name is.
    #[inline(always)]
    pub fn dentry(self) -> Dentry {
        Dentry(load!(self.0, path_dentry, *const u8))
    }

    /// What it was reached through.
    #[inline(always)]
    pub fn mount(self) -> VfsMount {
        VfsMount(load!(self.0, path_mnt, *const u8))
    }
}

impl VfsMount {
    /// Not known.
    pub const UNKNOWN: Self = Self(core::ptr::null());

    /// The root of what is mounted.
    #[inline(always)]
    pub fn root(self) -> Dentry {
        Dentry(load!(self.0, vfsmount_mnt_root, *const u8))
    }

    /// Whether the kernel made it for itself: pipes, sockets, anonymous memory.
    #[inline(always)]
    pub fn internal(self) -> bool {
        load!(self.0, vfsmount_mnt_flags, u32) & MNT_INTERNAL != 0
    }
}

impl Dentry {
    /// As a number.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// Its inode; none for a name that doesn't exist.
    #[inline(always)]
    pub fn inode(self) -> Option<Inode> {
        let inode = load!(self.0, dentry_d_inode, *const u8);
        if inode.is_null() { None } else { Some(Inode::at(inode)) }
    }

    /// The directory it is in; itself at the root of a file system.
    #[inline(always)]
    pub fn parent(self) -> Self {
        Self(load!(self.0, dentry_d_parent, *const u8))
    }

    /// Whether it is the root of its file system, and not just cut off from it.
    #[inline(always)]
    pub fn is_file_system_root(self) -> bool {
        let sb = load!(self.0, dentry_d_sb, *const u8);
        load!(sb, sb_s_root, u64) == self.address()
    }

    /// Whether it is the root of a tree: that of a file system, or one that is not connected to any.
    #[inline(always)]
    pub fn is_root(self) -> bool {
        self.parent().address() == self.address()
    }

    /// Number and generation of its object, which must be there.
    #[inline(always)]
    pub fn identity(self) -> (u64, u32) {
        let inode = load!(self.0, dentry_d_inode, *const u8);
        (load!(inode, inode_i_ino, u64), load!(inode, inode_i_generation, u32))
    }

    /// The kernel's own hash of its name and of the directory that it is in. Not the guard's hash: a session
    /// can't choose it, but it has few bits.
    #[inline(always)]
    pub fn name_hash(self) -> u64 {
        let name = self.0.wrapping_add(offset!(dentry_d_name));
        u64::from(load!(name, qstr_hash, u32))
    }

    /// Which file system it is in, by the kernel's number.
    #[inline(always)]
    pub fn file_system(self) -> u64 {
        let sb = load!(self.0, dentry_d_sb, *const u8);
        load!(sb, sb_s_magic, u64)
    }

    /// Device of its file system.
    #[inline(always)]
    pub fn device(self) -> u32 {
        let sb = load!(self.0, dentry_d_sb, *const u8);
        load!(sb, sb_s_dev, u32)
    }

    /// Number and generation of the inode at the root of its file system.
    #[inline(always)]
    pub fn root(self) -> Option<(u64, u32)> {
        let sb = load!(self.0, dentry_d_sb, *const u8);
        let root = Self(load!(sb, sb_s_root, *const u8)).inode()?;
        Some((root.number(), root.generation()))
    }

    /// Length of its name.
    #[inline(always)]
    pub fn name_length(self) -> u32 {
        let name = self.0.wrapping_add(offset!(dentry_d_name));
        load!(name, qstr_len, u32)
    }

    /// The first eight bytes of its name, if that is short enough to be kept in the dentry itself.
    #[inline(always)]
    pub fn name_beginning(self) -> u64 {
        load!(self.0, dentry_d_iname, u64)
    }
}

impl File {
    /// Where it was opened. The path is a member, not a pointer: its address is the typed pointer.
    #[inline(always)]
    pub fn path(self) -> Path {
        Path(self.0.wrapping_add(offset!(file_f_path)))
    }

    /// Whether it is opened for writing or to be cut.
    #[inline(always)]
    pub fn writes(self) -> bool {
        load!(self.0, file_f_mode, u32) & FMODE_WRITE != 0 || load!(self.0, file_f_flags, u32) & O_TRUNC != 0
    }

    /// Whether nothing can be done with its contents.
    #[inline(always)]
    pub fn is_only_path(self) -> bool {
        load!(self.0, file_f_flags, u32) & O_PATH != 0
    }

    /// Whether it is opened for reading.
    #[inline(always)]
    pub fn reads(self) -> bool {
        load!(self.0, file_f_mode, u32) & FMODE_READ != 0
    }

    /// Whether it is opened to be executed, by `execve` itself.
    #[inline(always)]
    pub fn executes(self) -> bool {
        load!(self.0, file_f_flags, u32) & FMODE_EXEC != 0
    }

    /// Whether no path leads to it: made by the kernel for itself (`memfd_create`), or deleted.
    #[inline(always)]
    pub fn is_anonymous(self) -> bool {
        let path = self.path();
        path.mount().internal() || path.dentry().inode().is_none_or(|inode| inode.names() == 0)
    }

    /// Whether the call that opens it has made it.
    #[inline(always)]
    pub fn just_created(self) -> bool {
        load!(self.0, file_f_mode, u32) & FMODE_CREATED != 0
    }

    /// Whether it is a file without a name.
    #[inline(always)]
    pub fn is_nameless(self) -> bool {
        load!(self.0, file_f_flags, u32) & O_TMPFILE != 0
    }
}

impl Vma {
    /// The file that is mapped there; none for anonymous memory.
    #[inline(always)]
    pub fn file(self) -> Option<File> {
        let file = load!(self.0, vma_vm_file, *const u8);
        if file.is_null() { None } else { Some(File(file)) }
    }
}

impl Attributes {
    /// Whether times are set, and nothing else that has a hook of its own: mode and owner (`path_chmod`, `path_chown`),
    /// size (`path_truncate`), and what the kernel does by itself while it writes or opens.
    #[inline(always)]
    pub fn only_times(self) -> bool {
        /// `ATTR_MODE`, `ATTR_UID`, `ATTR_GID`, `ATTR_SIZE`, `ATTR_FORCE`, `ATTR_KILL_SUID`, `ATTR_KILL_SGID`, `ATTR_OPEN`,
        /// `ATTR_KILL_PRIV` (`include/linux/fs.h`, the same from 6.1 to 7.2).
        const OTHERS: u32 = 1 | 2 | 4 | 8 | 1 << 9 | 1 << 11 | 1 << 12 | 1 << 15 | 1 << 14;
        /// `ATTR_ATIME`, `ATTR_MTIME`, `ATTR_ATIME_SET`, `ATTR_MTIME_SET`, `ATTR_TOUCH`.
        const TIMES: u32 = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 17;
        let valid = load!(self.0, iattr_ia_valid, u32);
        valid & OTHERS == 0 && valid & TIMES != 0
    }
}

/// Whether a dentry, by probe reads, is called `[io_uring]`: what the kernel calls the file of a ring. It is in a file
/// system where only the kernel gives names.
#[inline(always)]
pub fn is_ring(dentry: u64) -> bool {
    match name_of(dentry) {
        Some((name, 10)) => probe_at::<u64>(name) == Some(u64::from_le_bytes(*b"[io_urin")),
        _ => false,
    }
}

/// The next dentry towards the root, by probe reads; 0 at the root of a file system, none if it can't be read.
#[inline(always)]
pub fn up(dentry: u64) -> Option<u64> {
    let parent = probe!(dentry, dentry_d_parent, u64)?;
    Some(if parent == dentry { 0 } else { parent })
}

/// The object of a dentry, by probe reads; number 0 where it doesn't exist.
#[inline(always)]
pub fn key_of(dentry: u64) -> Option<ObjectKey> {
    let inode = probe!(dentry, dentry_d_inode, u64)?;
    let sb = probe!(dentry, dentry_d_sb, u64)?;
    let dev = probe!(sb, sb_s_dev, u32)?;
    if inode == 0 {
        return Some(ObjectKey::new(dev, 0, 0));
    }
    Some(ObjectKey::new(dev, probe!(inode, inode_i_ino, u64)?, probe!(inode, inode_i_generation, u32)?))
}

/// Type and mode of a dentry's inode, by probe reads; 0 where it doesn't exist.
#[inline(always)]
pub fn mode_of(dentry: u64) -> u32 {
    match probe!(dentry, dentry_d_inode, u64) {
        Some(inode) if inode != 0 => probe!(inode, inode_i_mode, u16).unwrap_or(0) as u32,
        _ => 0,
    }
}

/// The device that a dentry's inode is a node of, by probe reads.
#[inline(always)]
pub fn device_of(dentry: u64) -> Option<u32> {
    let inode = probe!(dentry, dentry_d_inode, u64)?;
    probe!(inode, inode_i_rdev, u32)
}

/// Name of a dentry: address and length.
#[inline(always)]
pub fn name_of(dentry: u64) -> Option<(u64, u32)> {
    let name = dentry.wrapping_add(offset!(dentry_d_name) as u64);
    Some((probe!(name, qstr_name, u64)?, probe!(name, qstr_len, u32)?))
}

/// The same as [`Dentry::name_hash`], by probe reads; 0 if it can't be read.
#[inline(always)]
pub fn name_hash_of(dentry: u64) -> u64 {
    probe!(dentry.wrapping_add(offset!(dentry_d_name) as u64), qstr_hash, u32).map_or(0, u64::from)
}

/// The dentry above, by probe reads; itself at a root, 0 if it can't be read.
#[inline(always)]
pub fn parent_of(dentry: u64) -> u64 {
    probe!(dentry, dentry_d_parent, u64).unwrap_or(0)
}

/// Number and generation of a dentry's object in one number, and its device, by probe reads; 0 if it can't be read.
#[inline(always)]
pub fn number_of(dentry: u64) -> (u64, u64) {
    let inode = probe!(dentry, dentry_d_inode, u64).unwrap_or(0);
    let number = probe!(inode, inode_i_ino, u64).unwrap_or(0);
    let igen = probe!(inode, inode_i_generation, u32).unwrap_or(0);
    let sb = probe!(dentry, dentry_d_sb, u64).unwrap_or(0);
    (number ^ u64::from(igen).rotate_left(32), u64::from(probe!(sb, sb_s_dev, u32).unwrap_or(0)))
}

/// The kernel's count of renames in all file systems (`rename_lock.seqcount`, fs/dcache.c); odd while there is one, and where
/// it isn't known.
#[inline(always)]
pub fn rename_count() -> u64 {
    // SAFETY: a valid, aligned, initialised static; volatile, or the compiler would take the value in this file for the real one.
    let at = unsafe { core::ptr::read_volatile(&raw const RENAME_LOCK) };
    if at == 0 {
        return 1;
    }
    probe_at::<u32>(at).map_or(1, u64::from)
}
