//! Being told what happens to a file or a directory, by whom if the kernel says so: `fanotify(7)`, and `inotify(7)` where that
//! refuses. File systems of the kernel's own have no handles before Linux 6.6, which fanotify names files by.

use std::{
    ffi::{CString, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::Path,
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::fanotify::{FAN_CLOEXEC, FAN_MARK_ADD, FAN_NONBLOCK, FAN_UNLIMITED_QUEUE, METADATA, word};

/// `include/uapi/linux/fanotify.h`.
const FAN_REPORT_DFID_NAME: libc::c_uint = 0x400 | 0x800;
const FAN_EVENT_INFO_TYPE_DFID_NAME: u8 = 2;
const FAN_ONDIR: u64 = 0x4000_0000;
const FAN_EVENT_ON_CHILD: u64 = 0x0800_0000;

/// What can happen, as both interfaces number it (`include/linux/fsnotify_backend.h`).
const MODIFY: u32 = 0x2;
const ATTRIB: u32 = 0x4;
const CLOSE_WRITE: u32 = 0x8;
const MOVED: u32 = 0xc0;
const CREATE: u32 = 0x100;
const DELETE: u32 = 0x200;
const DELETE_SELF: u32 = 0x400;
const MOVE_SELF: u32 = 0x800;
const OVERFLOW: u32 = 0x4000;
/// What is watched, besides writing.
const WATCHED: u32 = ATTRIB | MOVED | CREATE | DELETE | DELETE_SELF | MOVE_SELF;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Done {
    /// A name was made.
    Created,
    /// A name, or what is watched itself, was removed.
    Removed,
    /// A name, or what is watched itself, was moved away or here.
    Moved,
    /// Something was written to.
    Written,
    /// Owner, mode, times, or the number of names were changed.
    Metadata,
    /// More than the kernel keeps: some weren't told.
    Lost,
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// What.
    pub done: Done,
    /// The name in the directory that is watched; none for what is watched itself.
    pub name: Option<OsString>,
    /// The process, if the kernel says which.
    pub process: Option<u32>,
}

/// Something that is watched.
#[derive(Debug)]
pub struct Notices {
    fd: OwnedFd,
    says_who: bool,
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Notices {
    /// Begins to watch a file, or a directory with what is directly in it. In one that is `busy` a write is told when the
    /// file is closed, otherwise at once.
    ///
    /// # Errors
    ///
    /// If there is nothing, or neither interface takes it.
    pub fn of(path: &Path, busy: bool) -> io::Result<Self> {
        let mask = WATCHED | if busy { CLOSE_WRITE } else { MODIFY };
        let name = CString::new(path.as_os_str().as_bytes())?;
        match fanotify(&name, path.is_dir(), mask) {
            Ok(fd) => Ok(Self { fd, says_who: true }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            Err(_) => {
                let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
                inotify::add_watch(&fd, path, WatchFlags::from_bits_retain(mask))?;
                Ok(Self { fd, says_who: false })
            }
        }
    }

    /// What has happened since the last time.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn take(&self) -> io::Result<Vec<Notice>> {
        let mut buffer = [0u8; 8192];
        match rustix::io::read(&self.fd, &mut buffer) {
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                Ok(if self.says_who { fanotify_records(bytes) } else { inotify_records(bytes) })
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

fn fanotify(name: &CString, directory: bool, mask: u32) -> io::Result<OwnedFd> {
    let flags = FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE | FAN_REPORT_DFID_NAME;
    // SAFETY: two numbers.
    let fd = unsafe { libc::fanotify_init(flags, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has made it for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mask = u64::from(mask) | if directory { FAN_ONDIR | FAN_EVENT_ON_CHILD } else { 0 };
    // SAFETY: the descriptor and the name live as long as the call.
    let code =
        unsafe { libc::fanotify_mark(fd.as_raw_fd(), FAN_MARK_ADD, mask, libc::AT_FDCWD, name.as_ptr()) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

/// What a mask says; several things where the kernel has put them together.
fn done(mask: u32) -> impl Iterator<Item = Done> {
    [
        (CREATE, Done::Created),
        (DELETE | DELETE_SELF, Done::Removed),
        (MOVED | MOVE_SELF, Done::Moved),
        (MODIFY | CLOSE_WRITE, Done::Written),
        (ATTRIB, Done::Metadata),
        (OVERFLOW, Done::Lost),
    ]
    .into_iter()
    .filter(move |(bits, _)| mask & bits != 0)
    .map(|(_, done)| done)
}

/// `struct fanotify_event_metadata` and the records behind it, one after another.
fn fanotify_records(mut bytes: &[u8]) -> Vec<Notice> {
    let mut found = Vec::new();
    while let Some(length) = word(bytes, 0).and_then(|length| usize::try_from(length).ok())
        && length >= METADATA
        && let Some((record, rest)) = bytes.split_at_checked(length)
        && let (Some(mask), Some(process)) = (word(record, 8), word(record, 20))
    {
        bytes = rest;
        let name = name_among(record.get(METADATA..).unwrap_or_default());
        let of = |done| Notice { done, name: name.clone(), process: (process != 0).then_some(process) };
        found.extend(done(mask).map(of));
    }
    found
}

/// The name in `struct fanotify_event_info_fid`, which stands behind the directory's handle (`struct file_handle`).
fn name_among(mut bytes: &[u8]) -> Option<OsString> {
    const HANDLE: usize = 12;
    while let Some([kind, _, low, high]) = bytes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([*low, *high])).max(4);
        let (record, rest) = bytes.split_at_checked(length)?;
        if *kind == FAN_EVENT_INFO_TYPE_DFID_NAME {
            let handle = usize::try_from(word(record, HANDLE)?).ok()?;
            let name = record.get(HANDLE.checked_add(8)?.checked_add(handle)?..)?;
            return text(name).filter(|name| name != ".");
        }
        bytes = rest;
    }
    None
}

/// `struct inotify_event`, one after another.
fn inotify_records(mut bytes: &[u8]) -> Vec<Notice> {
    const EVENT: usize = 16;
    let mut found = Vec::new();
    while let (Some(mask), Some(length)) = (word(bytes, 4), word(bytes, 12))
        && let Ok(length) = usize::try_from(length)
        && let Some((record, rest)) = bytes.split_at_checked(EVENT.saturating_add(length))
    {
        bytes = rest;
        let name = text(record.get(EVENT..).unwrap_or_default());
        found.extend(done(mask).map(|done| Notice { done, name: name.clone(), process: None }));
    }
    found
}

/// Text that a zero byte ends; none if it is empty.
fn text(bytes: &[u8]) -> Option<OsString> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let name = bytes.get(..end).filter(|name| !name.is_empty())?;
    Some(OsString::from_vec(name.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn fanotify_record(mask: u32, process: u32, name: &str) -> Vec<u8> {
        let handle = [7u8; 8];
        let mut info = vec![FAN_EVENT_INFO_TYPE_DFID_NAME, 0];
        let length = u16::try_from(12 + 8 + handle.len() + name.len() + 1).unwrap();
        info.extend(length.to_ne_bytes());
        info.extend([1; 8]);
        info.extend(8u32.to_ne_bytes());
        info.extend(1u32.to_ne_bytes());
        info.extend(handle);
        info.extend(name.as_bytes());
        info.push(0);
        let mut bytes = u32::try_from(METADATA + info.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend([3, 0, 24, 0]);
        bytes.extend(u64::from(mask).to_ne_bytes());
        bytes.extend((-1i32).to_ne_bytes());
        bytes.extend(process.to_ne_bytes());
        bytes.extend(info);
        bytes
    }

    #[test]
    fn records() {
        let notice = |done, name: Option<&str>, process| Notice { done, name: name.map(Into::into), process };
        let bytes = [fanotify_record(CREATE | MODIFY, 7, "x"), fanotify_record(DELETE_SELF, 0, ".")].concat();
        assert_eq!(
            fanotify_records(&bytes),
            [
                notice(Done::Created, Some("x"), Some(7)),
                notice(Done::Written, Some("x"), Some(7)),
                notice(Done::Removed, None, None),
            ]
        );
        assert_eq!(done(OVERFLOW).collect::<Vec<_>>(), [Done::Lost]);
        let mut bytes = [[1u32, ATTRIB, 0, 4].map(u32::to_ne_bytes).concat(), b"abc\0".to_vec()].concat();
        bytes.extend([1u32, MOVE_SELF, 0, 0].map(u32::to_ne_bytes).concat());
        assert_eq!(
            inotify_records(&bytes),
            [notice(Done::Metadata, Some("abc"), None), notice(Done::Moved, None, None)]
        );
    }

    #[test]
    fn garbage_is_nothing() {
        let good = fanotify_record(CREATE, 7, "name");
        for end in 0..good.len() {
            assert!(fanotify_records(&good[..end]).is_empty());
        }
        for bytes in [[0; 64], [0xff; 64]] {
            assert!(fanotify_records(&bytes).is_empty());
            inotify_records(&bytes);
        }
        let cut = [1u32, CREATE, 0, 64].map(u32::to_ne_bytes).concat();
        assert!(inotify_records(&cut).is_empty());
    }

    /// The kernel tells of what is watched, and only that; who did it where fanotify is allowed.
    #[test]
    fn the_kernel_tells() {
        let dir = std::env::temp_dir().join(format!("agent-guard-notices-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let watched = Notices::of(&dir, false).unwrap();
        let file = dir.join("f");
        fs::write(&file, "x").unwrap();
        fs::rename(&file, dir.join("g")).unwrap();
        fs::remove_file(dir.join("g")).unwrap();
        let mut told = watched.take().unwrap();
        told.sort();
        let me = watched.says_who.then(std::process::id);
        assert!(told.iter().all(|notice| notice.process == me), "{told:?}");
        let seen = |done, name: &str| told.iter().any(|n| n.done == done && n.name == Some(name.into()));
        assert!(seen(Done::Created, "f") && seen(Done::Written, "f") && seen(Done::Removed, "g"));
        assert!(seen(Done::Moved, "f") && seen(Done::Moved, "g"), "{told:?}");
        assert_eq!(watched.take().unwrap(), []);
        fs::remove_dir(&dir).unwrap();
        assert!(watched.take().unwrap().iter().any(|notice| notice.done == Done::Removed));
        assert!(Notices::of(&dir, false).is_err());
    }
}
