//! Files, directory entries, inodes, mounts.

use agent_guard_common::ObjectKey;

use super::{load, offset, probe};

/// `struct path *`.
#[derive(Clone, Copy)]
pub struct Path(pub *const u8);

/// `struct dentry *`, typed.
#[derive(Clone, Copy)]
pub struct Dentry(pub *const u8);

/// `struct vfsmount *`, typed.
#[derive(Clone, Copy)]
pub struct VfsMount(pub *const u8);

/// `struct inode *`, typed.
#[derive(Clone, Copy)]
pub struct Inode(*const u8);

/// `struct file *`.
#[derive(Clone, Copy)]
pub struct File(pub *const u8);

/// A dentry and the mount it was reached through, as plain numbers for probe reads.
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
const MNT_INTERNAL: u32 = 0x4000;
/// `S_IFMT`, `S_IFCHR`.
const S_IFMT: u16 = 0o170_000;
const S_IFCHR: u16 = 0o020_000;
const S_IFBLK: u16 = 0o060_000;

/// What an inode is a node of.
#[derive(Clone, Copy)]
pub enum Device {
    /// No device.
    None,
    /// A character device, by number.
    Character(u32),
    /// A block device.
    Block,
}

/// `FMODE_WRITE`, `FMODE_CREATED` (`include/linux/fs.h`, the same from 6.1 to 7.2).
const FMODE_WRITE: u32 = 0x2;
const FMODE_CREATED: u32 = 0x10_0000;
/// `O_TRUNC`, `O_PATH` (`include/uapi/asm-generic/fcntl.h`).
const O_TRUNC: u32 = 0o1000;
const O_PATH: u32 = 0o1000_0000;

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
        if inode.is_null() { None } else { Some(Inode(inode)) }
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

    /// The object; none for a name that doesn't exist.
    #[inline(always)]
    pub fn key(self) -> Option<ObjectKey> {
        let inode = self.inode()?;
        let sb = load!(self.0, dentry_d_sb, *const u8);
        Some(ObjectKey::new(load!(sb, sb_s_dev, u32), inode.number()))
    }
}

impl Inode {
    /// Its number.
    #[inline(always)]
    pub fn number(self) -> u64 {
        load!(self.0, inode_i_ino, u64)
    }

    /// What it is a node of.
    #[inline(always)]
    pub fn device(self) -> Device {
        match load!(self.0, inode_i_mode, u16) & S_IFMT {
            S_IFCHR => Device::Character(load!(self.0, inode_i_rdev, u32)),
            S_IFBLK => Device::Block,
            _ => Device::None,
        }
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
        let flags = load!(self.0, file_f_flags, u32);
        flags & O_PATH == 0 && (load!(self.0, file_f_mode, u32) & FMODE_WRITE != 0 || flags & O_TRUNC != 0)
    }

    /// Whether the call that opens it has made it.
    #[inline(always)]
    pub fn just_created(self) -> bool {
        load!(self.0, file_f_mode, u32) & FMODE_CREATED != 0
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
    let ino = if inode == 0 { 0 } else { probe!(inode, inode_i_ino, u64)? };
    Some(ObjectKey::new(dev, ino))
}

/// Type and mode of a dentry's inode, by probe reads; 0 where it doesn't exist.
#[inline(always)]
pub fn mode_of(dentry: u64) -> u32 {
    match probe!(dentry, dentry_d_inode, u64) {
        Some(inode) if inode != 0 => probe!(inode, inode_i_mode, u16).unwrap_or(0) as u32,
        _ => 0,
    }
}

/// Name of a dentry: address and length.
#[inline(always)]
pub fn name_of(dentry: u64) -> Option<(u64, u32)> {
    let name = dentry.wrapping_add(offset!(dentry_d_name) as u64);
    Some((probe!(name, qstr_name, u64)?, probe!(name, qstr_len, u32)?))
}

/// Root of what is mounted.
#[inline(always)]
pub fn mount_root(mount: u64) -> Option<u64> {
    probe!(mount, vfsmount_mnt_root, u64)
}

/// Where something is mounted: the dentry below it and the mount that dentry is in. None at the end of the
/// chain: the root of the mount namespace, or a mount that is nowhere.
#[inline(always)]
pub fn mounted_on(mount: u64) -> Result<Option<Untyped>, ()> {
    let whole = mount.wrapping_sub(offset!(mount_mnt) as u64);
    let parent = probe!(whole, mount_mnt_parent, u64).ok_or(())?;
    if parent == whole {
        return Ok(None);
    }
    let dentry = probe!(whole, mount_mnt_mountpoint, u64).ok_or(())?;
    Ok(Some(Untyped { dentry, mount: parent.wrapping_add(offset!(mount_mnt) as u64) }))
}
