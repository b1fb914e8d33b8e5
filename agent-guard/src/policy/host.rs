//! The file systems of this host.

use std::{
    ffi::OsString,
    io::{self, Error, ErrorKind},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use agent_guard_common::ObjectKey;
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags},
    mount::OpenTreeFlags,
};

use super::{
    fs::{Device, Filesystem, Identify, Identity, Mount, Object},
    mountinfo,
};

/// Descriptors that are open at once, at most.
const CHUNK: usize = 256;

/// The file systems that this process sees.
pub struct HostFilesystem {
    identify: Box<dyn Identify + Send + Sync>,
}

impl HostFilesystem {
    /// The identities of objects are what somebody says who knows the kernel's.
    #[must_use]
    pub fn new(identify: Box<dyn Identify + Send + Sync>) -> Self {
        Self { identify }
    }
}

/// The identities of objects are what `stat(2)` shows: consistent in themselves, so good to try a policy out, and
/// nothing that the kernel could judge by.
impl Default for HostFilesystem {
    fn default() -> Self {
        Self::new(Box::new(Shown))
    }
}

/// What `stat(2)` shows.
struct Shown;

impl Identify for Shown {
    fn identify(&self, fds: &[BorrowedFd<'_>]) -> io::Result<Vec<Identity>> {
        let one = |fd: &BorrowedFd<'_>| {
            let Seen { dev, ino, .. } = see(*fd, Path::new(""), AtFlags::EMPTY_PATH)?;
            Ok(Identity { key: ObjectKey::new(dev, ino, 0), root: ObjectKey::new(dev, 0, 0) })
        };
        fds.iter().map(one).collect()
    }
}

impl Filesystem for HostFilesystem {
    fn lookup_all(&self, paths: &[(PathBuf, bool)]) -> Vec<io::Result<Object>> {
        paths.chunks(CHUNK).flat_map(|chunk| self.chunk(chunk)).collect()
    }

    fn mounts(&self) -> io::Result<Vec<Mount>> {
        mountinfo::read()
    }

    fn beneath(&self, mount: &Mount, inside: &Path) -> Option<Identity> {
        let fd = copied(mount, inside).ok().flatten()?;
        self.identify.identify(&[fd.as_fd()]).ok()?.pop()
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }
}

impl HostFilesystem {
    fn chunk(&self, paths: &[(PathBuf, bool)]) -> Vec<io::Result<Object>> {
        let open: Vec<_> = paths.iter().map(|(path, follow)| open(path, *follow)).collect();
        let fds: Vec<_> =
            open.iter().filter_map(|open| open.as_ref().ok()).map(|(fd, ..)| fd.as_fd()).collect();
        let mut identities = match self.identify.identify(&fds) {
            Ok(identities) if identities.len() == fds.len() => Ok(identities.into_iter()),
            Ok(_) => Err("not all were told".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let mut identity = || match &mut identities {
            Ok(identities) => identities.next().ok_or_else(|| Error::other("not all were told")),
            Err(error) => Err(Error::other(format!("its identity can't be told: {error}"))),
        };
        open.iter()
            .map(|open| match open {
                Ok((_, path, seen)) => identity().and_then(|identity| object(path, *seen, identity)),
                Err(error) => Err(copy(error)),
            })
            .collect()
    }
}

/// Opens what is in a mount beneath what is mounted over it, through a copy of the mount that nothing is mounted in. None
/// for a mount that can't be reached. Only root may do that.
fn copied(mount: &Mount, inside: &Path) -> io::Result<Option<OwnedFd>> {
    let Ok(rest) = inside.strip_prefix(&mount.root) else { return Ok(None) };
    let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let point = rustix::fs::openat(CWD, &mount.point, path, Mode::empty())?;
    if see(point.as_fd(), Path::new(""), AtFlags::EMPTY_PATH)?.mount != mount.id {
        return Ok(None);
    }
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(&point, "", flags)?;
    if rest.as_os_str().is_empty() {
        return Ok(Some(tree));
    }
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV | ResolveFlags::BENEATH;
    Ok(Some(rustix::fs::openat2(&tree, rest, path, Mode::empty(), resolve)?))
}

fn copy(error: &Error) -> Error {
    match error.raw_os_error() {
        Some(code) => Error::from_raw_os_error(code),
        None => Error::new(error.kind(), error.to_string()),
    }
}

/// Opens what a path leads to, without being able to do anything with it; the path that it has, and how it looks.
fn open(path: &Path, follow: bool) -> io::Result<(OwnedFd, PathBuf, Seen)> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let seen = see(fd.as_fd(), Path::new(""), AtFlags::EMPTY_PATH)?;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    if !path.is_absolute() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("it leads to {path:?}, which is in no directory"),
        ));
    }
    Ok((fd, path, seen))
}

/// Puts together what is known of an object, unless it was deleted or moved meanwhile: then it has another path, or none.
fn object(path: &Path, seen: Seen, identity: Identity) -> io::Result<Object> {
    if see(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)? != seen {
        return Err(Error::other("it was changed meanwhile, try again"));
    }
    let Identity { key, root } = identity;
    let Seen { mount, directory, device, .. } = seen;
    Ok(Object { path: path.to_owned(), key, root, mount, directory, device })
}

