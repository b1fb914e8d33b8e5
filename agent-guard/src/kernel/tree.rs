//! The tasks of a tree that is being attached, as the kernel side's iterator tells them.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use agent_guard_common::attach::Member;

use super::Error;
use crate::sys::bpf;

/// The iterator over all tasks.
pub struct Tree {
    link: OwnedFd,
}

impl Tree {
    /// Ties the pinned program to all tasks.
    ///
    /// # Errors
    ///
    /// If the program isn't there, or the kernel refuses.
    pub fn new(program: &Path) -> Result<Self, Error> {
        let object = program.display().to_string();
        let program = bpf::open_pin(program).map_err(Error::call("bpf(BPF_OBJ_GET)", object.clone()))?;
        let link = bpf::link_task_iterator(program.as_fd(), 0)
            .map_err(Error::call("bpf(BPF_LINK_CREATE)", object))?;
        Ok(Self { link })
    }

    /// Passes over all tasks once; what is done with each is up to what `ATTACHING` says.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn pass(&self) -> io::Result<Vec<Member>> {
        let mut data = Vec::new();
        File::from(bpf::open_iterator(self.link.as_fd())?).read_to_end(&mut data)?;
        let (records, rest) = data.as_chunks::<{ size_of::<Member>() }>();
        if !rest.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "half a record"));
        }
        Ok(records.iter().map(member).collect())
    }
}

/// A record, as `repr(C)` lays it out.
fn member(record: &[u8; size_of::<Member>()]) -> Member {
    let [start, session, rest @ ..] = record.as_chunks::<8>().0 else { return Member::default() };
    let (start, session) = (u64::from_ne_bytes(*start), u64::from_ne_bytes(*session));
    let [tgid, tid, state, _] = rest.as_flattened().as_chunks::<4>().0 else { return Member::default() };
    let [tgid, tid, state] = [tgid, tid, state].map(|word| u32::from_ne_bytes(*word));
    Member { start, session, tgid, tid, state, pad: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let mut record = [0u8; 32];
        for (at, value) in [(0, 7u64), (8, 2)] {
            record[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        for (at, value) in [(16, 5u32), (20, 9), (24, Member::ENDING)] {
            record[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        let expected = Member { start: 7, session: 2, tgid: 5, tid: 9, state: Member::ENDING, pad: 0 };
        assert_eq!(member(&record), expected);
    }
}
