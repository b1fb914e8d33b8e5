//! The file systems of this host.

use std::{
    ffi::OsString,
    fs,
    io::{self, Error, ErrorKind},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use agent_guard_common::ObjectKey;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags};

use super::resolve::{Device, Filesystem, Mount, Object};

/// The file systems that this process sees.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostFilesystem;

impl Filesystem for HostFilesystem {
    fn lookup(&self, path: &Path, follow: bool) -> io::Result<Object> {
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let found = identity(fd.as_fd(), Path::new(""), AtFlags::EMPTY_PATH)?;
        let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        if !path.is_absolute() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("it leads to {path:?}, which is in no directory"),
            ));
        }
        // What was deleted or moved meanwhile has another path, or none.
        if identity(CWD, &path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)? != found {
            return Err(Error::other("it was changed meanwhile, try again"));
        }
        let Identity { key, mount, device } = found;
        Ok(Object { path, key, mount, device })
    }

    fn mounts(&self) -> io::Result<Vec<Mount>> {
        let table = fs::read("/proc/self/mountinfo")?;
        let lines = table.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| {
                mount(line).ok_or_else(|| {
                    let line = String::from_utf8_lossy(line);
                    Error::new(ErrorKind::InvalidData, format!("/proc/self/mountinfo has the line {line:?}"))
                })
            })
            .collect()
    }
}

/// What tells an object from others.
#[derive(PartialEq, Eq)]
struct Identity {
    key: ObjectKey,
    mount: u64,
    device: Option<Device>,
}

/// Looks at an object. Asks no server: device and inode number don't change, and it might not answer.
fn identity(at: BorrowedFd<'_>, path: &Path, flags: AtFlags) -> io::Result<Identity> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID;
    let found: Statx = rustix::fs::statx(at, path, flags | AtFlags::STATX_DONT_SYNC, wanted)?;
    if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(Error::new(ErrorKind::Unsupported, "the kernel doesn't tell its mount (Linux 5.8 does)"));
    }
    let dev = ObjectKey::dev(found.stx_dev_major, found.stx_dev_minor);
    let device = match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::CharacterDevice => {
            Some(Device::Character(ObjectKey::dev(found.stx_rdev_major, found.stx_rdev_minor)))
        }
        FileType::BlockDevice => Some(Device::Block),
        _ => None,
    };
    Ok(Identity { key: ObjectKey::new(dev, found.stx_ino), mount: found.stx_mnt_id, device })
}

/// A line of mountinfo (`Documentation/filesystems/proc.rst`, 3.5).
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let mut dev = fields.next()?.split(|&byte| byte == b':');
    let (major, minor) = (number(dev.next()?)?, number(dev.next()?)?);
    let root = path(fields.next()?);
    let point = path(fields.next()?);
    let mut rest = fields.skip_while(|&field| field != b"-");
    rest.next()?;
    let kind = String::from_utf8_lossy(rest.next()?).into_owned();
    let dev = ObjectKey::dev(u32::try_from(major).ok()?, u32::try_from(minor).ok()?);
    Some(Mount { id, parent, dev, root, point, kind })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Undoes the kernel's escapes: a backslash and three octal digits.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'\\'
            && let Some((digits, after)) = after.split_at_checked(3)
            && let Some(digits) = std::str::from_utf8(digits).ok()
            && let Ok(escaped) = u8::from_str_radix(digits, 8)
        {
            bytes.push(escaped);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402\134\011x rw,noatime master:1 shared:2 - ext3 /dev/root rw";
        let expected = Mount {
            id: 36,
            parent: 35,
            dev: ObjectKey::dev(98, 0),
            root: "/mnt1".into(),
            point: "/mnt 2\\\tx".into(),
            kind: "ext3".into(),
        };
        assert_eq!(mount(line), Some(expected));
        assert!(mount(b"1 2 0:31 / /x rw - tmpfs none rw").is_some());
        for bad in [&b""[..], b"1 2 3", b"1 2 0:31 / /x rw tmpfs", b"x 2 0:31 / /x rw - tmpfs t rw"] {
            assert_eq!(mount(bad), None);
        }
    }

    #[test]
    fn the_root_directory() {
        let root = HostFilesystem.lookup(Path::new("/"), true).unwrap();
        assert_eq!(root.path, Path::new("/"));
        let mounts = HostFilesystem.mounts().unwrap();
        assert!(mounts.iter().any(|mount| mount.id == root.mount && mount.point == Path::new("/")));
    }

    #[test]
    fn devices() {
        let null = HostFilesystem.lookup(Path::new("/dev/null"), true).unwrap();
        assert_eq!(null.device, Some(Device::Character(ObjectKey::dev(1, 3))));
        assert_eq!(HostFilesystem.lookup(Path::new("/dev"), true).unwrap().device, None);
    }

    #[test]
    fn links_are_followed_or_not() {
        let scratch = std::env::temp_dir().canonicalize().unwrap();
        let scratch = scratch.join(format!("agent-guard-host-{}", std::process::id()));
        fs::create_dir(&scratch).unwrap();
        let (file, link) = (scratch.join("file"), scratch.join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let lookup = |path: &Path, follow| HostFilesystem.lookup(path, follow);
        assert_eq!(lookup(&link, true).unwrap(), lookup(&file, true).unwrap());
        assert_eq!(lookup(&link, false).unwrap().path, link);
        assert_ne!(lookup(&link, false).unwrap().key, lookup(&file, true).unwrap().key);
        assert_eq!(lookup(&scratch.join("none"), true).unwrap_err().kind(), ErrorKind::NotFound);
        fs::remove_dir_all(&scratch).unwrap();
    }
}
