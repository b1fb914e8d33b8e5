//! Being asked before a program is executed: `fanotify(7)`, permission events. Whoever executes one waits in the kernel until there
//! is an answer; if nobody is there to answer any more, it goes on.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// `include/uapi/linux/fanotify.h`.
pub(super) const FAN_CLOEXEC: libc::c_uint = 0x1;
pub(super) const FAN_NONBLOCK: libc::c_uint = 0x2;
const FAN_CLASS_CONTENT: libc::c_uint = 0x4;
pub(super) const FAN_UNLIMITED_QUEUE: libc::c_uint = 0x10;
const FAN_UNLIMITED_MARKS: libc::c_uint = 0x20;
const FAN_REPORT_PIDFD: libc::c_uint = 0x80;
pub(super) const FAN_MARK_ADD: libc::c_uint = 0x1;
const FAN_MARK_ONLYDIR: libc::c_uint = 0x8;
const FAN_OPEN_EXEC_PERM: u64 = 0x4_0000;
const FAN_EVENT_ON_CHILD: u64 = 0x0800_0000;
const FAN_EVENT_INFO_TYPE_PIDFD: u8 = 4;
const FAN_ALLOW: u32 = 1;
const FAN_DENY: u32 = 2;

/// Bytes of `struct fanotify_event_metadata`, of the head of an information record, and of the record of a process.
pub(super) const METADATA: usize = 24;
const HEAD: usize = 4;
const PIDFD: usize = 8;

/// What is asked about.
#[derive(Debug)]
pub struct Question {
    /// The file that is about to be executed, open for reading. The answer names it.
    pub file: OwnedFd,
    /// The process; none if it has ended.
    pub process: Option<OwnedFd>,
}

/// Who is asked.
#[derive(Debug)]
pub struct Fanotify(OwnedFd);

