//! Whether a running tree has something open that its profile wouldn't let it open.

use std::{
    collections::HashSet,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use agent_guard_common::attach::Member;

use super::{Refusal, refused, watch::Watch};
use crate::{
    guard::{Guard, sessions::internal},
    session::{Session, open, proc},
    sys::judge::Judge,
};

/// Findings that are told, at most.
const TOLD: usize = 8;
/// How often a busy ring is asked.
const ATTEMPTS: u32 = 50;

/// What a tree has open and mayn't have.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, pid: u32, what: &str, of: &Path, why: &str) {
        self.0.push(format!("process {pid} has {what} {}: {why}", of.display()));
    }
}

/// The processes among tasks, each once, that have something left to run.
pub(super) fn processes(members: &[Member]) -> Vec<u32> {
    let mut seen = HashSet::new();
    let living = members.iter().filter(|member| member.state != Member::ENDED);
    living.filter(|member| seen.insert(member.tgid)).map(|member| member.tgid).collect()
}

impl Guard {
    /// Refuses if somebody of the tree has something open that the session couldn't open: its own rules as the kernel judges
    /// them.
    pub(super) fn check_rights(
        &self,
        watch: &Watch<'_>,
        session: &Session,
        members: &[Member],
    ) -> Result<(), Refusal> {
        let judge = Judge::start().map_err(internal)?;
        let _stand_in = self.stand_in(session, judge.process())?;
        let mut findings = Findings::default();
        let mut looked_at = HashSet::new();
        let mut left = processes(members);
        // Once more for those that were made meanwhile. What comes later was made by somebody who was looked at.
        for _ in 0..2 {
            for pid in left.drain(..).filter(|pid| looked_at.insert(*pid)) {
                match look_at(pid, &judge, &mut findings) {
                    Err(error) if open::has_gone(&error) || dead(pid) => {}
                    Err(error) => {
                        findings.add(
                            pid,
                            "something open",
                            Path::new(""),
                            &format!("it can't be looked at: {error}"),
                        );
                    }
                    Ok(()) => {}
                }
            }
            left = processes(&watch.members()?);
        }
        tracees(&left, &mut findings).map_err(internal)?;
        match findings.0.as_slice() {
            [] => Ok(()),
            all => {
                let told: Vec<_> = all.iter().take(TOLD).cloned().collect();
                let more = all.len().saturating_sub(TOLD);
                let more = if more == 0 { String::new() } else { format!("; and {more} more") };
                refused(format!(
                    "{}{more}. The profile {} wouldn't let it: close them, or allow them in the policy",
                    told.join("; "),
                    session.profile
                ))
            }
        }
    }
}

fn dead(pid: u32) -> bool {
    proc::stat(pid).map_or(true, |stat| stat.dead())
}

/// One process.
fn look_at(pid: u32, judge: &Judge, findings: &mut Findings) -> std::io::Result<()> {
    let process = proc::open(pid)?;
    for thread in open::own_tables(pid)? {
        findings.add(
            pid,
            "a thread",
            Path::new(&thread.to_string()),
            "it has descriptors of its own, which the kernel shows nobody",
        );
    }
    for descriptor in open::descriptors(pid)? {
        let (fd, what) = (descriptor.fd, &descriptor.what);
        if what.as_os_str() == open::RING {
            match ring(pid, fd)? {
                Some(0) => {}
                Some(_) => {
                    findings.add(pid, &format!("descriptor {fd}"), what, "a ring with registered files")
                }
                None => findings.add(pid, &format!("descriptor {fd}"), what, "a ring that is always busy"),
            }
            continue;
        }
        match open::take(&process, fd).and_then(|file| may_have(judge, &file)) {
            Ok(true) => {}
            Ok(false) => findings.add(pid, &format!("descriptor {fd} open,"), what, "denied"),
            Err(error) if open::has_gone(&error) => {}
            Err(error) => findings.add(
                pid,
                &format!("descriptor {fd} open,"),
                what,
                &format!("it can't be judged: {error}"),
            ),
        }
    }
    for mapping in open::mappings(pid)? {
        let about = format!("{} mapped for writing,", mapping.range);
        match open::mapped(pid, &mapping) {
            Ok(None) => {}
            Ok(Some(file)) => {
                if !may_have(judge, &file)? {
                    findings.add(pid, &about, &mapping.what, "denied");
                }
            }
            Err(error) if open::has_gone(&error) => {}
            Err(error) => findings.add(pid, &about, &mapping.what, &format!("it can't be judged: {error}")),
        }
    }
    Ok(())
}

fn may_have(judge: &Judge, file: &OwnedFd) -> std::io::Result<bool> {
    judge.may_have(file.as_fd())
}

fn ring(pid: u32, fd: i32) -> std::io::Result<Option<u64>> {
    for _ in 0..ATTEMPTS {
        if let Some(files) = open::files_of_ring(pid, fd)? {
            return Ok(Some(files));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Ok(None)
}

/// Who traces somebody else goes on doing that without being asked.
fn tracees(tree: &[u32], findings: &mut Findings) -> std::io::Result<()> {
    for (tracer, traced) in open::traced()? {
        let inside = |pid: u32| tree.contains(&pid);
        let by = tree.iter().find(|pid| Path::new(&format!("/proc/{pid}/task/{tracer}")).exists());
        if let Some(by) = by.filter(|_| !inside(traced)) {
            findings.add(
                *by,
                "another process that it traces,",
                Path::new(&traced.to_string()),
                "outside of the tree",
            );
        }
    }
    Ok(())
}
