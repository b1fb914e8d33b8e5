//! Other processes: signals, tracing, memory, descriptors, priorities.

use std::os::fd::AsRawFd;

use anyhow::Result;

use crate::Attack;
use crate::sys::{args, errno, own};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("kill", |a| args(a).and_then(|[signal, pid]| kill(signal, pid))),
    ("kill-thread", |a| args(a).and_then(|[signal, pid]| tgkill(signal, pid))),
    ("kill-queue", |a| args(a).and_then(|[signal, pid]| sigqueue(signal, pid))),
    ("kill-pidfd", |a| args(a).and_then(|[signal, pid]| pidfd_signal(signal, pid))),
    ("ptrace-attach", |a| args(a).and_then(|[pid]| ptrace(libc::PTRACE_ATTACH, pid))),
    ("ptrace-seize", |a| args(a).and_then(|[pid]| ptrace(libc::PTRACE_SEIZE, pid))),
    ("read-memory", |a| args(a).and_then(|[pid]| memory(pid, false))),
    ("write-memory", |a| args(a).and_then(|[pid]| memory(pid, true))),
    ("open-memory", |a| args(a).and_then(|[pid]| open_memory(pid))),
    ("take-fd", |a| args(a).and_then(|[pid]| take_fd(pid))),
    ("setpriority", |a| args(a).and_then(|[pid]| setpriority(pid))),
    ("setaffinity", |a| args(a).and_then(|[pid]| setaffinity(pid))),
    ("setscheduler", |a| args(a).and_then(|[pid]| setscheduler(pid))),
    ("ioprio", |a| args(a).and_then(|[pid]| ioprio(pid))),
    ("prlimit", |a| args(a).and_then(|[pid]| prlimit(pid))),
];

fn kill(signal: &str, pid: &str) -> Result<i32> {
    let (signal, pid): (i32, i32) = (signal.parse()?, pid.parse()?);
    // SAFETY: takes numbers.
    Ok(errno(unsafe { libc::kill(pid, signal) }))
}

fn tgkill(signal: &str, pid: &str) -> Result<i32> {
    let (signal, pid): (i32, i32) = (signal.parse()?, pid.parse()?);
    // SAFETY: takes numbers; the first thread has the number of its process.
    Ok(errno(unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, signal) }))
}

fn sigqueue(signal: &str, pid: &str) -> Result<i32> {
    let (signal, pid): (i32, i32) = (signal.parse()?, pid.parse()?);
    let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
    // SAFETY: takes numbers and no pointer.
    Ok(errno(unsafe { libc::sigqueue(pid, signal, value) }))
}

fn pidfd_signal(signal: &str, pid: &str) -> Result<i32> {
    let (signal, pid): (i32, i64) = (signal.parse()?, pid.parse()?);
    // SAFETY: takes numbers.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = match own(i32::try_from(opened)?) {
        Ok(fd) => fd,
        Err(errno) => return Ok(errno),
    };
    // SAFETY: a descriptor that lives through the call.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, 0_u64, 0) };
    Ok(errno(sent))
}

/// Traces, and lets go again.
fn ptrace(how: libc::c_uint, pid: &str) -> Result<i32> {
    let pid: i32 = pid.parse()?;
    // SAFETY: no memory is read or written.
    let done = errno(unsafe { libc::ptrace(how, pid, 0_u64, 0_u64) });
    if done == 0 {
        let mut status = 0;
        // SAFETY: as above; a number to write to. A process that was seized runs on, and is stopped to be let go.
        unsafe {
            if how == libc::PTRACE_SEIZE {
                libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0_u64, 0_u64);
            }
            libc::waitpid(pid, &raw mut status, libc::__WALL);
            libc::ptrace(libc::PTRACE_DETACH, pid, 0_u64, 0_u64);
        }
    }
    Ok(done)
}

/// No bytes are moved: whether they may be is asked all the same.
fn memory(pid: &str, write: bool) -> Result<i32> {
    let pid: i64 = pid.parse()?;
    let mut byte = 0_u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // Nothing is mapped there, which is found out last.
    let remote = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 1 };
    let call = if write { libc::SYS_process_vm_writev } else { libc::SYS_process_vm_readv };
    // SAFETY: a byte of ours, and an address that the kernel checks.
    Ok(errno(unsafe { libc::syscall(call, pid, &raw const local, 1_u64, &raw const remote, 1_u64, 0_u64) }))
}

fn open_memory(pid: &str) -> Result<i32> {
    Ok(crate::sys::errno_of(std::fs::File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))))
}

fn take_fd(pid: &str) -> Result<i32> {
    let pid: i64 = pid.parse()?;
    // SAFETY: takes numbers.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = match own(i32::try_from(opened)?) {
        Ok(fd) => fd,
        Err(errno) => return Ok(errno),
    };
    // SAFETY: a descriptor that lives through the call; its standard input is wanted.
    let taken = unsafe { libc::syscall(libc::SYS_pidfd_getfd, fd.as_raw_fd(), 0, 0) };
    Ok(match own(i32::try_from(taken)?) {
        Ok(_closed) => 0,
        Err(errno) => errno,
    })
}

fn setpriority(pid: &str) -> Result<i32> {
    let pid: u32 = pid.parse()?;
    // SAFETY: takes numbers. What it is already.
    Ok(errno(unsafe { libc::setpriority(libc::PRIO_PROCESS, pid, 0) }))
}

fn setaffinity(pid: &str) -> Result<i32> {
    let pid: i32 = pid.parse()?;
    // SAFETY: plain integers, for which zero means no CPU.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a structure that lives through the calls, and its size. What it is already.
    let done = unsafe {
        libc::sched_getaffinity(pid, size_of_val(&set), &raw mut set);
        libc::sched_setaffinity(pid, size_of_val(&set), &raw const set)
    };
    Ok(errno(done))
}

fn setscheduler(pid: &str) -> Result<i32> {
    let pid: i32 = pid.parse()?;
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: a structure that lives through the call. What it is already.
    Ok(errno(unsafe { libc::sched_setscheduler(pid, libc::SCHED_OTHER, &raw const parameters) }))
}

fn ioprio(pid: &str) -> Result<i32> {
    let pid: i64 = pid.parse()?;
    /// `IOPRIO_WHO_PROCESS`, and best effort, 4: what is so unless somebody says otherwise.
    const PROCESS: i64 = 1;
    const BEST_EFFORT: i64 = 2 << 13 | 4;
    // SAFETY: takes numbers.
    Ok(errno(unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, pid, BEST_EFFORT) }))
}

fn prlimit(pid: &str) -> Result<i32> {
    let pid: i32 = pid.parse()?;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: structures that live through the calls. What it is already.
    let done = unsafe {
        libc::prlimit(pid, libc::RLIMIT_CORE, std::ptr::null(), &raw mut limit);
        libc::prlimit(pid, libc::RLIMIT_CORE, &raw const limit, std::ptr::null_mut())
    };
    Ok(errno(done))
}
