//! ioctls on descriptors that are open for reading only.

use std::os::fd::AsRawFd;

use anyhow::{Context, Result};

use crate::Attack;
use crate::sys::{args, errno, need, open};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("ioctl", ioctl),
    ("subvolume-create", |a| subvolume(a, 0x5000_940e)),
    ("subvolume-destroy", |a| subvolume(a, 0x5000_940f)),
    ("subvolume-snapshot", subvolume_snapshot),
    ("subvolume-flags", subvolume_flags),
];

/// `ioctl NUMBER PATH [WORD...]`: a page of zeros is the argument, beginning with the words of 64 bits.
fn ioctl(a: &[&str]) -> Result<i32> {
    let [number, name, words @ ..] = a else { anyhow::bail!("usage: ioctl NUMBER PATH [WORD...]") };
    let mut page = [0_u64; 512];
    for (place, word) in page.iter_mut().zip(words) {
        *place = parse(word)?;
    }
    let file = need("can't open it for reading", open(name, libc::O_RDONLY))?;
    // SAFETY: no ioctl that tests use takes more than a page, which lives through the call.
    Ok(errno(unsafe { libc::ioctl(file.as_raw_fd(), parse(number)?, page.as_mut_ptr()) }))
}

fn parse(text: &str) -> Result<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let base = if digits.len() == text.len() { 10 } else { 16 };
    u64::from_str_radix(digits, base).with_context(|| format!("{text:?} is no number"))
}

/// `struct btrfs_ioctl_vol_args`: a descriptor and a name.
#[repr(C)]
struct Volume {
    fd: i64,
    name: [u8; 4088],
}

impl Volume {
    fn new(fd: i32, name: &str) -> Result<Self> {
        let mut volume = Self { fd: fd.into(), name: [0; 4088] };
        let place = volume.name.get_mut(..name.len()).context("the name is too long")?;
        place.copy_from_slice(name.as_bytes());
        Ok(volume)
    }
}

/// Makes or destroys a subvolume in a directory of a btrfs: `subvolume-... DIR NAME`.
fn subvolume(a: &[&str], number: libc::c_ulong) -> Result<i32> {
    let [dir, name] = args(a)?;
    let dir = need("can't open the directory", open(dir, libc::O_RDONLY | libc::O_DIRECTORY))?;
    let volume = Volume::new(0, name)?;
    // SAFETY: the structure that both calls take, alive through the call.
    Ok(errno(unsafe { libc::ioctl(dir.as_raw_fd(), number, &raw const volume) }))
}

/// `subvolume-snapshot SUBVOLUME DIR NAME`.
fn subvolume_snapshot(a: &[&str]) -> Result<i32> {
    const SNAP_CREATE: libc::c_ulong = 0x5000_9401;
    let [from, dir, name] = args(a)?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let from = need("can't open the subvolume", open(from, flags))?;
    let dir = need("can't open the directory", open(dir, flags))?;
    let volume = Volume::new(from.as_raw_fd(), name)?;
    // SAFETY: the structure that the call takes, alive through it; the descriptor in it is open.
    Ok(errno(unsafe { libc::ioctl(dir.as_raw_fd(), SNAP_CREATE, &raw const volume) }))
}

/// Makes a subvolume read-only: `BTRFS_IOC_SUBVOL_SETFLAGS`.
fn subvolume_flags(a: &[&str]) -> Result<i32> {
    const SETFLAGS: libc::c_ulong = 0x4008_941a;
    /// `BTRFS_SUBVOL_RDONLY`.
    static READ_ONLY: u64 = 2;
    let [dir] = args(a)?;
    let dir = need("can't open the subvolume", open(dir, libc::O_RDONLY | libc::O_DIRECTORY))?;
    // SAFETY: reads 8 bytes that are there.
    Ok(errno(unsafe { libc::ioctl(dir.as_raw_fd(), SETFLAGS, &raw const READ_ONLY) }))
}
