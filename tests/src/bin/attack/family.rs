//! Trees that run already when somebody makes a session of them: each member tries when it is told to.
//!
//! `family DIR VICTIMS ROUNDS`: member NAME waits for `DIR/go-N`, deletes `VICTIMS/NAME-N` and says how it went in
//! `DIR/NAME-N`. `forking DIR VICTIMS COUNT`: see [`forking`]. `hold-open HOW PATH`: see [`hold_open`].

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::parent_id;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use io_uring::IoUring;
use rustix::time::{ClockId, clock_gettime};

use crate::Attack;
use crate::sys::{self, args, errno, exit, need, open, outcome};
use crate::uring::Ring;

pub(crate) const ATTACKS: &[(&str, Attack)] =
    &[("family", family), ("forking", forking), ("hold-open", hold_open)];

/// How often somebody looks whether it is time.
const PAUSE: Duration = Duration::from_millis(3);
/// Every so many of those that [`forking`] leaves behind stay until the others are told to go on.
const STAYS: u64 = 3;

/// The members' common orders.
#[derive(Clone)]
struct Orders {
    dir: String,
    victims: String,
    rounds: u32,
}

impl Orders {
    /// Deletes in each round, in the way of this member.
    fn follow(&self, name: &str, mut unlink: impl FnMut(&str) -> Result<i32>) -> Result<()> {
        std::fs::write(format!("{}/{name}-ready", self.dir), "ready\n").context("can't report")?;
        for round in 1..=self.rounds {
            wait_for(&format!("{}/go-{round}", self.dir));
            let outcome = unlink(&format!("{}/{name}-{round}", self.victims))?;
            let report = format!("{}/{name}-{round}", self.dir);
            std::fs::write(&report, format!("{}\n", tests::errno_name(outcome)))
                .with_context(|| format!("can't write {report}"))?;
        }
        Ok(())
    }

    fn plainly(&self, name: &str) -> Result<()> {
        self.follow(name, |victim| Ok(sys::unlink(victim)))
    }

    /// In a child, which may have children; ends with it.
    fn in_child(&self, name: &str, also: impl FnOnce(&Self) -> Result<Thread>) -> Result<i32> {
        // SAFETY: whoever forks here has one thread, or uses nothing that another could hold in the child.
        match unsafe { libc::fork() } {
            -1 => bail!("can't fork: {}", std::io::Error::last_os_error()),
            0 => {
                let done = also(self).and_then(|thread| self.plainly(name).and_then(|()| join(thread)));
                exit(i32::from(done.is_err()))
            }
            child => Ok(child),
        }
    }
}

/// A thread that follows orders, too.
type Thread = Option<std::thread::JoinHandle<Result<()>>>;

fn join(thread: Thread) -> Result<()> {
    let done = thread.map(|thread| thread.join().map_err(|_panic| anyhow::anyhow!("a thread panicked")));
    done.transpose()?.transpose()?;
    Ok(())
}

fn wait_for(file: &str) {
    while !Path::new(file).exists() {
        std::thread::sleep(PAUSE);
    }
}

/// Threads, children, their children, one of another session, and rings.
fn family(a: &[&str]) -> Result<i32> {
    let [dir, victims, rounds] = args(a)?;
    let rounds = rounds.parse().context("that is no number")?;
    let orders = Orders { dir: dir.to_owned(), victims: victims.to_owned(), rounds };
    let child = orders.in_child("child", |orders| {
        orders.in_child("grandchild", |orders| {
            let orders = orders.clone();
            Ok(Some(std::thread::spawn(move || orders.plainly("grandchild-thread"))))
        })?;
        orders.in_child("apart", |_| {
            // SAFETY: takes nothing.
            let apart = errno(unsafe { libc::setsid() });
            anyhow::ensure!(apart == 0, "can't leave the terminal");
            Ok(None)
        })?;
        Ok(None)
    })?;
    // Before there are threads.
    let mut threads = Vec::new();
    for name in ["sqpoll", "async"] {
        let orders = orders.clone();
        let mut ring = Ring::new(name)?;
        // Its workers are there, too.
        ring.unlink(&format!("{}/no-such-file", orders.victims))?;
        threads.push(std::thread::spawn(move || orders.follow(name, |victim| ring.unlink(victim))));
    }
    let of_thread = orders.clone();
    threads.push(std::thread::spawn(move || of_thread.plainly("thread")));
    orders.plainly("leader")?;
    for thread in threads {
        join(Some(thread))?;
    }
    sys::errno_of_child(child)
}

