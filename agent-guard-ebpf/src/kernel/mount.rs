//! Mounts, by probe reads: what a file system is mounted on.
//!
//! A `struct vfsmount`, which paths have, is part of a `struct mount`, which knows where it is.

use super::{GO_ON, STOP, Untyped, file, offset, probe, probe_at, repeat};

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

/// Mounts of one file system that are looked at, at most.
const MOUNTS: u32 = 4096;
/// Directories above an object, at most, among which the root of a mount is looked for.
const ABOVE: u32 = 64;

/// The mounts of one name space that an object can be seen through.
#[repr(C)]
pub struct Seen {
    /// The name space: a `struct mnt_namespace *`.
    pub namespace: u64,
    /// The object: a `struct dentry *`.
    pub dentry: u64,
    /// Each a `struct vfsmount *`.
    pub mounts: [u64; Self::MAX],
    /// How many of them.
    pub count: u32,
    /// Not 0 if these are all.
    pub whole: u32,
    /// The list's next one, or where that stands.
    next: u64,
    /// What the list ends with.
    end: u64,
}

impl Seen {
    /// Mounts that are told, at most: a power of two.
    pub const MAX: usize = 32;

    /// Looks for them.
    #[inline(always)]
    pub fn find(&mut self) {
        self.count = 0;
        self.whole = 0;
        let Some(sb) = probe!(self.dentry, dentry_d_sb, u64) else { return };
        self.end = if are_listed() { sb.wrapping_add(offset!(sb_s_mounts) as u64) } else { 0 };
        let Some(first) = probe!(sb, sb_s_mounts, u64) else { return };
        self.next = first;
        repeat(MOUNTS, step_seen, &mut Looking { seen: self });
    }

    #[inline(always)]
    fn add(&mut self, whole: u64) -> bool {
        let mount = whole.wrapping_add(offset!(mount_mnt) as u64);
        let (Some(root), Some(namespace)) = (root(mount), probe!(whole, mount_mnt_ns, u64)) else {
            return false;
        };
        if namespace != self.namespace || mount_shows(root, self.dentry) == 0 {
            return true;
        }
        if self.count as usize >= Self::MAX {
            return false;
        }
        // VERIFIER: the mask is a bound on the very register that is used.
        if let Some(slot) = self.mounts.get_mut(self.count as usize & (Self::MAX - 1)) {
            *slot = mount;
        }
        self.count += 1;
        true
    }
}

/// Whether the mounts of a file system are in a list of the kernel's usual kind. From 6.18 on each points to the next.
#[inline(always)]
fn are_listed() -> bool {
    offset!(is_s_mounts_list) != 0
}

/// VERIFIER: the state of a loop has to be on the stack.
struct Looking<'a> {
    seen: &'a mut Seen,
}

/// Looks at one mount.
extern "C" fn step_seen(_turn: u32, looking: *mut Looking<'_>) -> i64 {
    // SAFETY: the state of `find`, which waits for us.
    let seen = unsafe { &mut *(*looking).seen };
    let at = seen.next;
    if at == seen.end {
        seen.whole = 1;
        return STOP;
    }
    let link = offset!(mount_next_of_sb) as u64;
    let whole = if are_listed() { at.wrapping_sub(link) } else { at };
    // One that is taken away meanwhile leads nowhere.
    let Some(next) = probe_at::<u64>(whole.wrapping_add(link)) else { return STOP };
    seen.next = next;
    if seen.add(whole) { GO_ON } else { STOP }
}

/// Not 0 if a root is the object or above it, or may be.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn mount_shows(root: u64, dentry: u64) -> u32 {
    let mut at = dentry;
    let mut turn = 0;
    while turn < ABOVE {
        if at == root {
            return 1;
        }
        let parent = file::parent_of(at);
        if parent == at {
            return 0;
        }
        if parent == 0 {
            return 1;
        }
        at = parent;
        turn += 1;
    }
    1
}