impl AsFd for Fanotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Fanotify {
    /// Asked about nothing yet.
    ///
    /// # Errors
    ///
    /// If the kernel can't ask (`CONFIG_FANOTIFY_ACCESS_PERMISSIONS`), or the caller isn't root.
    pub fn new() -> io::Result<Self> {
        let flags = FAN_CLOEXEC
            | FAN_NONBLOCK
            | FAN_CLASS_CONTENT
            | FAN_UNLIMITED_QUEUE
            | FAN_UNLIMITED_MARKS
            | FAN_REPORT_PIDFD;
        let files = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE;
        let files = libc::c_uint::try_from(files).map_err(io::Error::other)?;
        // SAFETY: two numbers.
        let fd = unsafe { libc::fanotify_init(flags, files) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has made it for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wants to be asked about a file, links followed; or about every file directly in a directory. Once more does no harm.
    ///
    /// # Errors
    ///
    /// If there is nothing, or the kernel refuses.
    pub fn mark(&self, path: &Path, directory: bool) -> io::Result<()> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let (flags, mask) = if directory {
            (FAN_MARK_ADD | FAN_MARK_ONLYDIR, FAN_OPEN_EXEC_PERM | FAN_EVENT_ON_CHILD)
        } else {
            (FAN_MARK_ADD, FAN_OPEN_EXEC_PERM)
        };
        // SAFETY: the descriptor and the name live as long as the call.
        let code =
            unsafe { libc::fanotify_mark(self.0.as_raw_fd(), flags, mask, libc::AT_FDCWD, name.as_ptr()) };
        if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The questions that wait; none if there are none now.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn questions(&self) -> io::Result<Vec<Question>> {
        let mut buffer = [0u8; 4096];
        match rustix::io::read(&self.0, &mut buffer) {
            Ok(length) => Ok(parse(buffer.get(..length).unwrap_or_default())),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Answers.
    ///
    /// # Errors
    ///
    /// What the kernel says; that nobody waits any more is none.
    pub fn answer(&self, question: &Question, allow: bool) -> io::Result<()> {
        let mut response = [0u8; 8];
        let (fd, answer) = response.split_at_mut(4);
        fd.copy_from_slice(&question.file.as_raw_fd().to_ne_bytes());
        answer.copy_from_slice(&(if allow { FAN_ALLOW } else { FAN_DENY }).to_ne_bytes());
        match rustix::io::write(&self.0, &response) {
            Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What the kernel has written: records, each with the descriptors that it has made for us.
fn parse(mut bytes: &[u8]) -> Vec<Question> {
    let mut found = Vec::new();
    while let Some(length) = word(bytes, 0).and_then(|length| usize::try_from(length).ok())
        && length >= METADATA
        && let Some((record, rest)) = bytes.split_at_checked(length)
    {
        bytes = rest;
        let file = word(record, 16).and_then(owned);
        let process = pidfd(record.get(METADATA..).unwrap_or_default());
        found.extend(file.map(|file| Question { file, process }));
    }
    found
}

/// The descriptor of the process among information records.
fn pidfd(mut bytes: &[u8]) -> Option<OwnedFd> {
    while let Some([kind, _, low, high]) = bytes.first_chunk::<HEAD>() {
        let length = usize::from(u16::from_ne_bytes([*low, *high])).max(HEAD);
        let (record, rest) = bytes.split_at_checked(length)?;
        if *kind == FAN_EVENT_INFO_TYPE_PIDFD && record.len() >= PIDFD {
            return owned(word(record, HEAD)?);
        }
        bytes = rest;
    }
    None
}

/// A word as a descriptor that is ours; none if it is an error.
fn owned(word: u32) -> Option<OwnedFd> {
    let fd = i32::from_ne_bytes(word.to_ne_bytes());
    // SAFETY: the kernel has made it for who reads the record, which is read once.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk::<4>()?))
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd as _;

    use super::*;

    fn record(file: i32, info: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(METADATA + info.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend([3, 0]);
        bytes.extend(24u16.to_ne_bytes());
        bytes.extend(FAN_OPEN_EXEC_PERM.to_ne_bytes());
        bytes.extend(file.to_ne_bytes());
        bytes.extend(1i32.to_ne_bytes());
        bytes.extend(info);
        bytes
    }

    fn some() -> i32 {
        std::fs::File::open("/dev/null").unwrap().into_raw_fd()
    }

    #[test]
    fn records() {
        let info = |fd: i32| [[4, 0, 8, 0], fd.to_ne_bytes()].concat();
        let other = [9, 0, 8, 0, 0, 0, 0, 0];
        let bytes = [
            record(some(), &[other.to_vec(), info(some())].concat()),
            record(some(), &info(-1)),
            record(-1, &info(some())),
            record(some(), &[]),
        ]
        .concat();
        let found = parse(&bytes);
        let with: Vec<bool> = found.iter().map(|question| question.process.is_some()).collect();
        assert_eq!(with, [true, false, false]);
    }

    #[test]
    fn garbage_is_nothing() {
        let good = record(-1, &[4, 0, 8, 0]);
        for end in 0..good.len() {
            assert!(parse(&good[..end]).is_empty());
        }
        assert!(parse(&[0; 64]).is_empty() && parse(&[0xff; 64]).is_empty());
    }

    /// The kernel asks about what is marked, and only that; an answer lets it go on, or not.
    #[test]
    fn the_kernel_asks() {
        let Ok(asked) = Fanotify::new() else { return };
        let path = std::env::temp_dir().join(format!("agent-guard-fanotify-{}", std::process::id()));
        std::fs::copy("/bin/true", &path).unwrap();
        asked.mark(&path, false).unwrap();
        for allow in [true, false] {
            let command = path.clone();
            let child = std::thread::spawn(move || std::process::Command::new(command).status());
            let question = loop {
                match asked.questions().unwrap().pop() {
                    Some(question) => break question,
                    None => std::thread::sleep(std::time::Duration::from_millis(1)),
                }
            };
            assert!(question.process.is_some());
            asked.answer(&question, allow).unwrap();
            drop(question);
            assert_eq!(child.join().unwrap().is_ok(), allow);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
