//! Mounting. That files keep their rules wherever they are mounted doesn't depend on it.

use agent_guard_common::{Op, digest::Digest, event::Hook};
use aya_ebpf::{helpers::generated::bpf_probe_read_kernel_str, macros::lsm, programs::LsmContext};

use crate::{
    asked::More,
    enforce::{enforce, enforce_more},
    judge::Call,
    kernel::{Dentry, Path, VfsMount},
    maps::GUARD,
    tag::Subject,
    walk::{make_scratch, scratch},
};

/// Bytes of a text that an answer can be about; with a longer one nobody is asked.
const TEXT: usize = 256;

/// Takes a text of the kernel's into the task's digest. 0 if it can't be read or is too long.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn mounts_text(text: u64) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    scratch.digest = scratch.digest.word(u64::from(text != 0));
    if text == 0 {
        return 1;
    }
    scratch.name = [0; TEXT / 8];
    // SAFETY: the destination has that room; the helper checks the source.
    let length = unsafe {
        bpf_probe_read_kernel_str(
            scratch.name.as_mut_ptr().cast(),
            TEXT as u32,
            core::ptr::with_exposed_provenance(text as usize),
        )
    };
    if length <= 0 || length as usize >= TEXT {
        return 0;
    }
    let mut at = 0;
    while at < TEXT / 8 {
        if at * 8 < length as usize
            && let Some(word) = scratch.name.get(at)
        {
            scratch.digest = scratch.digest.word(*word);
        }
        at += 1;
    }
    1
}

/// What a mount is asked for, in a number that a session can't choose; 0 if it can't be told.
#[inline(always)]
fn arguments(device: u64, kind: u64, data: u64, flags: u64) -> u64 {
    let (Some(guard), Some(state)) = (GUARD.get(0), make_scratch()) else { return 0 };
    state.digest = Digest::new(guard.key).word(flags);
    if mounts_text(device) == 0 || mounts_text(kind) == 0 || mounts_text(data) == 0 {
        return 0;
    }
    scratch().map_or(0, |scratch| scratch.digest.finish())
}

// int sb_mount(const char *dev_name, const struct path *path, const char *type, unsigned long flags, void *data)
#[lsm(hook = "sb_mount")]
pub fn sb_mount(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let (path, flags) = (Path(ctx.arg(1)), ctx.arg::<u64>(3));
    let mut call = Call::new(subject, Hook::SB_MOUNT, Op::MOUNT).on(path, path.dentry());
    call.asked.detail = flags as u32;
    let arguments = arguments(ctx.arg(0), ctx.arg(2), ctx.arg(4), flags);
    call.asked.restarts = u32::from(arguments != 0);
    let judgement = call.system(Op::MOUNT);
    enforce_more(call, judgement, More { arguments, ..More::NONE })
}

// int sb_umount(struct vfsmount *mnt, int flags)
#[lsm(hook = "sb_umount")]
pub fn sb_umount(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let mount = VfsMount(ctx.arg(0));
    let mut call = Call::new(subject, Hook::SB_UMOUNT, Op::MOUNT).on_mounted(mount, mount.root());
    call.asked.detail = ctx.arg(1);
    let judgement = call.system(Op::MOUNT);
    enforce(call, judgement)
}

#[inline(always)]
fn two<const HOOK: u8>(subject: Subject, from: Path, to: Path) -> i32 {
    let (old, new): (Dentry, Dentry) = (from.dentry(), to.dentry());
    let mut call = Call::new(subject, Hook(HOOK), Op::MOUNT).on(from, old).to(to, new);
    let judgement = call.system(Op::MOUNT);
    enforce(call, judgement)
}

// int sb_pivotroot(const struct path *old_path, const struct path *new_path)
#[lsm(hook = "sb_pivotroot")]
pub fn sb_pivotroot(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    two::<{ Hook::SB_PIVOTROOT.0 }>(subject, Path(ctx.arg(0)), Path(ctx.arg(1)))
}

// int move_mount(const struct path *from_path, const struct path *to_path)
#[lsm(hook = "move_mount")]
pub fn move_mount(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    two::<{ Hook::MOVE_MOUNT.0 }>(subject, Path(ctx.arg(0)), Path(ctx.arg(1)))
}
