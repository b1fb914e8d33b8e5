//! The operations that are measured.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::{
    network::{Pair, Queue},
    places, sys,
};

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    /// Look at a file.
    Stat,
    /// Open it for reading, and close it.
    OpenRead,
    /// Open it for writing, and close it.
    OpenWrite,
    /// Make a file, close it, and remove it.
    CreateUnlink,
    /// Give a file another name in its directory.
    Rename,
    /// Overwrite the first 4096 bytes of an open file.
    Write4k,
    /// Make a process that ends at once, and wait for it.
    Fork,
    /// Start a program as `posix_spawn` does, and wait for it.
    VforkExec,
    /// The same with arguments that a rule is about up to the last of them.
    ExecArgv,
    /// Send this process a signal that does nothing.
    Signal,
    /// Connect a TCP socket to this host. Making the socket and closing it don't count.
    Connect,
    /// Send 64 bytes by a UDP socket that is connected to this host.
    Send,
    /// Accept a TCP connection that waits. Making it and closing it don't count.
    Accept,
}

impl Op {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Self; 13] = [
        Self::Stat,
        Self::OpenRead,
        Self::OpenWrite,
        Self::CreateUnlink,
        Self::Rename,
        Self::Write4k,
        Self::Fork,
        Self::VforkExec,
        Self::ExecArgv,
        Self::Signal,
        Self::Connect,
        Self::Send,
        Self::Accept,
    ];

    /// Its name in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::OpenRead => "open_read",
            Self::OpenWrite => "open_write",
            Self::CreateUnlink => "create_unlink",
            Self::Rename => "rename",
            Self::Write4k => "write_4k",
            Self::Fork => "fork",
            Self::VforkExec => "vfork_exec",
            Self::ExecArgv => "exec_argv",
            Self::Signal => "signal",
            Self::Connect => "connect",
            Self::Send => "send",
            Self::Accept => "accept",
        }
    }

    /// The operation with that name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }

    /// Whether it executes a program.
    pub(crate) fn executes(self) -> bool {
        matches!(self, Self::VforkExec | Self::ExecArgv)
    }

    /// Whether a policy with the default for what is outside of its scope denies it.
    pub(crate) fn can_be_denied(self) -> bool {
        matches!(self, Self::OpenWrite | Self::CreateUnlink | Self::Rename | Self::Connect)
    }

    /// How often it is done in a batch. A batch should take about a million instructions, so that most batches see
    /// no tick of the timer (one in four millions), and write far less records than the guard's rings have room for
    /// (some 900).
    pub(crate) fn times(self) -> u32 {
        match self {
            Self::Stat | Self::Write4k | Self::Signal => 100,
            Self::OpenRead | Self::OpenWrite => 80,
            Self::CreateUnlink => 30,
            // Even: afterwards the file has its first name again.
            Self::Rename => 40,
            Self::Fork | Self::VforkExec | Self::ExecArgv => 1,
            // What is received fits into the buffer of a socket.
            Self::Send => 60,
            Self::Connect | Self::Accept => 16,
        }
    }

    /// How often it is done in a batch before what counts: what is only done once after a pause is no part of an
    /// operation. Must be even for [`Op::Rename`]. What a process leaves is given back after a while, and what isn't
    /// given back yet can't be used for the next one: for processes it's the pause that makes all alike.
    pub(crate) fn warm_up(self) -> u32 {
        if self.makes_processes() { 0 } else { 2 }
    }

    /// The time between two batches.
    pub(crate) fn pause(self) -> Duration {
        Duration::from_millis(if self.makes_processes() { 30 } else { 2 })
    }

    /// Batches for a figure: the least of them counts. The first ones warm up.
    pub(crate) fn batches(self) -> u32 {
        if self.makes_processes() { 48 } else { 12 }
    }

    fn makes_processes(self) -> bool {
        matches!(self, Self::Fork | Self::VforkExec | Self::ExecArgv)
    }
}

