//! The initramfs: the guest's first process and the modules that lead to the root file system, in the
//! "newc" cpio format that every kernel unpacks.

use std::path::Path;

use anyhow::{Context, Result};

use super::modules::Modules;
use crate::setup::kernels::Kernel;

/// Without these there is no disk, no channel to us, or no root file system.
const NEEDED: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_console", "ext4"];
/// Loaded where they are modules: what the others ask for by name at run time.
const USEFUL: [&str; 3] = ["crc32c_generic", "crc32c_intel", "crc32c_cryptoapi"];

/// The archive for a kernel, with `guest` as its `/init`.
pub(crate) fn build(kernel: &Kernel, guest: &Path) -> Result<Vec<u8>> {
    let modules = Modules::read(&kernel.modules)?;
    let mut archive = Newc::default();
    for dir in ["dev", "proc", "sys", "newroot", "modules"] {
        archive.add(dir, 0o040_755, &[]);
    }
    let init = std::fs::read(guest).with_context(|| format!("can't read {}", guest.display()))?;
    archive.add("init", 0o100_755, &init);
    let mut list = String::new();
    for (index, file) in modules.order(&NEEDED, &USEFUL)?.iter().enumerate() {
        let bytes = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
        let name = format!("{index:02}.ko");
        archive.add(&format!("modules/{name}"), 0o100_644, &bytes);
        list.push_str(&name);
        list.push('\n');
    }
    archive.add("modules/list", 0o100_644, list.as_bytes());
    Ok(archive.finish())
}

/// Writes cpio archives of the "newc" kind.
#[derive(Default)]
struct Newc {
    bytes: Vec<u8>,
    entries: u32,
}

impl Newc {
    fn add(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // magic, then: inode, mode, uid, gid, links, mtime, size, device (2), special device (2),
        // name size, checksum; eight hexadecimal digits each.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_format_says() {
        let mut archive = Newc::default();
        archive.add("a", 0o100_644, b"hello");
        let bytes = archive.finish();
        let header = "070701\
                      00000001000081a400000000000000000000000100000000\
                      0000000500000000000000000000000000000000\
                      0000000200000000";
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..112], b"a\0");
        assert_eq!(&bytes[112..120], b"hello\0\0\0");
        assert!(bytes[120..].starts_with(b"070701"));
        assert!(bytes[230..].starts_with(b"TRAILER!!!\0"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
