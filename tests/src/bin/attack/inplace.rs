//! Changing a file without making, moving or removing any: everything that a descriptor is good for.
//!
//! `in-place HOW PATH` opens for reading and writing, then does it; `in-place-read HOW PATH` opens for reading
//! only. The outcome is the first errno of the two.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, bail};

use crate::Attack;
use crate::sys::{args, errno, need, open, own};
use crate::uring;

pub(crate) const ATTACKS: &[(&str, Attack)] =
    &[("in-place", |a| in_place(a, libc::O_RDWR)), ("in-place-read", |a| in_place(a, libc::O_RDONLY))];

/// What files have in tests that change them in place: four blocks, all alike, so that they can be deduplicated.
const BLOCK: i64 = 4096;

fn in_place(a: &[&str], flags: i32) -> Result<i32> {
    let [how, name] = args(a)?;
    match open(name, flags) {
        Ok(file) => use_fd(file.as_raw_fd(), how),
        Err(errno) => Ok(errno),
    }
}

/// Uses an open file in some way.
pub(crate) fn use_fd(fd: RawFd, how: &str) -> Result<i32> {
    let length = |returned: isize| Ok(errno(i64::try_from(returned)?));
    match how {
        // SAFETY: reads a byte that is there.
        "write" => length(unsafe { libc::write(fd, c"x".as_ptr().cast(), 1) }),
        // SAFETY: as above.
        "pwrite" => length(unsafe { libc::pwrite(fd, c"x".as_ptr().cast(), 1, 1) }),
        "read" => {
            let mut byte = 0_u8;
            // SAFETY: writes into a byte that is there.
            length(unsafe { libc::pread(fd, (&raw mut byte).cast(), 1, 0) })
        }
        // SAFETY: takes numbers.
        "ftruncate" => Ok(errno(unsafe { libc::ftruncate(fd, 1) })),
        "extend" => Ok(fallocate(fd, 0, 8 * BLOCK)),
        "punch" => Ok(fallocate(fd, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0)),
        "zero" => Ok(fallocate(fd, libc::FALLOC_FL_ZERO_RANGE, 0)),
        "collapse" => Ok(fallocate(fd, libc::FALLOC_FL_COLLAPSE_RANGE, 0)),
        "insert" => Ok(fallocate(fd, libc::FALLOC_FL_INSERT_RANGE, 0)),
        "map-read" => Ok(map(fd, Map::Read)),
        "map-shared" => Ok(map(fd, Map::Write)),
        "map-mprotect" => Ok(map(fd, Map::WriteLater)),
        "map-exec" => Ok(map(fd, Map::Execute)),
        "splice" => splice(fd),
        "sendfile" => sendfile(fd),
        "copy" => copy(fd),
        "clone" => Ok(clone(fd)),
        "dedupe" => Ok(dedupe(fd)),
        "uring-write" => uring::on_fd(fd, "write"),
        "uring-fallocate" => uring::on_fd(fd, "fallocate"),
        "uring-ftruncate" => uring::on_fd(fd, "ftruncate"),
        "enter" => Ok(enter(fd)),
        other => bail!("a descriptor can't be used in the way {other:?}"),
    }
}

fn fallocate(fd: RawFd, mode: i32, offset: i64) -> i32 {
    // SAFETY: takes numbers.
    errno(unsafe { libc::fallocate(fd, mode, offset, BLOCK) })
}

/// How a file is mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Map {
    Read,
    /// Shared, and a byte is changed.
    Write,
    /// The same, but writable only after mprotect.
    WriteLater,
    Execute,
    /// Executable only after mprotect.
    ExecuteLater,
}

