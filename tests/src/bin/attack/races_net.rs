//! Where a call wants to go, changed by a second thread while it is judged: the address, or which address a message has.
//!
//! `race-destination REPORT TRIES HOW ALLOWED FORBIDDEN` counts as `race-memory` does. Where datagrams went only their receivers
//! know: what was sent counts as `scope`.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicPtr, Ordering};

use anyhow::{Context, Result, bail};
use socket2::{SockAddr, Socket};

use crate::Attack;
use crate::net::{self, Kind};
use crate::races::{Counts, Flickering, beside};
use crate::sys::{args, errno};
use crate::uring::Message;

pub(crate) const ATTACKS: &[(&str, Attack)] = &[("race-destination", destination)];

fn destination(a: &[&str]) -> Result<i32> {
    let [report, tries, how, allowed, forbidden] = args(a)?;
    let kind = if how == "connect-tcp" { Kind::Tcp } else { Kind::Udp };
    let ((socket, first), (_, second)) = (net::socket(allowed, kind)?, net::socket(forbidden, kind)?);
    let race = Race { socket, first, second, forbidden: forbidden.parse().context("that is no address")? };
    let counts = match how {
        "connect" => race.connect(tries),
        "connect-tcp" => race.connect_tcp(tries),
        "sendto" => race.sendto(tries),
        "sendmsg" => race.sendmsg(tries),
        "sendmsg-pointer" => race.sendmsg_pointer(tries),
        other => bail!("{other} can't be raced for"),
    }?;
    counts.write(report)?;
    Ok(0)
}

struct Race {
    socket: Socket,
    first: SockAddr,
    second: SockAddr,
    forbidden: SocketAddr,
}

fn bytes(address: &SockAddr) -> Result<&[u8]> {
    // SAFETY: the address' own storage, of the length that it has.
    Ok(unsafe { std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), usize::try_from(address.len())?) })
}

/// Counts a try: what went, and what didn't.
fn count(outcome: i32, counts: &mut Counts) -> Result<()> {
    match outcome {
        0 => counts.scope += 1,
        libc::EPERM => counts.denied += 1,
        // Half of one address and half of the other leads nowhere; a queue that is full.
        libc::ENETUNREACH
        | libc::EHOSTUNREACH
        | libc::EINVAL
        | libc::EACCES
        | libc::ENOBUFS
        | libc::EAGAIN
        | libc::ECONNREFUSED => counts.nothing += 1,
        other => bail!("neither done nor denied: {}", tests::errno_name(other)),
    }
    Ok(())
}

impl Race {
    fn address(&self) -> Result<Flickering> {
        Ok(Flickering::new(bytes(&self.first)?, bytes(&self.second)?))
    }

    /// A datagram socket is connected again and again, and says where.
    fn connect(&self, tries: &str) -> Result<Counts> {
        let address = self.address()?;
        beside(
            |turn| address.change(turn),
            tries,
            true,
            |counts| {
                let at = address.bytes.as_ptr().cast();
                // SAFETY: an address of that length, which the kernel copies before it looks.
                let outcome = errno(unsafe { libc::connect(self.socket.as_raw_fd(), at, self.first.len()) });
                if outcome != 0 {
                    return count(outcome, counts);
                }
                let peer = self.socket.peer_addr().context("connected to nobody")?.as_socket();
                *(if peer == Some(self.forbidden) { &mut counts.protected } else { &mut counts.scope }) += 1;
                Ok(())
            },
        )
    }

    /// Nobody listens at the allowed address, so what is refused there counts as `scope`.
    fn connect_tcp(&self, tries: &str) -> Result<Counts> {
        let address = self.address()?;
        beside(
            |turn| address.change(turn),
            tries,
            false,
            |counts| {
                let socket = Socket::new(self.first.domain(), socket2::Type::STREAM, None);
                let socket = socket.context("can't make a socket")?;
                let at = address.bytes.as_ptr().cast();
                // SAFETY: as above.
                match errno(unsafe { libc::connect(socket.as_raw_fd(), at, self.first.len()) }) {
                    0 => counts.protected += 1,
                    libc::ECONNREFUSED => counts.scope += 1,
                    other => count(other, counts)?,
                }
                Ok(())
            },
        )
    }

    fn sendto(&self, tries: &str) -> Result<Counts> {
        let address = self.address()?;
        beside(
            |turn| address.change(turn),
            tries,
            false,
            |counts| {
                let (byte, at) = (b"x".as_ptr().cast(), address.bytes.as_ptr().cast());
                let (fd, flags) = (self.socket.as_raw_fd(), libc::MSG_DONTWAIT);
                // SAFETY: one byte, and an address of that length, which the kernel copies before it looks.
                let sent = unsafe { libc::sendto(fd, byte, 1, flags, at, self.first.len()) };
                count(errno(i64::try_from(sent)?), counts)
            },
        )
    }

    fn sendmsg(&self, tries: &str) -> Result<Counts> {
        let address = self.address()?;
        let mut message = Message::new(&self.first);
        message.header.msg_name = address.bytes.as_ptr().cast_mut().cast();
        beside(
            |turn| address.change(turn),
            tries,
            false,
            |counts| {
                let (fd, header) = (self.socket.as_raw_fd(), &raw const *message.header);
                // SAFETY: the message and all it points to live through the call, and the kernel copies the address.
                let sent = unsafe { libc::sendmsg(fd, header, libc::MSG_DONTWAIT) };
                count(errno(i64::try_from(sent)?), counts)
            },
        )
    }

    /// The addresses stay; the message's pointer goes from one to the other.
    fn sendmsg_pointer(&self, tries: &str) -> Result<Counts> {
        let mut message = Message::new(&self.first);
        let both =
            [&self.first, &self.second].map(|address| address.as_ptr().cast_mut().cast::<libc::c_void>());
        let both = both.map(AtomicPtr::new);
        let header = &raw mut *message.header;
        // SAFETY: a pointer in a structure that lives as long as the message; it is only looked at and changed whole.
        let name = unsafe { AtomicPtr::from_ptr(&raw mut (*header).msg_name) };
        let header = AtomicPtr::new(header);
        let change = |turn: u64| {
            let [first, second] = &both;
            let other = if turn.is_multiple_of(2) { second } else { first };
            name.store(other.load(Ordering::Relaxed), Ordering::Relaxed);
            for _ in 0..turn % 64 {
                std::hint::spin_loop();
            }
        };
        beside(change, tries, false, |counts| {
            let (fd, header) = (self.socket.as_raw_fd(), header.load(Ordering::Relaxed));
            // SAFETY: the kernel copies the structure before it looks.
            let sent = unsafe { libc::sendmsg(fd, header, libc::MSG_DONTWAIT) };
            count(errno(i64::try_from(sent)?), counts)
        })
    }
}
