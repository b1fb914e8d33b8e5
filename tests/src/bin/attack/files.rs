//! Files: every call that changes, makes, moves or removes one, and every other way to name it.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags};

use crate::Attack;
use crate::sys::{self, args, errno, errno_of, need, open, outcome, path, proc_fd};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("unlink", |a| args(a).map(|[name]| sys::unlink(name))),
    ("unlink-relative", unlink_relative),
    ("unlink-dirfd", unlink_dirfd),
    ("rmdir", |a| args(a).map(|[name]| errno_of(std::fs::remove_dir(name)))),
    ("truncate", truncate),
    ("ftruncate-fd", ftruncate_fd),
    ("write-fd", write_fd),
    ("open-write", |a| opened(a, libc::O_WRONLY)),
    ("open-rdwr", |a| opened(a, libc::O_RDWR)),
    ("open-append", |a| opened(a, libc::O_WRONLY | libc::O_APPEND)),
    ("open-read", |a| opened(a, libc::O_RDONLY)),
    ("open-trunc", |a| opened(a, libc::O_WRONLY | libc::O_TRUNC)),
    ("open-rdonly-trunc", |a| opened(a, libc::O_RDONLY | libc::O_TRUNC)),
    ("open-create", |a| opened(a, libc::O_WRONLY | libc::O_CREAT)),
    ("create-new", |a| opened(a, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL)),
    ("creat", |a| opened(a, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)),
    ("tmpfile", |a| opened(a, libc::O_WRONLY | libc::O_TMPFILE)),
    ("tmpfile-link", tmpfile_link),
    ("openat2", openat2),
    ("openat2-beneath", openat2_beneath),
    ("reopen-proc", |a| reopened(a, libc::O_RDONLY)),
    ("reopen-opath", |a| reopened(a, libc::O_PATH)),
    ("open-handle", |a| open_handle(a, libc::O_WRONLY)),
    ("open-handle-read", |a| open_handle(a, libc::O_RDONLY)),
    ("mknod", |a| node(a, FileType::RegularFile)),
    ("mkfifo", |a| node(a, FileType::Fifo)),
    ("bind-unix", |a| args(a).map(|[name]| errno_of(std::os::unix::net::UnixDatagram::bind(name)))),
    ("mkdir", |a| args(a).map(|[name]| errno_of(std::fs::create_dir(name)))),
    ("symlink", |a| args(a).map(|[name]| errno_of(std::os::unix::fs::symlink("target", name)))),
    ("link", |a| args(a).map(|[old, new]| errno_of(std::fs::hard_link(old, new)))),
    ("link-fd", link_fd),
    ("rename", |a| args(a).map(|[old, new]| errno_of(std::fs::rename(old, new)))),
    ("rename-noreplace", |a| renamed(a, RenameFlags::NOREPLACE)),
    ("rename-exchange", |a| renamed(a, RenameFlags::EXCHANGE)),
    ("rename-whiteout", |a| renamed(a, RenameFlags::WHITEOUT)),
];

fn opened(a: &[&str], flags: i32) -> Result<i32> {
    args(a).map(|[name]| outcome(open(name, flags)))
}

/// From inside the directory, by the last name only.
fn unlink_relative(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    let (dir, last) = split(name)?;
    let back = std::env::current_dir().context("there is no working directory")?;
    std::env::set_current_dir(dir).with_context(|| format!("can't enter {}", dir.display()))?;
    let result = sys::unlink(last);
    std::env::set_current_dir(&back).with_context(|| format!("can't enter {}", back.display()))?;
    Ok(result)
}

/// From a descriptor of the directory.
fn unlink_dirfd(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    let (dir, last) = split(name)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty()).context("can't open the directory")?;
    Ok(errno_of(rustix::fs::unlinkat(&dir, last, AtFlags::empty())))
}

fn split(name: &str) -> Result<(&Path, &str)> {
    let whole = Path::new(name);
    let last = whole.file_name().and_then(|last| last.to_str()).context("the path has no last name")?;
    Ok((whole.parent().context("the path has no directory")?, last))
}

fn truncate(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    let name = path(name)?;
    // SAFETY: a C string that lives through the call.
    Ok(errno(unsafe { libc::truncate(name.as_ptr(), 0) }))
}

