//! What is mounted below a path belongs to it.
//!
//! - A mounted file system that can be seen in one place only belongs to the path it is mounted below like
//!   any directory: its root gets the rules and scopes above it, with their depth.
//! - What can be seen in several places (a bind mount, a disk mounted twice) has several names. It is judged
//!   by the place it really has; rules above its other places count where they are stricter, see
//!   [`Shared`]. Nothing gets milder by being mounted somewhere else.
//!
//! What is mounted later, or in another mount namespace, is seen by the kernel's walk.

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use agent_guard_common::names;

use super::{
    super::{diagnostic::Diagnostic, fs::Mount, model::Part, walk},
    Binding, Key, Resolver, Shared, Subject, depth,
};

/// What is said, and with which depth.
type Said<'p> = Vec<(Subject<'p>, u32)>;

/// What is said of paths that exist, and of names.
#[derive(Default)]
pub(super) struct Named<'p> {
    paths: HashMap<PathBuf, Vec<(Subject<'p>, bool)>>,
    anywhere: HashMap<&'p OsStr, Vec<(&'p [Part], Subject<'p>)>>,
    endings: HashMap<&'p [u8], Vec<Subject<'p>>>,
}

impl<'p> Named<'p> {
    pub(super) fn whole(&mut self, path: &Path, subject: Subject<'p>, below: bool) {
        self.paths.entry(path.to_owned()).or_default().push((subject, below));
    }

    pub(super) fn anywhere(&mut self, parts: &'p [Part], subject: Subject<'p>) {
        if let Some(Part::Name(last)) = parts.last() {
            self.anywhere.entry(OsStr::new(last)).or_default().push((parts, subject));
        }
    }

    pub(super) fn ending(&mut self, text: &'p str, subject: Subject<'p>) {
        self.endings.entry(text.as_bytes()).or_default().push(subject);
    }

    /// Everything that is said of a directory and what is above it.
    fn above(&self, point: &Path) -> Said<'p> {
        point.ancestors().flat_map(|path| self.at(path, path == point)).collect()
    }

    fn at(&self, path: &Path, itself: bool) -> Said<'p> {
        let depth = depth(path);
        let said = self.paths.get(path).into_iter().flatten();
        let said = said.filter(|(_, below)| !(*below && itself));
        let mut said: Said<'p> = said.map(|(subject, below)| (*subject, depth + u32::from(*below))).collect();
        let Some(name) = path.file_name() else { return said };
        let anywhere = self.anywhere.get(name).into_iter().flatten();
        let anywhere = anywhere.filter(|(parts, _)| ends_in(path, parts));
        said.extend(anywhere.map(|(_, subject)| (*subject, depth)));
        for length in names::SUFFIX {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let Some(from) = name.len().checked_sub(length) else { break };
            let found = name.as_bytes().get(from..).and_then(|end| self.endings.get(end));
            said.extend(found.into_iter().flatten().map(|subject| (*subject, depth)));
        }
        said
    }
}

/// Whether the last names of a path are these.
fn ends_in(path: &Path, parts: &[Part]) -> bool {
    let mut names = path.iter().rev();
    parts.iter().rev().all(|part| match (names.next(), part) {
        (Some(name), _) if name == OsStr::new("/") => false,
        (Some(name), Part::Name(wanted)) => name == OsStr::new(wanted),
        (name, Part::Any) => name.is_some(),
        (None, Part::Name(_)) => false,
    })
}

impl<'p> Resolver<'_, 'p> {
    /// Binds what is above mount points to what is mounted there; returns what has several places.
    pub(super) fn inherit(&mut self) -> Vec<Shared<'p>> {
        let mounts: Vec<_> = self.mounts.iter().cloned().collect();
        let said: Vec<_> = mounts.iter().map(|mount| self.named.above(&mount.point)).collect();
        let wanted = mounts.iter().zip(&said).filter(|(_, said)| !said.is_empty());
        self.lookups.fetch(wanted.map(|(mount, _)| mount.point.clone()), false);
        let mut shared: Vec<_> =
            mounts.iter().zip(said).filter_map(|(mount, said)| self.inherit_one(mount, said)).collect();
        shared.sort_by_key(|shared| shared.tree.len());
        shared
    }

    fn inherit_one(&mut self, mount: &Mount, said: Said<'p>) -> Option<Shared<'p>> {
        let (first, _) = said.first()?;
        let object = match self.lookups.get(&mount.point, false) {
            // Hidden below another mount.
            Ok(Some(object)) if object.mount != mount.id => return None,
            Ok(Some(object)) => object.clone(),
            Ok(None) => return None,
            Err(why) => {
                let message =
                    format!("what is mounted at {:?}, below this path, can't be named: {why}", mount.point);
                self.warnings.push(Diagnostic::warning(first.origin, message).help(
                    "there, what this allows is not allowed, and what it forbids is forbidden only through that place",
                ));
                return None;
            }
        };
        if self.mounts.shared(mount) {
            let tree = walk::tree(self.lookups.fs, &self.mounts, mount, &object.path);
            return Some(Shared { tree, key: object.key, above: said });
        }
        let key = Key::Object(object.key);
        self.bindings.extend(said.into_iter().map(|(subject, depth)| Binding {
            key,
            below: false,
            subject,
            depth,
        }));
        None
    }
}
