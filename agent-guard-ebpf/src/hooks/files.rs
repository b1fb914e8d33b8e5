//! Files and directories.

use agent_guard_common::{Op, event::Hook};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    enforce::enforce,
    judge::{Call, Judgement, system},
    kernel::{Dentry, File, Path},
    known,
    own::Kind,
    tag::Subject,
    walk::{Spot, object},
};

/// `S_IFMT` and what it holds.
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFCHR: u32 = 0o020_000;
/// `RENAME_EXCHANGE` (`include/uapi/linux/fs.h`).
const RENAME_EXCHANGE: u32 = 2;

/// One operation on one object.
///
/// VERIFIER: such functions know their hook as a constant, so that each hook has one of its own, which is inlined. Shared
/// ones would be on the stack.
#[inline(always)]
pub fn act<const HOOK: u8>(subject: Subject, op: Op, path: Path, dentry: Dentry) -> i32 {
    let mut call = Call::new(subject, Hook(HOOK), op).on(path, dentry);
    let judgement = call.judge(|session, tables| object(tables, session, op, path, dentry));
    enforce(call, judgement)
}

/// A new name in a directory.
#[inline(always)]
fn create<const HOOK: u8>(subject: Subject, dir: Path, dentry: Dentry, file_type: u32) -> i32 {
    let mut call = Call::new(subject, Hook(HOOK), Op::CREATE).on(dir, dentry);
    call.asked.detail = file_type;
    let judgement = call.judge(|session, tables| {
        let spot = Spot::new(tables, session, Op::CREATE.bit() | Op::WRITE.bit(), dir.mount(), dentry);
        let create = spot.judge(tables, session, Op::CREATE, false);
        match file_type {
            // The call that makes it opens it for writing, too.
            S_IFREG => create.and(spot.judge(tables, session, Op::WRITE, false)),
            // Whoever makes a node wants what is behind it.
            S_IFBLK | S_IFCHR => create.and(spot.judge(tables, session, Op::WRITE, true)),
            _ => create,
        }
    });
    enforce(call, judgement)
}

// int path_unlink(const struct path *dir, struct dentry *dentry)
#[lsm(hook = "path_unlink")]
pub fn path_unlink(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let (dir, dentry) = (Path(ctx.arg(0)), Dentry(ctx.arg(1)));
    act::<{ Hook::PATH_UNLINK.0 }>(subject, Op::DELETE, dir, dentry)
}

// int path_rmdir(const struct path *dir, struct dentry *dentry)
#[lsm(hook = "path_rmdir")]
pub fn path_rmdir(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let (dir, dentry) = (Path(ctx.arg(0)), Dentry(ctx.arg(1)));
    act::<{ Hook::PATH_RMDIR.0 }>(subject, Op::DELETE, dir, dentry)
}

// int path_rename(const struct path *old_dir, struct dentry *old_dentry,
//                 const struct path *new_dir, struct dentry *new_dentry, unsigned int flags)
#[lsm(hook = "path_rename")]
pub fn path_rename(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    // Both directories are in one mount, or the call has failed before (`do_renameat2`, fs/namei.c).
    let (dir, old, new) = (Path(ctx.arg(0)), Dentry(ctx.arg(1)), Dentry(ctx.arg(3)));
    let flags = ctx.arg::<u32>(4);
    let exchange = flags & RENAME_EXCHANGE != 0;
    known::renaming();
    let mut call = Call::new(subject, Hook::PATH_RENAME, Op::RENAME).on(dir, old).to(dir, new);
    call.asked.detail = flags;
    let judgement = call.judge(|session, tables| {
        let ops = Op::RENAME.bit() | Op::CREATE.bit() | Op::DELETE.bit();
        let source = Spot::new(tables, session, ops, dir.mount(), old);
        let target = Spot::new(tables, session, ops, dir.mount(), new);
        let mut judgement = source.judge(tables, session, Op::RENAME, false).and(target.judge(
            tables,
            session,
            Op::CREATE,
            false,
        ));
        if new.inode().is_some() {
            let op = if exchange { Op::RENAME } else { Op::DELETE };
            judgement = judgement.and(target.judge(tables, session, op, false));
        }
        if exchange {
            judgement = judgement.and(source.judge(tables, session, Op::CREATE, false));
        }
        judgement
    });
    enforce(call, judgement)
}

// int path_truncate(const struct path *path)
// Up to 6.1 also for ftruncate and O_TRUNC, which have file_truncate from 6.2 on.
#[lsm(hook = "path_truncate")]
pub fn path_truncate(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let path = Path(ctx.arg(0));
    act::<{ Hook::PATH_TRUNCATE.0 }>(subject, Op::WRITE, path, path.dentry())
}

// int file_truncate(struct file *file), from 6.2 on
#[lsm(hook = "file_truncate")]
pub fn file_truncate(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let path = File(ctx.arg(0)).path();
    if path.mount().internal() {
        return 0;
    }
    act::<{ Hook::FILE_TRUNCATE.0 }>(subject, Op::WRITE, path, path.dentry())
}

