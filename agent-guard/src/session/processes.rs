//! The processes of sessions, as the kernel side tells of them: who started whom, with what.
//!
//! Kept for some time after they end, because a decision can arrive after the end of its process.

use std::collections::HashMap;

use agent_guard_common::event::{Exec, Header, Lifecycle};

use super::proc;
use crate::{
    api::types::{ProcessInfo, Time},
    kernel::record,
    sys,
};

/// Ended processes that are kept, at most.
const KEPT: usize = 8192;

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Number.
    pub pid: u32,
    /// Start, nanoseconds since boot.
    pub start: u64,
    /// Parent.
    pub ppid: u32,
    /// Number of the session.
    pub session: u64,
    /// Real user id.
    pub uid: u32,
    /// Program.
    pub exe: String,
    /// Arguments.
    pub cmd_line: String,
    /// Whether it has ended.
    pub ended: bool,
}

/// Processes by number.
#[derive(Debug, Default)]
pub struct Processes {
    all: HashMap<u32, Process>,
    /// When a process of a session last made another, nanoseconds since boot.
    forks: HashMap<u64, u64>,
    ended: std::collections::VecDeque<(u32, u64)>,
}

impl Processes {
    /// Takes in a process that exists: a session's first, or one found at start.
    pub fn found(&mut self, pid: u32, session: u64) -> std::io::Result<()> {
        let stat = proc::stat(pid)?;
        let (uid, _) = proc::ids(pid).unwrap_or_default();
        self.all.insert(
            pid,
            Process {
                pid,
                start: proc::nanoseconds(stat.start),
                ppid: stat.ppid,
                session,
                uid,
                exe: proc::exe(pid).unwrap_or_default(),
                cmd_line: proc::cmd_line(pid).unwrap_or_default(),
                ended: stat.dead(),
            },
        );
        Ok(())
    }

    /// A process made another.
    pub fn forked(&mut self, fork: &Lifecycle) {
        self.forks.insert(fork.header.session, fork.header.time);
        let parent = self.of(&fork.header);
        let child =
            Process { pid: fork.child, start: fork.child_start, ppid: parent.pid, ended: false, ..parent };
        self.all.insert(child.pid, child);
    }

    /// A process executed a program.
    pub fn executed(&mut self, exec: &Exec) {
        let (name, args) = record::command(exec);
        let mut process = self.of(&exec.header);
        // What the process runs now, if it still does: the name it was executed by may be relative.
        process.exe = match proc::exe(process.pid) {
            Some(exe) if name.starts_with('/') == exe.starts_with('/') || !name.starts_with('/') => exe,
            _ => name,
        };
        process.cmd_line = args.join(" ");
        process.uid = exec.header.uid;
        self.all.insert(process.pid, process);
    }

    /// A process ended.
    pub fn exited(&mut self, exit: &Header) {
        if let Some(process) = self.all.get_mut(&exit.tgid)
            && !process.ended
        {
            process.ended = true;
            self.ended.push_back((process.pid, process.start));
        }
        while self.ended.len() > KEPT {
            if let Some((pid, start)) = self.ended.pop_front()
                && self.all.get(&pid).is_some_and(|process| process.start == start)
            {
                self.all.remove(&pid);
            }
        }
    }

    /// Marks processes as ended that are no more: the record of it may be lost, or was of the first thread only.
    pub fn prune(&mut self) {
        let mut ended = Vec::new();
        for process in self.all.values_mut().filter(|process| !process.ended) {
            let gone = match proc::stat(process.pid) {
                Ok(stat) => stat.dead() || proc::ticks(process.start).abs_diff(stat.start) > 1,
                Err(error) => {
                    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
                }
            };
            if gone {
                process.ended = true;
                ended.push((process.pid, process.start));
            }
        }
        self.ended.extend(ended);
    }

    /// The process a record is about: what is known of it, else what the record says.
    #[must_use]
    pub fn of(&self, header: &Header) -> Process {
        // What leaves a socket is whose socket it is, not the process's whose turn it was.
        if header.start == 0 {
            return Process { session: header.session, ..self.by_number(header.tgid) };
        }
        let known = self.all.get(&header.tgid).filter(|process| {
            // `/proc` counts in ticks, the kernel in nanoseconds.
            proc::ticks(process.start).abs_diff(proc::ticks(header.start)) <= 1
        });
        match known {
            Some(process) => Process { session: header.session, uid: header.uid, ..process.clone() },
            None => Process {
                pid: header.tgid,
                start: header.start,
                ppid: header.ppid,
                session: header.session,
                uid: header.uid,
                exe: proc::exe(header.tgid).unwrap_or_else(|| record::text(&header.comm)),
                cmd_line: proc::cmd_line(header.tgid).unwrap_or_else(|| record::text(&header.comm)),
                ended: false,
            },
        }
    }

