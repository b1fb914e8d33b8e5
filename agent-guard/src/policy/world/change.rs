//! What is done to files and mounts.

use std::{collections::BTreeMap, io, path::Path};

use super::{Disk, FIRST, Kind, Mounted, Node, ROOT, Spot, World, error};

impl Disk {
    pub(super) fn make(&mut self, kind: Kind, above: u64) -> u64 {
        let ino = (ROOT..).find(|ino| !self.nodes.contains_key(ino)).unwrap_or(u64::MAX);
        self.made += 1;
        self.nodes.insert(ino, Node { igen: self.made, kind, above });
        ino
    }

    fn entries_mut(&mut self, directory: u64) -> io::Result<&mut BTreeMap<String, u64>> {
        match self.nodes.get_mut(&directory).map(|node| &mut node.kind) {
            Some(Kind::Directory(entries)) => Ok(entries),
            _ => error(io::ErrorKind::NotADirectory),
        }
    }

    /// Takes a name away, and what has no other name.
    fn drop_name(&mut self, directory: u64, name: &str) -> io::Result<()> {
        let ino = self.entries(directory)?.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        if self.entries(ino).is_ok_and(|entries| !entries.is_empty()) {
            return error(io::ErrorKind::DirectoryNotEmpty);
        }
        let last = match self.nodes.get_mut(&ino) {
            Some(Node { kind: Kind::Directory(_), .. }) | None => true,
            Some(node) => {
                node.above -= 1;
                node.above == 0
            }
        };
        if last {
            self.nodes.remove(&ino);
        }
        self.entries_mut(directory)?.remove(name);
        Ok(())
    }
}

impl World {
    /// The directory that a new name would be in, and the name.
    fn place(&self, path: &Path) -> io::Result<(Spot, String)> {
        let above = path.parent().ok_or(io::ErrorKind::AlreadyExists)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
        Ok((self.find(above, true)?, name))
    }

    fn add(&mut self, path: &Path, kind: Kind) -> io::Result<()> {
        let (at, name) = self.place(path)?;
        let disk = self.disk_of(&at)?;
        if disk.entries(at.ino)?.contains_key(&name) {
            return error(io::ErrorKind::AlreadyExists);
        }
        let above = if matches!(kind, Kind::Directory(_)) { at.ino } else { 1 };
        let ino = disk.make(kind, above);
        disk.entries_mut(at.ino)?.insert(name, ino);
        Ok(())
    }

    /// Makes a directory.
    ///
    /// # Errors
    ///
    /// As the system would say it; so do all that follow.
    pub fn mkdir(&mut self, path: &Path) -> io::Result<()> {
        self.add(path, Kind::Directory(BTreeMap::new()))
    }

    /// Makes an empty file.
    ///
    /// # Errors
    ///
    /// See [`World::mkdir`].
    pub fn file(&mut self, path: &Path) -> io::Result<()> {
        self.add(path, Kind::File)
    }

    /// Makes a symbolic link to an absolute path.
    ///
    /// # Errors
    ///
    /// See [`World::mkdir`].
    pub fn symlink(&mut self, target: &Path, path: &Path) -> io::Result<()> {
        self.add(path, Kind::Link(target.into()))
    }

    /// Whether something is mounted on a directory, or shows it as its root.
    fn busy(&self, dev: u32, ino: u64) -> bool {
        self.mounts.values().any(|mounted| {
            let on = self.mounts.get(&mounted.parent).is_some_and(|parent| parent.dev == dev);
            (on && mounted.point == ino) || (mounted.dev == dev && mounted.root == ino)
        })
    }

