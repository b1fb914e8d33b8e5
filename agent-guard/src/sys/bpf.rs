//! `bpf(2)` for what aya doesn't know: task storage, and iterators over one process.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::Pod;

/// `BPF_NOEXIST`: make an element, don't change one.
pub const NO_EXIST: u64 = 1;
/// `BPF_EXIST`: change an element, don't make one.
pub const EXIST: u64 = 2;

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ITER_CREATE: libc::c_int = 33;
/// `BPF_TRACE_ITER`, of `enum bpf_attach_type`.
const BPF_TRACE_ITER: u32 = 28;

/// Part of `union bpf_attr` for commands on map elements (`include/uapi/linux/bpf.h`).
#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are of that size, and what they point to lives as long as the call.
    let code =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

/// A call that returns a descriptor.
fn open<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call has made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens something that is pinned.
///
/// # Errors
///
/// What the kernel says.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Get {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    open(BPF_OBJ_GET, &mut Get { path: path.as_ptr().expose_provenance() as u64, fd: 0, flags: 0 })
}

/// Whether a pinned link of a control group still ties a program to it: `BPF_LINK_DETACH` leaves the pin
/// (`bpf_cgroup_link_show_fdinfo`, kernel/bpf/cgroup.c: number 0 then).
///
/// # Errors
///
/// If the pin can't be opened, or looked at.
pub fn ties(path: &Path) -> io::Result<bool> {
    let link = open_pin(path)?;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()))?;
    let number = info.lines().find_map(|line| line.strip_prefix("cgroup_id:"));
    number.map(|number| number.trim() != "0").ok_or_else(|| io::Error::other("no link of a control group"))
}

/// Ties an iterator program to one process (`bpf_iter_link_info.task.pid`, Linux 6.1), as this process sees it; 0: to all.
///
/// # Errors
///
/// What the kernel says.
pub fn link_task_iterator(program: BorrowedFd<'_>, pid: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Info {
        tid: u32,
        pid: u32,
        pid_fd: u32,
        pad: u32,
    }
    #[repr(C)]
    struct Create {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        info: u64,
        info_len: u32,
        pad: u32,
    }
    let info = Info { tid: 0, pid, pid_fd: 0, pad: 0 };
    let mut create = Create {
        program: program.as_raw_fd().cast_unsigned(),
        target: 0,
        attach_type: BPF_TRACE_ITER,
        flags: 0,
        info: std::ptr::from_ref(&info).expose_provenance() as u64,
        info_len: u32::try_from(size_of::<Info>()).unwrap_or_default(),
        pad: 0,
    };
    open(BPF_LINK_CREATE, &mut create)
}

/// Begins to read an iterator.
///
/// # Errors
///
/// What the kernel says.
pub fn open_iterator(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        link: u32,
        flags: u32,
    }
    open(BPF_ITER_CREATE, &mut Create { link: link.as_raw_fd().cast_unsigned(), flags: 0 })
}

/// Writes an element.
///
/// # Errors
///
/// What the kernel says.
pub fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V, flags: u64) -> io::Result<()> {
    let mut element = Element {
        map: map.as_raw_fd().cast_unsigned(),
        pad: 0,
        key: std::ptr::from_ref(key).expose_provenance() as u64,
        value: std::ptr::from_ref(value).expose_provenance() as u64,
        flags,
    };
    call(BPF_MAP_UPDATE_ELEM, &mut element).map(|_| ())
}

/// Reads an element; false if there is none.
///
/// # Errors
///
/// What else the kernel says.
pub fn lookup<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &mut V) -> io::Result<bool> {
    let mut element = Element {
        map: map.as_raw_fd().cast_unsigned(),
        pad: 0,
        key: std::ptr::from_ref(key).expose_provenance() as u64,
        value: std::ptr::from_mut(value).expose_provenance() as u64,
        flags: 0,
    };
    match call(BPF_MAP_LOOKUP_ELEM, &mut element) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
