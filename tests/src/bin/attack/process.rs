//! Processes: every way to make another task, or to become another one, that may lose a tag.

use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::Attack;
use crate::sys::{self, args, errno, errno_of, exit, in_fork, need, open};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("fork-unlink", |a| args(a).and_then(|[name]| in_fork(|| sys::unlink(name)))),
    ("vfork-exec-unlink", vfork_exec),
    ("clone3-unlink", |a| args(a).and_then(|[name]| clone3(name, None))),
    ("clone3-cgroup-unlink", |a| args(a).and_then(|[cgroup, name]| clone3(name, Some(cgroup)))),
    ("cgroup-move-unlink", cgroup_move),
    ("double-fork-unlink", double_fork),
    ("thread-unlink", thread),
    ("setsid-unlink", |a| args(a).and_then(|[name]| in_fork(|| setsid(name)))),
    ("namespaces-unlink", namespaces),
    ("memfd-unlink", memfd),
    ("setuid-unlink", setuid),
    ("signal", signal),
];

/// The standard library starts programs as `posix_spawn` does: `CLONE_VM | CLONE_VFORK`, then exec.
fn vfork_exec(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    let me = std::env::current_exe().context("can't find this program")?;
    let output =
        Command::new(me).args(["unlink", name]).output().context("can't start this program again")?;
    code(&String::from_utf8_lossy(&output.stdout))
}

/// The errno that another run of this program printed.
fn code(text: &str) -> Result<i32> {
    (0..600)
        .find(|&errno| tests::errno_name(errno) == text.trim())
        .with_context(|| format!("the other program said {text:?}"))
}

/// `clone3` without the C library, into another cgroup if one is given.
fn clone3(name: &str, cgroup: Option<&str>) -> Result<i32> {
    /// `CLONE_INTO_CGROUP` (`include/uapi/linux/sched.h`).
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let cgroup = match cgroup {
        Some(dir) => Some(need("can't open the cgroup", open(dir, libc::O_PATH | libc::O_DIRECTORY))?),
        None => None,
    };
    // SAFETY: plain integers, for which zero means nothing.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = u64::try_from(libc::SIGCHLD)?;
    if let Some(cgroup) = &cgroup {
        arguments.flags = INTO_CGROUP;
        arguments.cgroup = u64::try_from(cgroup.as_raw_fd())?;
    }
    // SAFETY: as fork: no memory is shared, and this program has one thread.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of_val(&arguments)) };
    match child {
        -1 => bail!("clone3 failed: {}", std::io::Error::last_os_error()),
        0 => exit(sys::unlink(name)),
        child => sys::errno_of_child(i32::try_from(child)?),
    }
}

/// Moves a child to another cgroup before it acts.
fn cgroup_move(a: &[&str]) -> Result<i32> {
    let [cgroup, name] = args(a)?;
    in_fork(|| {
        let moved = std::fs::write(format!("{cgroup}/cgroup.procs"), "0");
        if moved.is_err() { libc::ENODEV } else { sys::unlink(name) }
    })
}

/// Detaches wholly: session, parent, terminal. The grandchild writes its outcome into a file.
fn double_fork(a: &[&str]) -> Result<i32> {
    let [report, name] = args(a)?;
    in_fork(|| {
        // SAFETY: a child with one thread.
        unsafe {
            libc::setsid();
            match libc::fork() {
                -1 => return errno(-1),
                0 => {}
                _ => exit(0),
            }
        }
        // The parent has gone when somebody else is it.
        let parent = std::os::unix::process::parent_id();
        for _ in 0..500 {
            if std::os::unix::process::parent_id() != parent || parent == 1 {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let outcome = tests::errno_name(sys::unlink(name));
        errno_of(std::fs::write(report, format!("{outcome}\n")))
    })
}

fn thread(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    let name = name.to_owned();
    let thread = std::thread::spawn(move || sys::unlink(&name));
    thread.join().map_err(|_panic| anyhow::anyhow!("the thread panicked"))
}

fn setsid(name: &str) -> i32 {
    // SAFETY: takes nothing.
    match errno(unsafe { libc::setsid() }) {
        0 => sys::unlink(name),
        failed => failed,
    }
}

/// In new user, mount, process, network, IPC and host-name namespaces, as the first process there.
fn namespaces(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    in_fork(|| {
        let all = libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS;
        // SAFETY: takes a number; a child with one thread.
        match errno(unsafe { libc::unshare(all) }) {
            // A kernel that lets nobody make them.
            libc::EPERM => return libc::EOPNOTSUPP,
            0 => {}
            failed => return failed,
        }
        in_fork(|| sys::unlink(name)).unwrap_or(libc::ENODEV)
    })
}

/// From a copy of this program that is in no directory.
fn memfd(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    // SAFETY: a C string.
    let fd = unsafe { libc::memfd_create(c"copy".as_ptr(), 0) };
    let copy = need("can't make a file in memory", sys::own(fd))?;
    let me = std::fs::read("/proc/self/exe").context("can't read this program")?;
    rustix::io::write(&copy, &[]).context("can't write to the file in memory")?;
    let mut file = std::fs::File::from(copy);
    std::io::Write::write_all(&mut file, &me).context("can't write to the file in memory")?;
    let program = format!("/proc/self/fd/{}", file.as_raw_fd());
    let output = Command::new(program).args(["unlink", name]).output().context("can't execute the copy")?;
    code(&String::from_utf8_lossy(&output.stdout))
}

/// As another user, for a program that root runs.
fn setuid(a: &[&str]) -> Result<i32> {
    let [user, name] = args(a)?;
    let user = user.parse().context("that is no user id")?;
    in_fork(|| {
        // SAFETY: takes numbers; a child with one thread.
        match errno(unsafe { libc::setresuid(user, user, user) }) {
            0 => sys::unlink(name),
            failed => failed,
        }
    })
}

fn signal(a: &[&str]) -> Result<i32> {
    let [pid, number] = args(a)?;
    let pid = pid.parse().context("that is no process id")?;
    // SAFETY: takes numbers.
    Ok(errno(unsafe { libc::kill(pid, number.parse().context("that is no signal")?) }))
}
