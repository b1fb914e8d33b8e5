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

use super::fs::{Filesystem, Identity, Mount, Object, join};

mod change;

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
    fn entries(&self, directory: u64) -> io::Result<&BTreeMap<String, u64>> {
        match self.nodes.get(&directory).map(|node| &node.kind) {
            Some(Kind::Directory(entries)) => Ok(entries),
            _ => error(io::ErrorKind::NotADirectory),
        }
    }

    fn is_directory(&self, ino: u64) -> bool {
        self.entries(ino).is_ok()
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
        Some(join(&self.point(mounted.parent)?, rest))
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

    fn beneath(&self, mount: &Mount, inside: &Path) -> Option<Identity> {
        let disk = self.disks.get(&mount.dev)?;
        let mut ino = ROOT;
        for name in names(inside).ok()? {
            ino = *disk.entries(ino).ok()?.get(&name)?;
        }
        Some(Identity { key: self.key_of(mount.dev, ino), root: self.key_of(mount.dev, ROOT) })
    }
}
