//! Files and directories.

use agent_guard_common::{Op, decide::Decision, event::Hook};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    enforce::enforce,
    judge::{self, Call, Judgement, device, object},
    kernel::{Dentry, Device, File, Inode, Path},
    tag::Subject,
};

/// `S_IFMT` and what it holds.
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFCHR: u32 = 0o020_000;
/// `RENAME_EXCHANGE` (`include/uapi/linux/fs.h`).
const RENAME_EXCHANGE: u32 = 2;

/// One operation on one object.
#[inline(always)]
fn act(mut call: Call, path: Path, dentry: Dentry) -> i32 {
    let op = call.op;
    let judgement = call.judge(|session, tables| object(tables, session, op, path, dentry));
    enforce(call, judgement)
}

/// A new name in a directory.
#[inline(always)]
fn create(subject: Subject, hook: Hook, dir: Path, dentry: Dentry, file_type: u32) -> i32 {
    let mut call = Call::new(subject, hook, Op::CREATE).on(dir, dentry);
    call.detail = file_type;
    let judgement = call.judge(|session, tables| {
        let create = object(tables, session, Op::CREATE, dir, dir.dentry());
        match file_type {
            // The call that makes it opens it for writing, too.
            S_IFREG => create.and(object(tables, session, Op::WRITE, dir, dir.dentry())),
            // Whoever makes a node wants what is behind it.
            S_IFBLK | S_IFCHR => create.and(device(tables, session, Op::WRITE, dir, dir.dentry())),
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
    act(Call::new(subject, Hook::PATH_UNLINK, Op::DELETE).on(dir, dentry), dir, dentry)
}

// int path_rmdir(const struct path *dir, struct dentry *dentry)
#[lsm(hook = "path_rmdir")]
pub fn path_rmdir(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let (dir, dentry) = (Path(ctx.arg(0)), Dentry(ctx.arg(1)));
    act(Call::new(subject, Hook::PATH_RMDIR, Op::DELETE).on(dir, dentry), dir, dentry)
}

// int path_rename(const struct path *old_dir, struct dentry *old_dentry,
//                 const struct path *new_dir, struct dentry *new_dentry, unsigned int flags)
#[lsm(hook = "path_rename")]
pub fn path_rename(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let (old_dir, old) = (Path(ctx.arg(0)), Dentry(ctx.arg(1)));
    let (new_dir, new) = (Path(ctx.arg(2)), Dentry(ctx.arg(3)));
    let flags = ctx.arg::<u32>(4);
    let exchange = flags & RENAME_EXCHANGE != 0;
    let mut call = Call::new(subject, Hook::PATH_RENAME, Op::RENAME).on(old_dir, old).to(new_dir, new);
    call.detail = flags;
    let judgement = call.judge(|session, tables| {
        let moved = object(tables, session, Op::RENAME, old_dir, old);
        let target = object(tables, session, Op::CREATE, new_dir, new_dir.dentry());
        let mut judgement = moved.and(target);
        if new.inode().is_some() {
            let op = if exchange { Op::RENAME } else { Op::DELETE };
            judgement = judgement.and(object(tables, session, op, new_dir, new));
        }
        if exchange {
            judgement = judgement.and(object(tables, session, Op::CREATE, old_dir, old_dir.dentry()));
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
    act(Call::new(subject, Hook::PATH_TRUNCATE, Op::WRITE).on(path, path.dentry()), path, path.dentry())
}

// int file_truncate(struct file *file), from 6.2 on
#[lsm(hook = "file_truncate")]
pub fn file_truncate(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let path = File(ctx.arg(0)).path();
    if path.mount().internal() {
        return 0;
    }
    act(Call::new(subject, Hook::FILE_TRUNCATE, Op::WRITE).on(path, path.dentry()), path, path.dentry())
}

// int file_open(struct file *file)
// A file that this very call has made was judged when its name was: as create and as write.
#[lsm(hook = "file_open")]
pub fn file_open(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let file = File(ctx.arg(0));
    if !file.writes() || file.just_created() || file.path().mount().internal() {
        return 0;
    }
    let path = file.path();
    let dentry = path.dentry();
    let mut call = Call::new(subject, Hook::FILE_OPEN, Op::WRITE).on(path, dentry);
    let judgement = call.judge(|session, tables| match dentry.inode().map_or(Device::None, Inode::device) {
        Device::None => object(tables, session, Op::WRITE, path, dentry),
        Device::Character(number) if judge::needs_no_rule(session, number) => {
            Judgement::decided(Decision::builtin())
        }
        _ => device(tables, session, Op::WRITE, path, dentry),
    });
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
    create(subject, Hook::PATH_MKNOD, Path(ctx.arg(0)), Dentry(ctx.arg(1)), file_type)
}

// int path_mkdir(const struct path *dir, struct dentry *dentry, umode_t mode)
#[lsm(hook = "path_mkdir")]
pub fn path_mkdir(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    create(subject, Hook::PATH_MKDIR, Path(ctx.arg(0)), Dentry(ctx.arg(1)), 0)
}

// int path_symlink(const struct path *dir, struct dentry *dentry, const char *old_name)
#[lsm(hook = "path_symlink")]
pub fn path_symlink(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    create(subject, Hook::PATH_SYMLINK, Path(ctx.arg(0)), Dentry(ctx.arg(1)), 0)
}

// int path_link(struct dentry *old_dentry, const struct path *new_dir, struct dentry *new_dentry)
// Another name must give no right that the object's own place doesn't: the source is judged as written to.
#[lsm(hook = "path_link")]
pub fn path_link(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let (old, new_dir, new) = (Dentry(ctx.arg(0)), Path(ctx.arg(1)), Dentry(ctx.arg(2)));
    let mut call = Call::new(subject, Hook::PATH_LINK, Op::CREATE).on(new_dir, old).to(new_dir, new);
    let judgement = call.judge(|session, tables| {
        let source = object(tables, session, Op::WRITE, new_dir, old);
        source.and(object(tables, session, Op::CREATE, new_dir, new_dir.dentry()))
    });
    enforce(call, judgement)
}