    /// Removes a file, a link or an empty directory.
    ///
    /// # Errors
    ///
    /// See [`World::mkdir`].
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (at, name) = self.place(path)?;
        let dev = self.of(at.mount)?.0.dev;
        let disk = self.disk_of(&at)?;
        let ino = disk.entries(at.ino)?.get(&name).copied().ok_or(io::ErrorKind::NotFound)?;
        if self.busy(dev, ino) {
            return error(io::ErrorKind::ResourceBusy);
        }
        self.disk(dev).drop_name(at.ino, &name)
    }

    /// Gives a file one more name.
    ///
    /// # Errors
    ///
    /// See [`World::mkdir`].
    pub fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, (at, name)) = (self.find(from, false)?, self.place(to)?);
        if from.mount != at.mount {
            return error(io::ErrorKind::CrossesDevices);
        }
        let disk = self.disk_of(&at)?;
        if disk.is_directory(from.ino) || disk.entries(at.ino)?.contains_key(&name) {
            return error(io::ErrorKind::AlreadyExists);
        }
        if let Some(node) = disk.nodes.get_mut(&from.ino) {
            node.above += 1;
        }
        disk.entries_mut(at.ino)?.insert(name, from.ino);
        Ok(())
    }

    /// Moves something, and replaces what is there.
    ///
    /// # Errors
    ///
    /// See [`World::mkdir`].
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let ((from, old), (to, new)) = (self.place(from)?, self.place(to)?);
        if from.mount != to.mount {
            return error(io::ErrorKind::CrossesDevices);
        }
        let dev = self.of(from.mount)?.0.dev;
        let disk = self.disk_of(&from)?;
        let ino = disk.entries(from.ino)?.get(&old).copied().ok_or(io::ErrorKind::NotFound)?;
        let replaced = disk.entries(to.ino)?.get(&new).copied();
        if replaced == Some(ino) {
            return Ok(());
        }
        let directory = disk.is_directory(ino);
        if replaced.is_some_and(|other| disk.is_directory(other) != directory) {
            return error(io::ErrorKind::AlreadyExists);
        }
        if directory && disk.climb(to.ino).iter().any(|(_, above)| *above == ino) {
            return error(io::ErrorKind::InvalidInput);
        }
        if self.busy(dev, ino) || replaced.is_some_and(|other| self.busy(dev, other)) {
            return error(io::ErrorKind::ResourceBusy);
        }
        let disk = self.disk(dev);
        if replaced.is_some() {
            disk.drop_name(to.ino, &new)?;
        }
        disk.entries_mut(from.ino)?.remove(&old);
        disk.entries_mut(to.ino)?.insert(new, ino);
        if let (true, Some(node)) = (directory, disk.nodes.get_mut(&ino)) {
            node.above = to.ino;
        }
        Ok(())
    }

    /// Mounts a disk on a directory; one that isn't there yet is empty.
    ///
    /// # Errors
    ///
    /// See [`World::mkdir`].
    pub fn mount(&mut self, dev: u32, point: &Path) -> io::Result<()> {
        self.disk(dev);
        self.attach(dev, ROOT, point)
    }

    /// Shows a directory in another place too, without what is mounted in it.
    ///
    /// # Errors
    ///
    /// See [`World::mkdir`].
    pub fn bind(&mut self, from: &Path, point: &Path) -> io::Result<()> {
        let from = self.find(from, true)?;
        if !self.is_directory(&from) {
            return error(io::ErrorKind::NotADirectory);
        }
        self.attach(self.of(from.mount)?.0.dev, from.ino, point)
    }

    fn attach(&mut self, dev: u32, root: u64, point: &Path) -> io::Result<()> {
        let at = self.find(point, true)?;
        if !self.is_directory(&at) {
            return error(io::ErrorKind::NotADirectory);
        }
        let id = self.mounts.last_key_value().map_or(FIRST, |(last, _)| last + 1);
        self.mounts.insert(id, Mounted { parent: at.mount, dev, root, point: at.ino });
        Ok(())
    }

    /// Takes the uppermost mount on a directory away.
    ///
    /// # Errors
    ///
    /// See [`World::mkdir`].
    pub fn unmount(&mut self, point: &Path) -> io::Result<()> {
        let at = self.find(point, true)?;
        let mounted = self.of(at.mount)?.0;
        if at.mount == FIRST || mounted.root != at.ino {
            return error(io::ErrorKind::InvalidInput);
        }
        if self.mounts.values().any(|other| other.parent == at.mount) {
            return error(io::ErrorKind::ResourceBusy);
        }
        self.mounts.remove(&at.mount);
        Ok(())
    }
}
