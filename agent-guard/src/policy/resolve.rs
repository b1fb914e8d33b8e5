//! From paths to objects.
//!
//! A path in a policy names what it leads to when the policy is loaded: symbolic links are followed, the
//! last component's too. What counts from then on is the object, and the path that it really has: the depth
//! of a rule is the depth of that path, so that a detour through links doesn't change which rule is
//! deepest.
//!
//! A path names everything below it, so also what is mounted there:
//!
//! - A mounted file system that can be seen in one place only belongs to the path it is mounted below like
//!   any directory: its root gets the rules and scopes above it, with their depth.
//! - What can be seen in several places (a bind mount, a disk mounted twice) has several names. It is judged
//!   by the place it really has; rules above its other places count where they are stricter, see
//!   [`Shared`]. Nothing gets milder by being mounted somewhere else.
//!
//! What is mounted later, or in another mount namespace, is seen by the kernel's walk.

use std::{
    io,
    path::{Path, PathBuf},
};

use agent_guard_common::ObjectKey;

use super::{
    diagnostic::Diagnostic,
    model::{Origin, Policy},
    walk,
};

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
    /// Its device, as `stat(2)` has it but in the kernel's encoding, and its inode number.
    pub key: ObjectKey,
    /// The mount it was found in.
    pub mount: u64,
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

/// Where paths are looked up.
pub trait Filesystem {
    /// What a path leads to. `follow` is about the last component: others are always followed.
    ///
    /// # Errors
    ///
    /// What the system says, [`io::ErrorKind::NotFound`] where there is nothing.
    fn lookup(&self, path: &Path, follow: bool) -> io::Result<Object>;

    /// All mounts.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn mounts(&self) -> io::Result<Vec<Mount>>;
}

/// What is bound to an object; profiles and the rest are places in the lists of the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// An entry of `[[critical]]`.
    Critical(usize),
    /// An entry of a profile's `files.rule`.
    Rule(usize, usize),
    /// An entry of a profile's `files.scope`.
    Scope(usize),
}

/// A rule or a scope at an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    /// What.
    pub subject: Subject,
    /// Where.
    pub key: ObjectKey,
    /// Number of components of the rule's path.
    pub depth: u32,
}

/// Another place where an object can be seen, and what is bound above that place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shared {
    /// The object and the directories above it in its own file system.
    pub tree: Vec<ObjectKey>,
    /// What is bound above the place, with its depth.
    pub above: Vec<(Subject, u32)>,
}

/// A policy and what its paths lead to.
#[derive(Debug)]
pub struct Resolved<'p> {
    /// The policy.
    pub policy: &'p Policy,
    /// What is bound to what.
    pub bindings: Vec<Binding>,
    /// Objects with several names, those nearest to the root of their file systems first.
    pub shared: Vec<Shared>,
    /// What the author of the policy should know.
    pub warnings: Vec<Diagnostic>,
}

/// A path of the policy, looked up.
struct Named<'p> {
    subject: Subject,
    origin: &'p Origin,
    path: PathBuf,
    depth: u32,
}

/// Looks up every path of a policy.
///
/// # Errors
///
/// Every path that leads nowhere, or to something that can't be told from others.
pub fn resolve<'p>(policy: &'p Policy, fs: &dyn Filesystem) -> Result<Resolved<'p>, Vec<Diagnostic>> {
    let mut mistakes = Vec::new();
    let mut found = Vec::new();
    for (subject, path, origin) in paths(policy) {
        match fs.lookup(path, true) {
            Ok(object) => found.push((subject, path, origin, object)),
            Err(error) => mistakes.push(no_object(path, origin, &error)),
        }
    }
    // After the look-ups, which may mount something.
    let mounts = match fs.mounts() {
        Ok(mounts) => mounts,
        Err(error) => {
            let origin =
                Origin { file: policy.files.first().cloned().unwrap_or_default(), line: 1, column: 1 };
            let message = format!("can't read which file systems are mounted: {error}");
            mistakes.push(Diagnostic::error(&origin, message).help("is /proc mounted?"));
            return Err(mistakes);
        }
    };
    let mut resolved = Resolved { policy, bindings: Vec::new(), shared: Vec::new(), warnings: Vec::new() };
    let mut named = Vec::new();
    for (subject, path, origin, object) in found {
        if let Err(mistake) = nameable(path, origin, &object, &mounts) {
            mistakes.push(mistake);
            continue;
        }
        let depth = depth(&object.path);
        resolved.bindings.push(Binding { subject, key: object.key, depth });
        named.push(Named { subject, origin, path: object.path, depth });
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    for mount in &mounts {
        bind_mount(&mut resolved, fs, &mounts, mount, &named);
    }
    resolved.shared.sort_by_key(|shared| shared.tree.len());
    Ok(resolved)
}

