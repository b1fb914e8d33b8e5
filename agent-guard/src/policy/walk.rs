//! The way from an object up to the root, as the kernel goes it: through the directories of the
//! object's own file system first, then through the places where file systems are mounted.

use std::{
    io,
    path::{Path, PathBuf},
};

use agent_guard_common::{Chain, ObjectKey};

use super::resolve::{Filesystem, Mount, Object};

/// Whether two mounts show the same objects.
pub(super) fn overlaps(mount: &Mount, other: &Mount) -> bool {
    mount.id != other.id
        && mount.dev == other.dev
        && (mount.root.starts_with(&other.root) || other.root.starts_with(&mount.root))
}

/// `join` without a slash at the end: that would ask for a directory.
fn join(base: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { base.to_owned() } else { base.join(rest) }
}

/// An object of a mount and the directories above it, up to the root of its file system as far as it
/// can be seen through any mount.
pub(super) fn tree(fs: &dyn Filesystem, mounts: &[Mount], mount: &Mount, object: &Object) -> Vec<ObjectKey> {
    let keys = visible(fs, mounts, mount, &object.path);
    if keys.first() == Some(&object.key) { keys } else { vec![object.key] }
}

/// What a path of a mount leads to if nothing is mounted there, and the directories above it; nothing if
/// no mount shows it. The mount that shows the most of the file system is asked first.
fn visible(fs: &dyn Filesystem, mounts: &[Mount], mount: &Mount, path: &Path) -> Vec<ObjectKey> {
    let Ok(rest) = path.strip_prefix(&mount.point) else { return Vec::new() };
    let inside = join(&mount.root, rest);
    let mut wider: Vec<_> =
        mounts.iter().filter(|other| other.dev == mount.dev && inside.starts_with(&other.root)).collect();
    wider.sort_by_key(|other| other.root.components().count());
    let ways = wider.into_iter().filter_map(|other| {
        let rest = inside.strip_prefix(&other.root).ok()?;
        Some(ancestors(fs, other, &join(&other.point, rest)))
    });
    ways.into_iter().find(|keys| !keys.is_empty()).unwrap_or_default()
}

/// What is at a path of a mount and above it, up to the mount's root. Ends where another mount hides it.
fn ancestors(fs: &dyn Filesystem, mount: &Mount, path: &Path) -> Vec<ObjectKey> {
    path.ancestors()
        .take_while(|path| path.starts_with(&mount.point))
        .map_while(|path| fs.lookup(path, false).ok().filter(|object| object.mount == mount.id))
        .map(|object| object.key)
        .collect()
}

/// The whole way from an object up.
///
/// # Errors
///
/// What the system says when the table of mounts can't be read.
pub fn chain(fs: &dyn Filesystem, object: &Object) -> io::Result<Vec<(ObjectKey, Chain)>> {
    let mounts = fs.mounts()?;
    let find = |id: u64| mounts.iter().find(|mount| mount.id == id);
    let Some(mut mount) = find(object.mount) else {
        return Err(io::Error::other(format!("{:?} was unmounted meanwhile", object.path)));
    };
    let own = tree(fs, &mounts, mount, object);
    let mut steps: Vec<_> = own.into_iter().map(|key| (key, Chain::Tree)).collect();
    // Each mount is left once, so there are no more rounds than mounts.
    for _ in 0..mounts.len() {
        let Some(parent) = find(mount.parent).filter(|parent| parent.id != mount.id) else { break };
        let mut keys = visible(fs, &mounts, parent, &mount.point);
        if keys.is_empty()
            && let Some(above) = mount.point.parent()
        {
            // The directory that is mounted over can't be seen.
            keys = visible(fs, &mounts, parent, above);
        }
        steps.extend(keys.into_iter().map(|key| (key, Chain::Mount)));
        mount = parent;
    }
    Ok(steps)
}
