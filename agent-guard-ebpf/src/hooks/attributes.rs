//! What is known about files beside their contents: modes, owners, times, attributes; and ioctls.
//!
//! Hooks that know a directory entry but no mount are judged by every mount that the object can be seen through.

use agent_guard_common::{Op, event::Hook};
use aya_ebpf::{EbpfContext, macros::lsm, programs::LsmContext};

use crate::{
    enforce::enforce,
    hooks::files::act,
    judge::Call,
    kernel::{Attributes, Dentry, File, Inode, Path, setattr_has_idmap},
    tag::Subject,
    walk::Spot,
    wherever::wherever,
};

/// Attributes of an object whose mount the hook doesn't know. What a file system does on its layers for the task was
/// judged before, as what the task did to the file system.
#[inline(always)]
fn attributes<const HOOK: u8>(subject: Subject, dentry: Dentry) -> i32 {
    if subject.task().is_acted_for() {
        return 0;
    }
    let mut call = Call::new(subject, Hook(HOOK), Op::METADATA).on_dentry(dentry);
    let mut mount = 0;
    let judgement = call.judge(|session, tables| {
        let (judgement, through) = wherever(tables, session, Op::METADATA, dentry);
        mount = through;
        judgement
    });
    call.asked.first.mount = mount;
    enforce(call, judgement)
}

// int path_chmod(const struct path *path, umode_t mode)
#[lsm(hook = "path_chmod")]
pub fn path_chmod(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let path = Path(ctx.arg(0));
    act::<{ Hook::PATH_CHMOD.0 }>(subject, Op::METADATA, path, path.dentry())
}

// int path_chown(const struct path *path, kuid_t uid, kgid_t gid)
#[lsm(hook = "path_chown")]
pub fn path_chown(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let path = Path(ctx.arg(0));
    act::<{ Hook::PATH_CHOWN.0 }>(subject, Op::METADATA, path, path.dentry())
}

// int inode_setattr(struct dentry *dentry, struct iattr *attr)
// int inode_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr), newer kernels
// Only for times: what else it sees has hooks that know the mount.
#[lsm(hook = "inode_setattr")]
pub fn inode_setattr(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    // VERIFIER: read before it is chosen, or the compiler makes one load out of two, from a computed place among the arguments.
    let (first, second): (*const u8, *const u8) = (argument(&ctx, 0), argument(&ctx, 1));
    let (dentry, what) = if setattr_has_idmap() { (second, argument(&ctx, 2)) } else { (first, second) };
    times(subject, Dentry(dentry), Attributes(what))
}

/// An argument that is a pointer.
#[inline(always)]
fn argument(ctx: &LsmContext, at: usize) -> *const u8 {
    // SAFETY: the context is an array of arguments, which the verifier knows the length of.
    unsafe { core::ptr::read_volatile(ctx.as_ptr().cast::<*const u8>().add(at)) }
}

#[inline(always)]
fn times(subject: Subject, dentry: Dentry, what: Attributes) -> i32 {
    if what.only_times() { attributes::<{ Hook::INODE_SETATTR.0 }>(subject, dentry) } else { 0 }
}

// int inode_setxattr(struct user_namespace *mnt_userns (mnt_idmap from 6.3 on), struct dentry *dentry,
//                    const char *name, const void *value, size_t size, int flags)
#[lsm(hook = "inode_setxattr")]
pub fn inode_setxattr(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    attributes::<{ Hook::INODE_SETXATTR.0 }>(subject, Dentry(ctx.arg(1)))
}

// int inode_removexattr(struct user_namespace *mnt_userns (mnt_idmap from 6.3 on), struct dentry *dentry,
//                       const char *name)
#[lsm(hook = "inode_removexattr")]
pub fn inode_removexattr(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    attributes::<{ Hook::INODE_REMOVEXATTR.0 }>(subject, Dentry(ctx.arg(1)))
}

// int inode_set_acl(struct mnt_idmap *idmap, struct dentry *dentry, const char *acl_name, struct posix_acl *kacl)
// From 6.2 on; before that access control lists come by inode_setxattr.
#[lsm(hook = "inode_set_acl")]
pub fn inode_set_acl(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    attributes::<{ Hook::INODE_SET_ACL.0 }>(subject, Dentry(ctx.arg(1)))
}

// int inode_remove_acl(struct mnt_idmap *idmap, struct dentry *dentry, const char *acl_name)
// From 6.2 on; before that access control lists come by inode_removexattr.
#[lsm(hook = "inode_remove_acl")]
pub fn inode_remove_acl(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    attributes::<{ Hook::INODE_REMOVE_ACL.0 }>(subject, Dentry(ctx.arg(1)))
}

// int inode_file_setattr(struct dentry *dentry, struct file_kattr *fa)
// From 6.17 on, also for the ioctls that set flags; before that there are only those.
#[lsm(hook = "inode_file_setattr")]
pub fn inode_file_setattr(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    attributes::<{ Hook::INODE_FILE_SETATTR.0 }>(subject, Dentry(ctx.arg(0)))
}

