//! Processes by descriptor, and what they share.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// `SO_PEERPIDFD` (`include/uapi/asm-generic/socket.h`), from Linux 6.5 on.
const SO_PEERPIDFD: libc::c_int = 77;

/// The process that connected a Unix socket. Where the kernel can't say (before 6.5) its number is used, which
/// could have been given to another process since; who relies on that compares start times.
///
/// # Errors
///
/// If the process has gone.
pub fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: value and length are valid and of the right size.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if code == 0 && fd >= 0 {
        // SAFETY: the kernel has just made this descriptor for us.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(rustix::process::pidfd_open(credentials.pid, rustix::process::PidfdFlags::empty())?)
}

/// Number of the process behind a descriptor, in the daemon's own pid namespace; nothing if it has ended.
///
/// # Errors
///
/// If the descriptor isn't one of a process.
pub fn pid_of(process: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
    let Some(pid) = pid else { return Err(io::Error::other("not a descriptor of a process")) };
    Ok(pid.parse::<u32>().ok().filter(|pid| *pid != 0))
}

/// `KCMP_FILES` (`include/uapi/linux/kcmp.h`).
const KCMP_FILES: libc::c_int = 2;

/// How two tasks' tables of descriptors are ordered: 0 if they are one (`kcmp(2)`).
///
/// # Errors
///
/// If one has gone, or the kernel can't compare.
pub fn same_files(one: u32, other: u32) -> io::Result<libc::c_long> {
    let number =
        |pid: u32| libc::pid_t::try_from(pid).map_err(|_range| io::Error::from(io::ErrorKind::InvalidInput));
    // SAFETY: numbers only.
    let code = unsafe { libc::syscall(libc::SYS_kcmp, number(one)?, number(other)?, KCMP_FILES, 0u64, 0u64) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

/// `MEMBARRIER_CMD_GLOBAL` (`include/uapi/linux/membarrier.h`).
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// Waits until every program of the kernel side that runs now has come to its end (a grace period of RCU, which they run
/// under), and whatever it has written can be seen.
///
/// # Errors
///
/// If the kernel can't do that (`nohz_full`).
pub fn barrier() -> io::Result<()> {
    // SAFETY: numbers only.
    let code = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
