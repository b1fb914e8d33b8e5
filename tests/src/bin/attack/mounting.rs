//! The same object by another way among mounts, each in a mount name space of its own.
//!
//! `ns-HOW ... NAME` ends as removing the file does; `ENOSYS` if it can't be tried.

use std::os::fd::AsFd;

use anyhow::Result;
use rustix::fs::{AtFlags, CWD};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind, mount_change,
    move_mount, open_tree,
};

use crate::Attack;
use crate::sys::{args, errno_of, in_fork, unlink};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("ns-unlink", |a| args(a).and_then(|[name]| alone(|| Ok(unlink(name))))),
    ("ns-bind", |a| args(a).and_then(|[dir, at, name]| alone(|| bind(dir, at, name)))),
    ("ns-chroot", |a| args(a).and_then(|[dir, name]| alone(|| chroot(dir, name)))),
    ("ns-pivot", |a| args(a).and_then(|[at, name]| alone(|| pivot(at, name)))),
    ("ns-overmount", |a| args(a).and_then(|[dir, name]| alone(|| overmount(dir, name)))),
    ("ns-open-tree", |a| args(a).and_then(|[dir, name]| alone(|| tree(dir, None, name)))),
    ("ns-move-mount", |a| args(a).and_then(|[dir, at, name]| alone(|| tree(dir, Some(at), name)))),
    ("ns-disk", |a| args(a).and_then(|[device, at, name]| alone(|| disk(device, at, name)))),
];

/// What can't be done on the way to the attempt.
type Tried = rustix::io::Result<i32>;

/// In a mount name space that nobody else is in, and that tells nobody what is mounted.
fn alone(attempt: impl FnOnce() -> Tried) -> Result<i32> {
    in_fork(|| {
        // SAFETY: takes a number; a child with one thread.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return libc::ENOSYS;
        }
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).and_then(|()| attempt()).unwrap_or(libc::ENOSYS)
    })
}

fn below(at: &str, name: &str) -> String {
    format!("{at}/{name}")
}

fn bind(dir: &str, at: &str, name: &str) -> Tried {
    mount_bind(dir, at)?;
    Ok(unlink(&below(at, name)))
}

fn chroot(dir: &str, name: &str) -> Tried {
    rustix::process::chroot(dir)?;
    Ok(unlink(&below("", name)))
}

/// The root directory is another mount of what it was.
fn pivot(at: &str, name: &str) -> Tried {
    rustix::mount::mount_bind_recursive("/", at)?;
    rustix::process::chdir(at)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)?;
    Ok(unlink(name))
}

/// What is mounted over the directory hides it from everybody who hasn't got it open.
fn overmount(dir: &str, name: &str) -> Tried {
    let handle = rustix::fs::open(
        dir,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    mount("none", dir, "tmpfs", MountFlags::empty(), None)?;
    Ok(errno_of(rustix::fs::unlinkat(handle.as_fd(), name, AtFlags::empty())))
}

/// A copy of the mount, which is nowhere or is put somewhere else.
fn tree(dir: &str, at: Option<&str>, name: &str) -> Tried {
    let copy = open_tree(CWD, dir, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let Some(at) = at else {
        return Ok(errno_of(rustix::fs::unlinkat(copy.as_fd(), name, AtFlags::empty())));
    };
    move_mount(copy.as_fd(), "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(unlink(&below(at, name)))
}

fn disk(device: &str, at: &str, name: &str) -> Tried {
    mount(device, at, "ext4", MountFlags::empty(), None)?;
    Ok(unlink(&below(at, name)))
}
