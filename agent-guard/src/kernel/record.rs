//! Decodes the records that come out of the ring buffers.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

use agent_guard_common::{
    ABI,
    event::{self, Components, Exec, Header, Judged, Lifecycle, Seen},
};

/// A record.
#[derive(Clone)]
pub enum Record {
    /// A decision.
    Judged(Box<Judged>),
    /// A program was executed.
    Exec(Box<Exec>),
    /// A process was made.
    Fork(Lifecycle),
    /// A process ended.
    Exit(Lifecycle),
}

/// Why a record can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It isn't as long as it says, or as its kind is.
    #[error("a record of kind {kind} has {found} bytes, not {expected}")]
    Size {
        /// Kind.
        kind: u16,
        /// Bytes there are.
        found: usize,
        /// Bytes there should be.
        expected: usize,
    },
    /// It is of another version.
    #[error("a record of ABI {0}, not {ABI}")]
    Abi(u16),
    /// Nobody knows what it is.
    #[error("a record of unknown kind {0}")]
    Kind(u16),
}

/// Marks the records whose every bit pattern is a value.
///
/// # Safety
///
/// `repr(C)`, integers and arrays of integers only.
unsafe trait Plain: Copy {}
// SAFETY: integers and arrays of integers.
unsafe impl Plain for Header {}
// SAFETY: integers and arrays of integers.
unsafe impl Plain for Judged {}
// SAFETY: integers and arrays of integers.
unsafe impl Plain for Exec {}
// SAFETY: integers and arrays of integers.
unsafe impl Plain for Lifecycle {}

fn read<T: Plain>(data: &[u8], kind: u16) -> Result<T, Error> {
    if data.len() < size_of::<T>() {
        return Err(Error::Size { kind, found: data.len(), expected: size_of::<T>() });
    }
    // SAFETY: there are enough bytes, and every bit pattern is a value of a `Plain` type.
    Ok(unsafe { data.as_ptr().cast::<T>().read_unaligned() })
}

/// Decodes one record.
///
/// # Errors
///
/// If it isn't what it says.
pub fn decode(data: &[u8]) -> Result<Record, Error> {
    let header: Header = read(data, 0)?;
    if u32::from(header.abi) != ABI {
        return Err(Error::Abi(header.abi));
    }
    let kind = header.kind;
    let expected = header.size as usize;
    if data.len() < expected {
        return Err(Error::Size { kind, found: data.len(), expected });
    }
    match kind {
        event::JUDGED => Ok(Record::Judged(Box::new(read(data, kind)?))),
        event::EXEC => Ok(Record::Exec(Box::new(read(data, kind)?))),
        event::FORK => Ok(Record::Fork(read(data, kind)?)),
        event::EXIT => Ok(Record::Exit(read(data, kind)?)),
        kind => Err(Error::Kind(kind)),
    }
}

/// A path out of its components. What is cut begins with `...`.
#[must_use]
pub fn path(seen: &Seen, text: &[u8]) -> Option<PathBuf> {
    let text = text.get(..usize::from(seen.path_len))?;
    let mut names: Vec<&[u8]> = Components::new(text).collect();
    if names.is_empty() && seen.cut == 0 && seen.object.ino == 0 {
        return None;
    }
    names.reverse();
    let mut path = Vec::with_capacity(text.len() + 4);
    if seen.cut != 0 {
        path.extend_from_slice(b"...");
    }
    for name in names {
        // The root of a file system that is mounted nowhere has the name "/".
        if name != b"/" {
            path.push(b'/');
            path.extend_from_slice(name);
        }
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Some(PathBuf::from(OsString::from_vec(path)))
}

/// Text up to the first zero byte.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// Name and arguments of an execution.
#[must_use]
pub fn command(exec: &Exec) -> (String, Vec<String>) {
    let exe = exec.exe.get(..exec.exe_len as usize).unwrap_or(&exec.exe);
    let args = exec.args.get(..exec.args_len as usize).unwrap_or(&exec.args);
    (String::from_utf8_lossy(exe).into_owned(), arguments(args))
}

/// Arguments, each ended by a zero byte.
#[must_use]
pub fn arguments(text: &[u8]) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    text.split(|&byte| byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(len: u16, cut: u16) -> Seen {
        let none = agent_guard_common::ObjectKey::default();
        let object = agent_guard_common::ObjectKey::new(1, 2, 0);
        Seen { object, parent: none, mode: 0, path_len: len, cut }
    }

    #[test]
    fn paths() {
        let text = b"\x01x\x04prod\x03srv";
        assert_eq!(path(&seen(11, 0), text), Some("/srv/prod/x".into()));
        assert_eq!(path(&seen(11, 1), text), Some(".../srv/prod/x".into()));
        assert_eq!(path(&seen(0, 0), text), Some("/".into()));
        assert_eq!(path(&seen(500, 0), text), None);
        assert_eq!(path(&seen(4, 0), b"\x01x\x01/"), Some("/x".into()));
    }

    #[test]
    fn short_records_are_errors() {
        assert_eq!(decode(b"").err(), Some(Error::Size { kind: 0, found: 0, expected: size_of::<Header>() }));
        let mut bytes = vec![0u8; size_of::<Lifecycle>()];
        assert_eq!(decode(&bytes).err(), Some(Error::Abi(0)));
        bytes[6] = ABI as u8;
        assert_eq!(decode(&bytes).err(), Some(Error::Kind(0)));
        bytes[4] = event::FORK as u8;
        assert!(matches!(decode(&bytes), Ok(Record::Fork(_))));
        bytes[4] = event::JUDGED as u8;
        assert!(matches!(decode(&bytes), Err(Error::Size { .. })));
        bytes[0] = 0xff;
        bytes[4] = event::FORK as u8;
        assert!(matches!(decode(&bytes), Err(Error::Size { .. })));
    }
}
