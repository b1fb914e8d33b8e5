//! Takes the uncompressed kernel out of a bzImage: QEMU boots it directly (PVH), which saves the
//! decompression under emulation.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{self, note};

/// The magic numbers of compressed payloads and the filters that read them.
const FORMATS: [(&[u8], &[&str]); 6] = [
    (&[0x28, 0xb5, 0x2f, 0xfd], &["zstd", "-dcq"]),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], &["xz", "-dcq"]),
    (&[0x1f, 0x8b], &["gzip", "-dcq"]),
    (&[0x02, 0x21, 0x4c, 0x18], &["lz4", "-dcq"]),
    (b"BZh", &["bzip2", "-dcq"]),
    (&[0x5d, 0, 0], &["xz", "--format=lzma", "-dcq"]),
];

/// Writes the best bootable form of `source` into the folder `into`; returns the file's name.
pub(crate) fn extract(source: &Path, into: &Path) -> Result<&'static str> {
    let bytes = std::fs::read(source).with_context(|| format!("can't read {}", source.display()))?;
    if bytes.starts_with(b"\x7fELF") {
        if !has_pvh_note(&bytes) {
            bail!(
                "{} is a vmlinux without a PVH entry (CONFIG_PVH), which QEMU can't boot: give its bzImage",
                source.display()
            );
        }
        std::fs::write(into.join("vmlinux"), &bytes).context("can't write the kernel image")?;
        return Ok("vmlinux");
    }
    match uncompressed(&bytes) {
        Ok(vmlinux) if has_pvh_note(&vmlinux) => {
            std::fs::write(into.join("vmlinux"), vmlinux).context("can't write the kernel image")?;
            Ok("vmlinux")
        }
        Ok(_) => {
            note("setup", "the kernel has no PVH entry: it boots as bzImage, which takes a little longer");
            std::fs::write(into.join("bzImage"), &bytes).context("can't write the kernel image")?;
            Ok("bzImage")
        }
        Err(error) => {
            note("setup", format!("the kernel boots as bzImage, which takes a little longer: {error:#}"));
            std::fs::write(into.join("bzImage"), &bytes).context("can't write the kernel image")?;
            Ok("bzImage")
        }
    }
}

/// The ELF file inside a bzImage.
pub(crate) fn uncompressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let payload = payload(bytes).context("this is no bzImage of boot protocol 2.08 or later")?;
    let (magic, filter) = FORMATS
        .iter()
        .find(|(magic, _)| payload.starts_with(magic))
        .context("the kernel's compression is unknown")?;
    // All but gzip are followed by four bytes with the uncompressed size.
    let body = if magic.starts_with(&[0x1f]) {
        payload
    } else {
        payload.get(..payload.len().saturating_sub(4)).unwrap_or_default()
    };
    let [program, args @ ..] = filter else { bail!("no filter for this compression") };
    let vmlinux = run::filter(Command::new(program).args(args), body.to_vec(), true)?;
    if !vmlinux.starts_with(b"\x7fELF") {
        bail!("what `{program}` made of the kernel's payload is no ELF file");
    }
    Ok(vmlinux)
}

/// The compressed payload, by the fields of the boot protocol's header.
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
    };
    if bytes.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = match *bytes.get(0x1f1)? {
        0 => 4,
        n => usize::from(n),
    };
    let start = (sectors + 1).checked_mul(512)?.checked_add(usize::try_from(word(0x248)?).ok()?)?;
    let end = start.checked_add(usize::try_from(word(0x24c)?).ok()?)?;
    bytes.get(start..end)
}

/// Whether the ELF note that names the PVH entry is there: owner "Xen", type 18.
fn has_pvh_note(vmlinux: &[u8]) -> bool {
    let (note, _) = vmlinux.as_chunks::<4>();
    note.windows(4)
        .any(|w| matches!(w, [[4, 0, 0, 0], [4 | 8, 0, 0, 0], [18, 0, 0, 0], [b'X', b'e', b'n', 0]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_found_by_the_header() {
        let mut image = vec![0_u8; 0x1000];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&8_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&5_u32.to_le_bytes());
        image[0x408..0x40d].copy_from_slice(b"hello");
        assert_eq!(payload(&image), Some(b"hello".as_slice()));
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(payload(&image), None);
        assert_eq!(payload(b"\x7fELF"), None);
    }

    #[test]
    fn the_pvh_note_is_recognised() {
        let mut elf = vec![0_u8; 64];
        elf[16..32].copy_from_slice(b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0");
        assert!(has_pvh_note(&elf));
        elf[24] = 17;
        assert!(!has_pvh_note(&elf));
    }
}
