//! Has the kernel say what a session may have open: a process of ours is tagged as that session would be, and is sent one
//! descriptor after another. What doesn't arrive the session couldn't have opened.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    process::{Child, Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{IoSlice, IoSliceMut},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair,
    },
    process::{PidfdFlags, pidfd_open},
};

/// The command of this program that [`answer`]s.
pub const COMMAND: &str = "judge-descriptors";

/// It has arrived.
const YES: u8 = b'y';
/// It hasn't.
const NO: u8 = b'n';
/// How long an answer may take, seconds.
const PATIENCE: i64 = 10;

/// The process that is asked. Killed when it is forgotten.
pub struct Judge {
    child: Child,
    socket: OwnedFd,
    process: OwnedFd,
}

impl Judge {
    /// Starts it: this program, with one thread and nothing open but our socket.
    ///
    /// # Errors
    ///
    /// If it can't be started.
    pub fn start() -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg(COMMAND).env_clear().current_dir("/");
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        match pidfd_open(rustix::process::Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(process) => Ok(Self { child, socket: ours, process }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }

    /// Its process, to be tagged before anything is asked.
    #[must_use]
    pub fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Whether a descriptor arrives. If the process is no more, because what it received kills, it doesn't.
    ///
    /// # Errors
    ///
    /// If nobody can say.
    pub fn may_have(&self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        if !message.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        match sendmsg(&self.socket, &[IoSlice::new(b"?")], &mut message, SendFlags::NOSIGNAL) {
            Ok(_) => {}
            // It is no more, or this is a kind that can't be sent at all: a ring of io_uring.
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET | rustix::io::Errno::INVAL) => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        let patience = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
        if poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&patience))? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer about a descriptor"));
        }
        let mut answer = [0u8];
        match rustix::net::recv(&self.socket, &mut answer, RecvFlags::empty()) {
            Ok((1, _)) => Ok(answer == [YES]),
            Ok(_) | Err(rustix::io::Errno::CONNRESET) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        // It ends with its socket; this is for one that is stopped.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            tracing::warn!(%error, "the process that judges descriptors");
        }
    }
}

/// The other side: answers until nobody asks any more.
///
/// # Errors
///
/// If standard input isn't such a socket.
pub fn answer() -> io::Result<()> {
    let socket = rustix::stdio::stdin();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut received = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0u8];
        let message =
            recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut received, RecvFlags::CMSG_CLOEXEC)?;
        if message.bytes == 0 {
            return Ok(());
        }
        let arrived = received.drain().any(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.count() > 0,
            _ => false,
        });
        send(socket, &[if arrived { YES } else { NO }], SendFlags::NOSIGNAL)?;
    }
}
