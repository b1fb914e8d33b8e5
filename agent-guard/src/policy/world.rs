//! A host's file systems in memory: what tests do to files, told to the policy as the host would tell it.
//!
//! Inode numbers are used again as soon as they are free, with another generation.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
};

use agent_guard_common::ObjectKey;

use super::fs::{Filesystem, Mount, Object};

/// Inode number of the root of every file system.
const ROOT: u64 = 2;
/// The mount at `/`.
const FIRST: u64 = 10;

#[derive(Clone, Debug)]
enum Kind {
    Directory(BTreeMap<String, u64>),
    File,
    Link(PathBuf),
}

#[derive(Clone, Debug)]
struct Node {
    igen: u32,
    kind: Kind,
    /// Number of names; for a directory the inode that it is in.
    above: u64,
}

#[derive(Clone, Debug, Default)]
struct Disk {
    nodes: BTreeMap<u64, Node>,
    made: u32,
}

#[derive(Clone, Debug)]
struct Mounted {
    parent: u64,
    dev: u32,
    root: u64,
    /// The directory of the parent that it hides.
    point: u64,
}

/// An object, and the mount and the directory that a path leads through to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spot {
    /// The path without links.
    pub path: PathBuf,
    mount: u64,
    ino: u64,
    /// The directory whose entry it is in, in its own file system; its root is in none.
    directory: Option<u64>,
}

/// All file systems, and where they are mounted.
#[derive(Clone, Debug)]
pub struct World {
    disks: BTreeMap<u32, Disk>,
    mounts: BTreeMap<u64, Mounted>,
}

impl Default for World {
    /// An empty disk 1 at `/`.
    fn default() -> Self {
        let mut world = Self { disks: BTreeMap::new(), mounts: BTreeMap::new() };
        world.disk(1);
        world.mounts.insert(FIRST, Mounted { parent: 0, dev: 1, root: ROOT, point: 0 });
        world
    }
}

fn error<T>(kind: io::ErrorKind) -> io::Result<T> {
    Err(kind.into())
}

impl Disk {
    fn make(&mut self, kind: Kind, above: u64) -> u64 {
        let ino = (ROOT..).find(|ino| !self.nodes.contains_key(ino)).unwrap_or(u64::MAX);
        self.made += 1;
        self.nodes.insert(ino, Node { igen: self.made, kind, above });
        ino
    }

    fn entries(&self, directory: u64) -> io::Result<&BTreeMap<String, u64>> {
        match self.nodes.get(&directory).map(|node| &node.kind) {
            Some(Kind::Directory(entries)) => Ok(entries),
            _ => error(io::ErrorKind::NotADirectory),
        }
    }

    fn entries_mut(&mut self, directory: u64) -> io::Result<&mut BTreeMap<String, u64>> {
        match self.nodes.get_mut(&directory).map(|node| &mut node.kind) {
            Some(Kind::Directory(entries)) => Ok(entries),
            _ => error(io::ErrorKind::NotADirectory),
        }
    }

    fn is_directory(&self, ino: u64) -> bool {
        self.entries(ino).is_ok()
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

    /// A directory's names and inodes up to the root, which has no name.
    fn climb(&self, mut ino: u64) -> Vec<(Option<String>, u64)> {
        let mut levels = Vec::new();
        while ino != ROOT {
            let above = self.nodes.get(&ino).map_or(ROOT, |node| node.above);
            let name =
                self.entries(above).ok().and_then(|entries| entries.iter().find(|(_, child)| **child == ino));
            levels.push((name.map(|(name, _)| name.clone()), ino));
            ino = above;
        }
        levels.push((None, ROOT));
        levels
    }
}

impl World {
    fn disk(&mut self, dev: u32) -> &mut Disk {
        self.disks.entry(dev).or_insert_with(|| {
            let mut disk = Disk::default();
            disk.make(Kind::Directory(BTreeMap::new()), ROOT);
            disk
        })
    }

