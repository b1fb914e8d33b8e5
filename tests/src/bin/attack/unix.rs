//! Unix sockets: ways to a socket that the calls of `net` don't have, and servers of one's own.

use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use anyhow::{Context, Result, bail};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::Attack;
use crate::net::Kind;
use crate::sys::{args, errno_of, need, open, proc_fd};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("connect-opath", connect_opath),
    ("connect-at", connect_at),
    ("send-connected", send_connected),
    ("listen-unix", listen),
    ("own-unix", own),
    ("accept-inherited", accept_inherited),
];

/// What `unix:PATH` and `unix:@NAME` stand for.
pub(crate) fn address(to: &str) -> Result<Option<SockAddr>> {
    let Some(name) = to.strip_prefix("unix:") else { return Ok(None) };
    let path = name.strip_prefix('@').map_or_else(|| name.to_owned(), |name| format!("\0{name}"));
    SockAddr::unix(path).map(Some).with_context(|| format!("{to:?} is no address"))
}

fn need_address(to: &str) -> Result<SockAddr> {
    address(to)?.with_context(|| format!("{to:?} is no Unix socket"))
}

pub(crate) fn socket(kind: Kind) -> Result<Socket> {
    let kind = match kind {
        Kind::Tcp => Type::STREAM,
        Kind::Udp => Type::DGRAM,
        Kind::Seqpacket => Type::SEQPACKET,
        _ => bail!("no Unix socket is like that"),
    };
    Socket::new(Domain::UNIX, kind, None).context("can't make a socket")
}

fn kind(name: &str) -> Result<Kind> {
    match name {
        "stream" => Ok(Kind::Tcp),
        "dgram" => Ok(Kind::Udp),
        "seqpacket" => Ok(Kind::Seqpacket),
        other => bail!("{other} is none of stream, dgram and seqpacket"),
    }
}

/// By a descriptor of the socket's file.
fn connect_opath(a: &[&str]) -> Result<i32> {
    let [to] = args(a)?;
    let path = to.strip_prefix("unix:").context("that is no Unix socket")?;
    let file = need("can't open the socket's file", open(path, libc::O_PATH))?;
    Ok(errno_of(socket(Kind::Tcp)?.connect(&SockAddr::unix(proc_fd(&file))?)))
}

/// By its name in the directory that the process is in.
fn connect_at(a: &[&str]) -> Result<i32> {
    let [to] = args(a)?;
    let path = to.strip_prefix("unix:").context("that is no Unix socket")?;
    let (dir, name) = path.rsplit_once('/').context("that is no absolute path")?;
    let back = std::env::current_dir().context("can't say where this is")?;
    std::env::set_current_dir(dir).with_context(|| format!("can't go to {dir}"))?;
    let outcome = errno_of(socket(Kind::Tcp)?.connect(&SockAddr::unix(name)?));
    std::env::set_current_dir(back).context("can't go back")?;
    Ok(outcome)
}

/// A message through a connected socket that was inherited: `send-connected FD`.
fn send_connected(a: &[&str]) -> Result<i32> {
    let [fd] = args(a)?;
    let socket = inherited(fd)?;
    let outcome = errno_of(socket.send(b"x"));
    std::mem::forget(socket);
    Ok(outcome)
}

fn inherited(fd: &str) -> Result<Socket> {
    let fd: RawFd = fd.parse().with_context(|| format!("{fd:?} is no descriptor"))?;
    // SAFETY: inherited, and nothing else here uses it.
    Ok(unsafe { Socket::from_raw_fd(fd) })
}

/// Listens for as long as this process lives: `listen-unix stream|dgram|seqpacket ADDRESS`.
fn listen(a: &[&str]) -> Result<i32> {
    let [kind, at] = args(a)?;
    std::mem::forget(server(kind, at)?);
    Ok(0)
}

fn server(name: &str, at: &str) -> Result<Socket> {
    let server = socket(kind(name)?)?;
    server.bind(&need_address(at)?).with_context(|| format!("can't bind to {at}"))?;
    if name != "dgram" {
        server.listen(8).with_context(|| format!("can't listen on {at}"))?;
    }
    Ok(server)
}

/// A server and its client, each a process of its own: `own-unix KIND ADDRESS`.
fn own(a: &[&str]) -> Result<i32> {
    let [name, at] = args(a)?;
    let (server, address) = (server(name, at)?, need_address(at)?);
    let client = socket(kind(name)?)?;
    let outcome =
        crate::sys::in_fork(|| errno_of(client.connect(&address).and_then(|()| client.send(b"x"))))?;
    if outcome == 0 {
        let mut there = if name == "dgram" { server } else { server.accept().context("nobody has come")?.0 };
        let mut byte = [0];
        anyhow::ensure!(there.read(&mut byte).context("nothing has come")? == 1, "nothing has come");
    }
    if let Some(path) = at.strip_prefix("unix:/") {
        std::fs::remove_file(format!("/{path}")).context("can't remove the socket")?;
    }
    Ok(outcome)
}

/// Goes to a listening socket that was inherited, by its name: `accept-inherited FD ADDRESS`.
fn accept_inherited(a: &[&str]) -> Result<i32> {
    let [fd, to] = args(a)?;
    let server = inherited(fd)?;
    anyhow::ensure!(server.is_listener().context("that is no socket")?, "nobody listens at {fd}");
    let client = socket(Kind::Tcp)?;
    let outcome = errno_of(client.connect(&need_address(to)?));
    if outcome == 0 {
        server.accept().context("nobody has come")?;
    }
    anyhow::ensure!(server.as_raw_fd() >= 0, "the descriptor has gone");
    std::mem::forget(server);
    Ok(outcome)
}
