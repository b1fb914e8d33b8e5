//! The same through io_uring: at once, by a worker thread, or by a polling thread of the kernel.
//!
//! `uring HOW WHAT ARG...`, where HOW is `plain`, `async` or `sqpoll`.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, bail};
use io_uring::{IoUring, opcode, squeue, types};
use socket2::SockAddr;

use crate::Attack;
use crate::families::{self, Family};
use crate::net;
use crate::sys::{errno_of, need, open, path};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[("uring", uring)];

/// An attribute that files don't have yet, and its value.
const NEW: &CStr = c"user.new";
const VALUE: &CStr = c"1";

fn uring(a: &[&str]) -> Result<i32> {
    let [how, what, args @ ..] = a else { bail!("usage: uring plain|async|sqpoll WHAT ARG...") };
    match (*what, args) {
        ("connect", [to]) => return connect(how, to),
        ("sendmsg" | "sendmsg-zc", [to]) => return sendmsg(how, to, *what == "sendmsg-zc"),
        ("sendto" | "sendto-zc", [to]) => return sendto(how, to, *what == "sendto-zc"),
        ("socket", [family]) => {
            return open_socket(how, families::find(family)?).map(|made| made.err().unwrap_or(0));
        }
        ("socket-connect", [to]) => return socket_connect(how, to),
        ("bind", [at]) => return bind(how, at, false),
        ("listen", [at]) => return bind(how, at, true),
        ("fsetxattr", [name]) => return fsetxattr(how, name),
        _ => {}
    }
    let names = args.iter().map(|name| path(name)).collect::<Result<Vec<CString>>>()?;
    let here = types::Fd(libc::AT_FDCWD);
    let entry = match (*what, names.as_slice()) {
        ("unlink", [name]) => opcode::UnlinkAt::new(here, name.as_ptr()).build(),
        ("rmdir", [name]) => opcode::UnlinkAt::new(here, name.as_ptr()).flags(libc::AT_REMOVEDIR).build(),
        ("rename", [old, new]) => opcode::RenameAt::new(here, old.as_ptr(), here, new.as_ptr()).build(),
        ("open-read", [name]) => opcode::OpenAt::new(here, name.as_ptr()).flags(libc::O_RDONLY).build(),
        ("open-write", [name]) => opcode::OpenAt::new(here, name.as_ptr()).flags(libc::O_WRONLY).build(),
        ("open-trunc", [name]) => {
            opcode::OpenAt::new(here, name.as_ptr()).flags(libc::O_WRONLY | libc::O_TRUNC).build()
        }
        ("create", [name]) => opcode::OpenAt::new(here, name.as_ptr())
            .flags(libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL)
            .mode(0o644)
            .build(),
        ("mkdir", [name]) => opcode::MkDirAt::new(here, name.as_ptr()).mode(0o755).build(),
        ("symlink", [name]) => opcode::SymlinkAt::new(here, c"target".as_ptr(), name.as_ptr()).build(),
        ("link", [old, new]) => opcode::LinkAt::new(here, old.as_ptr(), here, new.as_ptr()).build(),
        ("setxattr", [name]) => {
            opcode::SetXattr::new(NEW.as_ptr(), VALUE.as_ptr().cast(), name.as_ptr(), 1).build()
        }
        _ => bail!("io_uring has no {what} with {} arguments here", args.len()),
    };
    let opens = matches!(*what, "open-read" | "open-write" | "open-trunc" | "create");
    // The names live until the kernel has answered.
    submit(how, entry, opens)
}

fn ring(how: &str) -> Result<IoUring> {
    let ring = match how {
        "plain" | "async" => IoUring::new(4),
        "sqpoll" => IoUring::builder().setup_sqpoll(1000).build(4),
        other => bail!("{other} is none of plain, async and sqpoll"),
    };
    ring.context("can't make a ring")
}

/// Puts one request in and waits for its result.
fn submit(how: &str, entry: squeue::Entry, opens: bool) -> Result<i32> {
    submit_to(&mut ring(how)?, how, entry, opens)
}

/// A ring that is used again.
pub(crate) struct Ring {
    ring: IoUring,
    how: &'static str,
}

impl Ring {
    pub(crate) fn new(how: &'static str) -> Result<Self> {
        Ok(Self { ring: ring(how)?, how })
    }

    pub(crate) fn unlink(&mut self, name: &str) -> Result<i32> {
        let name = path(name)?;
        let entry = opcode::UnlinkAt::new(types::Fd(libc::AT_FDCWD), name.as_ptr()).build();
        submit_to(&mut self.ring, self.how, entry, false)
    }
}

fn submit_to(ring: &mut IoUring, how: &str, entry: squeue::Entry, opens: bool) -> Result<i32> {
    let result = submit_for(ring, how, entry)?;
    if opens && result >= 0 {
        // SAFETY: a new descriptor, nobody else's.
        drop(unsafe { OwnedFd::from_raw_fd(result) });
    }
    Ok(if result < 0 { result.saturating_neg() } else { 0 })
}

/// What the kernel says: something of use, or an errno below zero.
fn submit_for(ring: &mut IoUring, how: &str, entry: squeue::Entry) -> Result<i32> {
    let entry = if how == "async" { entry.flags(squeue::Flags::ASYNC) } else { entry };
    // SAFETY: what the entry points to belongs to the caller, which waits here for the result.
    unsafe { ring.submission().push(&entry) }.context("the ring is full")?;
    while ring.completion().is_empty() {
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("can't submit to the ring"),
        }
    }
    Ok(ring.completion().next().context("the ring has no result")?.result())
}

