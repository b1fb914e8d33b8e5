//! System calls as they are: arguments in, errno out, and nothing around them that would be measured too.

use std::ffi::CStr;
use std::io::Error;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// The errno of what a system call returned, 0 for success.
pub(crate) fn errno(returned: impl Into<i64>) -> i32 {
    if returned.into() < 0 { Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
}

/// Takes a descriptor that a system call returned, or the errno it set.
pub(crate) fn own(fd: RawFd) -> Result<OwnedFd, i32> {
    if fd < 0 {
        return Err(errno(fd));
    }
    // SAFETY: just returned by the kernel, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn stat(path: &CStr) -> i32 {
    let mut about = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: a C string, and room for what the kernel writes.
    errno(unsafe { libc::stat(path.as_ptr(), about.as_mut_ptr()) })
}

pub(crate) fn open(path: &CStr, flags: i32) -> Result<OwnedFd, i32> {
    // SAFETY: a C string; the mode counts where a file is made.
    own(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o644) })
}

pub(crate) fn open_close(path: &CStr, flags: i32) -> i32 {
    open(path, flags).map_or_else(|errno| errno, |_file| 0)
}

pub(crate) fn unlink(path: &CStr) -> i32 {
    // SAFETY: a C string.
    errno(unsafe { libc::unlink(path.as_ptr()) })
}

pub(crate) fn rename(from: &CStr, to: &CStr) -> i32 {
    // SAFETY: two C strings.
    errno(unsafe { libc::rename(from.as_ptr(), to.as_ptr()) })
}

pub(crate) fn overwrite(file: &OwnedFd, bytes: &[u8]) -> i32 {
    // SAFETY: reads as many bytes as there are.
    let written = unsafe { libc::pwrite(file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
    match usize::try_from(written) {
        Ok(written) if written == bytes.len() => 0,
        Ok(_) => -1,
        Err(_) => errno(-1),
    }
}

/// Makes a process that ends at once, and waits for it.
pub(crate) fn fork_and_wait() -> i32 {
    // SAFETY: this program has one thread, and the child does nothing but end.
    match unsafe { libc::fork() } {
        -1 => errno(-1),
        // SAFETY: ends the child, running nothing of the parent's.
        0 => unsafe { libc::_exit(0) },
        child => wait(child),
    }
}

/// Starts a program with arguments, the first of which is how it is called, and no environment, and waits for it to succeed.
pub(crate) fn spawn_and_wait(program: &CStr, arguments: &[&CStr]) -> i32 {
    let arguments = arguments.iter().map(|argument| argument.as_ptr().cast_mut());
    let argv: Vec<_> = arguments.chain([ptr::null_mut()]).collect();
    let envp = [ptr::null_mut()];
    let mut child = 0;
    // SAFETY: C strings, and two lists that end with a null; all of them live through the call, which writes
    // the child's number.
    let failed = unsafe {
        libc::posix_spawn(
            &raw mut child,
            program.as_ptr(),
            ptr::null(),
            ptr::null(),
            argv.as_ptr(),
            envp.as_ptr(),
        )
    };
    if failed == 0 { wait(child) } else { failed }
}

/// Sends this process a signal that nobody waits for.
pub(crate) fn signal_self() -> i32 {
    // SAFETY: takes numbers; unless somebody asks for it, the signal does nothing.
    errno(unsafe { libc::kill(libc::getpid(), libc::SIGURG) })
}

/// Waits for a child; -1 unless it succeeded.
fn wait(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: writes the status of our own child.
    match errno(unsafe { libc::waitpid(child, &raw mut status, 0) }) {
        0 if status == 0 => 0,
        0 => -1,
        failed => failed,
    }
}

/// A TCP socket whose connection is reset when it is closed: no state stays behind that later ones would meet.
pub(crate) fn socket() -> Result<OwnedFd, i32> {
    // SAFETY: takes numbers.
    let socket = own(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    let reset = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = libc::socklen_t::try_from(size_of_val(&reset)).unwrap_or_default();
    // SAFETY: reads as many bytes as the structure has.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const reset).cast(),
            size,
        )
    };
    match errno(set) {
        0 => Ok(socket),
        failed => Err(failed),
    }
}

/// An address as the kernel takes it.
pub(crate) fn address(host: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(host.octets()) },
        sin_zero: [0; 8],
    }
}

pub(crate) fn connect(socket: &OwnedFd, address: &libc::sockaddr_in) -> i32 {
    let size = libc::socklen_t::try_from(size_of_val(address)).unwrap_or_default();
    // SAFETY: reads as many bytes as the structure has.
    errno(unsafe { libc::connect(socket.as_raw_fd(), ptr::from_ref(address).cast(), size) })
}

/// Nanoseconds that all children that have been waited for, and theirs, have run. The kernel sums them up exactly
/// (`thread_group_cputime_adjusted`, kernel/sched/cputime.c) and tells microseconds.
pub(crate) fn children_ran() -> Result<u64, Error> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: room for what the kernel writes.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) } != 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: zeroed before, written by the kernel, and numbers only.
    let usage = unsafe { usage.assume_init() };
    let nanoseconds = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000_000
            + u64::try_from(time.tv_usec).unwrap_or_default() * 1000
    };
    Ok(nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_say_how_they_went() {
        assert_eq!(stat(c"/"), 0);
        assert_eq!(stat(c"/nonexistent"), libc::ENOENT);
        assert_eq!(open_close(c"/dev/null", libc::O_WRONLY), 0);
        assert_eq!(unlink(c"/nonexistent"), libc::ENOENT);
        assert_eq!(rename(c"/nonexistent", c"/nonexistent"), libc::ENOENT);
        assert_eq!(spawn_and_wait(c"/nonexistent", &[c"x", c"true"]), libc::ENOENT);
        assert_eq!(spawn_and_wait(c"/bin/true", &[c"true"]), 0);
        assert_eq!(spawn_and_wait(c"/bin/false", &[c"false"]), -1);
    }

    #[test]
    fn addresses() {
        let address = address(Ipv4Addr::LOCALHOST, 0x1234);
        assert_eq!(address.sin_port.to_ne_bytes(), [0x12, 0x34]);
        assert_eq!(address.sin_addr.s_addr.to_ne_bytes(), [127, 0, 0, 1]);
    }
}
