//! Sessions: who runs, since when, for whom. Each has a file, so that a daemon that starts again knows what the
//! kernel still enforces.

pub mod look;
pub mod open;
pub mod proc;
pub mod processes;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::api::types::{Mode, Origin, SessionInfo, SessionState, Time, Who};

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Id, for people.
    pub id: Ulid,
    /// Number, for the kernel.
    pub number: u64,
    /// Slot in the kernel's table.
    pub slot: u32,
    /// Name of the profile.
    pub profile: String,
    /// Index of the profile.
    pub index: u32,
    /// Whether the profile blocked when the session began.
    pub mode: Mode,
    /// A name for people.
    pub name: Option<String>,
    /// What it is for.
    pub task: Option<String>,
    /// Command it was started with.
    pub command: Vec<String>,
    /// Directory it was started in.
    pub cwd: String,
    /// When it began.
    pub started: Time,
    /// When it ended.
    pub ended: Option<Time>,
    /// Where it is in its life.
    pub state: SessionState,
    /// Who started it.
    pub started_by: Who,
    /// Its first process.
    pub root_pid: u32,
    /// Its terminal in the kernel's encoding; 0 for none.
    pub tty: u32,
    /// What its own paths are kept under; 0 for none.
    #[serde(default)]
    pub binding: u32,
    /// Its own paths.
    #[serde(default)]
    pub paths: Option<OwnPaths>,
    /// How it began.
    #[serde(default)]
    pub origin: Origin,
    /// What a standing session is known by, see [`crate::policy::Enroll::key`].
    #[serde(default)]
    pub enrolled: Option<String>,
    /// Its number among those; 0 for others.
    #[serde(default)]
    pub standing: u32,
    /// The sessions that it was started in, the outermost first.
    #[serde(default)]
    pub outer: Vec<Outer>,
    /// Which of them it has the rules of, because its own aren't certainly as strict any more; none: it has its own.
    #[serde(default)]
    pub instead: Option<usize>,
}

/// Rules that a session can have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnRules {
    /// Name of the profile.
    pub profile: String,
    /// Index of the profile.
    pub index: u32,
    /// What its own paths are kept under; 0 for none.
    pub binding: u32,
    /// Its own paths.
    pub paths: Option<OwnPaths>,
}

/// A session that another was started in: kept there, because it can end before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outer {
    /// Its id.
    pub id: Ulid,
    /// Its number.
    pub number: u64,
    /// Its own rules.
    pub rules: OwnRules,
}

/// What `${cwd}`, `${home}` and `${tmp}` stood for when a session began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnPaths {
    /// Where it was started.
    pub cwd: PathBuf,
    /// Home directory of the user who started it.
    pub home: Option<PathBuf>,
    /// Temporary files.
    pub tmp: PathBuf,
    /// The objects that these were, in this order: device, inode number, inode generation. A session that puts something
    /// else in such a place doesn't get it.
    pub objects: Vec<(u32, u64, u32)>,
}

impl OwnPaths {
    /// The paths that there are.
    #[must_use]
    pub fn all(&self) -> Vec<PathBuf> {
        [Some(&self.cwd), self.home.as_ref(), Some(&self.tmp)].into_iter().flatten().cloned().collect()
    }
}

impl Session {
    /// The rules that it was started with.
    #[must_use]
    pub fn own_rules(&self) -> OwnRules {
        OwnRules {
            profile: self.profile.clone(),
            index: self.index,
            binding: self.binding,
            paths: self.paths.clone(),
        }
    }

    /// The rules that it has.
    #[must_use]
    pub fn rules(&self) -> OwnRules {
        let instead = self.instead.and_then(|at| self.outer.get(at));
        instead.map_or_else(|| self.own_rules(), |outer| outer.rules.clone())
    }

    /// Whether it was started in another one.
    #[must_use]
    pub fn is_in(&self, number: u64) -> bool {
        self.outer.iter().any(|outer| outer.number == number)
    }

    /// For answers.
    #[must_use]
    pub fn info(&self, processes: u64) -> SessionInfo {
        SessionInfo {
            id: self.id,
            name: self.name.clone(),
            profile: self.profile.clone(),
            mode: self.mode,
            task: self.task.clone(),
            command: self.command.clone(),
            cwd: self.cwd.clone(),
            started: self.started,
            ended: self.ended,
            state: self.state,
            started_by: self.started_by.clone(),
            root_pid: self.root_pid,
            origin: self.origin,
            parent: self.outer.last().map(|outer| outer.id),
            processes,
        }
    }
}

/// Why a session's file failed.
#[derive(Debug, thiserror::Error)]
#[error("{call} {}: {source}", path.display())]
pub struct StoreError {
    /// What was done.
    pub call: &'static str,
    /// To which file.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

fn failed(call: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError { call, path: path.clone(), source }
}

/// The files of sessions, below the state directory. That is on a file system which the next boot empties: sessions
/// don't outlive it either.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Opens it, and makes the directory.
    ///
    /// # Errors
    ///
    /// If it can't be made.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        let directory = state.join("sessions");
        fs::create_dir_all(&directory).map_err(failed("mkdir", &directory))?;
        Ok(Self { directory })
    }

    fn path(&self, id: Ulid) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    /// Writes a session, whole or not at all.
    ///
    /// # Errors
    ///
    /// If the file can't be written.
    pub fn write(&self, session: &Session) -> Result<(), StoreError> {
        let path = self.path(session.id);
        let new = path.with_extension("new");
        let text =
            serde_json::to_vec_pretty(session).map_err(io::Error::from).map_err(failed("write", &path))?;
        fs::write(&new, text).map_err(failed("write", &new))?;
        fs::rename(&new, &path).map_err(failed("rename", &path))
    }

    /// Removes a session.
    ///
    /// # Errors
    ///
    /// If the file can't be removed.
    pub fn remove(&self, id: Ulid) -> Result<(), StoreError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("unlink", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Reads all. A file that can't be read is left out and returned as an error beside them.
    ///
    /// # Errors
    ///
    /// If the directory can't be read.
    pub fn read(&self) -> Result<(Vec<Session>, Vec<StoreError>), StoreError> {
        let (mut sessions, mut errors) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.directory).map_err(failed("readdir", &self.directory))? {
            let path = entry.map_err(failed("readdir", &self.directory))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let read = fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
            match read {
                Ok(session) => sessions.push(session),
                Err(error) => errors.push(failed("read", &path)(error)),
            }
        }
        Ok((sessions, errors))
    }
}