/// Through a descriptor that is open for reading.
fn fsetxattr(how: &str, name: &str) -> Result<i32> {
    let file = need("can't open it for reading", open(name, libc::O_RDONLY))?;
    let fd = types::Fd(file.as_raw_fd());
    submit(how, opcode::FSetXattr::new(fd, NEW.as_ptr(), VALUE.as_ptr().cast(), 1).build(), false)
}

/// Changes an open file.
pub(crate) fn on_fd(fd: RawFd, what: &str) -> Result<i32> {
    let fd = types::Fd(fd);
    let entry = match what {
        "write" => opcode::Write::new(fd, VALUE.as_ptr().cast(), 1).build(),
        "fallocate" => {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            opcode::Fallocate::new(fd, 4096).mode(mode).build()
        }
        "ftruncate" => opcode::Ftruncate::new(fd, 1).build(),
        other => bail!("io_uring has no {other} for a descriptor here"),
    };
    submit("async", entry, false)
}

fn connect(how: &str, to: &str) -> Result<i32> {
    let (socket, address) = net::socket(to, net::Kind::Tcp)?;
    let entry = opcode::Connect::new(types::Fd(socket.as_raw_fd()), address.as_ptr().cast(), address.len());
    submit(how, entry.build(), false)
}

fn sendmsg(how: &str, to: &str, without_copy: bool) -> Result<i32> {
    let (socket, address) = net::socket(to, net::Kind::Udp)?;
    let message = Message::new(&address);
    let (fd, header) = (types::Fd(socket.as_raw_fd()), &raw const *message.header);
    let entry = if without_copy {
        opcode::SendMsgZc::new(fd, header).build()
    } else {
        opcode::SendMsg::new(fd, header).build()
    };
    submit(how, entry, false)
}

/// With the address in the request instead of a message.
fn sendto(how: &str, to: &str, without_copy: bool) -> Result<i32> {
    let (socket, address) = net::socket(to, net::Kind::Udp)?;
    let (fd, at, length) = (types::Fd(socket.as_raw_fd()), address.as_ptr().cast(), address.len());
    let byte = VALUE.as_ptr().cast();
    let entry = if without_copy {
        opcode::SendZc::new(fd, byte, 1).dest_addr(at).dest_addr_len(length).build()
    } else {
        opcode::Send::new(fd, byte, 1).dest_addr(at).dest_addr_len(length).build()
    };
    submit(how, entry, false)
}

/// A socket that io_uring makes, too.
fn open_socket(how: &str, family: Family) -> Result<Result<OwnedFd, i32>> {
    let kind = family.kind | libc::SOCK_CLOEXEC;
    let entry = opcode::Socket::new(family.domain, kind, family.protocol).build();
    let result = submit_for(&mut ring(how)?, how, entry)?;
    // SAFETY: a new descriptor, nobody else's.
    Ok(if result < 0 { Err(result.saturating_neg()) } else { Ok(unsafe { OwnedFd::from_raw_fd(result) }) })
}

fn socket_connect(how: &str, to: &str) -> Result<i32> {
    let address: std::net::SocketAddr = to.parse().with_context(|| format!("{to:?} is no address"))?;
    let family = families::find("tcp")?;
    let domain = if address.is_ipv6() { libc::AF_INET6 } else { family.domain };
    let socket = need("can't make a socket", open_socket(how, Family { domain, ..family })?)?;
    let address = SockAddr::from(address);
    let fd = types::Fd(socket.as_raw_fd());
    submit(how, opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build(), false)
}

/// Binds by io_uring, or binds plainly and listens by io_uring; both from 6.11 on.
fn bind(how: &str, at: &str, listens: bool) -> Result<i32> {
    let (socket, address) = net::socket(at, net::Kind::Tcp)?;
    socket.set_reuse_address(true).context("can't use the address again")?;
    let fd = types::Fd(socket.as_raw_fd());
    if !listens {
        let entry = opcode::Bind::new(fd, address.as_ptr().cast(), address.len()).build();
        return submit(how, entry, false);
    }
    match errno_of(socket.bind(&address)) {
        0 => submit(how, opcode::Listen::new(fd, 8).build(), false),
        failed => Ok(failed),
    }
}

/// A message with its destination, in one piece of memory that doesn't move.
pub(crate) struct Message<'a> {
    pub(crate) header: Box<libc::msghdr>,
    _vector: Box<libc::iovec>,
    _address: &'a SockAddr,
}

impl<'a> Message<'a> {
    /// One byte for an address.
    pub(crate) fn new(address: &'a SockAddr) -> Self {
        static BYTE: &[u8; 1] = b"x";
        let mut vector = Box::new(libc::iovec { iov_base: BYTE.as_ptr().cast_mut().cast(), iov_len: 1 });
        // SAFETY: integers and pointers, for which zero means nothing.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        header.msg_name = address.as_ptr().cast_mut().cast();
        header.msg_namelen = address.len();
        header.msg_iov = &raw mut *vector;
        header.msg_iovlen = 1;
        Self { header, _vector: vector, _address: address }
    }
}
