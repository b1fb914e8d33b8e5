//! What a process keeps between its attempts: a directory, and the mount name space that it is in.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Mutex;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, mount_change, mount_move};

use crate::Attack;
use crate::sys::{args, errno, errno_of, outcome};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("keep-dir", |a| args(a).and_then(|[dir]| keep(dir))),
    ("kept-open-write", |a| args(a).and_then(|[name]| kept_open_write(name))),
    ("own-mounts", |_| own_mounts()),
    ("enter-mounts", |a| args(a).and_then(|[pid]| enter_mounts(pid))),
    ("mount-move", |a| args(a).map(|[from, to]| errno_of(mount_move(from, to)))),
];

/// The directory that the process has open.
static KEPT: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Opens a directory and keeps it.
fn keep(dir: &str) -> Result<i32> {
    let directory = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("can't open {dir}"))?;
    *KEPT.lock().map_err(|_poisoned| anyhow::anyhow!("another attempt has panicked"))? = Some(directory);
    Ok(0)
}

/// Opens a file in the kept directory for writing.
fn kept_open_write(name: &str) -> Result<i32> {
    let kept = KEPT.lock().map_err(|_poisoned| anyhow::anyhow!("another attempt has panicked"))?;
    let directory = kept.as_ref().context("no directory is kept")?;
    let opened = rustix::fs::openat(directory.as_fd(), name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    Ok(outcome(opened.map_err(rustix::io::Errno::raw_os_error)))
}

/// The whole process goes to a mount name space of its own, which tells nobody what is mounted.
fn own_mounts() -> Result<i32> {
    // SAFETY: takes a number; the process has one thread.
    let done = errno(unsafe { libc::unshare(libc::CLONE_NEWNS) });
    if done == 0 {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .context("can't keep mounts to itself")?;
    }
    Ok(done)
}

/// The whole process goes to the mount name space of another.
fn enter_mounts(pid: &str) -> Result<i32> {
    let path = format!("/proc/{pid}/ns/mnt");
    let namespace = std::fs::File::open(&path).with_context(|| format!("can't open {path}"))?;
    // SAFETY: takes a descriptor that lives through the call.
    Ok(errno(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) }))
}
