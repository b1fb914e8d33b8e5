//! What others confine processes with, for comparison: Landlock, and a seccomp filter that asks a supervisor.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Result, bail};

use crate::{places, sys};

/// `struct landlock_ruleset_attr` (`include/uapi/linux/landlock.h`), as far as it is used.
#[repr(C)]
struct Ruleset {
    files: u64,
    network: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    access: u64,
    parent: i32,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct NetPort {
    access: u64,
    port: u64,
}

const VERSION: u32 = 1;
const RULE_PATH_BENEATH: i32 = 1;
const RULE_NET_PORT: i32 = 2;
/// `LANDLOCK_ACCESS_FS_EXECUTE`, `READ_FILE` and `READ_DIR`.
const READ_ONLY: u64 = 1 | 1 << 2 | 1 << 3;
/// `LANDLOCK_ACCESS_NET_CONNECT_TCP`.
const CONNECT_TCP: u64 = 1 << 1;

/// Everything about files that Landlock judges in a version: the first has 13 operations, the second adds moving
/// between directories, the third truncating, the fifth ioctl on devices.
fn all_of_files(version: i64) -> u64 {
    let bits = match version {
        ..=1 => 13,
        2 => 14,
        3..=4 => 15,
        _ => 16,
    };
    (1 << bits) - 1
}

/// Puts this process under a ruleset with three rules: everything below the bench's directory, reading and
/// executing below `/usr`, and connecting to the bench's port; before 6.7, which doesn't know networks, reading
/// below `/etc` instead.
pub(crate) fn landlock() -> Result<()> {
    // SAFETY: asks for the version, which takes no attributes.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Ruleset>(), 0_usize, VERSION)
    };
    if version < 0 {
        bail!("this kernel has no Landlock: {}", ::tests::errno_name(sys::errno(version)));
    }
    let network = version >= 4;
    let attributes = Ruleset { files: all_of_files(version), network: if network { CONNECT_TCP } else { 0 } };
    // Older kernels take the first member only.
    let size = if network { size_of::<Ruleset>() } else { size_of::<u64>() };
    // SAFETY: reads as many bytes as are said.
    let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size, 0) };
    let ruleset = need("can't make a Landlock ruleset", sys::own(i32::try_from(fd)?))?;
    below(&ruleset, places::ALLOWED, attributes.files)?;
    below(&ruleset, c"/usr", READ_ONLY)?;
    if network {
        let rule = NetPort { access: CONNECT_TCP, port: places::PORT.into() };
        add(&ruleset, RULE_NET_PORT, &rule)?;
    } else {
        below(&ruleset, c"/etc", READ_ONLY)?;
    }
    no_new_privileges()?;
    // SAFETY: takes numbers.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    need("can't put this process under Landlock", succeeded(done))
}

fn below(ruleset: &OwnedFd, dir: &CStr, access: u64) -> Result<()> {
    let dir = need("can't open a directory for Landlock", sys::open(dir, libc::O_PATH))?;
    add(ruleset, RULE_PATH_BENEATH, &PathBeneath { access, parent: dir.as_raw_fd() })
}

/// Adds a rule of one of the kernel's types.
fn add<T>(ruleset: &OwnedFd, kind: i32, rule: &T) -> Result<()> {
    let rule = std::ptr::from_ref(rule);
    // SAFETY: the kernel reads the structure that belongs to the kind, which the callers choose together.
    let done = unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), kind, rule, 0_u32) };
    need("can't add a Landlock rule", succeeded(done))
}

/// System calls that a supervisor is asked about: those that agents' sandboxes ask about, as far as they are measured.
const ASKED: [libc::c_long; 12] = [
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_creat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_connect,
];

/// Puts this process under a filter; the descriptor is where its supervisor is asked.
pub(crate) fn notify() -> Result<OwnedFd> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, jt: u8, k: u32| -> Result<libc::sock_filter> {
        Ok(libc::sock_filter { code: u16::try_from(code)?, jt, jf: 0, k })
    };
    // The number of the call is the first member of what a filter sees.
    let mut program = vec![step(LOAD, 0, 0)?];
    for (number, left) in ASKED.iter().zip((0..u8::try_from(ASKED.len())?).rev()) {
        program.push(step(EQUAL, left + 1, u32::try_from(*number)?)?);
    }
    program.push(step(RETURN, 0, libc::SECCOMP_RET_ALLOW)?);
    program.push(step(RETURN, 0, libc::SECCOMP_RET_USER_NOTIF)?);
    let filter = libc::sock_fprog { len: u16::try_from(program.len())?, filter: program.as_mut_ptr() };
    no_new_privileges()?;
    // SAFETY: the kernel reads the program, which lives through the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const filter,
        )
    };
    need("can't install a seccomp filter", sys::own(i32::try_from(fd)?))
}

/// What both want from processes that aren't privileged; privileged ones need not, but agents aren't.
fn no_new_privileges() -> Result<()> {
    // SAFETY: takes numbers.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    need("can't give up new privileges", succeeded(done))
}

fn succeeded(returned: impl Into<i64>) -> Result<(), i32> {
    match sys::errno(returned) {
        0 => Ok(()),
        errno => Err(errno),
    }
}

fn need<T>(what: &str, result: Result<T, i32>) -> Result<T> {
    match result {
        Ok(value) => Ok(value),
        Err(errno) => bail!("{what}: {}", ::tests::errno_name(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_the_kernels() {
        assert_eq!(size_of::<Ruleset>(), 16);
        assert_eq!(size_of::<PathBeneath>(), 12);
        assert_eq!(size_of::<NetPort>(), 16);
    }

    #[test]
    fn versions() {
        assert_eq!(all_of_files(1), 0x1fff);
        assert_eq!(all_of_files(3), 0x7fff);
        assert_eq!(all_of_files(6), 0xffff);
    }
}
