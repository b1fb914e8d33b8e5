//! What a session inherits: descriptors that its own rules wouldn't have let it open are taken away before the command
//! begins.
//!
//! Judged by the kernel itself, which judges every descriptor that a session receives: this process, tagged already, sends
//! each one to itself.

use std::{
    fs, io,
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    path::PathBuf,
};

use rustix::{
    io::{FdFlags, IoSlice, IoSliceMut},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};

/// What happened to a descriptor.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its number.
    pub fd: RawFd,
    /// What it is, as far as that has a name.
    pub what: PathBuf,
}

/// The file of a ring (io_uring): it can hold files and threads of whoever has made it.
const RING: &str = "anon_inode:[io_uring]";

/// Asks the kernel about every descriptor that the command would inherit, and closes those that it mayn't have. Standard
/// input, output and error are left open, for somebody to say that they are wanted but not allowed.
///
/// # Errors
///
/// If the kernel can't be asked: nothing is known of any descriptor then.
pub fn filter() -> io::Result<Vec<Taken>> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut taken = Vec::new();
    for fd in open()? {
        if fd == ours.as_raw_fd() || fd == theirs.as_raw_fd() {
            continue;
        }
        // SAFETY: the descriptor is borrowed for this turn only, and nobody else closes it: there is one thread.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        // What is closed when the command begins needs no asking.
        match rustix::io::fcntl_getfd(borrowed) {
            Ok(flags) if flags.contains(FdFlags::CLOEXEC) => continue,
            Ok(_) => {}
            // It has gone since the list was made: the list's own.
            Err(rustix::io::Errno::BADF) => continue,
            Err(error) => return Err(error.into()),
        }
        let what = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        if what.as_os_str() != RING && may_have(ours.as_fd(), theirs.as_fd(), borrowed)? {
            continue;
        }
        if fd > 2 {
            // SAFETY: this process has it open, and nobody in it holds it: what it has opened itself is closed on exec.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        taken.push(Taken { fd, what });
    }
    if taken.iter().any(|taken| taken.fd == 2) {
        // Nothing may be written to it, not even why.
        speak_elsewhere(taken.iter().any(|taken| taken.fd == 1))?;
    }
    Ok(taken)
}

/// Puts standard output, the terminal or nothing in the place of standard error.
fn speak_elsewhere(output_is_taken: bool) -> io::Result<()> {
    if !output_is_taken {
        return Ok(rustix::stdio::dup2_stderr(rustix::stdio::stdout())?);
    }
    let open = |path| fs::File::options().write(true).open(path);
    let other = open("/dev/tty").or_else(|_no_terminal| open("/dev/null"))?;
    Ok(rustix::stdio::dup2_stderr(other)?)
}

fn open() -> io::Result<Vec<RawFd>> {
    let names = fs::read_dir("/proc/self/fd")?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?;
    Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
}

/// Sends a descriptor to this process; whether it arrives. What can't be sent at all is nothing to keep either.
fn may_have(to: BorrowedFd<'_>, from: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !message.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    if sendmsg(to, &[IoSlice::new(b"?")], &mut message, SendFlags::empty()).is_err() {
        return Ok(false);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut received = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8];
    recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut received, RecvFlags::CMSG_CLOEXEC)?;
    let arrived = received.drain().any(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.count() > 0,
        _ => false,
    });
    Ok(arrived)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_arrives() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        let file = fs::File::open("/dev/null").unwrap();
        for _ in 0..3 {
            assert!(may_have(ours.as_fd(), theirs.as_fd(), file.as_fd()).unwrap());
        }
        assert!(open().unwrap().contains(&file.as_raw_fd()));
    }
}
