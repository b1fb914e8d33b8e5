//! The way from an object up to the root, as the kernel goes it: through the directories of the object's own file
//! system first, then through the places where file systems are mounted; and what is found on it.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use agent_guard_common::{
    Chain, NameKey, ObjectKey,
    decide::Walk,
    names::{self, Shape},
    rules::Tables,
};

use super::{
    fs::{Filesystem, Identity, Mount, Mounts, Object, join},
    tables::View,
};

/// A step of the way: an object and its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Level {
    /// None for the root of a file system.
    name: Option<OsString>,
    /// None where there is nothing, or nothing that can be seen.
    key: Option<ObjectKey>,
    /// What chains of names are kept under that begin in here.
    anchor: Option<ObjectKey>,
    chain: Chain,
}

/// What a path of a file system leads to if nothing is mounted there; nothing if no mount shows it. `own` is asked
/// first, then the mounts that show the most.
fn visible(fs: &dyn Filesystem, mounts: &Mounts, own: &Mount, inside: &Path) -> Option<Identity> {
    let mut wider: Vec<_> = mounts.of(own.dev).filter(|other| inside.starts_with(&other.root)).collect();
    wider.sort_by_key(|other| (other.id != own.id, other.root.components().count()));
    let seen = wider.iter().find_map(|other| {
        let path = join(&other.point, inside.strip_prefix(&other.root).ok()?);
        let found =
            fs.lookup(&path, false).ok().filter(|found| found.mount == other.id && found.path == path)?;
        Some(Identity { key: found.key, root: found.root })
    });
    seen.or_else(|| wider.into_iter().find_map(|other| fs.beneath(other, inside)))
}

/// An object of a mount and the directories above it, up to the root of its file system.
fn within(fs: &dyn Filesystem, mounts: &Mounts, mount: &Mount, inside: &Path, chain: Chain) -> Vec<Level> {
    let levels = inside.ancestors().map(|path| {
        let found = visible(fs, mounts, mount, path);
        let root = found.as_ref().map(|found| found.root);
        let key = found.map(|found| found.key);
        let name = path.file_name().map(OsStr::to_owned);
        (root, Level { anchor: key, name, key, chain })
    });
    let (roots, mut levels): (Vec<_>, Vec<_>) = levels.unzip();
    if let Some(last) = levels.last_mut() {
        last.anchor = roots.into_iter().flatten().next();
    }
    levels
}

/// What a path of a mount leads to and the directories above it, up to the root of its file system.
pub(super) fn tree(fs: &dyn Filesystem, mounts: &Mounts, mount: &Mount, path: &Path) -> Vec<Level> {
    let inside = mounts.inside(mount.id, path);
    inside.map_or_else(Vec::new, |inside| within(fs, mounts, mount, &inside, Chain::Tree))
}

/// The whole way up from an object, or from names that don't exist below it, the last first.
///
/// # Errors
///
/// What the system says when the table of mounts can't be read.
pub(super) fn levels(fs: &dyn Filesystem, object: &Object, missing: &[OsString]) -> io::Result<Vec<Level>> {
    let mounts = Mounts::new(fs.mounts()?);
    let Some(mut mount) = mounts.get(object.mount) else {
        return Err(io::Error::other(format!("{:?} was unmounted meanwhile", object.path)));
    };
    let missing = missing.iter().map(|name| Level {
        name: Some(name.clone()),
        key: None,
        anchor: None,
        chain: Chain::Tree,
    });
    let mut levels: Vec<_> = missing.chain(tree(fs, &mounts, mount, &object.path)).collect();
    // Each mount is left once, so there are no more rounds than mounts.
    for _ in mounts.iter() {
        let Some(parent) = mounts.get(mount.parent).filter(|parent| parent.id != mount.id) else { break };
        let Some(inside) = mounts.inside(parent.id, &mount.point) else { break };
        levels.extend(within(fs, &mounts, parent, &inside, Chain::Mount));
        mount = parent;
    }
    Ok(levels)
}

/// Shows a walk everything that the tables have on the way.
pub(super) fn walk<T: Tables>(view: &View<'_, T>, walk: &mut Walk, levels: &[Level]) {
    for (at, level) in levels.iter().enumerate() {
        if let Some(key) = level.key
            && view.tables.may_have(names::object_bit(key.dev, key.ino))
            && let Some(place) = view.tables.object(&key)
        {
            walk.meet(view.tables, place, level.chain);
        }
        // Names beyond mount points are only looked at as the continuation of chains that begin before.
        if level.chain == Chain::Tree
            && let Some(name) = &level.name
        {
            by_name(view, walk, name.as_bytes(), levels.get(at..).unwrap_or_default());
            by_ending(view, walk, name.as_bytes());
        }
        match (&level.name, level.chain) {
            (Some(_), chain) => walk.up(chain),
            (None, Chain::Tree) => walk.leave_file_system(),
            // The directory that it is mounted on is the same level.
            (None, Chain::Mount) => {}
        }
    }
}

fn by_name<T: Tables>(view: &View<'_, T>, walk: &mut Walk, name: &[u8], levels: &[Level]) {
    if !view.tables.may_have(names::bit_of(name)) {
        return;
    }
    let Some(shapes) = view.tables.shapes(names::name(view.key, name)) else { return };
    for shape in shapes.iter() {
        if let Some((key, chain)) = chain(view.key, shape, levels)
            && let Some(place) = view.tables.name(&key)
        {
            walk.meet(view.tables, place, chain);
        }
    }
}

/// The chain of a shape that begins at the first level, and what it leads through.
fn chain(key: [u64; 2], shape: Shape, levels: &[Level]) -> Option<(NameKey, Chain)> {
    let mut named =
        levels.iter().enumerate().filter_map(|(at, level)| Some((at, level, level.name.as_ref()?)));
    let mut hashes = Vec::new();
    let mut last = (0, Chain::Tree);
    for number in 0..shape.length() {
        let (at, level, name) = named.next()?;
        hashes.push(if shape.has_star(number) { names::STAR } else { names::name(key, name.as_bytes()) });
        last = (at, level.chain);
    }
    let name = names::chain(key, hashes);
    if shape.is_anywhere() {
        return Some((NameKey { anchor: ObjectKey::ANYWHERE, name }, last.1));
    }
    let above = levels.get(last.0 + 1)?;
    Some((NameKey { anchor: above.anchor?, name }, above.chain))
}

fn by_ending<T: Tables>(view: &View<'_, T>, walk: &mut Walk, name: &[u8]) {
    let &[.., before, last] = name else { return };
    if view.head.suffixes == 0 || !view.tables.may_have(names::suffix_bit(u16::from_le_bytes([before, last])))
    {
        return;
    }
    for length in names::SUFFIX {
        let from = usize::try_from(length).ok().and_then(|length| name.len().checked_sub(length));
        let Some(end) = from.and_then(|from| name.get(from..)) else { break };
        let key = NameKey { anchor: ObjectKey::ANYWHERE, name: names::suffix(view.key, end) };
        if view.head.suffixes >> (length - 1) & 1 != 0
            && let Some(place) = view.tables.name(&key)
        {
            walk.meet(view.tables, place, Chain::Tree);
        }
    }
}

/// A path without `..`, as text that can be looked up.
pub(super) fn normal(path: &Path) -> Option<PathBuf> {
    // `components` drops inner `.` and double slashes; `..` would need the file system.
    let normal = path.components().all(|part| part != std::path::Component::ParentDir);
    (path.is_absolute() && normal).then(|| path.components().collect())
}
