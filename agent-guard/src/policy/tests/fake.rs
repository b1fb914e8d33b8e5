//! A world with what only tests need.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use agent_guard_common::ObjectKey;

use crate::policy::{
    fs::{Device, Filesystem, Identity, Mount, Object},
    world::World,
};

#[derive(Clone, Debug, Default)]
pub(super) struct FakeFs {
    pub(super) world: World,
    /// Devices.
    pub(super) devices: BTreeMap<PathBuf, Device>,
    /// Paths that can't be looked at.
    pub(super) closed: Vec<PathBuf>,
}

impl FakeFs {
    /// Disk 1 at `/` with directories (and everything above them).
    pub(super) fn new(paths: &[&str]) -> Self {
        let mut fs = Self::default();
        for path in paths {
            fs.add(path);
        }
        fs
    }

    /// Makes what is missing of a directory.
    pub(super) fn add(&mut self, path: &str) {
        let mut above: Vec<_> = Path::new(path).ancestors().collect();
        above.reverse();
        for path in above {
            if self.world.find(path, true).is_err() {
                self.world.mkdir(path).unwrap();
            }
        }
    }

    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.world.symlink(Path::new(target), Path::new(path)).unwrap();
    }

    pub(super) fn mount(&mut self, dev: u32, point: &str) {
        self.add(point);
        self.world.mount(dev, Path::new(point)).unwrap();
    }

    pub(super) fn bind(&mut self, from: &str, point: &str) {
        self.add(point);
        self.world.bind(Path::new(from), Path::new(point)).unwrap();
    }

    pub(super) fn key(&self, path: &str) -> ObjectKey {
        self.lookup(Path::new(path), true).unwrap().key
    }
}

impl Filesystem for FakeFs {
    fn lookup_all(&self, paths: &[(PathBuf, bool)]) -> Vec<io::Result<Object>> {
        let found = self.world.lookup_all(paths).into_iter().zip(paths);
        found
            .map(|(found, (path, _))| {
                if self.closed.contains(path) {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
                found.map(|object| Object { device: self.devices.get(path).copied(), ..object })
            })
            .collect()
    }

    fn mounts(&self) -> io::Result<Vec<Mount>> {
        self.world.mounts()
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.world.names(directory)
    }

    fn beneath(&self, mount: &Mount, inside: &Path) -> Option<Identity> {
        self.world.beneath(mount, inside)
    }
}
