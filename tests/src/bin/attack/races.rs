//! What is judged changed by a second thread while it is judged.
//!
//! Each race writes what it has counted into a file, as JSON: tries, and how many of them reached the file in
//! scope, the protected one, were denied, or found nothing.

use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, RenameFlags};

use crate::Attack;
use crate::sys::{args, errno, own, path};

pub(crate) const ATTACKS: &[(&str, Attack)] =
    &[("race-exchange", exchange), ("race-memory", memory), ("race-moves", moves)];

/// Where tries ended.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) scope: u32,
    pub(crate) protected: u32,
    pub(crate) denied: u32,
    pub(crate) nothing: u32,
}

impl Counts {
    /// Whether all tries ended on one side, as they do when nothing changes meanwhile.
    fn met_one_only(&self) -> bool {
        self.scope == 0 || self.protected + self.denied == 0
    }

    pub(crate) fn write(&self, file: &str) -> Result<()> {
        let Self { scope, protected, denied, nothing } = self;
        let text = format!(
            "{{\"scope\":{scope},\"protected\":{protected},\"denied\":{denied},\"nothing\":{nothing}}}\n"
        );
        std::fs::write(file, text).with_context(|| format!("can't write {file}"))
    }
}

/// The two files that a name may lead to.
struct Goal {
    scope: CString,
    protected: CString,
    /// Device and inode of the protected file.
    number: (u64, u64),
}

/// What is done in each try.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Write,
    Read,
    Truncate,
    Unlink,
    /// To a name in scope.
    Rename,
}

impl Action {
    fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "write" => Self::Write,
            "read" => Self::Read,
            "truncate" => Self::Truncate,
            "unlink" => Self::Unlink,
            "rename" => Self::Rename,
            other => bail!("{other} can't be raced for"),
        })
    }
}

impl Goal {
    fn new(scope: &str, protected: &str) -> Result<Self> {
        let about = Path::new(protected).metadata().with_context(|| format!("can't look at {protected}"))?;
        Ok(Self { scope: path(scope)?, protected: path(protected)?, number: (about.dev(), about.ino()) })
    }

    /// Does it once by a name that another thread may be changing, and counts what came of it.
    fn attempt(&self, action: Action, name: *const libc::c_char, counts: &mut Counts) -> Result<()> {
        let (open, moved) = (libc::O_CLOEXEC | libc::O_NONBLOCK, c"/srv/work/moved".as_ptr());
        // SAFETY: a text that ends in a zero byte, which nobody overwrites; the kernel copies it before it looks.
        let returned = unsafe {
            match action {
                Action::Write => libc::open(name, open | libc::O_WRONLY),
                Action::Read => libc::open(name, open),
                Action::Truncate => libc::open(name, open | libc::O_WRONLY | libc::O_TRUNC),
                Action::Unlink => libc::unlink(name),
                Action::Rename => libc::rename(name, moved),
            }
        };
        match errno(returned) {
            0 => {}
            libc::EPERM => {
                counts.denied += 1;
                return Ok(());
            }
            libc::ENOENT => {
                counts.nothing += 1;
                return Ok(());
            }
            other => bail!("neither done nor denied: {}", tests::errno_name(other)),
        }
        let protected = match action {
            Action::Write | Action::Read | Action::Truncate => {
                let file = std::fs::File::from(own(returned).ok().context("no descriptor")?);
                let about = file.metadata().context("can't look at what was opened")?;
                (about.dev(), about.ino()) == self.number
            }
            Action::Unlink | Action::Rename => self.replace()?,
        };
        *(if protected { &mut counts.protected } else { &mut counts.scope }) += 1;
        Ok(())
    }

    /// Makes the file anew that was taken away; says whether it was the protected one.
    fn replace(&self) -> Result<bool> {
        let make = |name: &CStr| {
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
            // SAFETY: a C string.
            own(unsafe { libc::open(name.as_ptr(), flags, 0o666) })
        };
        match make(&self.scope) {
            Ok(_) => Ok(false),
            Err(libc::EEXIST) => {
                // Only outside of sessions this can succeed.
                drop(make(&self.protected));
                Ok(true)
            }
            Err(other) => bail!("can't make the file anew: {}", tests::errno_name(other)),
        }
    }
}

