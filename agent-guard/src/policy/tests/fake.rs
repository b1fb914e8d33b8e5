//! File systems in memory.

use std::{
    collections::BTreeMap,
    io,
    path::{Component, Path, PathBuf},
};

use agent_guard_common::ObjectKey;

use crate::policy::resolve::{Device, Filesystem, Mount, Object};

/// Where a link leads to; None for everything else.
type Link = Option<PathBuf>;

/// Disks by device, and what is mounted where, the latest last.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeFs {
    disks: BTreeMap<u32, BTreeMap<PathBuf, (u64, Link)>>,
    mounts: Vec<Mount>,
    /// The device that `stat` shows for a disk, where it isn't the disk's own.
    pub(super) shown: BTreeMap<u32, u32>,
    /// Character devices.
    pub(super) devices: BTreeMap<PathBuf, Device>,
    /// Paths that can't be looked at.
    pub(super) closed: Vec<PathBuf>,
}

impl FakeFs {
    /// Disk 1 at `/` with directories (and everything above them).
    pub(super) fn new(paths: &[&str]) -> Self {
        let mut fs = Self::default();
        fs.mount(1, "/", "/");
        for path in paths {
            fs.add(path);
        }
        fs
    }

    /// Makes what is missing of a path.
    pub(super) fn add(&mut self, path: &str) {
        self.insert(path, None);
    }

    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.insert(path, Some(target.into()));
    }

    fn insert(&mut self, path: &str, link: Link) {
        let path = Path::new(path);
        let mut above: Vec<_> = path.ancestors().collect();
        above.reverse();
        for part in above {
            let mount = self.covering(part);
            let (dev, inside) = (mount.dev, inside(mount, part));
            let disk = self.disks.entry(dev).or_default();
            let ino = u64::try_from(disk.len()).unwrap() + 2;
            let link = if part == path { link.clone() } else { None };
            disk.entry(inside).or_insert((ino, link));
        }
    }

    /// Mounts a directory of a disk. The directory and the mount point are made.
    pub(super) fn mount(&mut self, dev: u32, root: &str, point: &str) {
        let parent = if self.mounts.is_empty() {
            1
        } else {
            self.add(point);
            self.covering(Path::new(point)).id
        };
        let id = u64::try_from(self.mounts.len()).unwrap() + 10;
        let disk = self.disks.entry(dev).or_default();
        for part in Path::new(root).ancestors() {
            let ino = u64::try_from(disk.len()).unwrap() + 2;
            disk.entry(part.into()).or_insert((ino, None));
        }
        self.mounts.push(Mount {
            id,
            parent,
            dev,
            root: root.into(),
            point: point.into(),
            kind: "fake".into(),
        });
    }

    /// The mount that a path is in, the last of the deepest.
    fn covering(&self, path: &Path) -> &Mount {
        let depth = |mount: &&Mount| mount.point.components().count();
        self.mounts.iter().filter(|mount| path.starts_with(&mount.point)).max_by_key(depth).unwrap()
    }

    pub(super) fn key(&self, path: &str) -> ObjectKey {
        self.lookup(Path::new(path), true).unwrap().key
    }
}

fn inside(mount: &Mount, path: &Path) -> PathBuf {
    mount.root.join(path.strip_prefix(&mount.point).unwrap()).components().collect()
}

impl Filesystem for FakeFs {
    fn lookup(&self, path: &Path, follow: bool) -> io::Result<Object> {
        if self.closed.iter().any(|closed| closed == path) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut todo: Vec<PathBuf> =
            path.components().rev().map(|part| PathBuf::from(part.as_os_str())).collect();
        let mut real = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match part.components().next() {
                Some(Component::RootDir) => real = "/".into(),
                Some(Component::ParentDir) => drop(real.pop()),
                _ => real.push(&part),
            }
            let mount = self.covering(&real);
            let Some((_, link)) = self.disks[&mount.dev].get(&inside(mount, &real)) else {
                return Err(io::ErrorKind::NotFound.into());
            };
            if let Some(target) = link
                && (follow || !todo.is_empty())
            {
                links += 1;
                if links > 40 {
                    return Err(io::Error::other("too many links"));
                }
                real.pop();
                todo.extend(target.components().rev().map(|part| PathBuf::from(part.as_os_str())));
            }
        }
        let mount = self.covering(&real);
        let (ino, _) = self.disks[&mount.dev][&inside(mount, &real)];
        let dev = self.shown.get(&mount.dev).copied().unwrap_or(mount.dev);
        Ok(Object {
            path: real,
            key: ObjectKey::new(dev, ino),
            mount: mount.id,
            device: self.devices.get(path).copied(),
        })
    }

    fn mounts(&self) -> io::Result<Vec<Mount>> {
        Ok(self.mounts.clone())
    }
}
