//! What `/proc` says of a process. For people and for finding processes; the kernel side decides by none of it.

use std::{
    fs,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    process::{Pid, PidfdFlags, pidfd_open},
    time::{ClockId, clock_gettime},
};

/// Fields of `/proc/PID/stat` that matter here (`proc_pid_stat(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// State: `R`, `S`, `T`, `Z` and others.
    pub state: char,
    /// Parent process.
    pub ppid: u32,
    /// Terminal, as `stat(2)` encodes devices.
    pub tty: u32,
    /// Number of threads.
    pub threads: u32,
    /// Start time in clock ticks since boot.
    pub start: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name in parentheses may hold anything, so count from its end.
        let rest = text.rsplit_once(')')?.1;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            ppid: fields.get(1)?.parse().ok()?,
            tty: fields.get(4)?.parse::<i64>().ok().and_then(|tty| u32::try_from(tty).ok())?,
            threads: fields.get(17)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }

    /// Whether it has nothing left to run.
    #[must_use]
    pub const fn dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }

    /// Terminal in the kernel's encoding of devices; 0 for none.
    #[must_use]
    pub const fn tty_device(&self) -> u32 {
        let major = (self.tty >> 8) & 0xfff;
        let minor = (self.tty & 0xff) | ((self.tty >> 12) & 0xf_ff00);
        (major << 20) | minor
    }

    /// Terminal as people write it.
    #[must_use]
    pub fn tty_name(&self) -> Option<String> {
        let device = self.tty_device();
        let (major, minor) = (device >> 20, device & 0xf_ffff);
        match major {
            0 => None,
            136..=143 => Some(format!("pts/{}", (major - 136) * 256 + minor)),
            4 if minor < 64 => Some(format!("tty{minor}")),
            4 => Some(format!("ttyS{}", minor - 64)),
            _ => Some(format!("{major}:{minor}")),
        }
    }
}

/// Reads a process's `stat`.
///
/// # Errors
///
/// If it has gone.
pub fn stat(pid: u32) -> io::Result<Stat> {
    let bytes = fs::read(format!("/proc/{pid}/stat"))?;
    Stat::parse(&String::from_utf8_lossy(&bytes))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat can't be understood"))
}

/// Path of the program that a process runs.
#[must_use]
pub fn exe(pid: u32) -> Option<String> {
    fs::read_link(format!("/proc/{pid}/exe")).ok().map(|path| path.to_string_lossy().into_owned())
}

/// Working directory of a process.
#[must_use]
pub fn cwd(pid: u32) -> Option<String> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok().map(|path| path.to_string_lossy().into_owned())
}

/// Bytes of a command line that are looked at. A process can have megabytes of it, and each of its events says it.
const CMD_LINE: u64 = 4096;

/// Arguments of a process, as it shows them; the first of them, if they are many.
#[must_use]
pub fn cmd_line(pid: u32) -> Option<String> {
    let mut bytes = Vec::new();
    fs::File::open(format!("/proc/{pid}/cmdline")).ok()?.take(CMD_LINE).read_to_end(&mut bytes).ok()?;
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
    if bytes.is_empty() {
        return None;
    }
    let words: Vec<_> = bytes.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    Some(words.join(" "))
}

/// The same, word by word.
#[must_use]
pub fn words(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.strip_suffix(&[0]).unwrap_or(&bytes).split(|&byte| byte == 0);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).filter(|word| !word.is_empty()).collect()
}

/// User who logged in, whatever `su` and `sudo` did since.
#[must_use]
pub fn login_uid(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}

/// Real user and group of a process.
#[must_use]
pub fn ids(pid: u32) -> Option<(u32, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let first = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    Some((first("Uid:")?, first("Gid:")?))
}

