//! Looks at what the processes of a tree have open, and asks the judge about each thing. A process of its own
//! ([`crate::sys::judge`]).

use std::{io, os::fd::AsFd as _, path::Path, time::Duration};

use super::{open, proc};
use crate::sys::judge;

/// How often a busy ring is asked, and how long between.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);

/// What is open and mayn't be, for people.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, pid: u32, what: &str, of: &Path, why: &str) {
        let of = of.display();
        self.0.push(format!("process {pid} has {what} {of}: {why}"));
    }
}

/// Everything that these processes have open and mayn't have. What can't be looked at counts as such; who has ended
/// doesn't.
///
/// # Errors
///
/// If `/proc` can't be read.
pub fn look(pids: &[u32]) -> io::Result<Vec<String>> {
    let mut findings = Findings::default();
    for pid in pids {
        match process(*pid, &mut findings) {
            Ok(()) => {}
            Err(error) if open::has_gone(&error) || dead(*pid) => {}
            Err(error) => {
                findings.0.push(format!("what process {pid} has open can't be looked at: {error}"));
            }
        }
    }
    tracees(pids, &mut findings)?;
    Ok(findings.0)
}

/// What a process hands on to the program that it executes, and that may not have. What can't be looked at counts as such.
///
/// # Errors
///
/// If `/proc` can't be read.
pub fn inherited(pid: u32) -> io::Result<Vec<String>> {
    let mut findings = Findings::default();
    own_tables(pid, &mut findings)?;
    descriptors(pid, open::inherited(pid)?, &mut findings)?;
    tracees(&[pid], &mut findings)?;
    Ok(findings.0)
}

fn dead(pid: u32) -> bool {
    proc::stat(pid).map_or(true, |stat| stat.dead())
}

fn process(pid: u32, findings: &mut Findings) -> io::Result<()> {
    own_tables(pid, findings)?;
    descriptors(pid, open::descriptors(pid)?, findings)?;
    for mapping in open::mappings(pid)? {
        let about = format!("{} mapped for writing,", mapping.range);
        let allowed = match open::mapped(pid, &mapping) {
            Ok(None) => Ok(true),
            Ok(Some(file)) => judge::may_have(file.as_fd()),
            Err(error) => Err(error),
        };
        judged(pid, &about, &mapping.what, allowed, findings);
    }
    Ok(())
}

fn own_tables(pid: u32, findings: &mut Findings) -> io::Result<()> {
    for thread in open::own_tables(pid)? {
        findings.0.push(format!(
            "thread {thread} of process {pid} has descriptors of its own, which can't be looked at"
        ));
    }
    Ok(())
}

fn descriptors(pid: u32, open: Vec<open::Descriptor>, findings: &mut Findings) -> io::Result<()> {
    let process = proc::open(pid)?;
    for descriptor in open {
        let (about, what) = (format!("descriptor {} open,", descriptor.fd), &descriptor.what);
        if what.as_os_str() == open::RING {
            match ring(pid, descriptor.fd) {
                Ok(Some(0)) => {}
                Ok(Some(_)) => findings.add(pid, &about, what, "a ring with registered files"),
                Ok(None) => findings.add(pid, &about, what, "a ring that is always busy"),
                Err(error) => judged(pid, &about, what, Err(error), findings),
            }
            continue;
        }
        let allowed = open::take(&process, descriptor.fd).and_then(|file| judge::may_have(file.as_fd()));
        judged(pid, &about, what, allowed, findings);
    }
    Ok(())
}

fn judged(pid: u32, about: &str, what: &Path, allowed: io::Result<bool>, findings: &mut Findings) {
    match allowed {
        Ok(true) => {}
        Ok(false) => findings.add(pid, about, what, "denied"),
        Err(error) if open::has_gone(&error) => {}
        Err(error) => findings.add(pid, about, what, &format!("it can't be judged: {error}")),
    }
}

fn ring(pid: u32, fd: i32) -> io::Result<Option<u64>> {
    for _ in 0..ATTEMPTS {
        if let Some(files) = open::files_of_ring(pid, fd)? {
            return Ok(Some(files));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(None)
}

/// Who traces somebody else goes on doing that without being asked.
fn tracees(tree: &[u32], findings: &mut Findings) -> io::Result<()> {
    for (tracer, traced) in open::traced()? {
        let by = tree.iter().find(|pid| Path::new(&format!("/proc/{pid}/task/{tracer}")).exists());
        if let Some(by) = by.filter(|_| !tree.contains(&traced)) {
            findings.0.push(format!("process {by} traces process {traced}, which isn't of the tree"));
        }
    }
    Ok(())
}
