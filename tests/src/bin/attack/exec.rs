//! Programs: ones that no path leads to, and arguments that change while they are looked at.

use std::ffi::{CString, c_char};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use anyhow::{Context, Result, bail};

use crate::Attack;
use crate::sys::{args, errno, errno_of_child, in_fork, need, open, own, path};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("exec-memfd", |a| args(a).and_then(|[program]| exec_copy(program, in_memory()?))),
    ("exec-deleted", |a| args(a).and_then(|[program, dir]| exec_copy(program, deleted(dir)?))),
    ("exec-tmpfile", |a| args(a).and_then(|[program, dir]| exec_copy(program, nameless(dir)?))),
    ("exec-race", race),
    ("exec-long", long),
];

fn in_memory() -> Result<OwnedFd> {
    // SAFETY: a C string.
    need("can't make a file in memory", own(unsafe { libc::memfd_create(c"copy".as_ptr(), 0) }))
}

/// A file that has no name any more.
fn deleted(dir: &str) -> Result<OwnedFd> {
    let name = format!("{dir}/deleted-{}", std::process::id());
    let file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o755).open(&name);
    let file = file.with_context(|| format!("can't make {name}"))?;
    std::fs::remove_file(&name).with_context(|| format!("can't remove {name}"))?;
    Ok(file.into())
}

/// A file that never had one.
fn nameless(dir: &str) -> Result<OwnedFd> {
    let dir = path(dir)?;
    // SAFETY: a C string that lives through the call.
    let fd = unsafe { libc::open(dir.as_ptr(), libc::O_TMPFILE | libc::O_WRONLY | libc::O_CLOEXEC, 0o755) };
    need("can't make a file without a name", own(fd))
}

/// Executes a copy of a program.
fn exec_copy(program: &str, to: OwnedFd) -> Result<i32> {
    let bytes = std::fs::read(program).with_context(|| format!("can't read {program}"))?;
    let mut file = std::fs::File::from(to);
    file.write_all(&bytes).context("can't write the copy")?;
    // What is open for writing isn't executed.
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    let copy = need("can't open the copy", open(&name, libc::O_RDONLY))?;
    drop(file);
    let arguments = [c"program".as_ptr(), std::ptr::null()];
    let none = [std::ptr::null::<c_char>()];
    in_fork(|| {
        // SAFETY: C strings and lists that end in a null pointer; the child either becomes the program or ends.
        errno(unsafe {
            libc::syscall(
                libc::SYS_execveat,
                copy.as_raw_fd(),
                c"".as_ptr(),
                arguments.as_ptr(),
                none.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        })
    })
}

/// Executes a program again and again, with an argument that another thread changes all the time between `bad` and `fine`.
fn race(a: &[&str]) -> Result<i32> {
    let [times, program, last] = args(a)?;
    let times: u32 = times.parse().context("that is no number")?;
    let text: Arc<[AtomicU8]> = b"fine\0".iter().map(|byte| AtomicU8::new(*byte)).collect();
    let over = Arc::new(AtomicBool::new(false));
    let changer = {
        let (text, over) = (Arc::clone(&text), Arc::clone(&over));
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                for word in [b"bad\0\0", b"fine\0"] {
                    text.iter().zip(word).for_each(|(to, byte)| to.store(*byte, Ordering::Relaxed));
                }
            }
        })
    };
    let (program, last) = (path(program)?, path(last)?);
    let list = [
        program.as_ptr().cast_mut(),
        text.as_ptr().cast_mut().cast(),
        last.as_ptr().cast_mut(),
        std::ptr::null_mut(),
    ];
    let none = [std::ptr::null_mut::<c_char>()];
    let mut worked = 0;
    for _ in 0..times {
        let mut child = 0;
        // SAFETY: lists that end in a null pointer, in one text of which another thread changes bytes all the time, which is the
        // point: the child executes out of this very memory (`CLONE_VM`).
        let failed = unsafe {
            libc::posix_spawn(
                &raw mut child,
                program.as_ptr(),
                std::ptr::null(),
                std::ptr::null(),
                list.as_ptr(),
                none.as_ptr(),
            )
        };
        match failed {
            0 => {}
            libc::EPERM => continue,
            other => bail!("can't start a program: {}", tests::errno_name(other)),
        }
        worked += u32::from(errno_of_child(child)? == 0);
    }
    over.store(true, Ordering::Relaxed);
    changer.join().map_err(|_panic| anyhow::anyhow!("the thread panicked"))?;
    println!("{worked} of {times} were executed");
    Ok(0)
}

/// Executes a program with so many arguments, and then one more.
fn long(a: &[&str]) -> Result<i32> {
    let [count, program, last] = args(a)?;
    let count: usize = count.parse().context("that is no number")?;
    let mut words: Vec<CString> = vec![path(program)?];
    words.extend(std::iter::repeat_n(path("an-argument-of-some-length")?, count));
    words.push(path(last)?);
    let program = path(program)?;
    let list: Vec<_> = words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
    let none = [std::ptr::null::<c_char>()];
    // SAFETY: lists that end in a null pointer; the child either becomes the program or ends.
    in_fork(|| errno(unsafe { libc::execve(program.as_ptr(), list.as_ptr(), none.as_ptr()) }))
}