/// Now, nanoseconds since boot.
fn now() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Forks as fast as it can children that fork and end at once. Whom they leave behind looks when it last had its parent,
/// waits for `DIR/go`, creates a file in VICTIMS and adds a line to `DIR/outcomes`: that time, now, and how it went. After
/// `go` there are COUNT more.
fn forking(a: &[&str]) -> Result<i32> {
    let [dir, victims, count] = args(a)?;
    let count: u64 = count.parse().context("that is no number")?;
    let path = format!("{dir}/outcomes");
    let log = File::options().append(true).create(true).open(&path);
    let log = log.with_context(|| format!("can't open {path}"))?;
    let go = format!("{dir}/go");
    let (mut number, mut left) = (0_u64, count);
    while left > 0 {
        number += 1;
        if Path::new(&go).exists() {
            left -= 1;
        }
        // SAFETY: this program has one thread.
        match unsafe { libc::fork() } {
            -1 => bail!("can't fork: {}", std::io::Error::last_os_error()),
            0 => {
                let (parent, begun) = (std::process::id(), now());
                // SAFETY: as above.
                match unsafe { libc::fork() } {
                    0 => orphan(&log, &go, victims, number, (parent, begun)),
                    child => exit(i32::from(child < 0)),
                }
            }
            middle => {
                let failed = sys::errno_of_child(middle)?;
                anyhow::ensure!(failed == 0, "a child can't fork");
            }
        }
        if number == 1 {
            println!("forking");
        }
    }
    Ok(0)
}

/// One that is left behind by a parent that was there at that time.
fn orphan(mut log: &File, go: &str, victims: &str, number: u64, (parent, mut last): (u32, i64)) -> ! {
    loop {
        let before = now();
        if parent_id() != parent {
            break;
        }
        last = before;
    }
    if number.is_multiple_of(STAYS) {
        wait_for(go);
    } else if !Path::new(go).exists() {
        exit(0);
    }
    let name = format!("{victims}/escaped-{number}");
    let outcome = outcome(open(&name, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL));
    let line = format!("{last} {} {}\n", now(), tests::errno_name(outcome));
    exit(i32::from(log.write_all(line.as_bytes()).is_err()))
}

/// What is open while a process waits to be killed.
enum Open {
    File { _descriptor: OwnedFd },
    Mapping { _address: *mut libc::c_void },
    Ring { _ring: Box<IoUring> },
}

/// Opens something in one way, says `open`, and waits: `hold-open HOW PATH`.
fn hold_open(a: &[&str]) -> Result<i32> {
    let [how, path] = args(a)?;
    let file = |flags| need("can't open it", open(path, flags));
    let mut kept = Vec::new();
    match how {
        "write" => kept.push(Open::File { _descriptor: file(libc::O_WRONLY)? }),
        "read" => kept.push(Open::File { _descriptor: file(libc::O_RDONLY)? }),
        // The descriptor is closed; the mapping stays. One that is only read can be made one that is written to.
        "map" | "map-read" => {
            let file = file(libc::O_RDWR)?;
            let protection = if how == "map" { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
            // SAFETY: a new mapping, which nobody uses.
            let address = unsafe {
                libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
            };
            anyhow::ensure!(address != libc::MAP_FAILED, "can't map it");
            kept.push(Open::Mapping { _address: address });
        }
        "map-private" => {
            let file = file(libc::O_RDONLY)?;
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new mapping, which nobody uses.
            let address = unsafe {
                libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
            };
            anyhow::ensure!(address != libc::MAP_FAILED, "can't map it");
            kept.push(Open::Mapping { _address: address });
        }
        "ring" => kept.push(Open::Ring { _ring: Box::new(IoUring::new(4).context("can't make a ring")?) }),
        "ring-file" => {
            let (ring, file) = (IoUring::new(4).context("can't make a ring")?, file(libc::O_RDWR)?);
            ring.submitter().register_files(&[file.as_raw_fd()]).context("can't register the file")?;
            kept.push(Open::Ring { _ring: Box::new(ring) });
        }
        other => bail!("nothing is held open in the way {other:?}"),
    }
    println!("open");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
