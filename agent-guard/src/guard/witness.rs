//! What is done to the guard's own files by whoever isn't in a session: nobody is kept from it, and people hear of it. (What is
//! done to its process and maps the kernel side tells.)

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use agent_guard_common::{Fault, Op, Source, Verdict, event::Hook};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Guard, lock, own};
use crate::{
    api::types::Time,
    events::activity::{Activity, Decided, Event, EventsLost, FileRef, Judged, Object},
    sys::notices::{Done, Notice, Notices},
};

/// Directories below one of the guard's that are watched, too: pins are two deep.
const MAX_DEPTH: usize = 3;
/// Files and directories that are watched, at most; more means that somebody has put them there.
const MAX_WATCHED: usize = 64;
/// The same act by the same process isn't told again for so long: what writes a file writes it many times.
const ONCE: Duration = Duration::from_secs(2);
/// How often the thread looks whether it is to end, and whether there is more to watch.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
/// How often it looks for files and directories that have come or come back.
const LOOK: Duration = Duration::from_secs(1);

/// What is watched, and what was told a moment ago.
#[derive(Default)]
struct Witness {
    watched: BTreeMap<PathBuf, (Notices, (u64, u64))>,
    /// What neither interface takes; said once.
    refused: Vec<PathBuf>,
    told: BTreeMap<(PathBuf, Done, Option<u32>), Instant>,
}

impl Guard {
    /// Tells what is done to the guard's own files, until it is told to stop.
    pub fn watch_own(&self, stop: &AtomicBool) {
        let mut witness = Witness::default();
        let mut looked: Option<Instant> = None;
        while !stop.load(Ordering::Relaxed) {
            if looked.is_none_or(|at| at.elapsed() >= LOOK) {
                witness.look(&own::files(&self.config).paths, self.config.events.parent());
                looked = Some(Instant::now());
            }
            let mut fds: Vec<_> =
                witness.watched.values().map(|(notices, _)| PollFd::new(notices, PollFlags::IN)).collect();
            if let Err(error) = poll(&mut fds, Some(&TURN))
                && error != rustix::io::Errno::INTR
            {
                tracing::error!(%error, "waiting for what is done to the guard's files");
                std::thread::sleep(LOOK);
            }
            for (path, notice) in witness.take() {
                self.say_witnessed(path, &notice);
            }
        }
    }

    fn say_witnessed(&self, path: PathBuf, notice: &Notice) {
        let state = lock(&self.state);
        if notice.done == Done::Lost {
            let now = Time::now();
            self.log.say(Activity::EventsLost(EventsLost {
                kind: "reports".to_owned(),
                place: path.display().to_string(),
                count: 1,
                from: now,
                to: now,
            }));
            return;
        }
        let actor = notice.process.map(|pid| state.actor(&state.processes.by_number(pid)));
        let operation = match notice.done {
            Done::Created => Op::CREATE,
            Done::Removed => Op::DELETE,
            Done::Moved => Op::RENAME,
            Done::Written => Op::WRITE,
            Done::Metadata | Done::Lost => Op::METADATA,
        };
        let judged = Judged {
            actor: actor.unwrap_or_default(),
            decision: Decided {
                policy: state.policy_ref(),
                operation,
                object: Object::File(about(&path), None),
                policy_verdict: Verdict::REPORT,
                source: Source::GUARD,
                rule: None,
                fault: Fault::NONE,
                hook: Hook::NONE,
                errno: 0,
            },
            verdict: Verdict::REPORT,
            hold: None,
        };
        self.log.append(&Event::at(Time::now(), Activity::Judged(judged)));
    }
}

impl Witness {
    /// Watches what is there of these paths, with the directories below them.
    fn look(&mut self, paths: &[PathBuf], log: Option<&Path>) {
        // What has taken the place of something is watched anew; what has gone has said so.
        self.watched.retain(|path, (_, object)| id(path) == Some(*object));
        for path in paths {
            self.watch(path, Some(path.as_path()) == log, 0);
        }
        self.told.retain(|_, at| at.elapsed() < ONCE);
    }