    /// A process of which only the number is known: what is known of it, else what `/proc` says now.
    #[must_use]
    pub fn by_number(&self, pid: u32) -> Process {
        if let Some(known) = self.all.get(&pid).filter(|process| !process.ended) {
            return known.clone();
        }
        let stat = proc::stat(pid).ok();
        Process {
            pid,
            start: stat.as_ref().map_or(0, |stat| proc::nanoseconds(stat.start)),
            ppid: stat.map_or(0, |stat| stat.ppid),
            session: 0,
            uid: proc::ids(pid).map_or(0, |(uid, _)| uid),
            exe: proc::exe(pid).unwrap_or_default(),
            cmd_line: proc::cmd_line(pid).unwrap_or_default(),
            ended: false,
        }
    }

    /// Its parents within the session, the nearest first.
    #[must_use]
    pub fn parents(&self, process: &Process) -> Vec<Process> {
        let mut parents = Vec::new();
        let mut at = process.clone();
        while parents.len() < 64
            && let Some(parent) = self.all.get(&at.ppid)
            && parent.session == process.session
            && parent.start <= at.start
            && parent.pid != at.pid
        {
            parents.push(parent.clone());
            at = parent.clone();
        }
        parents
    }

    /// Living processes of a session, as far as they are known.
    pub fn living(&self, session: u64) -> impl Iterator<Item = &Process> {
        self.all.values().filter(move |process| process.session == session && !process.ended)
    }

    /// When a process of a session last made another, nanoseconds since boot; 0 for never.
    #[must_use]
    pub fn last_fork(&self, session: u64) -> u64 {
        self.forks.get(&session).copied().unwrap_or_default()
    }

    /// Forgets a session's processes.
    pub fn forget(&mut self, session: u64) {
        self.forks.remove(&session);
        self.all.retain(|_, process| process.session != session);
    }
}

impl Process {
    /// For answers and events.
    #[must_use]
    pub fn info(&self) -> ProcessInfo {
        ProcessInfo {
            pid: self.pid,
            started: time_of(self.start),
            exe: self.exe.clone(),
            cmd_line: self.cmd_line.clone(),
            uid: self.uid,
            user: sys::user_name(self.uid),
        }
    }
}

/// Wall-clock time of nanoseconds since boot, the same for every daemon since then.
#[must_use]
pub fn time_of(boot_ns: u64) -> Time {
    Time(proc::fixed_boot_time_ms().saturating_add(boot_ns / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(pid: u32, start: u64) -> Header {
        Header {
            size: 0,
            kind: 0,
            abi: 1,
            time: 0,
            session: 5,
            start,
            tgid: pid,
            tid: pid,
            ppid: 1,
            uid: 0,
            gid: 0,
            pad: 0,
            comm: *b"agent\0\0\0\0\0\0\0\0\0\0\0",
        }
    }

    fn fork(parent: u32, start: u64, child: u32, child_start: u64) -> Lifecycle {
        Lifecycle { header: header(parent, start), child_start, child, pad: 0 }
    }

    #[test]
    fn parents_up_to_the_root() {
        let mut processes = Processes::default();
        let far = u32::MAX - 10;
        let second = 1_000_000_000;
        processes.forked(&fork(far, second, far + 1, 2 * second));
        processes.forked(&fork(far + 1, 2 * second, far + 2, 3 * second));
        let leaf = processes.of(&header(far + 2, 3 * second));
        assert_eq!(leaf.ppid, far + 1);
        let parents: Vec<_> = processes.parents(&leaf).iter().map(|process| process.pid).collect();
        assert_eq!(parents, [far + 1]);
        processes.exited(&header(far + 1, 2 * second));
        assert_eq!(processes.living(5).count(), 1);
        // Ended, but still there for a decision that arrives late.
        assert_eq!(processes.parents(&leaf).len(), 1);
    }

    #[test]
    fn a_number_that_is_used_again_is_another_process() {
        let mut processes = Processes::default();
        let far = u32::MAX - 10;
        processes.forked(&fork(1, 0, far, 1_000_000_000));
        let other = processes.of(&header(far, 9_000_000_000));
        assert_eq!((other.ppid, other.exe.as_str()), (1, "agent"));
    }
}