/// A descriptor that was inherited, by its number.
fn inherited(text: &str) -> Result<i32> {
    let fd = text.parse().with_context(|| format!("{text:?} is no descriptor"))?;
    // SAFETY: only asks whether it is open.
    let known = errno(unsafe { libc::fcntl(fd, libc::F_GETFD) });
    anyhow::ensure!(known == 0, "descriptor {fd} isn't open");
    Ok(fd)
}

fn ftruncate_fd(a: &[&str]) -> Result<i32> {
    let [fd] = args(a)?;
    // SAFETY: takes numbers.
    Ok(errno(unsafe { libc::ftruncate(inherited(fd)?, 0) }))
}

fn write_fd(a: &[&str]) -> Result<i32> {
    let [fd] = args(a)?;
    // SAFETY: reads one byte that is there.
    Ok(errno(i64::try_from(unsafe { libc::write(inherited(fd)?, b"x".as_ptr().cast(), 1) })?))
}

/// A file without a name in one directory, given a name in another.
fn tmpfile_link(a: &[&str]) -> Result<i32> {
    let [dir, name] = args(a)?;
    let file = need("can't make a file without a name", open(dir, libc::O_WRONLY | libc::O_TMPFILE))?;
    Ok(errno_of(rustix::fs::linkat(CWD, proc_fd(&file), CWD, name, AtFlags::SYMLINK_FOLLOW)))
}

fn openat2(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(errno_of(rustix::fs::openat2(CWD, name, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)))
}

fn openat2_beneath(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    let (dir, last) = split(name)?;
    let dir = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(dir)
        .with_context(|| format!("can't open {}", dir.display()))?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Ok(errno_of(rustix::fs::openat2(&dir, last, flags, Mode::empty(), ResolveFlags::BENEATH)))
}

/// First in a harmless way, then for writing through `/proc/self/fd`.
fn reopened(a: &[&str], first: i32) -> Result<i32> {
    let [name] = args(a)?;
    let file = need("can't open it the harmless way", open(name, first))?;
    Ok(outcome(open(&proc_fd(&file), libc::O_WRONLY | libc::O_TRUNC)))
}

/// `struct file_handle` with room for the longest handle.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    data: [u8; 128],
}

/// By a file handle, which has no path at all.
fn open_handle(a: &[&str], flags: i32) -> Result<i32> {
    let [name] = args(a)?;
    let (dir, _) = split(name)?;
    // Any directory of the file system will do, so take one that may be read.
    let mount = std::fs::File::open(dir.parent().unwrap_or(dir))
        .with_context(|| format!("can't open the directory above {}", dir.display()))?;
    let name = path(name)?;
    let mut handle = Handle { bytes: 128, kind: 0, data: [0; 128] };
    let mut mount_id = 0;
    // SAFETY: the handle states its own room, and lives through both calls.
    let fd = unsafe {
        let at = (&raw mut handle).cast();
        match errno(libc::name_to_handle_at(libc::AT_FDCWD, name.as_ptr(), at, &raw mut mount_id, 0)) {
            0 => {}
            // A file system that has no handles.
            failed => return Ok(failed),
        }
        libc::open_by_handle_at(mount.as_raw_fd(), at, flags | libc::O_CLOEXEC)
    };
    // The members are the kernel's to read.
    let Handle { bytes: _, kind: _, data: _ } = handle;
    Ok(outcome(sys::own(fd)))
}

fn node(a: &[&str], kind: FileType) -> Result<i32> {
    let [name] = args(a)?;
    Ok(errno_of(rustix::fs::mknodat(CWD, name, kind, Mode::from_raw_mode(0o644), 0)))
}

/// A second name for an open file, through its descriptor.
fn link_fd(a: &[&str]) -> Result<i32> {
    let [old, new] = args(a)?;
    let file = need("can't open it for reading", open(old, libc::O_RDONLY))?;
    Ok(errno_of(rustix::fs::linkat(&file, "", CWD, new, AtFlags::EMPTY_PATH)))
}

fn renamed(a: &[&str], flags: RenameFlags) -> Result<i32> {
    let [old, new] = args(a)?;
    Ok(errno_of(rustix::fs::renameat_with(CWD, old, CWD, new, flags)))
}
