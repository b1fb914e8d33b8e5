//! Connections that there are already: kept between attempts, inherited, received. Each is used in many ways.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context, Result, bail};
use socket2::Socket;

use crate::Attack;
use crate::inplace::use_fd;
use crate::net::{self, Kind};
use crate::sys::{args, errno, errno_of};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("connect-keep", connect_keep),
    ("use-kept", use_kept),
    ("aim-kept", aim_kept),
    ("drop-kept", drop_kept),
    ("with-connection", with_connection),
];

/// Sockets by name.
static KEPT: Mutex<BTreeMap<String, Socket>> = Mutex::new(BTreeMap::new());

fn kept() -> Result<MutexGuard<'static, BTreeMap<String, Socket>>> {
    KEPT.lock().map_err(|_poisoned| anyhow::anyhow!("another attempt has panicked"))
}

/// Keeps a socket until the process ends.
pub(crate) fn keep(name: &str, socket: Socket) -> Result<()> {
    kept()?.insert(name.to_owned(), socket);
    Ok(())
}

/// Does something with a kept one.
pub(crate) fn with(name: &str, action: impl FnOnce(&Socket) -> Result<i32>) -> Result<i32> {
    action(kept()?.get(name).with_context(|| format!("nothing is kept as {name}"))?)
}

/// Does something with one that was inherited; `EBADF` if it is closed.
pub(crate) fn with_fd(fd: &str, action: impl FnOnce(&Socket) -> Result<i32>) -> Result<i32> {
    let fd: RawFd = fd.parse().with_context(|| format!("{fd:?} is no descriptor"))?;
    // SAFETY: only asks whether it is open.
    match errno(unsafe { libc::fcntl(fd, libc::F_GETFD) }) {
        0 => {}
        closed => return Ok(closed),
    }
    // SAFETY: inherited, and nothing else here uses it meanwhile; it isn't closed.
    let socket = std::mem::ManuallyDrop::new(unsafe { Socket::from_raw_fd(fd) });
    action(&socket)
}

/// What `tcp`, `udp` and `sctp` stand for.
pub(crate) fn kind(name: &str) -> Result<Kind> {
    Ok(match name {
        "tcp" => Kind::Tcp,
        "udp" => Kind::Udp,
        "sctp" => Kind::Sctp,
        other => bail!("{other} is none of tcp, udp and sctp"),
    })
}

/// A socket that is connected.
pub(crate) fn connection(name: &str, to: &str) -> Result<Result<Socket, i32>> {
    let (socket, address) = net::socket(to, kind(name)?)?;
    Ok(match errno_of(socket.connect(&address)) {
        0 => Ok(socket),
        failed => Err(failed),
    })
}

/// `connect-keep NAME KIND ADDRESS`.
fn connect_keep(a: &[&str]) -> Result<i32> {
    let [name, kind, to] = args(a)?;
    match connection(kind, to)? {
        Ok(socket) => keep(name, socket).map(|()| 0),
        Err(failed) => Ok(failed),
    }
}

/// `use-kept NAME HOW`, where HOW is one of [`use_fd`]'s ways.
fn use_kept(a: &[&str]) -> Result<i32> {
    let [name, how] = args(a)?;
    with(name, |socket| use_fd(socket.as_raw_fd(), how))
}

/// A datagram through a kept socket to an address in the call: `aim-kept NAME ADDRESS`.
fn aim_kept(a: &[&str]) -> Result<i32> {
    let [name, to] = args(a)?;
    let address = net::address(to)?;
    with(name, |socket| Ok(errno_of(socket.send_to(b"x", &address))))
}

fn drop_kept(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    kept()?.remove(name).with_context(|| format!("nothing is kept as {name}"))?;
    Ok(0)
}

/// Becomes another program that inherits a socket: `with-connection FD tcp|udp|listen ADDRESS PROGRAM ARG...`.
fn with_connection(a: &[&str]) -> Result<i32> {
    let [fd, kind, address, program, args @ ..] = a else {
        bail!("usage: with-connection FD tcp|udp|listen ADDRESS PROGRAM ARG...")
    };
    let fd: RawFd = fd.parse().context("that is no descriptor")?;
    let socket = if *kind == "listen" {
        let (socket, at) = net::socket(address, Kind::Tcp)?;
        socket.set_reuse_address(true).context("can't use the address again")?;
        socket
            .bind(&at)
            .and_then(|()| socket.listen(8))
            .with_context(|| format!("can't listen at {address}"))?;
        socket
    } else {
        let made = connection(kind, address)?;
        crate::sys::need("can't connect", made)?
    };
    // SAFETY: takes numbers; the copy stays open when this program becomes another.
    anyhow::ensure!(unsafe { libc::dup2(socket.as_raw_fd(), fd) } == fd, "can't duplicate the socket");
    Ok(errno_of(Err::<(), _>(Command::new(program).args(args).exec())))
}
