//! What sessions have learned, on disk: the next daemon says it anew with its first policy, or connections that have outlasted
//! this one would be denied.
//!
//! A file a session, a line each time that it learns something. Times are of this boot, and so are sessions.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::learned::{Addr, Learned};

/// Lines that say nothing new, at most, before a file is written anew.
const STALE: usize = 4096;

/// The files.
#[derive(Debug)]
pub(in crate::guard) struct Kept {
    directory: PathBuf,
    open: HashMap<u64, Lines>,
}

#[derive(Debug)]
struct Lines {
    file: File,
    count: usize,
}

/// A line.
#[derive(Serialize, Deserialize)]
struct Line {
    name: String,
    addr: Addr,
    /// Nanoseconds since boot.
    until: u64,
}

impl Kept {
    /// The files below the daemon's state directory.
    pub(in crate::guard) fn new(state: &std::path::Path) -> Self {
        Self { directory: state.join("names"), open: HashMap::new() }
    }

    fn path(&self, session: u64) -> PathBuf {
        self.directory.join(format!("{session}.jsonl"))
    }

    /// Notes that a session has learned an address of a name. `all` is everything that it has learned, this included.
    pub(super) fn note(
        &mut self,
        session: u64,
        (name, addr, until): (&str, Addr, u64),
        all: &Learned,
    ) -> io::Result<()> {
        let line = Line { name: name.to_owned(), addr, until };
        if let Some(lines) = self.open.get_mut(&session)
            && lines.count < all.len().saturating_add(STALE)
        {
            lines.count += 1;
            return lines.file.write_all(&line.bytes()?);
        }
        self.write(session, all)
    }

    /// Writes a session's file anew.
    fn write(&mut self, session: u64, all: &Learned) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let (path, new) = (self.path(session), self.path(session).with_extension("new"));
        let mut text = Vec::new();
        for (name, addr, until) in all.all() {
            text.extend(Line { name: name.to_owned(), addr, until }.bytes()?);
        }
        fs::write(&new, text)?;
        fs::rename(&new, &path)?;
        let file = OpenOptions::new().append(true).open(&path)?;
        self.open.insert(session, Lines { file, count: all.len() });
        Ok(())
    }

    /// What a session has learned. A line that an end has cut, and whatever isn't one, is left out: that name is asked for again.
    pub(super) fn read(&self, session: u64, now: u64) -> Learned {
        let mut learned = Learned::default();
        let Ok(file) = File::open(self.path(session)) else { return learned };
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            let Ok(Line { name, addr, until }) = serde_json::from_slice(&line) else { continue };
            if learned.learn(&name, addr, until, now).is_err() {
                break;
            }
        }
        learned
    }

    /// Forgets a session.
    pub(super) fn forget(&mut self, session: u64) {
        self.open.remove(&session);
        match fs::remove_file(self.path(session)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, session, "the names of a session that has ended");
            }
            _ => {}
        }
    }
}

impl Line {
    fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use agent_guard_common::net::mapped;

    use super::*;

    const A: Addr = mapped([192, 0, 2, 1]);

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("agent-guard-names-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn the_next_daemon_knows_it() {
        let state = directory("next");
        let (mut kept, mut learned) = (Kept::new(&state), Learned::default());
        for (name, until) in [("web", 100), ("db", 200), ("web", 300)] {
            learned.learn(name, A, until, 0).unwrap();
            kept.note(7, (name, A, until), &learned).unwrap();
        }
        let path = kept.path(7);
        let mut text = fs::read(&path).unwrap();
        text.extend(b"\xff\n{\"name\":\"cut");
        fs::write(&path, text).unwrap();
        let mut next = Kept::new(&state);
        assert_eq!(next.read(7, 0).all().collect::<Vec<_>>(), [("db", A, 200), ("web", A, 300)]);
        assert_eq!(next.read(8, 0).len(), 0);
        // What another daemon has left is written anew before anything is added.
        learned.learn("mail", A, 400, 0).unwrap();
        next.note(7, ("mail", A, 400), &learned).unwrap();
        assert_eq!(fs::read(&path).unwrap().iter().filter(|byte| **byte == b'\n').count(), 3);
        next.forget(7);
        assert!(!path.exists());
        fs::remove_dir_all(state).unwrap();
    }

    #[test]
    fn files_do_not_grow_for_ever() {
        let state = directory("grow");
        let (mut kept, mut learned) = (Kept::new(&state), Learned::default());
        for until in 0..3 * STALE as u64 {
            learned.learn("web", A, until, 0).unwrap();
            kept.note(1, ("web", A, until), &learned).unwrap();
        }
        let lines = fs::read(kept.path(1)).unwrap().iter().filter(|byte| **byte == b'\n').count();
        assert!(lines <= STALE + 1, "{lines}");
        let read = kept.read(1, 0);
        assert_eq!(read.all().collect::<Vec<_>>(), [("web", A, 3 * STALE as u64 - 1)]);
        fs::remove_dir_all(state).unwrap();
    }
}
