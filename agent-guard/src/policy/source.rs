//! Policy files: which ones, who may have written them, and their text.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Dir, Mode, OFlags};

/// A policy file: its name, as diagnostics show it, and its text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Name.
    pub name: String,
    /// Text.
    pub text: String,
}

/// Whose files are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Anybody's: to check a policy, not to enforce it.
    Anybody,
    /// Files that root owns, that nobody else can write, and that are no symbolic links; the same for
    /// the directory they are found in.
    Root,
}

/// All policy files together are at most this long; more would be a mistake, or meant to exhaust memory.
pub const MAX_BYTES: u64 = 32 << 20;

/// Why policy files could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Opening failed.
    #[error("can't open {}: {source}", path.display())]
    Open {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Reading failed.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Neither a file nor a directory.
    #[error("{} is not a regular file: remove it or give it a name that doesn't end in .toml", .0.display())]
    NotAFile(PathBuf),
    /// Too long.
    #[error("the policy is longer than {MAX_BYTES} bytes, at {}: name directories instead of what is in them", .0.display())]
    TooLong(PathBuf),
    /// Not text.
    #[error("{}:{line}:{column}: error: not UTF-8 text: save the file as UTF-8", path.display())]
    NotText {
        /// What.
        path: PathBuf,
        /// Line of the first bad byte.
        line: u32,
        /// Column of the first bad byte.
        column: u32,
    },
    /// Somebody else's.
    #[error("{} belongs to user {uid}, not to root: chown root:root it after looking at what it says", path.display())]
    Owner {
        /// What.
        path: PathBuf,
        /// Whose.
        uid: u32,
    },
    /// Writable by others.
    #[error("{} can be written by others than root (mode {mode:04o}): chmod go-w it after looking at what it says", path.display())]
    Writable {
        /// What.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Nothing there.
    #[error("no policy in {}: it has no file that ends in .toml", .0.display())]
    Empty(PathBuf),
}

/// Reads files as they are given and of directories all `*.toml`, in name order.
///
/// # Errors
///
/// The first file that can't be read or isn't trusted: half a policy is none.
pub fn read(paths: &[PathBuf], trust: Trust) -> Result<Vec<Source>, SourceError> {
    let mut sources = Vec::new();
    let mut room = MAX_BYTES;
    for path in paths {
        let file = open(rustix::fs::CWD, path, path, trust)?;
        let kind = metadata(&file, path)?;
        if kind.is_dir() {
            sources.extend(read_directory(&file, path, trust, &mut room)?);
        } else {
            sources.push(read_file(file, path, trust, &mut room)?);
        }
    }
    Ok(sources)
}

/// Refuses what others than root can have written. Looks at what is open, so that nothing can be
/// put in its place afterwards. An access control list that lets others write shows in the mode too:
/// its mask stands in for the group's permissions.
///
/// # Errors
///
/// [`SourceError::Owner`] or [`SourceError::Writable`].
pub fn check_trusted(file: &File, path: &Path) -> Result<(), SourceError> {
    let metadata = metadata(file, path)?;
    if metadata.uid() != 0 {
        return Err(SourceError::Owner { path: path.into(), uid: metadata.uid() });
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(SourceError::Writable { path: path.into(), mode: metadata.mode() & 0o7777 });
    }
    Ok(())
}

fn metadata(file: &File, path: &Path) -> Result<std::fs::Metadata, SourceError> {
    file.metadata().map_err(|source| SourceError::Read { path: path.into(), source })
}

fn open(at: impl std::os::fd::AsFd, name: &Path, path: &Path, trust: Trust) -> Result<File, SourceError> {
    // A pipe would wait for a writer without NONBLOCK.
    let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if trust == Trust::Root {
        flags |= OFlags::NOFOLLOW;
    }
    match rustix::fs::openat(at, name, flags, Mode::empty()) {
        Ok(fd) => Ok(File::from(fd)),
        Err(errno) => Err(SourceError::Open { path: path.into(), source: errno.into() }),
    }
}

fn read_directory(
    directory: &File,
    path: &Path,
    trust: Trust,
    room: &mut u64,
) -> Result<Vec<Source>, SourceError> {
    if trust == Trust::Root {
        check_trusted(directory, path)?;
    }
    let fail = |errno: rustix::io::Errno| SourceError::Read { path: path.into(), source: errno.into() };
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_bytes();
        if name.ends_with(b".toml") && !name.starts_with(b".") {
            names.push(PathBuf::from(std::ffi::OsStr::from_bytes(name)));
        }
    }
    if names.is_empty() {
        return Err(SourceError::Empty(path.into()));
    }
    names.sort();
    names
        .iter()
        .map(|name| {
            let whole = path.join(name);
            read_file(open(directory, name, &whole, trust)?, &whole, trust, room)
        })
        .collect()
}

