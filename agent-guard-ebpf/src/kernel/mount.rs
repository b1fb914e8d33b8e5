//! Mounts, by probe reads: what a file system is mounted on.
//!
//! A `struct vfsmount`, which paths have, is part of a `struct mount`, which knows where it is.

use super::{Untyped, offset, probe};

/// `MNT_NS_INTERNAL` (`fs/mount.h`): the namespace of mounts that other file systems keep for themselves.
const MNT_NS_INTERNAL: u64 = -22i64 as u64;

/// Whether a mount is one that another file system keeps for itself, as overlayfs does for its layers.
#[inline(always)]
pub fn is_private(mount: u64) -> bool {
    is_internal(whole(mount))
}

/// The name space of a `struct mount`; 0 if it can't be read.
#[inline(always)]
pub fn namespace(whole: u64) -> u64 {
    probe!(whole, mount_mnt_ns, u64).unwrap_or(0)
}

/// The `struct mount` that a `struct vfsmount` is in.
#[inline(always)]
pub fn whole(mount: u64) -> u64 {
    mount.wrapping_sub(offset!(mount_mnt) as u64)
}

/// The `struct mount` that another is mounted in; itself at the root of a name space, 0 if it can't be read.
#[inline(always)]
pub fn parent(whole: u64) -> u64 {
    probe!(whole, mount_mnt_parent, u64).unwrap_or(0)
}

/// The dentry that a `struct mount` is mounted on; 0 if it can't be read.
#[inline(always)]
pub fn point(whole: u64) -> u64 {
    probe!(whole, mount_mnt_mountpoint, u64).unwrap_or(0)
}

/// Whether a `struct mount` is one that another file system keeps for itself, as overlayfs does for its layers.
#[inline(always)]
pub fn is_internal(whole: u64) -> bool {
    probe!(whole, mount_mnt_ns, u64) == Some(MNT_NS_INTERNAL)
}

/// Root of what is mounted.
#[inline(always)]
pub fn root(mount: u64) -> Option<u64> {
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