    fn of(&self, mount: u64) -> io::Result<(&Mounted, &Disk)> {
        let mounted = self.mounts.get(&mount).ok_or(io::ErrorKind::NotFound)?;
        Ok((mounted, self.disks.get(&mounted.dev).ok_or(io::ErrorKind::NotFound)?))
    }

    /// The disk that something is on.
    fn disk_of(&mut self, spot: &Spot) -> io::Result<&mut Disk> {
        let dev = self.of(spot.mount)?.0.dev;
        Ok(self.disk(dev))
    }

    /// What is mounted there, if anything is.
    fn covered(&self, mut mount: u64, mut ino: u64) -> (u64, u64) {
        while let Some((id, over)) =
            self.mounts.iter().find(|(_, over)| (over.parent, over.point) == (mount, ino))
        {
            (mount, ino) = (*id, over.root);
        }
        (mount, ino)
    }

    /// What is in a directory under a name, links not followed.
    ///
    /// # Errors
    ///
    /// As the system would say it.
    pub fn child(&self, of: &Spot, name: &str) -> io::Result<Spot> {
        let ino = self.of(of.mount)?.1.entries(of.ino)?.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        let (mount, found) = self.covered(of.mount, ino);
        let directory = if mount == of.mount { Some(of.ino) } else { None };
        Ok(Spot { path: of.path.join(name), mount, ino: found, directory })
    }

    /// The names in a directory, those of links and files too.
    #[must_use]
    pub fn children(&self, of: &Spot) -> Vec<String> {
        let entries = self.of(of.mount).and_then(|(_, disk)| disk.entries(of.ino));
        entries.map(|entries| entries.keys().cloned().collect()).unwrap_or_default()
    }

    /// What a path leads to.
    ///
    /// # Errors
    ///
    /// As the system would say it.
    pub fn find(&self, path: &Path, follow: bool) -> io::Result<Spot> {
        let (mount, ino) = self.covered(FIRST, ROOT);
        let root = Spot { path: "/".into(), mount, ino, directory: None };
        let mut todo: Vec<String> = names(path)?;
        todo.reverse();
        let (mut at, mut links) = (root.clone(), 0);
        while let Some(name) = todo.pop() {
            let next = self.child(&at, &name)?;
            at = match &self.of(next.mount)?.1.nodes.get(&next.ino).map(|node| &node.kind) {
                Some(Kind::Link(target)) if follow || !todo.is_empty() => {
                    links += 1;
                    if links > 40 {
                        return Err(io::Error::other("too many links"));
                    }
                    todo.extend(names(target)?.into_iter().rev());
                    root.clone()
                }
                _ => next,
            };
        }
        Ok(at)
    }

    /// The key of an object.
    #[must_use]
    pub fn key(&self, spot: &Spot) -> ObjectKey {
        self.mounts.get(&spot.mount).map_or(ObjectKey::ANYWHERE, |mounted| self.key_of(mounted.dev, spot.ino))
    }

    fn key_of(&self, dev: u32, ino: u64) -> ObjectKey {
        let node = self.disks.get(&dev).and_then(|disk| disk.nodes.get(&ino));
        ObjectKey::new(dev, ino, node.map_or(0, |node| node.igen))
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self, spot: &Spot) -> bool {
        self.of(spot.mount).is_ok_and(|(_, disk)| disk.is_directory(spot.ino))
    }

    /// Names and keys from an object up to the root of its file system, which has no name.
    #[must_use]
    pub fn climb(&self, spot: &Spot) -> Vec<(Option<String>, ObjectKey)> {
        let Ok((mounted, disk)) = self.of(spot.mount) else { return Vec::new() };
        let keyed = |(name, ino): (Option<String>, u64)| (name, self.key_of(mounted.dev, ino));
        match spot.directory {
            // A file may have several names.
            Some(directory) if !disk.is_directory(spot.ino) => {
                let name = spot.path.file_name().map(|name| name.to_string_lossy().into_owned());
                let own = std::iter::once((name, spot.ino));
                own.chain(disk.climb(directory)).map(keyed).collect()
            }
            _ => disk.climb(spot.ino).into_iter().map(keyed).collect(),
        }
    }

