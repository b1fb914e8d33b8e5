//! Modes, owners, times, attributes, access control lists and flags: what is said about a file.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::Result;
use rustix::fs::{AtFlags, CWD, IFlags, Mode, Timespec, Timestamps, UTIME_NOW, XattrFlags};

use crate::Attack;
use crate::sys::{args, errno, errno_of, need, open, path, proc_fd};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("chmod", |a| args(a).map(|[name]| errno_of(rustix::fs::chmod(name, MODE)))),
    ("fchmod", |a| on_fd(a, |fd| errno_of(rustix::fs::fchmod(fd, MODE)))),
    ("fchmodat2", fchmodat2),
    ("chmod-proc", |a| through_proc(a, |name| errno_of(rustix::fs::chmod(name, MODE)))),
    ("chown", |a| args(a).and_then(|[name]| chown(name, 0))),
    ("fchown", |a| on_fd(a, fchown)),
    ("lchown", |a| args(a).and_then(|[name]| chown(name, libc::AT_SYMLINK_NOFOLLOW))),
    ("utimes", |a| args(a).map(|[name]| utimes(name, &LONG_AGO, AtFlags::empty()))),
    ("utimes-now", |a| args(a).map(|[name]| utimes(name, &NOW, AtFlags::empty()))),
    ("lutimes", |a| args(a).map(|[name]| utimes(name, &LONG_AGO, AtFlags::SYMLINK_NOFOLLOW))),
    ("futimens", |a| on_fd(a, |fd| errno_of(rustix::fs::futimens(fd, &LONG_AGO)))),
    ("utimes-proc", |a| through_proc(a, |name| utimes(name, &LONG_AGO, AtFlags::empty()))),
    ("setxattr", |a| args(a).map(|[name]| errno_of(rustix::fs::setxattr(name, NEW, b"1", ANY)))),
    ("lsetxattr", |a| args(a).map(|[name]| errno_of(rustix::fs::lsetxattr(name, NEW, b"1", ANY)))),
    ("fsetxattr", |a| on_fd(a, |fd| errno_of(rustix::fs::fsetxattr(fd, NEW, b"1", ANY)))),
    ("setxattrat", setxattrat),
    ("lsetxattr-trusted", |a| {
        args(a).map(|[name]| errno_of(rustix::fs::lsetxattr(name, TRUSTED, b"1", ANY)))
    }),
    ("removexattr", |a| args(a).map(|[name]| errno_of(rustix::fs::removexattr(name, OLD)))),
    ("lremovexattr", |a| args(a).map(|[name]| errno_of(rustix::fs::lremovexattr(name, OLD)))),
    ("fremovexattr", |a| on_fd(a, |fd| errno_of(rustix::fs::fremovexattr(fd, OLD)))),
    ("acl", |a| args(a).map(|[name]| errno_of(rustix::fs::setxattr(name, ACL, &acl(), ANY)))),
    ("acl-fd", |a| on_fd(a, |fd| errno_of(rustix::fs::fsetxattr(fd, ACL, &acl(), ANY)))),
    ("acl-default", |a| args(a).map(|[name]| errno_of(rustix::fs::setxattr(name, ACL_DEFAULT, &acl(), ANY)))),
    ("acl-remove", |a| args(a).map(|[name]| errno_of(rustix::fs::removexattr(name, ACL)))),
    ("setflags", |a| on_fd(a, setflags)),
    ("fssetxattr", |a| on_fd(a, fssetxattr)),
    ("file-setattr", file_setattr),
];

/// Another mode than files have that tests make.
const MODE: Mode = Mode::from_raw_mode(0o600);
/// Somebody else, by the number of both user and group.
const NOBODY: u32 = 65534;
/// A time that no file of a test has.
const LONG_AGO: Timestamps = both(Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 });
/// The present: other permissions are needed for it than for a time that is given.
const NOW: Timestamps = both(Timespec { tv_sec: 0, tv_nsec: UTIME_NOW });
/// An attribute that files don't have yet.
const NEW: &str = "user.new";
/// One that they have.
const OLD: &str = "user.old";
/// One that symbolic links can have, too.
const TRUSTED: &str = "trusted.new";
const ACL: &str = "system.posix_acl_access";
const ACL_DEFAULT: &str = "system.posix_acl_default";
/// Whether the attribute is there already or not.
const ANY: XattrFlags = XattrFlags::empty();

const fn both(time: Timespec) -> Timestamps {
    Timestamps { last_access: time, last_modification: time }
}

/// Through a descriptor that is open for reading only.
fn on_fd(a: &[&str], act: impl FnOnce(&OwnedFd) -> i32) -> Result<i32> {
    let [name] = args(a)?;
    Ok(act(&need("can't open it for reading", open(name, libc::O_RDONLY))?))
}

