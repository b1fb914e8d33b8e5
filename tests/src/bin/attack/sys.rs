//! System calls as they are: arguments in, errno out.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, bail};

/// A path as the kernel takes it.
pub(crate) fn path(text: &str) -> Result<CString> {
    CString::new(text).with_context(|| format!("{text:?} is no path"))
}

/// The errno of what a system call returned, 0 for success.
pub(crate) fn errno(returned: impl Into<i64>) -> i32 {
    if returned.into() < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
}

/// The errno of what a function of the standard library or of rustix returned, 0 for success.
pub(crate) fn errno_of<T, E: Into<std::io::Error>>(returned: Result<T, E>) -> i32 {
    match returned {
        Ok(_) => 0,
        Err(error) => error.into().raw_os_error().unwrap_or(-1),
    }
}

/// Opens a path, plainly.
pub(crate) fn open(name: &str, flags: i32) -> Result<OwnedFd, i32> {
    let name = path(name).map_err(|_zero_byte| libc::EINVAL)?;
    // SAFETY: a C string that lives through the call.
    let fd = unsafe { libc::open(name.as_ptr(), flags | libc::O_CLOEXEC, 0o644) };
    own(fd)
}

/// Takes a descriptor that a system call returned, or the errno it set.
pub(crate) fn own(fd: RawFd) -> Result<OwnedFd, i32> {
    if fd < 0 {
        return Err(errno(fd));
    }
    // SAFETY: just returned by the kernel, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What is needed to make the attempt at all: its failure is no outcome.
pub(crate) fn need<T>(what: &str, result: Result<T, i32>) -> Result<T> {
    match result {
        Ok(value) => Ok(value),
        Err(errno) => bail!("{what}: {}", tests::errno_name(errno)),
    }
}

/// A descriptor's errno, closing it.
pub(crate) fn outcome(result: Result<OwnedFd, i32>) -> i32 {
    result.map_or_else(|errno| errno, |_fd| 0)
}

/// The name under which a descriptor can be opened anew.
pub(crate) fn proc_fd(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Splits the arguments into as many as there must be.
pub(crate) fn args<'a, const N: usize>(args: &[&'a str]) -> Result<[&'a str; N]> {
    args.try_into().map_err(|_wrong_number| anyhow::anyhow!("it takes {N} arguments, not {}", args.len()))
}

/// Ends a child made by fork with an errno as its exit code, running nothing of the parent's.
pub(crate) fn exit(errno: i32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(errno) }
}

/// Waits for a child that ended by [`exit`].
pub(crate) fn errno_of_child(pid: i32) -> Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: writes the status of our own child.
        match errno(unsafe { libc::waitpid(pid, &raw mut status, 0) }) {
            0 => break,
            libc::EINTR => {}
            other => bail!("can't wait for the child: {}", tests::errno_name(other)),
        }
    }
    if libc::WIFEXITED(status) {
        Ok(libc::WEXITSTATUS(status))
    } else {
        bail!("the child was ended by signal {}", libc::WTERMSIG(status))
    }
}

/// Does something in a child made by `fork`; its errno is the answer.
pub(crate) fn in_fork(attempt: impl FnOnce() -> i32) -> Result<i32> {
    // SAFETY: this program has one thread when it forks, so the child may do what it likes.
    match unsafe { libc::fork() } {
        -1 => bail!("can't fork: {}", std::io::Error::last_os_error()),
        0 => exit(attempt()),
        child => errno_of_child(child),
    }
}

/// The plain attack that others do in their own way: unlink.
pub(crate) fn unlink(name: &str) -> i32 {
    errno_of(std::fs::remove_file(name))
}
