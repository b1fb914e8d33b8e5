//! What a running process has open, as far as that gives it rights: descriptors, shared mappings, rings, tracees. For attaching,
//! which begins with a process that has opened things before anybody judged it.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd, RawFd},
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::PathBuf,
};

use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::proc;

/// The file of a ring (io_uring).
pub const RING: &str = "anon_inode:[io_uring]";

/// A descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number.
    pub fd: RawFd,
    /// What it is, as far as that has a name.
    pub what: PathBuf,
}

/// Whether an error means that who was asked about has gone, or what was asked about.
#[must_use]
pub fn has_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EBADF | libc::ENOENT))
}

/// The descriptors of a process.
///
/// # Errors
///
/// If it has gone.
pub fn descriptors(pid: u32) -> io::Result<Vec<Descriptor>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match fs::read_link(entry.path()) {
            Ok(what) => found.push(Descriptor { fd, what }),
            Err(error) if has_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Those that a program inherits which the process executes.
///
/// # Errors
///
/// If it has gone.
pub fn inherited(pid: u32) -> io::Result<Vec<Descriptor>> {
    let mut all = descriptors(pid)?;
    all.retain(|descriptor| {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", descriptor.fd)).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
        // What can't be told is looked at.
        flags.is_none_or(|flags| flags & libc::O_CLOEXEC == 0)
    });
    Ok(all)
}

/// The very file that a process has open.
///
/// # Errors
///
/// If it has gone, or the kernel lets nobody take it (Yama's `ptrace_scope` 3).
pub fn take(process: &OwnedFd, fd: RawFd) -> io::Result<OwnedFd> {
    Ok(pidfd_getfd(process.as_fd(), fd, PidfdGetfdFlags::empty())?)
}

/// Threads of a process that have descriptors of their own (`unshare(CLONE_FILES)`).
///
/// # Errors
///
/// If it has gone, or the kernel can't compare.
pub fn own_tables(pid: u32) -> io::Result<Vec<u32>> {
    let mut apart = Vec::new();
    for tid in threads(pid)? {
        match same_files(pid, tid) {
            Ok(true) => {}
            Ok(false) => apart.push(tid),
            Err(error) if has_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(apart)
}

fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let names = fs::read_dir(format!("/proc/{pid}/task"))?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?;
    Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
}

/// Whether two tasks share their descriptors (`kcmp(2)`, `KCMP_FILES`).
fn same_files(one: u32, other: u32) -> io::Result<bool> {
    crate::sys::same_files(one, other).map(|order| order == 0)
}

/// How many files a ring keeps, which needn't be descriptors any more; none if the kernel doesn't say now, because the ring is
/// busy (`io_uring_show_fdinfo`).
///
/// # Errors
///
/// If process or ring has gone.
pub fn files_of_ring(pid: u32, fd: RawFd) -> io::Result<Option<u64>> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}"))?;
    let files = info.lines().find_map(|line| line.strip_prefix("UserFiles:"));
    Ok(files.and_then(|number| number.trim().parse().ok()))
}

/// A mapping that is shared and can be written to, or be made so: the file was open for writing when it was mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses, as `/proc/PID/maps` has them.
    pub range: String,
    /// What is mapped.
    pub what: PathBuf,
}

/// Shared mappings of files that can be written to.
///
/// # Errors
///
/// If the process has gone.
pub fn mappings(pid: u32) -> io::Result<Vec<Mapping>> {
    // Most processes have none that is shared at all, and the longer text costs the kernel a walk over all pages.
    let maps = fs::read(format!("/proc/{pid}/maps"))?;
    if !String::from_utf8_lossy(&maps).lines().any(|line| mapping(line).is_some()) {
        return Ok(Vec::new());
    }
    let text = fs::read(format!("/proc/{pid}/smaps"))?;
    Ok(shared_and_writable(&String::from_utf8_lossy(&text)))
}