    fn watch(&mut self, path: &Path, busy: bool, depth: usize) {
        let Some(object) = id(path) else { return };
        if !self.watched.contains_key(path) {
            let watched = if self.watched.len() < MAX_WATCHED {
                Notices::of(path, busy)
            } else {
                Err(io::Error::other("more files and directories than are watched"))
            };
            match watched {
                Ok(notices) => drop(self.watched.insert(path.to_owned(), (notices, object))),
                Err(error) if !self.refused.iter().any(|refused| refused == path) => {
                    tracing::warn!(path = %path.display(), %error, "what is done to this by others can't be told");
                    self.refused.push(path.to_owned());
                }
                Err(_) => {}
            }
        }
        if depth == MAX_DEPTH {
            return;
        }
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.watch(&entry.path(), busy, depth + 1);
            }
        }
    }

    /// What others have done since the last time.
    fn take(&mut self) -> Vec<(PathBuf, Notice)> {
        let (me, now) = (std::process::id(), Instant::now());
        let mut all = Vec::new();
        for (path, (notices, _)) in &self.watched {
            let Ok(found) = notices.take() else { continue };
            for notice in found {
                let path = notice.name.as_ref().map_or_else(|| path.clone(), |name| path.join(name));
                if notice.process == Some(me) || kernels_own(&path) {
                    continue;
                }
                let act = (path.clone(), notice.done, notice.process);
                if self.told.get(&act).is_none_or(|before| now.duration_since(*before) >= ONCE) {
                    self.told.insert(act, now);
                    all.push((path, notice));
                }
            }
        }
        all
    }
}

/// Files of a control group that the kernel itself says have changed (`cgroup_file_notify`, kernel/cgroup/cgroup.c).
fn kernels_own(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.starts_with("/sys/fs/cgroup") && [".events", ".events.local"].iter().any(|end| name.ends_with(end))
}

/// Device and inode number.
fn id(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn about(path: &Path) -> FileRef {
    let (dev, ino, mode) = fs::symlink_metadata(path)
        .map_or((0, 0, 0), |metadata| (metadata.dev(), metadata.ino(), metadata.mode()));
    let dev = if ino == 0 {
        String::new()
    } else {
        format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev))
    };
    FileRef { path: path.to_string_lossy().into_owned(), cut: false, dev, ino, mode }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_do_is_told_once() {
        let dir = std::env::temp_dir().join(format!("agent-guard-witness-{}", std::process::id()));
        fs::create_dir_all(dir.join("below")).unwrap();
        let mut witness = Witness::default();
        witness.look(std::slice::from_ref(&dir), None);
        assert_eq!(witness.watched.len(), 2);
        let act = |script: &str| {
            let done = std::process::Command::new("sh").args(["-c", script]).current_dir(&dir).status();
            assert!(done.unwrap().success());
        };
        act("echo 1 > below/f; echo 2 > below/f; mkdir new");
        let told: Vec<_> = witness.take().into_iter().map(|(path, notice)| (path, notice.done)).collect();
        let count = |name: &str, done| told.iter().filter(|one| **one == (dir.join(name), done)).count();
        let counts = [count("below/f", Done::Created), count("below/f", Done::Written)];
        assert_eq!((counts, count("new", Done::Created)), ([1, 1], 1), "{told:?}");
        witness.look(std::slice::from_ref(&dir), None);
        act("touch new/g");
        assert!(witness.take().iter().any(|(path, _)| *path == dir.join("new/g")));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_kernels_own_files() {
        assert!(kernels_own(Path::new("/sys/fs/cgroup/a/cgroup.events")));
        assert!(!kernels_own(Path::new("/sys/fs/cgroup/a/cgroup.freeze")));
        assert!(!kernels_own(Path::new("/etc/agent-guard/policy.d/10.events")));
    }
}
