//! `bpf(2)` for map types that aya doesn't know.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::Pod;

/// `BPF_NOEXIST`: make an element, don't change one.
pub const NO_EXIST: u64 = 1;

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;

/// Part of `union bpf_attr` for commands on map elements (`include/uapi/linux/bpf.h`).
#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn call(command: libc::c_int, element: &mut Element) -> io::Result<()> {
    // SAFETY: the attributes are of that size; key and value point to values of the map's own sizes, which live
    // as long as the call.
    let code =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(element), size_of::<Element>()) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
    call(BPF_MAP_UPDATE_ELEM, &mut element)
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
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