/// The mapping that a line is about, if it is one that may be shared.
fn mapping(line: &str) -> Option<Mapping> {
    let (range, rest) = line.split_once(' ')?;
    let (from, to) = range.split_once('-')?;
    let hexadecimal = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hexadecimal(from) || !hexadecimal(to) || rest.as_bytes().get(3) != Some(&b's') {
        return None;
    }
    // Permissions, offset, device, inode number, spaces, name.
    let what = rest.splitn(5, ' ').nth(4).unwrap_or_default().trim_start();
    Some(Mapping { range: range.to_owned(), what: PathBuf::from(what) })
}

/// Of `/proc/PID/smaps`: those whose flags (`show_smap_vma_flags`, fs/proc/task_mmu.c) say shared and may be written.
fn shared_and_writable(text: &str) -> Vec<Mapping> {
    let mut found = Vec::new();
    let mut at = None;
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let has = |flag| flags.split_ascii_whitespace().any(|one| one == flag);
            found.extend(at.take().filter(|_| has("sh") && has("mw")));
        } else if line.split_once(' ').is_some_and(|(range, _)| range.contains('-')) {
            at = mapping(line);
        }
    }
    found
}

/// Opens what is mapped, for reading and writing, as it is mapped. Nothing for what the kernel has made for itself.
///
/// # Errors
///
/// If it can't be opened so.
pub fn mapped(pid: u32, mapping: &Mapping) -> io::Result<Option<OwnedFd>> {
    // The names of such files begin so and with no slash; nobody can give a file such a name.
    let name = mapping.what.to_string_lossy();
    if name.starts_with("anon_inode:") || name.starts_with("socket:") {
        return Ok(None);
    }
    let path = format!("/proc/{pid}/map_files/{}", mapping.range);
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let kind = fs::metadata(&path)?.file_type();
    if kind.is_block_device() {
        return Err(io::Error::other("a disk"));
    }
    let file = fs::File::options().read(true).write(true).custom_flags(flags).open(&path)?;
    Ok(Some(file.into()))
}

/// Who traces whom among all tasks: tracer's thread and traced process.
///
/// # Errors
///
/// If `/proc` can't be read.
pub fn traced() -> io::Result<Vec<(u32, u32)>> {
    let mut found = Vec::new();
    for pid in proc::all()? {
        let Ok(threads) = threads(pid) else { continue };
        for tid in threads {
            let Ok(status) = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")) else { continue };
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            if let Some(tracer) =
                tracer.and_then(|text| text.trim().parse().ok()).filter(|tracer| *tracer != 0)
            {
                found.push((tracer, pid));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f00-7f01 rw-s 00000000 fe:00 42                         /srv/a file
Size:                  4 kB
VmFlags: rd wr sh mr mw me ms sd
7f01-7f02 r--s 00000000 fe:00 43                         /srv/only-read
Size:                  4 kB
VmFlags: rd mr me ms sd
7f02-7f03 r--s 00000000 fe:00 44                         /srv/read-now
VmFlags: rd sh mr mw me ms sd
7f03-7f04 rw-p 00000000 fe:00 45                         /srv/private
VmFlags: rd wr mr mw me ac sd
";

    #[test]
    fn flags_say_what_can_be_written() {
        let found = shared_and_writable(SMAPS);
        let names: Vec<_> = found.iter().map(|mapping| mapping.what.to_str().unwrap()).collect();
        assert_eq!(names, ["/srv/a file", "/srv/read-now"]);
        assert_eq!(found[0].range, "7f00-7f01");
    }

    #[test]
    fn this_process() {
        let me = std::process::id();
        let file = fs::File::open("/dev/null").unwrap();
        let mine = descriptors(me).unwrap();
        assert!(mine.iter().any(|one| one.what.as_os_str() == "/dev/null"));
        assert!(own_tables(me).unwrap().is_empty());
        drop(file);
        mappings(me).unwrap();
    }
}
