//! Has the kernel say what a session may have open: a process of ours, the *judge*, is tagged as that session would be, and
//! is sent one descriptor after another by a second one, the *looker*. What doesn't arrive the session couldn't have opened.
//!
//! Both are processes because touching other people's files can hang for ever: closing one of a dead file system does.

use std::{
    io::{self, Read as _},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
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
pub const JUDGE: &str = "judge-descriptors";
/// The command of this program that asks it.
pub const LOOKER: &str = "look-at-descriptors";

/// It has arrived.
const YES: u8 = b'y';
/// It hasn't.
const NO: u8 = b'n';
/// How long one answer may take, seconds.
const PATIENCE: i64 = 10;
/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A process that is killed when it is forgotten. Nobody waits for its end, which may never come.
struct Helper(Option<Child>);

impl Helper {
    /// This program again, with nothing open but what is given.
    fn start(command: &str, args: &[String], stdin: OwnedFd, stdout: Stdio) -> io::Result<Self> {
        let mut helper = Command::new("/proc/self/exe");
        helper.arg(command).args(args).env_clear().current_dir("/");
        helper.stdin(Stdio::from(stdin)).stdout(stdout).stderr(Stdio::null());
        Ok(Self(Some(helper.spawn()?)))
    }

    fn child(&mut self) -> io::Result<&mut Child> {
        self.0.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        if let Err(error) = child.kill() {
            tracing::warn!(%error, "a process that looks at descriptors");
        }
        std::thread::spawn(move || child.wait());
    }
}

/// The process that is asked.
pub struct Judge {
    socket: OwnedFd,
    process: OwnedFd,
    _helper: Helper,
}

impl Judge {
    /// Starts it: this program, with one thread.
    ///
    /// # Errors
    ///
    /// If it can't be started.
    pub fn start() -> io::Result<Self> {
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut helper = Helper::start(JUDGE, &[], theirs, Stdio::null())?;
        let pid = rustix::process::Pid::from_child(helper.child()?);
        Ok(Self { socket, process: pidfd_open(pid, PidfdFlags::empty())?, _helper: helper })
    }

    /// Its process, to be tagged before anything is asked.
    #[must_use]
    pub fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Has a looker ask about everything that processes have open; what it says.
    ///
    /// # Errors
    ///
    /// If it can't be started, fails, or takes too long.
    pub fn look(&self, args: &[String]) -> io::Result<Vec<u8>> {
        let mut helper = Helper::start(LOOKER, args, self.socket.try_clone()?, Stdio::piped())?;
        let stdout = helper.child()?.stdout.take();
        let mut stdout = stdout.ok_or(io::ErrorKind::BrokenPipe)?;
        let limit = Instant::now() + LIMIT;
        let (mut said, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            let left = limit.saturating_duration_since(Instant::now());
            let time = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(PATIENCE),
                tv_nsec: left.subsec_nanos().into(),
            };
            if poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&time))? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "looking at what is open takes too long",
                ));
            }
            match stdout.read(&mut buffer)? {
                0 => break,
                count => said.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            }
        }
        // It has closed its output, so it ends.
        let status = helper.child()?.wait()?;
        if status.success() {
            Ok(said)
        } else {
            Err(io::Error::other(format!("the looker ended with {status}")))
        }
    }
}

/// Standard input of judge and looker: their socket.
fn socket() -> BorrowedFd<'static> {
    rustix::stdio::stdin()
}

/// The looker's question: whether a descriptor arrives. If the judge is no more, because what it received kills, it doesn't.
///
/// # Errors
///
/// If nobody can say.
pub fn may_have(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !message.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    match sendmsg(socket(), &[IoSlice::new(b"?")], &mut message, SendFlags::NOSIGNAL) {
        Ok(_) => {}
        Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let socket = socket();
    let patience = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
    if poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&patience))? == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer about a descriptor"));
    }
    let mut answer = [0u8];
    match rustix::net::recv(socket, &mut answer, RecvFlags::empty()) {
        Ok((1, _)) => Ok(answer == [YES]),
        Ok(_) | Err(rustix::io::Errno::CONNRESET) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The judge: answers until nobody asks any more.
///
/// # Errors
///
/// If standard input isn't such a socket.
pub fn answer() -> io::Result<()> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut received = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0u8];
        let message =
            recvmsg(socket(), &mut [IoSliceMut::new(&mut byte)], &mut received, RecvFlags::CMSG_CLOEXEC)?;
        if message.bytes == 0 {
            return Ok(());
        }
        let fds: Vec<OwnedFd> = received
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        // Before they are closed, which can take time.
        send(socket(), &[if fds.is_empty() { NO } else { YES }], SendFlags::NOSIGNAL)?;
        drop(fds);
    }
}
