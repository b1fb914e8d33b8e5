//! Look-ups, many at once, each path once.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use super::super::fs::{Filesystem, Object};

/// What has been looked up so far.
pub(super) struct Lookups<'f> {
    pub(super) fs: &'f dyn Filesystem,
    followed: HashMap<PathBuf, io::Result<Object>>,
    plain: HashMap<PathBuf, io::Result<Object>>,
    names: HashMap<PathBuf, Vec<OsString>>,
}

impl<'f> Lookups<'f> {
    pub(super) fn new(fs: &'f dyn Filesystem) -> Self {
        Self { fs, followed: HashMap::new(), plain: HashMap::new(), names: HashMap::new() }
    }

    fn cache(&mut self, follow: bool) -> &mut HashMap<PathBuf, io::Result<Object>> {
        if follow { &mut self.followed } else { &mut self.plain }
    }

    /// Looks up all of these that haven't been looked up yet.
    pub(super) fn fetch(&mut self, paths: impl IntoIterator<Item = PathBuf>, follow: bool) {
        let known = self.cache(follow);
        let wanted: HashSet<_> = paths.into_iter().filter(|path| !known.contains_key(path)).collect();
        let mut wanted: Vec<_> = wanted.into_iter().map(|path| (path, follow)).collect();
        wanted.sort_unstable();
        let found = self.fs.lookup_all(&wanted);
        let paths = wanted.into_iter().map(|(path, _)| path);
        self.cache(follow).extend(paths.zip(found));
    }

    /// What a path leads to; none if there is nothing.
    ///
    /// # Errors
    ///
    /// What the system says, as text.
    pub(super) fn get(&mut self, path: &Path, follow: bool) -> Result<Option<&Object>, String> {
        if !self.cache(follow).contains_key(path) {
            self.fetch([path.to_owned()], follow);
        }
        match self.cache(follow).get(path) {
            Some(Ok(object)) => Ok(Some(object)),
            Some(Err(error)) if is_missing(error) => Ok(None),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("it was not looked up".to_owned()),
        }
    }

    /// What is at a path that has been looked up without following it, and is really there.
    pub(super) fn known(&self, path: &Path) -> Option<&Object> {
        self.plain.get(path)?.as_ref().ok().filter(|object| object.path == path)
    }

    /// The names in a directory, in order. What can't be read has none.
    pub(super) fn names(&mut self, directory: &Path) -> &[OsString] {
        let fs = self.fs;
        self.names.entry(directory.to_owned()).or_insert_with(|| {
            let mut names = fs.names(directory).unwrap_or_default();
            names.sort_unstable();
            names
        })
    }
}

/// Whether there is nothing, and could be.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