/// How an object looks.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    dev: u32,
    ino: u64,
    mount: u64,
    directory: bool,
    device: Option<Device>,
}

/// Looks at an object. Asks no server: device and inode number don't change, and it might not answer.
fn see(at: BorrowedFd<'_>, path: &Path, flags: AtFlags) -> io::Result<Seen> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID;
    let found: Statx = rustix::fs::statx(at, path, flags | AtFlags::STATX_DONT_SYNC, wanted)?;
    if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(Error::new(ErrorKind::Unsupported, "the kernel doesn't tell its mount (Linux 5.8 does)"));
    }
    let kind = FileType::from_raw_mode(found.stx_mode.into());
    let device = match kind {
        FileType::CharacterDevice => {
            Some(Device::Character(ObjectKey::dev(found.stx_rdev_major, found.stx_rdev_minor)))
        }
        FileType::BlockDevice => Some(Device::Block),
        _ => None,
    };
    Ok(Seen {
        dev: ObjectKey::dev(found.stx_dev_major, found.stx_dev_minor),
        ino: found.stx_ino,
        mount: found.stx_mnt_id,
        directory: kind == FileType::Directory,
        device,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Mutex};

    use super::*;

    #[test]
    fn the_root_directory() {
        let root = HostFilesystem::default().lookup(Path::new("/"), true).unwrap();
        assert_eq!(root.path, Path::new("/"));
        let mounts = HostFilesystem::default().mounts().unwrap();
        assert!(mounts.iter().any(|mount| mount.id == root.mount && mount.point == Path::new("/")));
    }

    #[test]
    fn devices() {
        let null = HostFilesystem::default().lookup(Path::new("/dev/null"), true).unwrap();
        assert_eq!(null.device, Some(Device::Character(ObjectKey::dev(1, 3))));
        assert_eq!(HostFilesystem::default().lookup(Path::new("/dev"), true).unwrap().device, None);
    }

    #[test]
    fn links_are_followed_or_not() {
        let scratch = std::env::temp_dir().canonicalize().unwrap();
        let scratch = scratch.join(format!("agent-guard-host-{}", std::process::id()));
        fs::create_dir(&scratch).unwrap();
        let (file, link) = (scratch.join("file"), scratch.join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let lookup = |path: &Path, follow| HostFilesystem::default().lookup(path, follow);
        assert_eq!(lookup(&link, true).unwrap(), lookup(&file, true).unwrap());
        assert_eq!(lookup(&link, false).unwrap().path, link);
        assert_ne!(lookup(&link, false).unwrap().key, lookup(&file, true).unwrap().key);
        assert_eq!(lookup(&scratch.join("none"), true).unwrap_err().kind(), ErrorKind::NotFound);
        fs::remove_dir_all(&scratch).unwrap();
    }

    /// Counts, and says numbers of its own.
    #[derive(Default)]
    struct Counting(Mutex<Vec<usize>>);

    impl Identify for &'static Counting {
        fn identify(&self, fds: &[BorrowedFd<'_>]) -> io::Result<Vec<Identity>> {
            self.0.lock().unwrap().push(fds.len());
            let key = |at: usize| ObjectKey::new(7, u64::try_from(at).unwrap(), 9);
            Ok((0..fds.len()).map(|at| Identity { key: key(at), root: key(0) }).collect())
        }
    }

    #[test]
    fn many_at_once() {
        let counting: &'static Counting = Box::leak(Box::default());
        let host = HostFilesystem::new(Box::new(counting));
        let mut paths: Vec<_> = (0..600).map(|_| (PathBuf::from("/dev/null"), true)).collect();
        paths.insert(1, ("/dev/none".into(), true));
        let found = host.lookup_all(&paths);
        assert_eq!(*counting.0.lock().unwrap(), [255, 256, 89]);
        assert_eq!(found.len(), 601);
        assert_eq!(found[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
        let key = |at: usize| found[at].as_ref().unwrap().key;
        assert_eq!((key(0), key(2), key(255), key(256)), (id(0), id(1), id(254), id(0)));
    }

    fn id(ino: u64) -> ObjectKey {
        ObjectKey::new(7, ino, 9)
    }

    /// Only root can look there.
    #[test]
    fn beneath_a_mount() {
        let host = HostFilesystem::default();
        let mounts = host.mounts().unwrap();
        let proc = mounts.iter().find(|mount| mount.point == Path::new("/proc")).unwrap();
        let parent = mounts.iter().find(|mount| mount.id == proc.parent).unwrap();
        let inside = parent.root.join("proc");
        let Some(found) = host.beneath(parent, &inside) else { return };
        assert_eq!(found.root.dev, host.lookup(Path::new("/"), true).unwrap().key.dev);
        assert_ne!(found.key, host.lookup(Path::new("/proc"), true).unwrap().key);
    }

    #[test]
    fn names_of_a_directory() {
        let host = HostFilesystem::default();
        assert!(host.names(Path::new("/dev")).unwrap().iter().any(|name| name == "null"));
        assert!(host.names(Path::new("/dev/null")).is_err());
    }
}
