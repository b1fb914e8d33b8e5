//! What is in the scope of the inner session must be in that of the outer one.
//!
//! The paths of both can be written differently and lead to the same, so this asks the outer session's own tables, as a walk
//! from there would: at the path where the inner session's scope begins, and at every file system that is mounted below it.
//! What is in scope within a file system has all in scope that is below, now and later.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use agent_guard_common::{Op, Verdict, decide::Walk};

use super::{Compared, Side};
use crate::policy::{
    fs::{Filesystem, join},
    model::{Base, Form, Part, ScopePath},
    session::SessionPaths,
    tables::ScopePlace,
    walk,
};

/// A name that no rule has.
const ANY_NAME: &str = "\u{1}any";

impl Compared<'_> {
    /// Compares scopes. They don't matter where the outer session may do everything outside of its own.
    pub(super) fn scope(&mut self, fs: &dyn Filesystem) {
        let (outer, inner) = (self.outer, self.inner);
        if Op::FILE.into_iter().all(|op| outer.outside(op) == Verdict::ALLOW) {
            return;
        }
        for entry in &inner.profile.scope {
            if let Err(why) = self.covered(fs, entry) {
                let message = format!(
                    "`{}` is in the scope of profile \"{}\", and {why} of profile \"{}\"",
                    entry.path, inner.rules.profile, outer.rules.profile
                );
                self.say(message, Some(entry.origin.clone()));
            }
        }
    }

    /// Whether the outer session has all of an entry in its scope; why not, or not for certain.
    fn covered(&self, fs: &dyn Filesystem, entry: &ScopePath) -> Result<(), &'static str> {
        const NOT: &str = "isn't known to be in that";
        let Form::Below(base, parts) = &entry.path.form else { return Err(NOT) };
        let (at, star) = if *base == Base::Root {
            // Bound when the policy was loaded, as the outer session's.
            if self.outer.profile.scope.iter().any(|other| other.path == entry.path) {
                return Ok(());
            }
            let place = self.place(entry).ok_or(NOT)?;
            if fs.lookup(&place.there, false).ok().map(|found| found.key) != Some(place.object) {
                return Err("has been moved since the policy was loaded, so it isn't known to be in that");
            }
            (join(&place.there, &place.missing), !place.rest.is_empty())
        } else {
            let paths = self.inner.rules.paths;
            // Of a variable that stands for nothing nothing is said.
            let Some(value) = paths.and_then(|paths| value(paths, *base)) else { return Ok(()) };
            let names = parts.iter().map_while(|part| match part {
                Part::Name(name) => Some(name),
                Part::Any => None,
            });
            let at: PathBuf = value.iter().map(Path::new).chain(names.map(Path::new)).collect();
            (at, parts.contains(&Part::Any))
        };
        if !self.in_scope(fs, self.outer, &at, star) {
            return Err("isn't in that");
        }
        let mounts = fs.mounts().map_err(|_error| NOT)?;
        for mount in mounts.iter().filter(|mount| mount.point.starts_with(&at) && mount.point != at) {
            if self.in_scope(fs, self.inner, &mount.point, false)
                && !self.in_scope(fs, self.outer, &mount.point, false)
            {
                return Err("what is mounted below it isn't in that");
            }
        }
        Ok(())
    }

    fn place(&self, entry: &ScopePath) -> Option<&ScopePlace> {
        let profile = self.inner.rules.profile;
        self.compiled.scopes.iter().find(|place| place.profile == profile && place.path == entry.path)
    }

    /// Whether a path is in a session's scope; with `star` everything that is or will be directly in there.
    fn in_scope(&self, fs: &dyn Filesystem, side: Side<'_>, path: &Path, star: bool) -> bool {
        let Some((object, mut missing)) = object_at(fs, path) else { return false };
        if star {
            missing.insert(0, ANY_NAME.into());
        }
        let Ok(levels) = walk::levels(fs, &object, &missing) else { return false };
        let mut walked = Walk::new(side.index, side.rules.binding, Op::READ);
        walk::walk(&self.compiled.view(), &mut walked, &levels);
        walked.own().2
    }
}

/// What a variable stands for.
fn value(paths: &SessionPaths, base: Base) -> Option<&PathBuf> {
    match base {
        Base::Root => None,
        Base::Cwd => Some(&paths.cwd),
        Base::Home => paths.home.as_ref(),
        Base::Tmp => Some(&paths.tmp),
    }
}

/// What is there of a path, no link followed, and the names behind it, the last first.
fn object_at(fs: &dyn Filesystem, path: &Path) -> Option<(crate::policy::Object, Vec<OsString>)> {
    let mut at = fs.lookup(Path::new("/"), false).ok()?;
    let mut names = path.iter().skip(1).peekable();
    while let Some(name) = names.peek() {
        match fs.lookup(&at.path.join(name), false) {
            Ok(found) => at = found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(_) => return None,
        }
        names.next();
        if !at.directory {
            break;
        }
    }
    let mut missing: Vec<OsString> = names.map(OsString::from).collect();
    missing.reverse();
    Some((at, missing))
}