/// Takes what it reads from the room that is left.
fn read_file(file: File, path: &Path, trust: Trust, room: &mut u64) -> Result<Source, SourceError> {
    if !metadata(&file, path)?.is_file() {
        return Err(SourceError::NotAFile(path.into()));
    }
    if trust == Trust::Root {
        check_trusted(&file, path)?;
    }
    let mut bytes = Vec::new();
    file.take(*room + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| SourceError::Read { path: path.into(), source })?;
    let left = u64::try_from(bytes.len()).ok().and_then(|length| room.checked_sub(length));
    *room = left.ok_or_else(|| SourceError::TooLong(path.into()))?;
    let name = path.display().to_string();
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { name, text }),
        Err(error) => {
            let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let good = String::from_utf8_lossy(good);
            let (line, column) = super::parse::Lines::new(&good).at(good.len());
            Err(SourceError::NotText { path: path.into(), line, column })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("agent-guard-source-{}-{name}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn read(&self, trust: Trust) -> Result<Vec<Source>, SourceError> {
            read(std::slice::from_ref(&self.0), trust)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn name_order_and_nothing_else() {
        let scratch = Scratch::new("order");
        for name in ["20-b.toml", "10-a.toml", "30.toml.bak", ".hidden.toml", "README"] {
            scratch.write(name, name.as_bytes(), 0o600);
        }
        let texts: Vec<_> = scratch.read(Trust::Anybody).unwrap().into_iter().map(|s| s.text).collect();
        assert_eq!(texts, ["10-a.toml", "20-b.toml"]);
    }

    #[test]
    fn an_empty_directory_is_no_policy() {
        let scratch = Scratch::new("empty");
        assert!(matches!(scratch.read(Trust::Anybody), Err(SourceError::Empty(_))));
    }

    #[test]
    fn what_is_not_a_text_file() {
        let scratch = Scratch::new("kinds");
        let path = scratch.write("a.toml", b"# \xc3\xa9\n# \xc3\xa9\xff", 0o600);
        let error = scratch.read(Trust::Anybody).unwrap_err();
        assert!(matches!(error, SourceError::NotText { line: 2, column: 4, .. }), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(scratch.read(Trust::Anybody), Err(SourceError::NotAFile(_))));
        std::fs::remove_dir(&path).unwrap();
        let half = vec![b'#'; usize::try_from(MAX_BYTES).unwrap() / 2];
        scratch.write("a.toml", &half, 0o600);
        scratch.write("b.toml", &half, 0o600);
        assert_eq!(scratch.read(Trust::Anybody).unwrap().len(), 2);
        scratch.write("c.toml", b"#", 0o600);
        assert!(
            matches!(scratch.read(Trust::Anybody), Err(SourceError::TooLong(path)) if path.ends_with("c.toml"))
        );
        let long = vec![b'#'; usize::try_from(MAX_BYTES).unwrap() + 1];
        scratch.write("a.toml", &long, 0o600);
        assert!(matches!(scratch.read(Trust::Anybody), Err(SourceError::TooLong(_))));
    }

    /// The owner can be tested by root only, who alone can own what is trusted.
    #[test]
    fn trust() {
        let scratch = Scratch::new("trust");
        let path = scratch.write("a.toml", b"", 0o644);
        if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
            assert!(matches!(scratch.read(Trust::Root), Err(SourceError::Owner { .. })));
            return;
        }
        assert_eq!(scratch.read(Trust::Root).unwrap().len(), 1);
        scratch.write("a.toml", b"", 0o664);
        assert!(matches!(scratch.read(Trust::Root), Err(SourceError::Writable { mode: 0o664, .. })));
        scratch.write("a.toml", b"", 0o644);
        std::os::unix::fs::chown(&path, Some(1), None).unwrap();
        assert!(matches!(scratch.read(Trust::Root), Err(SourceError::Owner { uid: 1, .. })));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(matches!(scratch.read(Trust::Root), Err(SourceError::Open { .. })));
        std::fs::remove_file(&path).unwrap();
        scratch.write("a.toml", b"", 0o644);
        std::fs::set_permissions(&scratch.0, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(scratch.read(Trust::Root), Err(SourceError::Writable { mode: 0o777, .. })));
    }
}
