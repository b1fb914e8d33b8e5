//! What a host's files say of it: the running one's, or in tests those of a made tree.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Error, btf::Btf, support};

/// A host, as far as its files tell.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The running one.
    #[must_use]
    pub fn this() -> Self {
        Self::below("/")
    }

    /// The one whose files are below a directory.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where a file of the host is.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A file's text, without space at its ends. What isn't UTF-8 becomes replacement characters.
    ///
    /// # Errors
    ///
    /// If it can't be read.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<String> {
        let bytes = fs::read(self.path(path))?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Whether there is such a file or directory.
    #[must_use]
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// The kernel's types.
    ///
    /// # Errors
    ///
    /// If they can't be read.
    pub fn btf(&self) -> Result<Btf, Error> {
        let data = fs::read(self.path(support::BTF)).map_err(|source| Error::NoBtf { source })?;
        Ok(Btf::parse(&data)?)
    }

    /// The root of all control groups, open: where the whole tree of the second version is mounted, wherever that is
    /// (`Documentation/filesystems/proc.rst`, 3.5).
    ///
    /// # Errors
    ///
    /// If it is mounted nowhere, or can't be opened.
    pub fn root_group(&self) -> Result<fs::File, Error> {
        let mounts = self.read("/proc/self/mountinfo").unwrap_or_default();
        let whole = |line: &str| {
            let (before, after) = line.split_once(" - ")?;
            let mut fields = before.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            (root == "/" && after.split(' ').next()? == "cgroup2").then(|| PathBuf::from(point))
        };
        let point = mounts.lines().find_map(whole).ok_or(Error::NoControlGroups)?;
        fs::File::open(self.path(&point)).map_err(Error::looking_at(&point))
    }

    /// The kernel's release, as `uname -r` has it.
    #[must_use]
    pub fn release(&self) -> String {
        self.read("/proc/sys/kernel/osrelease").unwrap_or_default()
    }

    /// When and how it was built, as `uname -v` has it.
    #[must_use]
    pub fn version(&self) -> String {
        self.read("/proc/sys/kernel/version").unwrap_or_default()
    }

    /// Words of the boot command line, without those for the first process.
    #[must_use]
    pub fn command_line(&self) -> Vec<String> {
        let line = self.read("/proc/cmdline").unwrap_or_default();
        line.split_ascii_whitespace().take_while(|word| *word != "--").map(str::to_owned).collect()
    }

    /// The value of a boot parameter; of several the last, which the kernel goes by.
    #[must_use]
    pub fn boot_parameter(&self, name: &str) -> Option<String> {
        let words = self.command_line();
        let mut values = words.iter().rev().filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        values.next().map(str::to_owned)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A made host, gone with the test.
    pub(crate) struct Tree(PathBuf);

    impl Tree {
        pub(crate) fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("agent-guard-host-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&root));
            fs::create_dir_all(&root).unwrap();
            Self(root)
        }

        pub(crate) fn host(&self) -> Host {
            Host::below(&self.0)
        }

        pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
            let path = self.host().path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        pub(crate) fn remove(&self, path: &str) {
            fs::remove_file(self.host().path(path)).unwrap();
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn files_below_a_root() {
        let tree = Tree::new("files");
        tree.write("/proc/sys/kernel/osrelease", "6.1.0-1\n");
        let host = tree.host();
        assert_eq!((host.release().as_str(), host.version().as_str()), ("6.1.0-1", ""));
        assert!(host.has("/proc") && !host.has("/etc"));
        assert!(matches!(host.btf(), Err(Error::NoBtf { .. })));
        tree.write(support::BTF, "nonsense");
        assert!(matches!(host.btf(), Err(Error::Btf(_))));
    }

    #[test]
    fn boot_parameters() {
        let tree = Tree::new("parameters");
        tree.write("/proc/cmdline", "quiet lsm=a,b lsmx=c lsm=d -- lsm=e\n");
        let host = tree.host();
        assert_eq!(host.boot_parameter("lsm").as_deref(), Some("d"));
        assert_eq!(host.boot_parameter("quiet"), None);
        assert_eq!(host.command_line().len(), 4);
    }
}
