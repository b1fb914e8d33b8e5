//! Sockets that operations are measured with.

use std::{
    io::{self, Read as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    ptr,
};

use anyhow::{Context as _, Result};

use crate::sys::{errno, own};

/// Bytes of a message.
const MESSAGE: [u8; 64] = [b'x'; 64];

/// A socket that is connected to another one of the same process, and that one.
pub(crate) struct Pair {
    from: UdpSocket,
    to: UdpSocket,
}

impl Pair {
    pub(crate) fn new() -> Result<Self> {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("can't bind a UDP socket");
        let (from, to) = (bind()?, bind()?);
        to.set_nonblocking(true).context("can't make a socket non-blocking")?;
        from.connect(to.local_addr().context("a socket has no address")?).context("can't connect it")?;
        Ok(Self { from, to })
    }

    /// Takes out what was sent.
    pub(crate) fn drain(&self) -> Result<()> {
        let mut buffer = [0; 256];
        loop {
            match self.to.recv(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("can't receive what was sent"),
            }
        }
    }

    /// Sends a message.
    pub(crate) fn send(&self) -> i32 {
        // SAFETY: reads as many bytes as the message has.
        let sent = unsafe { libc::send(self.from.as_raw_fd(), MESSAGE.as_ptr().cast(), MESSAGE.len(), 0) };
        errno(i64::try_from(sent).unwrap_or(-1))
    }
}

/// A socket that listens, and connections that wait to be accepted.
pub(crate) struct Queue {
    listener: TcpListener,
    waiting: Vec<TcpStream>,
    accepted: Vec<OwnedFd>,
}

impl Queue {
    pub(crate) fn new() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("can't listen")?;
        Ok(Self { listener, waiting: Vec::new(), accepted: Vec::new() })
    }

    /// Closes those that were accepted and has as many wait again. They are at their end before the next ones begin.
    pub(crate) fn refill(&mut self, times: u32) -> Result<()> {
        self.accepted.clear();
        for mut stream in self.waiting.drain(..) {
            let mut rest = [0; 1];
            stream.read(&mut rest).context("a connection that was accepted has no end")?;
        }
        let address = self.listener.local_addr().context("a listening socket has no address")?;
        for _ in 0..times {
            self.waiting.push(TcpStream::connect(address).context("can't connect to the own socket")?);
        }
        Ok(())
    }

    /// Accepts one of them.
    pub(crate) fn accept(&mut self) -> i32 {
        // SAFETY: the address of whoever has connected isn't asked for.
        let fd = unsafe {
            libc::accept4(self.listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), libc::SOCK_CLOEXEC)
        };
        match own(fd) {
            Ok(connection) => {
                self.accepted.push(connection);
                0
            }
            Err(errno) => errno,
        }
    }
}