/// Through `/proc/self/fd`, from a descriptor that can do nothing by itself.
fn through_proc(a: &[&str], act: impl FnOnce(&str) -> i32) -> Result<i32> {
    let [name] = args(a)?;
    Ok(act(&proc_fd(&need("can't open it with O_PATH", open(name, libc::O_PATH))?)))
}

fn chown(name: &str, flags: i32) -> Result<i32> {
    let name = path(name)?;
    // SAFETY: a C string that lives through the call, and numbers.
    Ok(errno(unsafe { libc::fchownat(libc::AT_FDCWD, name.as_ptr(), NOBODY, NOBODY, flags) }))
}

fn fchown(fd: &OwnedFd) -> i32 {
    // SAFETY: takes numbers.
    errno(unsafe { libc::fchown(fd.as_raw_fd(), NOBODY, NOBODY) })
}

fn utimes(name: &str, times: &Timestamps, flags: AtFlags) -> i32 {
    errno_of(rustix::fs::utimensat(CWD, name, times, flags))
}

/// `ENOSYS` before Linux 6.6.
fn fchmodat2(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    let (name, follow) = (path(name)?, 0);
    // SAFETY: a C string that lives through the call, and numbers.
    Ok(errno(unsafe { libc::syscall(libc::SYS_fchmodat2, libc::AT_FDCWD, name.as_ptr(), 0o600, follow) }))
}

/// `ENOSYS` before Linux 6.13.
fn setxattrat(a: &[&str]) -> Result<i32> {
    /// `__NR_setxattrat`.
    const SETXATTRAT: i64 = 463;
    /// `struct xattr_args`.
    #[repr(C)]
    struct Arguments {
        value: u64,
        size: u32,
        flags: u32,
    }
    let [name] = args(a)?;
    let (name, key) = (path(name)?, path(NEW)?);
    let arguments = Arguments { value: u64::try_from(c"1".as_ptr().addr())?, size: 1, flags: 0 };
    let size = size_of::<Arguments>();
    // SAFETY: C strings and a structure that live through the call; its value is a static string.
    let returned = unsafe {
        libc::syscall(SETXATTRAT, libc::AT_FDCWD, name.as_ptr(), 0, key.as_ptr(), &raw const arguments, size)
    };
    Ok(errno(returned))
}

/// A list by which nobody may write, too, in the kernel's form: version, then tag, permissions and id of each.
fn acl() -> Vec<u8> {
    const ENTRIES: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 6, 65534), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 4, u32::MAX)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in ENTRIES {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn setflags(fd: &OwnedFd) -> i32 {
    match rustix::fs::ioctl_getflags(fd) {
        Ok(flags) => errno_of(rustix::fs::ioctl_setflags(fd, flags | IFlags::NODUMP)),
        Err(error) => error.raw_os_error(),
    }
}

/// `FS_XFLAG_NODUMP`.
const NODUMP: u32 = 0x80;

fn fssetxattr(fd: &OwnedFd) -> i32 {
    /// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`.
    const GET_SET: (libc::c_ulong, libc::c_ulong) = (0x801c_581f, 0x401c_5820);
    // `struct fsxattr`: flags, extent size, extents, project, copy-on-write extent size, padding.
    let mut about = [0_u32; 7];
    // SAFETY: the kernel writes and reads 28 bytes, which are there.
    unsafe {
        match errno(libc::ioctl(fd.as_raw_fd(), GET_SET.0, about.as_mut_ptr())) {
            0 => {}
            failed => return failed,
        }
        let [flags, ..] = &mut about;
        *flags |= NODUMP;
        errno(libc::ioctl(fd.as_raw_fd(), GET_SET.1, about.as_ptr()))
    }
}

/// By name, without any descriptor. `ENOSYS` before Linux 6.17.
fn file_setattr(a: &[&str]) -> Result<i32> {
    /// `__NR_file_getattr` and `__NR_file_setattr`.
    const GET_SET: (i64, i64) = (468, 469);
    let [name] = args(a)?;
    let name = path(name)?;
    // `struct file_attr`: flags (64 bits), extent size, extents, project, copy-on-write extent size.
    let mut about = [0_u32; 6];
    let size = size_of_val(&about);
    // SAFETY: a C string and a structure of the size that is stated, both alive through the calls.
    unsafe {
        let at = about.as_mut_ptr();
        match errno(libc::syscall(GET_SET.0, libc::AT_FDCWD, name.as_ptr(), at, size, 0)) {
            0 => {}
            failed => return Ok(failed),
        }
        let [flags, ..] = &mut about;
        *flags |= NODUMP;
        Ok(errno(libc::syscall(GET_SET.1, libc::AT_FDCWD, name.as_ptr(), about.as_ptr(), size, 0)))
    }
}
