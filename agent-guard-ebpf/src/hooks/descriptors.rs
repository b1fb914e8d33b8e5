//! Files that come by another way than opening, and files that become code.

use agent_guard_common::{Fault, Op, event::Hook};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    enforce::{enforce, enforce_noted},
    hooks::{
        files::{act, descriptor, opening},
        network::receive,
    },
    judge::{Call, Judgement},
    kernel::{File, Socket, Vma, file::is_ring},
    tag::Subject,
    walk::object,
};

/// `PROT_EXEC` (`include/uapi/asm-generic/mman-common.h`).
const PROT_EXEC: u64 = 4;

// int mmap_file(struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags)
// Shared and writable needs a descriptor that was opened for writing. What `execve` maps was judged when it was opened.
#[lsm(hook = "mmap_file")]
pub fn mmap_file(ctx: LsmContext) -> i32 {
    let file: *const u8 = ctx.arg(0);
    if file.is_null() || ctx.arg::<u64>(2) & PROT_EXEC == 0 {
        return 0;
    }
    let Some(subject) = Subject::current() else { return 0 };
    let file = File(file);
    let path = file.path();
    if file.executes() || path.mount().internal() {
        return 0;
    }
    act::<{ Hook::MMAP_FILE.0 }>(subject, Op::EXECUTE, path, path.dentry())
}

// int file_mprotect(struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)
#[lsm(hook = "file_mprotect")]
pub fn file_mprotect(ctx: LsmContext) -> i32 {
    if ctx.arg::<u64>(2) & PROT_EXEC == 0 {
        return 0;
    }
    let Some(subject) = Subject::current() else { return 0 };
    let Some(file) = Vma(ctx.arg(0)).file() else { return 0 };
    let path = file.path();
    if file.executes() || path.mount().internal() {
        return 0;
    }
    let dentry = path.dentry();
    let mut call = Call::new(subject, Hook::FILE_MPROTECT, Op::EXECUTE).on(path, dentry);
    let judgement = call.judge(|session, tables| {
        let judgement = object(tables, session, Op::EXECUTE, path, dentry);
        // What is mapped of an overlay is a file of its layer, from 6.5 on: which object the session has mapped isn't known
        // (`backing_file_mmap`, fs/backing-file.c).
        if judgement.is_builtin() { Judgement::fault(Fault::READ) } else { judgement }
    });
    enforce(call, judgement)
}

// int file_receive(struct file *file)
// Over a Unix socket, or taken from another process. What is received may do no more than what could be opened. A ring
// of somebody else's can hold files and threads of theirs.
#[lsm(hook = "file_receive")]
pub fn file_receive(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let file = File(ctx.arg(0));
    let path = file.path();
    let dentry = path.dentry();
    let mut call = Call::new(subject, Hook::FILE_RECEIVE, Op::WRITE).on(path, dentry);
    // The message is received all the same, without the descriptor: there is no call to start again.
    call.asked.restarts = 0;
    if path.mount().internal() {
        if is_ring(dentry.address()) {
            return enforce(call, Judgement::fault(Fault::RING));
        }
        let judgement = Socket::of(file).and_then(Socket::sk).map(receive);
        return judgement.map_or(0, |judgement| enforce_noted(&call.subject, Judgement(judgement)));
    }
    let ops = opening(file.reads(), file.writes());
    if file.is_only_path() || ops == 0 {
        return 0;
    }
    let judgement = descriptor(&mut call, file, ops);
    enforce(call, judgement)
}
