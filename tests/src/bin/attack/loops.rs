//! Things done again and again, beside whatever the guard goes through meanwhile.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Attack;
use crate::sys::{self, args, errno, exit, open, outcome};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("unlink-until", unlink_until),
    ("denied-until", denied_until),
    ("unlink-times", unlink_times),
    ("unlink-each", unlink_each),
    ("open-write-times", open_write_times),
    ("held-thread", held_thread),
    ("comets", comets),
];

/// Deletes until a file appears; answers the first errno that isn't `EPERM` (0 if ever it worked).
/// Writes the number of tries into a file, so that the other side can see it at work.
fn unlink_until(a: &[&str]) -> Result<i32> {
    let [name, stop, count] = args(a)?;
    let mut tries = 0_u64;
    loop {
        let outcome = sys::unlink(name);
        if outcome != libc::EPERM {
            return Ok(outcome);
        }
        tries += 1;
        std::fs::write(count, format!("{tries}\n")).with_context(|| format!("can't write to {count}"))?;
        if Path::new(stop).exists() {
            return Ok(libc::EPERM);
        }
    }
}

/// Deletes one file and opens another for writing, without a pause, until a file appears; answers the first errno that
/// isn't `EPERM` (0 if ever one of them worked). Writes the number of turns into a file now and then. While a file `calm` is
/// there, it takes its time: somebody has to read what is told of each turn.
fn denied_until(a: &[&str]) -> Result<i32> {
    const TURNS: u64 = 64;
    let [delete, write, stop, calm, count] = args(a)?;
    let mut turns = 0_u64;
    let mut slow = false;
    loop {
        for outcome in [sys::unlink(delete), outcome(open(write, libc::O_WRONLY))] {
            if outcome != libc::EPERM {
                return Ok(outcome);
            }
        }
        turns += 1;
        if slow || turns.is_multiple_of(TURNS) {
            std::fs::write(count, format!("{turns}\n")).with_context(|| format!("can't write to {count}"))?;
            if Path::new(stop).exists() {
                return Ok(libc::EPERM);
            }
            slow = Path::new(calm).exists();
        }
        if slow {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Deletes so many times; answers the first errno that isn't `EPERM`.
fn unlink_times(a: &[&str]) -> Result<i32> {
    let [name, times] = args(a)?;
    let times: u32 = times.parse().context("that is no number")?;
    Ok((0..times).map(|_| sys::unlink(name)).find(|&errno| errno != libc::EPERM).unwrap_or(libc::EPERM))
}

/// So many processes that each delete a file of their own, `DIR/0` and so on. Prints what came of each as it comes.
fn unlink_each(a: &[&str]) -> Result<i32> {
    let [dir, count] = args(a)?;
    let count: u32 = count.parse().context("that is no number")?;
    for number in 0..count {
        // SAFETY: this program has one thread.
        match unsafe { libc::fork() } {
            -1 => anyhow::bail!("can't fork: {}", std::io::Error::last_os_error()),
            0 => {
                let outcome = sys::unlink(&format!("{dir}/{number}"));
                println!("{number} {}", tests::errno_name(outcome));
                exit(0);
            }
            _ => {}
        }
    }
    for _ in 0..count {
        let mut status = 0;
        // SAFETY: writes the status of one of our own children.
        let ended = errno(unsafe { libc::waitpid(-1, &raw mut status, 0) });
        anyhow::ensure!(ended == 0, "can't wait for a child: {}", tests::errno_name(ended));
    }
    Ok(0)
}

/// Opens for writing so many times; answers the first errno.
fn open_write_times(a: &[&str]) -> Result<i32> {
    let [name, times] = args(a)?;
    let times: u32 = times.parse().context("that is no number")?;
    Ok((0..times).map(|_| outcome(open(name, libc::O_WRONLY))).find(|&errno| errno != 0).unwrap_or(0))
}

/// Two threads: one deletes, the other counts what time it gets into a file. Answers what the deleting
/// thread got.
fn held_thread(a: &[&str]) -> Result<i32> {
    let [name, count] = args(a)?;
    let name = name.to_owned();
    let thread = std::thread::spawn(move || sys::unlink(&name));
    let mut turns = 0_u64;
    while !thread.is_finished() {
        turns += 1;
        std::fs::write(count, format!("{turns}\n")).with_context(|| format!("can't write to {count}"))?;
        std::thread::sleep(Duration::from_millis(1));
    }
    thread.join().map_err(|_panic| anyhow::anyhow!("the thread panicked"))
}

/// So many processes that each live for a moment and leave a child behind: whoever kills what a list
/// shows is always too late. Each holds a lock on a file for as long as any of them lives.
fn comets(a: &[&str]) -> Result<i32> {
    let [count, alive] = args(a)?;
    let count: u32 = count.parse().context("that is no number")?;
    let lock = sys::need("can't open the lock", open(alive, libc::O_RDONLY))?;
    // SAFETY: takes numbers. The children share the lock with the open file.
    let locked = errno(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) });
    anyhow::ensure!(locked == 0, "can't lock {alive}: {}", tests::errno_name(locked));
    for _ in 0..count {
        // SAFETY: this program has one thread.
        match unsafe { libc::fork() } {
            -1 => anyhow::bail!("can't fork: {}", std::io::Error::last_os_error()),
            0 => comet(),
            _ => {}
        }
    }
    println!("flying");
    comet()
}

/// Forks and ends, for ever. Where forking fails it tries again.
fn comet() -> ! {
    loop {
        std::thread::sleep(Duration::from_millis(5));
        // SAFETY: a process with one thread.
        if unsafe { libc::fork() } > 0 {
            exit(0);
        }
    }
}
