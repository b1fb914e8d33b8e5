//! The supervisor of a process under a seccomp filter: looks at nothing and lets everything go on.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::sys;

/// `SECCOMP_IOCTL_NOTIF_RECV` (`include/uapi/linux/seccomp.h`).
const RECEIVE: libc::c_ulong = 0xc050_2100;
/// `SECCOMP_IOCTL_NOTIF_SEND`.
const SEND: libc::c_ulong = 0xc018_2101;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;

/// `struct seccomp_notif`; what it says beyond its number is of no interest.
#[repr(C)]
struct Question {
    id: u64,
    rest: [u64; 9],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// Takes the descriptor out of the process and answers until it is killed or the process has ended.
pub(crate) fn main(pid: &str, fd: &str) -> Result<()> {
    let listener = take(pid, fd)?;
    println!("ready");
    std::io::stdout().flush().context("can't say that we are ready")?;
    loop {
        let mut question = Question { id: 0, rest: [0; 9] };
        // SAFETY: the kernel writes a structure of this size, which must be zero before.
        let asked = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut question) };
        match sys::errno(asked) {
            0 => {}
            // Who asked has gone meanwhile, or the last process under the filter.
            libc::ENOENT | libc::EINTR => continue,
            other => bail!("can't receive from the filter: {}", ::tests::errno_name(other)),
        }
        let answer = Answer { id: question.id, value: 0, error: 0, flags: CONTINUE };
        // SAFETY: the kernel reads a structure of this size.
        let sent = unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const answer) };
        match sys::errno(sent) {
            0 | libc::ENOENT | libc::EINTR => {}
            other => bail!("can't answer the filter: {}", ::tests::errno_name(other)),
        }
    }
}

fn take(pid: &str, fd: &str) -> Result<OwnedFd> {
    let pid = pid.parse().ok().and_then(Pid::from_raw).context("that is no process id")?;
    let process = pidfd_open(pid, PidfdFlags::empty()).context("can't open the process")?;
    let fd = fd.parse().context("that is no descriptor")?;
    pidfd_getfd(process, fd, PidfdGetfdFlags::empty()).context("can't take the descriptor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_size_that_the_requests_name() {
        assert_eq!(size_of::<Question>(), usize::try_from((RECEIVE >> 16) & 0x3fff).unwrap());
        assert_eq!(size_of::<Answer>(), usize::try_from((SEND >> 16) & 0x3fff).unwrap());
    }
}
