//! The table of mounts, as `/proc/self/mountinfo` shows it.

use std::{
    ffi::OsString,
    io::{self, Error, ErrorKind},
    os::unix::ffi::OsStringExt,
    path::PathBuf,
};

use agent_guard_common::ObjectKey;

use super::fs::Mount;

/// Reads the table of this process.
pub(super) fn read() -> io::Result<Vec<Mount>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let lines = table.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            mount(line).ok_or_else(|| {
                let line = String::from_utf8_lossy(line);
                Error::new(ErrorKind::InvalidData, format!("/proc/self/mountinfo has the line {line:?}"))
            })
        })
        .collect()
}

/// A line of mountinfo (`Documentation/filesystems/proc.rst`, 3.5).
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let mut dev = fields.next()?.split(|&byte| byte == b':');
    let (major, minor) = (number(dev.next()?)?, number(dev.next()?)?);
    let root = path(fields.next()?);
    let point = path(fields.next()?);
    let mut rest = fields.skip_while(|&field| field != b"-");
    rest.next()?;
    let kind = String::from_utf8_lossy(rest.next()?).into_owned();
    let dev = ObjectKey::dev(u32::try_from(major).ok()?, u32::try_from(minor).ok()?);
    Some(Mount { id, parent, dev, root, point, kind })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Undoes the kernel's escapes: a backslash and three octal digits.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'\\'
            && let Some((digits, after)) = after.split_at_checked(3)
            && let Some(digits) = std::str::from_utf8(digits).ok()
            && let Ok(escaped) = u8::from_str_radix(digits, 8)
        {
            bytes.push(escaped);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402\134\011x rw,noatime master:1 shared:2 - ext3 /dev/root rw";
        let expected = Mount {
            id: 36,
            parent: 35,
            dev: ObjectKey::dev(98, 0),
            root: "/mnt1".into(),
            point: "/mnt 2\\\tx".into(),
            kind: "ext3".into(),
        };
        assert_eq!(mount(line), Some(expected));
        assert!(mount(b"1 2 0:31 / /x rw - tmpfs none rw").is_some());
        for bad in [&b""[..], b"1 2 3", b"1 2 0:31 / /x rw tmpfs", b"x 2 0:31 / /x rw - tmpfs t rw"] {
            assert_eq!(mount(bad), None);
        }
    }
}
