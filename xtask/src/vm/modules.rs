//! Which kernel modules have to be loaded, in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// What `depmod` found out about a kernel's modules.
#[derive(Debug)]
pub(crate) struct Modules {
    folder: PathBuf,
    /// Module name to its file and the files it depends on, the deepest last.
    files: BTreeMap<String, (String, Vec<String>)>,
    builtin: BTreeSet<String>,
}

impl Modules {
    /// Reads `modules.dep` and `modules.builtin`.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            std::fs::read_to_string(folder.join(name))
                .with_context(|| format!("can't read {}", folder.join(name).display()))
        };
        Ok(Self::parse(folder, &read("modules.dep")?, &read("modules.builtin").unwrap_or_default()))
    }

    fn parse(folder: &Path, dep: &str, builtin: &str) -> Self {
        let files = dep
            .lines()
            .filter_map(|line| {
                let (file, needs) = line.split_once(':')?;
                let needs = needs.split_whitespace().map(str::to_owned).collect();
                Some((name(file), (file.to_owned(), needs)))
            })
            .collect();
        Self { folder: folder.to_path_buf(), files, builtin: builtin.lines().map(name).collect() }
    }

    /// The files of these modules and all they depend on, in the order to load them. The kernel must
    /// have all that are `needed`.
    pub(crate) fn order(&self, needed: &[&str], useful: &[&str]) -> Result<Vec<PathBuf>> {
        let mut order: Vec<&str> = Vec::new();
        for module in useful.iter().chain(needed) {
            match self.files.get(*module) {
                Some((file, needs)) => {
                    for file in needs.iter().rev().chain([file]) {
                        if !order.contains(&file.as_str()) {
                            order.push(file);
                        }
                    }
                }
                None if self.builtin.contains(*module) || useful.contains(module) => {}
                None => bail!(
                    "the kernel has no {module}, neither built in nor as a module in {}: build it with \
                     CONFIG_VIRTIO_PCI, CONFIG_VIRTIO_BLK, CONFIG_VIRTIO_CONSOLE and CONFIG_EXT4_FS",
                    self.folder.display()
                ),
            }
        }
        Ok(order.into_iter().map(|file| self.folder.join(file)).collect())
    }
}

/// A module's name is its file's, without folders and endings, with underscores.
fn name(file: &str) -> String {
    let file = file.rsplit('/').next().unwrap_or(file);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_once() {
        let dep = "kernel/a/virtio-blk.ko: kernel/b/ring.ko kernel/b/virtio.ko\n\
                   kernel/b/ring.ko: kernel/b/virtio.ko\n\
                   kernel/b/virtio.ko:\n\
                   kernel/c/net.ko: kernel/b/virtio.ko\n";
        let modules = Modules::parse(Path::new("/m"), dep, "kernel/fs/ext4/ext4.ko\n");
        let order = modules.order(&["virtio_blk", "net", "ext4"], &["absent"]).unwrap();
        let expected =
            ["kernel/b/virtio.ko", "kernel/b/ring.ko", "kernel/a/virtio-blk.ko", "kernel/c/net.ko"];
        assert_eq!(order, expected.map(|f| Path::new("/m").join(f)));
    }

    #[test]
    fn what_is_needed_and_nowhere_is_an_error() {
        let modules = Modules::parse(Path::new("/m"), "", "");
        let error = modules.order(&["virtio_blk"], &[]).unwrap_err().to_string();
        assert!(error.contains("virtio_blk"), "{error}");
    }
}