/// Runs tries beside a thread that does something else again and again: so many, and more until each side was met.
/// On two emulated processors one thread may run for long before the other gets its turn.
pub(crate) fn beside(
    disturb: impl Fn(u64) + Send + Sync,
    tries: &str,
    both: bool,
    mut attempt: impl FnMut(&mut Counts) -> Result<()>,
) -> Result<Counts> {
    let tries: u32 = tries.parse().context("that is no number of tries")?;
    let enough = if both { tries.saturating_mul(100) } else { tries };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                disturb(turn);
                turn += 1;
            }
        });
        let mut counts = Counts::default();
        let mut done = 0;
        let mut result = Ok(());
        while result.is_ok() && (done < tries || (done < enough && counts.met_one_only())) {
            result = attempt(&mut counts);
            done += 1;
        }
        stop.store(true, Ordering::Relaxed);
        result.map(|()| counts)
    })
}

/// `race-exchange REPORT TRIES ACTION NAME OTHER BELOW SCOPE PROTECTED`: NAME and OTHER, of which one leads to the
/// scope and one to what is protected, are exchanged again and again; the action is done on NAME and BELOW.
fn exchange(a: &[&str]) -> Result<i32> {
    let [report, tries, action, name, other, below, scope, protected] = args(a)?;
    let (action, goal) = (Action::parse(action)?, Goal::new(scope, protected)?);
    let target = path(&format!("{name}{}", if below == "-" { "" } else { below }))?;
    let swap = |_turn| {
        rustix::fs::renameat_with(CWD, name, CWD, other, RenameFlags::EXCHANGE).ok();
    };
    let counts = beside(swap, tries, true, |counts| goal.attempt(action, target.as_ptr(), counts))?;
    counts.write(report)?;
    Ok(0)
}

/// `race-memory REPORT TRIES ACTION SCOPE PROTECTED`: the path itself changes in memory between two of the same
/// length.
fn memory(a: &[&str]) -> Result<i32> {
    let [report, tries, action, scope, protected] = args(a)?;
    anyhow::ensure!(scope.len() == protected.len(), "the paths must be of the same length");
    let (action, goal) = (Action::parse(action)?, Goal::new(scope, protected)?);
    let text = Flickering::new(path(scope)?.as_bytes_with_nul(), protected.as_bytes());
    let counts = beside(
        |turn| text.change(turn),
        tries,
        true,
        |counts| goal.attempt(action, text.bytes.as_ptr().cast(), counts),
    )?;
    counts.write(report)?;
    Ok(0)
}

/// Memory that goes back and forth between two contents.
pub(crate) struct Flickering {
    pub(crate) bytes: Vec<AtomicU8>,
    /// Place and both values of what differs.
    differing: Vec<(usize, u8, u8)>,
}

impl Flickering {
    /// Begins as the first; the second says what the first of its bytes become.
    pub(crate) fn new(first: &[u8], second: &[u8]) -> Self {
        let pairs = first.iter().zip(second).enumerate();
        let differing = pairs.filter(|(_, (one, two))| one != two).map(|(at, (one, two))| (at, *one, *two));
        Self { bytes: first.iter().copied().map(AtomicU8::new).collect(), differing: differing.collect() }
    }

    /// Makes it the other one.
    pub(crate) fn change(&self, turn: u64) {
        for (at, one, two) in &self.differing {
            if let Some(place) = self.bytes.get(*at) {
                place.store(if turn.is_multiple_of(2) { *two } else { *one }, Ordering::Relaxed);
            }
        }
        // Most of the time it is one of the two, and nothing in between.
        for _ in 0..turn % 64 {
            std::hint::spin_loop();
        }
    }
}

/// `race-moves REPORT TRIES DIR OTHER`: a directory in scope goes back and forth between two names while files are
/// made and deleted below it. Counts as `scope` what was done.
fn moves(a: &[&str]) -> Result<i32> {
    let [report, tries, dir, other] = args(a)?;
    let handle = crate::sys::need("can't open the directory", crate::sys::open(dir, libc::O_PATH))?;
    let shift = |turn: u64| {
        let (from, to) = if turn.is_multiple_of(2) { (dir, other) } else { (other, dir) };
        drop(std::fs::rename(from, to));
    };
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC;
    let counts = beside(shift, tries, false, |counts| {
        // SAFETY: C strings, and a descriptor that is open.
        let outcome = unsafe {
            match own(libc::openat(handle.as_raw_fd(), c"x".as_ptr(), flags, 0o666)) {
                Ok(_) => errno(libc::unlinkat(handle.as_raw_fd(), c"x".as_ptr(), 0)),
                Err(failed) => failed,
            }
        };
        match outcome {
            0 => counts.scope += 1,
            libc::EPERM => counts.denied += 1,
            libc::ENOENT => counts.nothing += 1,
            other => bail!("neither done nor denied: {}", tests::errno_name(other)),
        }
        Ok(())
    })?;
    counts.write(report)?;
    Ok(0)
}