/// What a descriptor lets its holder do: reading and writing, and creating where it has no name; bits by the numbers of these
/// operations. The one that events name is the one that is answered more strictly.
#[inline(always)]
pub fn descriptor(call: &mut Call, file: File, ops: u32) -> Judgement {
    // Whatever becomes of the judging.
    call.subject.tag_mut().named = Op::WRITE.0 as u32;
    let judgement = call.judge(|session, tables| {
        let (path, dentry) = (file.path(), file.path().dentry());
        // SAFETY: the current task's, which only it uses.
        let named = unsafe { &mut (*tables.tag).named };
        let kind = Kind::of(session, dentry, ops & Op::WRITE.bit() != 0);
        let spot = Spot::new(tables, session, ops, path.mount(), dentry);
        let mut judgement = Judgement::none().forget(session.pad);
        if ops & Op::WRITE.bit() != 0 {
            judgement = judgement.and(kind.judge(tables, session, &spot, Op::WRITE));
        }
        if ops & Op::CREATE.bit() != 0 {
            judgement = judgement.and(spot.judge(tables, session, Op::CREATE, false));
        }
        if ops & Op::READ.bit() != 0 {
            let read = kind.judge(tables, session, &spot, Op::READ);
            if read > judgement {
                *named = Op::READ.0 as u32;
            }
            judgement = judgement.and(read);
        }
        if let Some(op) = kind.system() {
            let beside = system(tables, session, op);
            if beside > judgement {
                *named = op.0 as u32;
            }
            judgement = judgement.and(beside);
        }
        judgement
    });
    call.asked.op = Op(call.subject.tag().named as u8);
    judgement
}

/// Bits for [`descriptor`].
#[inline(always)]
pub fn opening(reads: bool, writes: bool) -> u32 {
    (if reads { Op::READ.bit() } else { 0 }) | (if writes { Op::WRITE.bit() } else { 0 })
}

// int file_open(struct file *file)
// A file that this very call has made was judged when its name was: as create and as write.
#[lsm(hook = "file_open")]
pub fn file_open(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let file = File(ctx.arg(0));
    let path = file.path();
    if file.is_only_path() || path.mount().internal() {
        return 0;
    }
    if file.executes() {
        let dentry = path.dentry();
        return act::<{ Hook::FILE_OPEN.0 }>(subject, Op::EXECUTE, path, dentry);
    }
    let mut ops = opening(file.reads(), file.writes() && !file.just_created());
    if ops == 0 {
        return 0;
    }
    if file.is_nameless() {
        ops |= Op::CREATE.bit();
    }
    let mut call = Call::new(subject, Hook::FILE_OPEN, Op::WRITE).on(path, path.dentry());
    let judgement = descriptor(&mut call, file, ops);
    enforce(call, judgement)
}

// int path_mknod(const struct path *dir, struct dentry *dentry, umode_t mode, unsigned int dev)
// Also for open with O_CREAT and for a Unix socket that is bound to a name.
#[lsm(hook = "path_mknod")]
pub fn path_mknod(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let file_type = ctx.arg::<u32>(2) & S_IFMT;
    // None is a regular file, too (`mknod(2)`).
    let file_type = if file_type == 0 { S_IFREG } else { file_type };
    create::<{ Hook::PATH_MKNOD.0 }>(subject, Path(ctx.arg(0)), Dentry(ctx.arg(1)), file_type)
}

// int path_mkdir(const struct path *dir, struct dentry *dentry, umode_t mode)
#[lsm(hook = "path_mkdir")]
pub fn path_mkdir(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    create::<{ Hook::PATH_MKDIR.0 }>(subject, Path(ctx.arg(0)), Dentry(ctx.arg(1)), 0)
}

// int path_symlink(const struct path *dir, struct dentry *dentry, const char *old_name)
#[lsm(hook = "path_symlink")]
pub fn path_symlink(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    create::<{ Hook::PATH_SYMLINK.0 }>(subject, Path(ctx.arg(0)), Dentry(ctx.arg(1)), 0)
}

// int path_link(struct dentry *old_dentry, const struct path *new_dir, struct dentry *new_dentry)
// Another name must give no right that the object's own place doesn't: the source is judged as read and written to.
#[lsm(hook = "path_link")]
pub fn path_link(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let (old, new_dir, new) = (Dentry(ctx.arg(0)), Path(ctx.arg(1)), Dentry(ctx.arg(2)));
    let mut call = Call::new(subject, Hook::PATH_LINK, Op::CREATE).on(new_dir, old).to(new_dir, new);
    let judgement = call.judge(|session, tables| {
        let spot = Spot::new(tables, session, Op::WRITE.bit() | Op::READ.bit(), new_dir.mount(), old);
        let source = spot.judge(tables, session, Op::WRITE, false);
        let source = source.and(spot.judge(tables, session, Op::READ, false));
        source.and(object(tables, session, Op::CREATE, new_dir, new))
    });
    enforce(call, judgement)
}