/// Maps a file's first page.
pub(crate) fn map(fd: RawFd, how: Map) -> i32 {
    const PAGE: usize = 4096;
    let (first, then, kind) = match how {
        Map::Read => (libc::PROT_READ, 0, libc::MAP_PRIVATE),
        Map::Write => (libc::PROT_READ | libc::PROT_WRITE, 0, libc::MAP_SHARED),
        Map::WriteLater => (libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED),
        Map::Execute => (libc::PROT_READ | libc::PROT_EXEC, 0, libc::MAP_PRIVATE),
        Map::ExecuteLater => (libc::PROT_READ, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE),
    };
    // SAFETY: a new page wherever the kernel wants; only its first byte is touched, and the file has one.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), PAGE, first, kind, fd, 0);
        if page == libc::MAP_FAILED {
            return errno(-1);
        }
        let mut result = if then == 0 { 0 } else { errno(libc::mprotect(page, PAGE, then)) };
        if result == 0 && matches!(how, Map::Write | Map::WriteLater) {
            page.cast::<u8>().write_volatile(b'x');
            result = errno(libc::msync(page, PAGE, libc::MS_SYNC));
        }
        libc::munmap(page, PAGE);
        result
    }
}

/// From a pipe.
fn splice(fd: RawFd) -> Result<i32> {
    let mut ends = [0; 2];
    // SAFETY: two descriptors for the kernel to fill, which are nobody else's then.
    let (from, to) = unsafe {
        need(
            "can't make a pipe",
            Some(()).filter(|()| libc::pipe(ends.as_mut_ptr()) == 0).ok_or(libc::EMFILE),
        )?;
        let [from, to] = ends;
        (OwnedFd::from_raw_fd(from), OwnedFd::from_raw_fd(to))
    };
    rustix::io::write(&to, b"spliced").context("can't fill the pipe")?;
    let none = std::ptr::null_mut();
    // SAFETY: takes descriptors, no pointers, and numbers.
    Ok(errno(i64::try_from(unsafe { libc::splice(from.as_raw_fd(), none, fd, none, 7, 0) })?))
}

fn sendfile(fd: RawFd) -> Result<i32> {
    // SAFETY: a C string.
    let memory =
        need("can't make a file in memory", own(unsafe { libc::memfd_create(c"source".as_ptr(), 0) }))?;
    rustix::io::write(&memory, b"sent").context("can't fill the file in memory")?;
    let mut offset = 0;
    // SAFETY: takes descriptors, and an offset that lives through the call.
    let returned = unsafe { libc::sendfile(fd, memory.as_raw_fd(), &raw mut offset, 4) };
    Ok(errno(i64::try_from(returned)?))
}

/// From the file's begin to its end.
fn copy(fd: RawFd) -> Result<i32> {
    let (mut from, mut to) = (0, 4 * BLOCK);
    // SAFETY: takes a descriptor and two offsets that live through the call.
    let returned = unsafe { libc::copy_file_range(fd, &raw mut from, fd, &raw mut to, 7, 0) };
    Ok(errno(i64::try_from(returned)?))
}

/// `FICLONERANGE`: the first block over the one behind the last.
fn clone(fd: RawFd) -> i32 {
    const FICLONERANGE: libc::c_ulong = 0x4020_940d;
    let block = BLOCK.unsigned_abs();
    let range = [u64::try_from(fd).unwrap_or(0), 0, block, 4 * block];
    // SAFETY: a structure of four numbers that lives through the call.
    errno(unsafe { libc::ioctl(fd, FICLONERANGE, range.as_ptr()) })
}

/// `FIDEDUPERANGE`: the second block becomes one with the first. The kernel says in the structure how that went.
fn dedupe(fd: RawFd) -> i32 {
    const FIDEDUPERANGE: libc::c_ulong = 0xc018_9436;
    let (block, number) = (BLOCK.unsigned_abs(), u64::try_from(fd).unwrap_or(0));
    // Source offset, length, number of targets; then of the target: descriptor, offset, bytes done, status.
    let mut range = [0, block, 1, number, block, 0, 0];
    // SAFETY: a structure with one target, which lives through the call.
    match errno(unsafe { libc::ioctl(fd, FIDEDUPERANGE, range.as_mut_ptr()) }) {
        0 => {}
        failed => return failed,
    }
    let [.., status] = range;
    let low = u32::try_from(status & 0xffff_ffff).unwrap_or(0).cast_signed();
    if low < 0 { low.saturating_neg() } else { 0 }
}

/// Whether it is a ring, and may be used as one.
fn enter(fd: RawFd) -> i32 {
    // SAFETY: takes numbers, and no signal mask.
    errno(unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, 0, 0, 0, std::ptr::null::<u8>(), 0) })
}
