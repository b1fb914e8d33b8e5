//! How the kernel knows what the daemon has open: asked of the kernel side's iterator, which sees what the hooks see.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use agent_guard_common::{ObjectKey, object::Identified};

use super::Error;
use crate::{
    policy::{Identify, Identity},
    sys::bpf,
};

/// The iterator over this process's open files.
pub struct Iterator {
    link: OwnedFd,
}

impl Iterator {
    /// Ties the pinned program to this process.
    ///
    /// # Errors
    ///
    /// If the program isn't there, or the kernel refuses.
    pub fn new(program: &Path) -> Result<Self, Error> {
        let object = program.display().to_string();
        let program = bpf::open_pin(program).map_err(Error::call("bpf(BPF_OBJ_GET)", object.clone()))?;
        let link = bpf::link_task_iterator(program.as_fd(), std::process::id())
            .map_err(Error::call("bpf(BPF_LINK_CREATE)", object))?;
        Ok(Self { link })
    }

    fn read(&self) -> io::Result<HashMap<i32, Identity>> {
        let mut data = Vec::new();
        File::from(bpf::open_iterator(self.link.as_fd())?).read_to_end(&mut data)?;
        let (records, rest) = data.as_chunks::<{ size_of::<Identified>() }>();
        if !rest.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "half a record"));
        }
        Ok(records.iter().map(identity).collect())
    }
}

/// A record, as `repr(C)` lays it out.
fn identity(record: &[u8; size_of::<Identified>()]) -> (i32, Identity) {
    let [a, b, rest @ ..] = record.as_chunks::<8>().0 else { return (-1, nothing()) };
    let (ino, root_ino) = (u64::from_ne_bytes(*a), u64::from_ne_bytes(*b));
    let [fd, dev, igen, root_igen] = rest.as_flattened().as_chunks::<4>().0 else { return (-1, nothing()) };
    let [fd, dev, igen, root_igen] = [fd, dev, igen, root_igen].map(|word| u32::from_ne_bytes(*word));
    let key = ObjectKey::new(dev, ino, igen);
    (fd.cast_signed(), Identity { key, root: ObjectKey::new(dev, root_ino, root_igen) })
}

fn nothing() -> Identity {
    Identity { key: ObjectKey::ANYWHERE, root: ObjectKey::ANYWHERE }
}

impl Identify for Iterator {
    fn identify(&self, fds: &[BorrowedFd<'_>]) -> io::Result<Vec<Identity>> {
        if fds.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.read()?;
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "the kernel doesn't say what is open");
        fds.iter().map(|fd| known.get(&fd.as_raw_fd()).copied().ok_or_else(unknown)).collect()
    }
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
        for (at, value) in [(16, 5u32), (20, 9), (24, 11), (28, 13)] {
            record[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        let expected = Identity { key: ObjectKey::new(9, 7, 11), root: ObjectKey::new(9, 2, 13) };
        assert_eq!(identity(&record), (5, expected));
    }
}