fn paths(policy: &Policy) -> impl Iterator<Item = (Subject, &Path, &Origin)> {
    let critical = policy.critical.iter().enumerate();
    let critical = critical.map(|(at, rule)| (Subject::Critical(at), rule.path.as_path(), &rule.origin));
    let profiles = policy.profiles.iter().enumerate().flat_map(|(profile, content)| {
        let scope = content.scope.iter();
        let scope = scope.map(move |entry| (Subject::Scope(profile), entry.path.as_path(), &entry.origin));
        let rules = content.rules.iter().enumerate();
        let rules =
            rules.map(move |(at, rule)| (Subject::Rule(profile, at), rule.path.as_path(), &rule.origin));
        scope.chain(rules)
    });
    critical.chain(profiles)
}

fn no_object(path: &Path, origin: &Origin, error: &io::Error) -> Diagnostic {
    if error.kind() == io::ErrorKind::NotFound {
        return Diagnostic::error(origin, format!("{path:?} does not exist"))
            .help("rules on paths that don't exist yet are not enforced by this version; create it first");
    }
    Diagnostic::error(origin, format!("{path:?} can't be looked up: {error}"))
        .help("every path of a policy must lead to something that root can look at")
}

/// Refuses objects that the kernel knows by another device than `stat(2)` says: the kernel's device and
/// the inode number alone don't tell them from others.
fn nameable(path: &Path, origin: &Origin, object: &Object, mounts: &[Mount]) -> Result<(), Diagnostic> {
    let Some(mount) = mounts.iter().find(|mount| mount.id == object.mount) else {
        return Err(Diagnostic::error(
            origin,
            format!("{path:?} is in no file system that is still mounted"),
        )
        .help("file systems were mounted or unmounted meanwhile: try again"));
    };
    if mount.dev == object.key.dev {
        return Ok(());
    }
    Err(Diagnostic::error(
        origin,
        format!(
            "rules on {path:?} can't be enforced: {} numbers its files per layer or subvolume",
            mount.kind
        ),
    )
    .help("name a path on another file system"))
}

fn depth(path: &Path) -> u32 {
    u32::try_from(path.components().count().saturating_sub(1)).unwrap_or(u32::MAX)
}

/// Binds what is above a mount point to what is mounted there.
fn bind_mount(
    resolved: &mut Resolved<'_>,
    fs: &dyn Filesystem,
    mounts: &[Mount],
    mount: &Mount,
    named: &[Named<'_>],
) {
    let above: Vec<_> = named.iter().filter(|name| mount.point.starts_with(&name.path)).collect();
    let Some(first) = above.first() else { return };
    let object = match fs.lookup(&mount.point, false) {
        // Hidden below another mount.
        Ok(object) if object.mount != mount.id => return,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Ok(object) if object.key.dev == mount.dev => object,
        other => {
            let why = other.err().map_or_else(
                || format!("{} numbers its files per layer or subvolume", mount.kind),
                |error| error.to_string(),
            );
            resolved.warnings.push(
                Diagnostic::warning(
                    first.origin,
                    format!("what is mounted at {:?}, below this path, can't be named: {why}", mount.point),
                )
                .help("there, what this allows is not allowed, and what it forbids is forbidden only through that place"),
            );
            return;
        }
    };
    if mounts.iter().any(|other| walk::overlaps(mount, other)) {
        let tree = walk::tree(fs, mounts, mount, &object);
        let above = above.iter().map(|name| (name.subject, name.depth)).collect();
        resolved.shared.push(Shared { tree, above });
        return;
    }
    for name in above {
        let binding = Binding { subject: name.subject, key: object.key, depth: name.depth };
        if !resolved.bindings.contains(&binding) {
            resolved.bindings.push(binding);
        }
    }
}
