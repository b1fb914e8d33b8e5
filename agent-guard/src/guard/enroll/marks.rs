//! Which files the kernel asks about: those that the policy enrolls, as far as they are there. What comes later is found by
//! watching; until it is, the kernel side refuses to execute it.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::SystemTime,
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::{
    kernel::Error,
    policy::{
        By, Policy,
        model::{Form, Part},
    },
    sys::fanotify::Fanotify,
};

/// Files and directories that are marked, at most; of others the kernel side refuses what it isn't asked about.
const MAX_MARKS: usize = 50_000;
/// Directories below one, at most.
const MAX_DEPTH: usize = 64;

/// What a name leads to: path, device, inode number, and when it was made, because numbers are used again.
type Led = (PathBuf, u64, u64, Option<SystemTime>);

/// What is asked about, and watched.
#[derive(Debug)]
pub(crate) struct Asking {
    /// Who is asked.
    pub(crate) fanotify: Fanotify,
    watch: OwnedFd,
    patterns: Vec<Vec<Part>>,
    /// Where names without stars led when they were looked up last.
    led: Mutex<BTreeSet<Led>>,
    /// Held while names are looked up again, until the policy knows.
    settling: Mutex<()>,
}

impl Asking {
    /// Begins to be asked about what a policy enrolls.
    pub(super) fn new(policy: &Policy) -> Result<Self, Error> {
        let fanotify = Fanotify::new().map_err(Error::call("fanotify_init", "programs to be enrolled"))?;
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| Error::call("inotify_init", "programs to be enrolled")(error.into()))?;
        let paths = policy.enrolled().filter(|(entry, _)| entry.by == By::Exe);
        let patterns = paths.filter_map(|(_, target)| match &target.rule.as_ref()?.path.form {
            Form::Below(_, parts) => Some(parts.clone()),
            _ => None,
        });
        let asking = Self {
            fanotify,
            watch,
            patterns: patterns.collect(),
            led: Mutex::new(BTreeSet::new()),
            settling: Mutex::new(()),
        };
        asking.mark()?;
        Ok(asking)
    }

    /// Waits until what has been found to have changed is part of the policy.
    pub(super) fn settle(&self) -> MutexGuard<'_, ()> {
        super::lock(&self.settling)
    }

    /// Readable when something has changed.
    pub(super) fn changes(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    /// Whether something has changed since the last time.
    pub(super) fn look_again(&self) -> bool {
        let mut buffer = [0u8; 4096];
        let mut changed = false;
        while rustix::io::read(&self.watch, &mut buffer).is_ok_and(|length| length > 0) {
            changed = true;
        }
        changed
    }

    /// Marks what is there; whether a name leads to something else than it did.
    pub(super) fn mark(&self) -> Result<bool, Error> {
        let mut marking = Marking { asking: self, left: MAX_MARKS, led: BTreeSet::new() };
        for parts in &self.patterns {
            marking.below(PathBuf::from("/"), parts, true)?;
        }
        if marking.left == 0 {
            tracing::error!(
                "what is enrolled has more than {MAX_MARKS} files and directories: the rest isn't executed"
            );
        }
        let led = marking.led;
        let mut before = super::lock(&self.led);
        // What isn't there any more keeps its rules, wherever it was moved.
        let changed = !led.is_subset(&before);
        *before = led;
        Ok(changed)
    }

    /// Wants to hear of new names in a directory, or in the deepest one above that is there.
    fn watch(&self, path: &Path) {
        let flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        for directory in path.ancestors() {
            if inotify::add_watch(&self.watch, directory, flags).is_ok() {
                return;
            }
        }
    }
}

/// A look at everything.
struct Marking<'a> {
    asking: &'a Asking,
    left: usize,
    led: BTreeSet<Led>,
}

impl Marking<'_> {
    /// Everything that a pattern matches from a directory on. `literal` while there was no star.
    fn below(&mut self, at: PathBuf, parts: &[Part], literal: bool) -> Result<(), Error> {
        let Some((first, rest)) = parts.split_first() else { return self.found(&at, literal) };
        match first {
            Part::Name(name) => {
                let path = at.join(name);
                // The directory that a link is in can get another link.
                self.asking.watch(&at);
                self.below(path, rest, literal)
            }
            Part::Any => {
                if rest.is_empty() {
                    self.directory(&at, 0)?;
                    return Ok(());
                }
                self.asking.watch(&at);
                for name in names(&at) {
                    self.below(at.join(name), rest, false)?;
                }
                Ok(())
            }
        }
    }

    fn found(&mut self, path: &Path, literal: bool) -> Result<(), Error> {
        let Ok(metadata) = fs::metadata(path) else {
            self.asking.watch(path);
            return Ok(());
        };
        if literal && let Ok(real) = fs::canonicalize(path) {
            self.asking.watch(real.parent().unwrap_or(&real));
            self.led.insert((real, metadata.dev(), metadata.ino(), metadata.created().ok()));
        }
        if metadata.is_dir() { self.directory(path, 0) } else { self.put(path, false) }
    }

    /// A directory and all below: what is executed there is asked about, also what comes later.
    fn directory(&mut self, path: &Path, depth: usize) -> Result<(), Error> {
        if !fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
            self.asking.watch(path);
            return Ok(());
        }
        self.put(path, true)?;
        self.asking.watch(path);
        if depth == MAX_DEPTH {
            return Ok(());
        }
        for name in names(path) {
            let path = path.join(name);
            // Links aren't followed: what they lead to isn't below.
            if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                self.directory(&path, depth + 1)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &Path, directory: bool) -> Result<(), Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(()) };
        self.left = left;
        match self.asking.fanotify.mark(path, directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::call("fanotify_mark", path.display().to_string())(error))
            }
            _ => Ok(()),
        }
    }
}

/// What is in a directory; nothing if it can't be read.
fn names(path: &Path) -> Vec<std::ffi::OsString> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name()).collect()
}
