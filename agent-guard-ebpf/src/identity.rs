//! Says how the hooks know the files that a process has open: the daemon opens what the policy names, and asks.
//!
//! What `stat(2)` says differs from it where file systems number their files per subvolume or layer, and nothing says
//! which of the inodes that have had a number it is.

use agent_guard_common::object::Identified;
use aya_ebpf::helpers::generated::bpf_seq_write;

use crate::kernel::File;

/// Arguments of an iterator over the files of tasks (`bpf_iter__task_file`, `kernel/bpf/task_iter.c`).
#[repr(C)]
pub struct TaskFile {
    meta: *const *mut core::ffi::c_void,
    task: *const u8,
    fd: u32,
    file: *const u8,
}

/// One open file. The link says of which process.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
pub extern "C" fn identify(ctx: *const TaskFile) -> i32 {
    // SAFETY: what the kernel gives to such a program.
    let (meta, fd, file) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*ctx).meta),
            core::ptr::read_volatile(&raw const (*ctx).fd),
            core::ptr::read_volatile(&raw const (*ctx).file),
        )
    };
    if file.is_null() {
        return 0;
    }
    let dentry = File(file).path().dentry();
    let Some(inode) = dentry.inode() else { return 0 };
    let Some((root_ino, root_igen)) = dentry.root() else { return 0 };
    let record = Identified {
        ino: inode.number(),
        root_ino,
        fd,
        dev: dentry.device(),
        igen: inode.generation(),
        root_igen,
    };
    // SAFETY: the first member of `struct bpf_iter_meta` is the file that the iterator writes to.
    let seq = unsafe { core::ptr::read_volatile(meta) };
    // SAFETY: the record is of that size; the helper checks what it writes to.
    let code = unsafe {
        bpf_seq_write(
            seq.cast(),
            core::ptr::from_ref(&record).cast_mut().cast(),
            size_of::<Identified>() as u32,
        )
    };
    // 1: once more, with more room.
    (code != 0) as i32
}