/// An operation, ready to be done again and again.
pub(crate) struct Doing {
    op: Op,
    denied: bool,
    file: CString,
    other: CString,
    program: CString,
    open: Option<OwnedFd>,
    address: libc::sockaddr_in,
    sockets: Vec<OwnedFd>,
    pair: Option<Pair>,
    queue: Option<Queue>,
    block: Vec<u8>,
}

impl Doing {
    /// The operation in a directory. One that is denied there has nothing opened in advance, and connects to
    /// where nothing may connect to.
    pub(crate) fn new(op: Op, dir: &str, denied: bool) -> Result<Self> {
        let (file, other) = match op {
            Op::CreateUnlink => (places::NEW, if denied { places::FILE } else { places::NEW }),
            Op::Rename => (places::FIRST, places::SECOND),
            _ => (places::FILE, places::FILE),
        };
        let path = |name: &str| CString::new(format!("{dir}/{name}"));
        let mut doing = Self {
            op,
            denied,
            file: path(file)?,
            other: path(other)?,
            program: path(places::PROGRAM)?,
            open: None,
            address: sys::address(if denied { places::NO_HOST } else { places::HOST }, places::PORT),
            sockets: Vec::new(),
            pair: if op == Op::Send { Some(Pair::new()?) } else { None },
            queue: if op == Op::Accept { Some(Queue::new()?) } else { None },
            block: vec![b'x'; 4096],
        };
        if op == Op::Write4k {
            doing.open = match sys::open(&doing.file, libc::O_WRONLY) {
                Ok(file) => Some(file),
                Err(errno) => bail!("can't open {dir}/{file}: {}", ::tests::errno_name(errno)),
            };
        }
        Ok(doing)
    }

    /// Makes what a batch needs and isn't measured.
    pub(crate) fn prepare(&mut self, times: u32) -> Result<()> {
        self.sockets.clear();
        if let Some(pair) = &self.pair {
            pair.drain()?;
        }
        if let Some(queue) = &mut self.queue {
            queue.refill(times)?;
        }
        if self.op == Op::Connect {
            for _ in 0..times {
                match sys::socket() {
                    Ok(socket) => self.sockets.push(socket),
                    Err(errno) => bail!("can't make a socket: {}", ::tests::errno_name(errno)),
                }
            }
        }
        Ok(())
    }

    /// Does it once; the errno is the answer, 0 for success, -1 where the parts of it differ.
    pub(crate) fn once(&mut self, turn: u32) -> i32 {
        match self.op {
            Op::Stat => sys::stat(&self.file),
            Op::OpenRead => sys::open_close(&self.file, libc::O_RDONLY),
            Op::OpenWrite => sys::open_close(&self.file, libc::O_WRONLY),
            Op::CreateUnlink => {
                let made = sys::open_close(&self.file, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL);
                let removed = sys::unlink(&self.other);
                if made == removed { made } else { -1 }
            }
            // There and back; what is denied never gets there.
            Op::Rename if self.denied || turn.is_multiple_of(2) => sys::rename(&self.file, &self.other),
            Op::Rename => sys::rename(&self.other, &self.file),
            Op::Write4k => self.open.as_ref().map_or(libc::EBADF, |file| sys::overwrite(file, &self.block)),
            Op::Fork => sys::fork_and_wait(),
            Op::VforkExec => sys::spawn_and_wait(&self.program, &[&self.program, c"true"]),
            Op::ExecArgv => sys::spawn_and_wait(&self.program, &places::COMMAND),
            Op::Signal => sys::signal_self(),
            Op::Connect => {
                let socket = usize::try_from(turn).ok().and_then(|turn| self.sockets.get(turn));
                socket.map_or(libc::EBADF, |socket| sys::connect(socket, &self.address))
            }
            Op::Send => self.pair.as_ref().map_or(libc::EBADF, Pair::send),
            Op::Accept => self.queue.as_mut().map_or(libc::EBADF, Queue::accept),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for op in Op::ALL {
            assert_eq!(Op::from_name(op.name()), Some(op));
        }
        assert_eq!(Op::from_name("close"), None);
    }

    #[test]
    fn renames_come_in_pairs() {
        assert!(Op::Rename.times().is_multiple_of(2) && Op::Rename.warm_up().is_multiple_of(2));
    }
}
