//! Where paths are looked up, and how what they lead to is told from everything else.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use agent_guard_common::ObjectKey;

/// What a device node stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    /// A character device, by its number in the kernel's encoding.
    Character(u32),
    /// A block device.
    Block,
}

/// What a path leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// The path that it really has: no symbolic links in it.
    pub path: PathBuf,
    /// What the kernel knows it by.
    pub key: ObjectKey,
    /// The root of its file system.
    pub root: ObjectKey,
    /// The mount it was found in.
    pub mount: u64,
    /// Whether it is a directory.
    pub directory: bool,
    /// The device that it is a node of.
    pub device: Option<Device>,
}

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Its id.
    pub id: u64,
    /// The mount it is mounted in.
    pub parent: u64,
    /// The device of its superblock, in the kernel's encoding.
    pub dev: u32,
    /// Which directory of its file system can be seen.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Type of the file system.
    pub kind: String,
}

/// All mounts of a name space.
#[derive(Clone, Debug, Default)]
pub(super) struct Mounts {
    all: BTreeMap<u64, Mount>,
    by_dev: BTreeMap<u32, Vec<u64>>,
}

impl Mounts {
    pub(super) fn new(mounts: Vec<Mount>) -> Self {
        let mut by_dev: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for mount in &mounts {
            by_dev.entry(mount.dev).or_default().push(mount.id);
        }
        Self { all: mounts.into_iter().map(|mount| (mount.id, mount)).collect(), by_dev }
    }

    pub(super) fn get(&self, id: u64) -> Option<&Mount> {
        self.all.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.all.values()
    }

    /// Those of a file system.
    pub(super) fn of(&self, dev: u32) -> impl Iterator<Item = &Mount> {
        self.by_dev.get(&dev).into_iter().flatten().filter_map(|id| self.get(*id))
    }

    /// The path that something in a mount has in its file system.
    pub(super) fn inside(&self, mount: u64, path: &Path) -> Option<PathBuf> {
        let mount = self.get(mount)?;
        Some(join(&mount.root, path.strip_prefix(&mount.point).ok()?))
    }

    /// Whether another mount shows some of the same objects.
    pub(super) fn shared(&self, mount: &Mount) -> bool {
        self.of(mount.dev).any(|other| {
            mount.id != other.id
                && (mount.root.starts_with(&other.root) || other.root.starts_with(&mount.root))
        })
    }
}

/// `join` without a slash at the end: that would ask for a directory.
pub(super) fn join(base: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { base.to_owned() } else { base.join(rest) }
}

/// Where paths are looked up.
pub trait Filesystem {
    /// What paths lead to, in their order. The flag says whether the last component is followed: others always are.
    fn lookup_all(&self, paths: &[(PathBuf, bool)]) -> Vec<io::Result<Object>>;

    /// What one path leads to.
    ///
    /// # Errors
    ///
    /// What the system says, [`io::ErrorKind::NotFound`] where there is nothing.
    fn lookup(&self, path: &Path, follow: bool) -> io::Result<Object> {
        let found = self.lookup_all(&[(path.to_owned(), follow)]).pop();
        found.unwrap_or_else(|| Err(io::Error::other("nothing was looked up")))
    }

    /// All mounts.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn mounts(&self) -> io::Result<Vec<Mount>>;

    /// The names in a directory, in any order.
    ///
    /// # Errors
    ///
    /// What the system says, [`io::ErrorKind::NotADirectory`] for what is none.
    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// The key of what a path of a file system leads to and of that file system's root, as one of its mounts shows it if
    /// nothing is mounted over it. None where that can't be told.
    fn beneath(&self, _mount: &Mount, _inside: &Path) -> Option<Identity> {
        None
    }
}

/// What tells an object from all others, as the kernel's own structures have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The object.
    pub key: ObjectKey,
    /// The root of its file system.
    pub root: ObjectKey,
}

/// Who knows how the kernel knows objects. What `stat(2)` shows isn't always that: btrfs shows a device for each
/// subvolume, overlayfs one for each layer.
pub trait Identify {
    /// The identities of what is open, in the same order; 256 descriptors at once, at most.
    ///
    /// # Errors
    ///
    /// If not all can be told.
    fn identify(&self, fds: &[BorrowedFd<'_>]) -> io::Result<Vec<Identity>>;
}
