//! Descriptors that somebody else opened: inherited, received over a socket, taken from another process.
//!
//! `offer SOCKET` is the other side, outside of a session: it opens what it is asked for and sends it.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use io_uring::IoUring;

use crate::Attack;
use crate::connected;
use crate::inplace::use_fd;
use crate::sys::{args, errno, errno_of, need, open, own};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("offer", offer),
    ("receive", receive),
    ("pidfd-getfd", pidfd_getfd),
    ("use-inherited", use_inherited),
    ("with-ring", with_ring),
    ("keep", keep),
];

/// A descriptor that was there when this program began: `use-inherited FD HOW`. `EBADF` if it is closed.
fn use_inherited(a: &[&str]) -> Result<i32> {
    let [fd, how] = args(a)?;
    let fd = fd.parse().with_context(|| format!("{fd:?} is no descriptor"))?;
    // SAFETY: only asks whether it is open.
    match errno(unsafe { libc::fcntl(fd, libc::F_GETFD) }) {
        0 => use_fd(fd, how),
        closed => Ok(closed),
    }
}

/// Room for the control message with one descriptor, aligned as it must be.
#[repr(align(8))]
struct Control([u8; 24]);

/// A message of one byte, with a descriptor or with room for one.
fn message(vector: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: integers and pointers, for which zero means nothing.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut *vector;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    header
}

/// Serves `PATH MODE` lines, one a connection, for ever.
fn offer(a: &[&str]) -> Result<i32> {
    let [socket] = args(a)?;
    let listener = UnixListener::bind(socket).with_context(|| format!("can't listen on {socket}"))?;
    println!("offering");
    for stream in listener.incoming() {
        let mut stream = stream.context("can't accept")?;
        let mut request = String::new();
        stream.read_to_string(&mut request).context("can't read what is wanted")?;
        let (path, mode) = request.split_once(' ').context("that is no request")?;
        // `tcp:ADDRESS` and `udp:ADDRESS` are connections.
        let connection = path.split_once(':').filter(|(kind, _)| ["tcp", "udp"].contains(kind));
        let opened = match connection {
            Some((kind, to)) => connected::connection(kind, to)?.map(OwnedFd::from),
            None => open(path, flags(mode)?),
        };
        let file = need("can't open what is wanted", opened)?;
        send(&stream, file.as_raw_fd())?;
    }
    Ok(0)
}

fn flags(mode: &str) -> Result<i32> {
    match mode {
        "read" => Ok(libc::O_RDONLY),
        "write" => Ok(libc::O_WRONLY),
        "both" => Ok(libc::O_RDWR),
        "path" => Ok(libc::O_PATH),
        "dir" => Ok(libc::O_RDONLY | libc::O_DIRECTORY),
        other => bail!("{other} is none of read, write, both, path and dir"),
    }
}

fn send(stream: &UnixStream, fd: RawFd) -> Result<()> {
    let mut byte = 0_u8;
    let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control([0; 24]);
    let header = message(&mut vector, &mut control);
    // SAFETY: the control message is in the buffer, which has room for one descriptor.
    let sent = unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = usize::try_from(libc::CMSG_LEN(4))?;
        libc::CMSG_DATA(first).cast::<RawFd>().write_unaligned(fd);
        libc::sendmsg(stream.as_raw_fd(), &raw const header, 0)
    };
    anyhow::ensure!(sent == 1, "can't send a descriptor: {}", std::io::Error::last_os_error());
    Ok(())
}

/// `receive SOCKET MODE PATH HOW`, where SOCKET is `offer`'s, or `fd:N` for a connected one that was inherited.
///
/// A kernel that refuses a descriptor delivers the message without it, and says only that something was cut off:
/// that is `EPERM` here.
fn receive(a: &[&str]) -> Result<i32> {
    let [socket, mode, path, how] = args(a)?;
    let mut stream = match socket.strip_prefix("fd:") {
        // SAFETY: inherited, and nothing else here uses it.
        Some(fd) => unsafe { UnixStream::from_raw_fd(fd.parse().context("that is no descriptor")?) },
        None => UnixStream::connect(socket).with_context(|| format!("can't connect to {socket}"))?,
    };
    stream.write_all(format!("{path} {mode}").as_bytes()).context("can't ask for a descriptor")?;
    stream.shutdown(std::net::Shutdown::Write).context("can't end the question")?;
    let mut byte = 0_u8;
    let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control([0; 24]);
    let mut header = message(&mut vector, &mut control);
    // SAFETY: all buffers live through the call; what the kernel says is there is read from the control buffer.
    let file = unsafe {
        let count = libc::recvmsg(stream.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC);
        match errno(i64::try_from(count)?) {
            0 => {}
            failed => return Ok(failed),
        }
        anyhow::ensure!(count == 1, "the other side has closed the connection");
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        if first.is_null() {
            anyhow::ensure!(header.msg_flags & libc::MSG_CTRUNC != 0, "a message without a descriptor");
            return Ok(libc::EPERM);
        }
        OwnedFd::from_raw_fd(libc::CMSG_DATA(first).cast::<RawFd>().read_unaligned())
    };
    use_fd(file.as_raw_fd(), how)
}

/// `pidfd-getfd PID FD HOW`.
fn pidfd_getfd(a: &[&str]) -> Result<i32> {
    let [pid, fd, how] = args(a)?;
    let pid: i32 = pid.parse().context("that is no process id")?;
    let fd: RawFd = fd.parse().context("that is no descriptor")?;
    // SAFETY: takes numbers.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let process = need("can't open the process", own(RawFd::try_from(process)?))?;
    // SAFETY: takes numbers.
    let taken = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) };
    match own(RawFd::try_from(taken)?) {
        Ok(file) => use_fd(file.as_raw_fd(), how),
        Err(errno) => Ok(errno),
    }
}

/// Becomes another program that inherits a ring: `with-ring FD PROGRAM ARG...`.
fn with_ring(a: &[&str]) -> Result<i32> {
    let [fd, program, args @ ..] = a else { bail!("usage: with-ring FD PROGRAM ARG...") };
    let fd: RawFd = fd.parse().context("that is no descriptor")?;
    let ring = IoUring::new(4).context("can't make a ring")?;
    // SAFETY: takes numbers; the copy stays open when this program becomes another.
    anyhow::ensure!(unsafe { libc::dup2(ring.as_raw_fd(), fd) } == fd, "can't duplicate the ring");
    Ok(errno_of(Err::<(), _>(Command::new(program).args(args).exec())))
}

/// Opens something for later: `keep FD MODE PATH`.
fn keep(a: &[&str]) -> Result<i32> {
    let [fd, mode, path] = args(a)?;
    let fd: RawFd = fd.parse().context("that is no descriptor")?;
    match open(path, flags(mode)?) {
        // SAFETY: takes numbers; the copy is meant to stay open.
        Ok(file) => Ok(errno(unsafe { libc::dup2(file.as_raw_fd(), fd) })),
        Err(errno) => Ok(errno),
    }
}