/// Real, effective, saved and file system user of a process, those of all its threads.
///
/// # Errors
///
/// If it has gone, or its `status` can't be understood.
pub fn all_uids(pid: u32) -> io::Result<Vec<u32>> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/status can't be understood");
    let mut all = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = match fs::read_to_string(thread?.path().join("status")) {
            Ok(text) => text,
            Err(error) if super::open::has_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        let line = text.lines().find_map(|line| line.strip_prefix("Uid:")).ok_or_else(odd)?;
        for uid in line.split_ascii_whitespace() {
            all.push(uid.parse().map_err(|_number| odd())?);
        }
    }
    if all.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(all) }
}

/// All processes.
///
/// # Errors
///
/// If `/proc` can't be read.
pub fn all() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// A descriptor of a process.
///
/// # Errors
///
/// If it has gone.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let number = number.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(pidfd_open(number, PidfdFlags::empty())?)
}

/// A descriptor of the process that has this number and started then, and of no other.
///
/// # Errors
///
/// If it has gone.
pub fn open_started(pid: u32, start_ns: u64) -> io::Result<OwnedFd> {
    let fd = open(pid)?;
    // The descriptor is taken first: if the start time is right now, it is the right process.
    if ticks(start_ns).abs_diff(stat(pid)?.start) > 1 {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    if crate::sys::pid_of(fd.as_fd())? != Some(pid) {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    Ok(fd)
}

/// Clock ticks of `/proc`, for nanoseconds since boot.
#[must_use]
pub fn ticks(ns: u64) -> u64 {
    ns / (1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

/// Nanoseconds since boot, for clock ticks of `/proc`.
#[must_use]
pub fn nanoseconds(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

/// Nanoseconds since boot, suspend included: the clock of the kernel side's records.
#[must_use]
pub fn boot_clock() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or_default())
}

/// Milliseconds since the epoch at which the host was started, as far as it is known now. Changes when the clock is
/// set.
#[must_use]
pub fn boot_time_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    now.saturating_sub(boot_clock() / 1_000_000)
}

static FIXED_BOOT_TIME: OnceLock<u64> = OnceLock::new();

/// The same, but as it was known to the first daemon since boot, which has left it in a file: processes and holds have
/// the same times and ids for every daemon.
#[must_use]
pub fn fixed_boot_time_ms() -> u64 {
    *FIXED_BOOT_TIME.get_or_init(boot_time_ms)
}

/// Takes up what the first daemon since boot has left, or leaves it for the next.
///
/// # Errors
///
/// If the file can't be written.
pub fn fix_boot_time(state: &Path) -> io::Result<()> {
    let path = state.join("boot-time");
    // The file says which boot it is of: the directory may be on a file system that outlives it.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let left = fs::read_to_string(&path).unwrap_or_default();
    let left = left.split_once('\n').filter(|(_, id)| *id == boot).and_then(|(ms, _)| ms.parse().ok());
    let ms = left.unwrap_or_else(boot_time_ms);
    let fixed = FIXED_BOOT_TIME.get_or_init(|| ms);
    if left.is_none() {
        fs::write(&path, format!("{fixed}\n{boot}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let text = "42 (a) b (c) S 7 1 1 34816 1 0 0 0 0 0 0 0 0 0 20 0 3 0 999 0";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.state, stat.ppid, stat.threads, stat.start), ('S', 7, 3, 999));
        assert_eq!(stat.tty_name().as_deref(), Some("pts/0"));
        assert_eq!(stat.tty_device(), 136 << 20);
        assert_eq!(Stat::parse("42 (x"), None);
    }

    #[test]
    fn this_process() {
        let me = std::process::id();
        let stat = stat(me).unwrap();
        assert!(!stat.dead());
        assert!(all().unwrap().contains(&me));
        assert!(open_started(me, nanoseconds(stat.start)).is_ok());
        assert!(open_started(me, nanoseconds(stat.start + 500)).is_err());
        assert!(exe(me).is_some() && cwd(me).is_some() && cmd_line(me).is_some() && ids(me).is_some());
    }
}