    /// The same for every mount point above: the directory that is hidden, up to the root of its file system.
    #[must_use]
    pub fn beyond(&self, spot: &Spot) -> Vec<Vec<(Option<String>, ObjectKey)>> {
        let mut all = Vec::new();
        let mut at = self.mounts.get(&spot.mount);
        while let Some((mounted, parent)) = at.and_then(|at| Some((at, self.mounts.get(&at.parent)?))) {
            let climb = self.disks.get(&parent.dev).map(|disk| disk.climb(mounted.point)).unwrap_or_default();
            all.push(climb.into_iter().map(|(name, ino)| (name, self.key_of(parent.dev, ino))).collect());
            at = Some(parent);
        }
        all
    }

    /// The roots of all mounts that can be seen.
    #[must_use]
    pub fn mounted(&self) -> Vec<Spot> {
        let roots =
            self.mounts.keys().filter_map(|id| Some((*id, self.find(&self.point(*id)?, false).ok()?)));
        roots.filter(|(id, spot)| spot.mount == *id).map(|(_, spot)| spot).collect()
    }

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

    /// The path of a directory in its file system.
    fn inside(&self, dev: u32, ino: u64) -> PathBuf {
        let climb = self.disks.get(&dev).map(|disk| disk.climb(ino)).unwrap_or_default();
        let names = climb.into_iter().rev().filter_map(|(name, _)| name);
        std::iter::once("/".to_owned()).chain(names).collect()
    }

    /// Where a mount can be seen.
    fn point(&self, id: u64) -> Option<PathBuf> {
        let mounted = self.mounts.get(&id)?;
        let Some(parent) = self.mounts.get(&mounted.parent) else { return Some("/".into()) };
        let inside = self.inside(parent.dev, mounted.point);
        let rest = inside.strip_prefix(self.inside(parent.dev, parent.root)).ok()?;
        Some(super::fs::join(&self.point(mounted.parent)?, rest))
    }
}

/// The names of an absolute path.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let names = path.components().filter(|part| *part != Component::RootDir);
    names
        .map(|part| match part {
            Component::Normal(name) => Ok(name.to_string_lossy().into_owned()),
            _ => error(io::ErrorKind::InvalidInput),
        })
        .collect()
}

impl Filesystem for World {
    fn lookup_all(&self, paths: &[(PathBuf, bool)]) -> Vec<io::Result<Object>> {
        let one = |(path, follow): &(PathBuf, bool)| {
            let spot = self.find(path, *follow)?;
            Ok(Object {
                key: self.key(&spot),
                root: self.key(&Spot { ino: ROOT, ..spot.clone() }),
                mount: spot.mount,
                directory: self.is_directory(&spot),
                device: None,
                path: spot.path,
            })
        };
        paths.iter().map(one).collect()
    }

    fn mounts(&self) -> io::Result<Vec<Mount>> {
        let one = |(id, mounted): (&u64, &Mounted)| {
            Some(Mount {
                id: *id,
                parent: mounted.parent,
                dev: mounted.dev,
                root: self.inside(mounted.dev, mounted.root),
                point: self.point(*id)?,
                kind: "world".into(),
            })
        };
        Ok(self.mounts.iter().filter_map(one).collect())
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let spot = self.find(directory, true)?;
        if !self.is_directory(&spot) {
            return error(io::ErrorKind::NotADirectory);
        }
        Ok(self.children(&spot).into_iter().map(OsString::from).collect())
    }

    fn hidden(&self, mount: &Mount) -> Option<ObjectKey> {
        let mounted = self.mounts.get(&mount.id)?;
        Some(self.key_of(self.mounts.get(&mounted.parent)?.dev, mounted.point))
    }
}