/// What an ioctl on a file or directory is.
enum Ioctl {
    /// Reads, or needs a descriptor that was judged for what it does.
    Harmless,
    /// Sets attributes.
    Metadata,
    /// Writes to this file and nothing else.
    Write,
    /// Anything else: it may reach beyond the file.
    Other,
}

/// Sorts ioctls. Numbers from `include/uapi/linux/fs.h`, `fscrypt.h`, `fsverity.h`, `fiemap.h`, `asm-generic/ioctls.h`
/// and `btrfs.h`.
#[inline(always)]
fn sort(command: u32) -> Ioctl {
    match command {
        // FIONREAD, FIONBIO, FIOASYNC, FIONCLEX, FIOCLEX, FIOQSIZE, FIBMAP, FIGETBSZ; TCGETS and TIOCGWINSZ, by which
        // programs find out whether something is a terminal.
        0x541b | 0x5421 | 0x5452 | 0x5450 | 0x5451 | 0x5460 | 1 | 2 | 0x5401 | 0x5413 => Ioctl::Harmless,
        // FS_IOC_GETFLAGS and GETVERSION (with their 32-bit forms), FSGETXATTR, FIEMAP, GETFSLABEL, GETFSUUID,
        // GETFSSYSFSPATH, PAGEMAP_SCAN isn't for files.
        0x8008_6601 | 0x8004_6601 | 0x8008_7601 | 0x8004_7601 | 0x801c_581f | 0xc020_660b | 0x8100_9431
        | 0x8011_1500 | 0x8081_1501 => Ioctl::Harmless,
        // FS_IOC_GET_ENCRYPTION_POLICY, _EX, NONCE, KEY_STATUS, PWSALT; MEASURE_VERITY, READ_VERITY_METADATA.
        0x400c_6615 | 0xc009_6616 | 0x8010_661b | 0xc080_661a | 0x4010_6614 | 0xc004_6686 | 0xc028_6687 => {
            Ioctl::Harmless
        }
        // FICLONE, FICLONERANGE: the descriptor must be open for writing. Not so for the targets of FIDEDUPERANGE, which
        // this hook doesn't see: that is one of the others.
        // FS_IOC_RESVSP, RESVSP64, UNRESVSP, UNRESVSP64, ZERO_RANGE: open for writing.
        0x4004_9409 | 0x4020_940d | 0x4030_5828 | 0x4030_582a | 0x4030_5829 | 0x4030_582b | 0x4030_5839 => {
            Ioctl::Harmless
        }
        // BTRFS_IOC_TREE_SEARCH, TREE_SEARCH_V2, INO_LOOKUP, INO_LOOKUP_USER, FS_INFO, DEV_INFO, SPACE_INFO,
        // SUBVOL_GETFLAGS, GET_SUBVOL_INFO, GET_SUBVOL_ROOTREF, GET_FEATURES, INO_PATHS, SYNC.
        0xd000_9411 | 0xc070_9411 | 0xd000_9412 | 0xd018_943e | 0x8400_941f | 0xd000_941e | 0xc010_9414
        | 0x8008_9419 | 0x81f8_943c | 0xd000_943d | 0x8018_9439 | 0xc038_9423 | 0x9408 => Ioctl::Harmless,
        // FS_IOC_SETFLAGS and its 32-bit form, FSSETXATTR, SET_ENCRYPTION_POLICY, ENABLE_VERITY.
        0x4008_6602 | 0x4004_6602 | 0x401c_5820 | 0x800c_6613 | 0x4080_6685 => Ioctl::Metadata,
        // EXT4_IOC_ALLOC_DA_BLKS.
        0x660c => Ioctl::Write,
        _ => Ioctl::Other,
    }
}

#[inline(always)]
fn ioctl<const HOOK: u8>(subject: Subject, file: File, command: u32) -> i32 {
    let path = file.path();
    let dentry = path.dentry();
    if path.mount().internal() || !dentry.inode().is_some_and(Inode::is_file_or_directory) {
        return 0;
    }
    let (op, unscoped) = match sort(command) {
        Ioctl::Harmless => return 0,
        Ioctl::Metadata => (Op::METADATA, false),
        Ioctl::Write => (Op::WRITE, false),
        Ioctl::Other => (Op::WRITE, true),
    };
    let mut call = Call::new(subject, Hook(HOOK), op).on(path, dentry);
    call.asked.detail = command;
    let judgement = call.judge(|session, tables| {
        Spot::new(tables, session, op.bit(), path.mount(), dentry).judge(tables, session, op, unscoped)
    });
    enforce(call, judgement)
}

// int file_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
#[lsm(hook = "file_ioctl")]
pub fn file_ioctl(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    ioctl::<{ Hook::FILE_IOCTL.0 }>(subject, File(ctx.arg(0)), ctx.arg(1))
}

// int file_ioctl_compat(struct file *file, unsigned int cmd, unsigned long arg)
// From 6.8 on; before that 32-bit calls come by file_ioctl, too.
#[lsm(hook = "file_ioctl_compat")]
pub fn file_ioctl_compat(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    ioctl::<{ Hook::FILE_IOCTL_COMPAT.0 }>(subject, File(ctx.arg(0)), ctx.arg(1))
}
