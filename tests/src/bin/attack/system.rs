//! The system: what needs rights that an agent has no use for.
//!
//! Each does as little as it can: it changes nothing, or what can be taken back, or fails where it can't be told from success
//! (`ENOENT` for what doesn't exist).

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use crate::Attack;
use crate::sys::{args, errno, errno_of, in_fork, need, own};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("mount-tmpfs", |a| args(a).map(|[at]| mount_tmpfs(at))),
    ("mount-new-api", |a| args(a).map(|[at]| mount_new_api(at))),
    ("remount", |a| args(a).map(|[at]| errno_of(rustix::mount::mount_remount(at, MountFlags::NOATIME, "")))),
    ("mount-setattr", |a| args(a).and_then(|[at]| mount_setattr(at))),
    ("umount", |a| args(a).map(|[at]| errno_of(rustix::mount::unmount(at, UnmountFlags::DETACH)))),
    ("chroot-same", |_| in_fork(|| errno_of(rustix::process::chroot("/")))),
    ("unshare-user", |_| unshare(libc::CLONE_NEWUSER)),
    ("unshare-mounts", |_| unshare(libc::CLONE_NEWNS)),
    ("unshare-network", |_| unshare(libc::CLONE_NEWNET)),
    ("clone-namespace", |_| clone_namespace()),
    ("setns", |a| args(a).and_then(|[pid]| setns(pid))),
    ("delete-module", |_| delete_module()),
    ("init-module", |_| Ok(init_module())),
    ("bpf-map", |_| Ok(bpf_map())),
    ("bpf-get", |a| args(a).and_then(|[path]| bpf_get(path))),
    ("bpf-delete", |a| args(a).and_then(|[path]| bpf_delete(path))),
    ("bpf-detach", |a| args(a).and_then(|[path]| bpf_detach(path))),
    ("bpf-delete-inner", |a| args(a).and_then(|[path]| bpf_delete_inner(path))),
    ("bpf-fill", |a| args(a).and_then(|[path, count]| bpf_fill(path, count.parse()?))),
    ("bpf-program-by-id", |a| args(a).and_then(|[id]| Ok(by_id(13, id.parse()?)))),
    ("bpf-map-by-id", |a| args(a).and_then(|[id]| Ok(by_id(14, id.parse()?)))),
    ("perf", |_| Ok(perf())),
    ("kexec-unload", |_| Ok(kexec_unload())),
    ("reboot-key", |_| Ok(reboot_key())),
    ("clock-same", |_| Ok(clock_same())),
    ("clock-adjust", |_| Ok(clock_adjust())),
    ("swapoff", |_| Ok(swapoff())),
    ("hostname-same", |_| hostname_same()),
    ("socket-raw", |_| Ok(socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP))),
    ("socket-packet", |_| Ok(socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0))),
    ("socket-stream", |_| Ok(socket(libc::AF_INET, libc::SOCK_STREAM, 0))),
    ("socket-netlink", |_| Ok(socket(libc::AF_NETLINK, libc::SOCK_RAW, 0))),
    ("add-key", |_| Ok(add_key())),
    ("nice-raise", |_| in_fork(nice_raise)),
];

fn mount_tmpfs(at: &str) -> i32 {
    let mounted = rustix::mount::mount("none", at, "tmpfs", MountFlags::empty(), None);
    let outcome = errno_of(mounted);
    if outcome == 0 {
        return errno_of(rustix::mount::unmount(at, UnmountFlags::DETACH));
    }
    outcome
}

/// As above, by the calls that came with Linux 5.2.
fn mount_new_api(at: &str) -> i32 {
    let made = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        rustix::mount::fsconfig_create(&context)?;
        let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        rustix::mount::move_mount(&mount, "", rustix::fs::CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        rustix::mount::unmount(at, UnmountFlags::DETACH)
    });
    errno_of(made)
}

/// No devices on there any more.
fn mount_setattr(at: &str) -> Result<i32> {
    let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = match rustix::mount::open_tree(rustix::fs::CWD, at, flags) {
        Ok(tree) => tree,
        Err(error) => return Ok(error.raw_os_error()),
    };
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let attributes = [4_u64, 0, 0, 0];
    let empty = CString::default();
    /// `AT_EMPTY_PATH`.
    const EMPTY_PATH: i64 = 0x1000;
    // SAFETY: a descriptor, a C string and a structure that live through the call, and its size.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            empty.as_ptr(),
            EMPTY_PATH,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    Ok(errno(done))
}

fn unshare(what: i32) -> Result<i32> {
    // SAFETY: takes a number; a child with one thread.
    in_fork(|| errno(unsafe { libc::unshare(what) }))
}

fn clone_namespace() -> Result<i32> {
    let flags = i64::from(libc::CLONE_NEWUTS | libc::SIGCHLD);
    // SAFETY: as fork: no memory is shared, and this program has one thread.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0_i64, 0_i64, 0_i64, 0_i64) } {
        0 => crate::sys::exit(0),
        child if child < 0 => Ok(errno(child)),
        child => {
            let mut status = 0;
            // SAFETY: a child of ours, and a number to write to.
            unsafe { libc::waitpid(i32::try_from(child)?, &raw mut status, 0) };
            Ok(0)
        }
    }
}

fn setns(pid: &str) -> Result<i32> {
    let path = format!("/proc/{pid}/ns/uts");
    let namespace = std::fs::File::open(&path).with_context(|| format!("can't open {path}"))?;
    // SAFETY: takes a descriptor that lives through the call.
    in_fork(|| errno(unsafe { libc::setns(namespace.as_raw_fd(), 0) }))
}

fn delete_module() -> Result<i32> {
    let name = CString::new("no_such_module")?;
    // SAFETY: a C string that lives through the call.
    Ok(errno(unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), 0) }))
}

/// No module has no bytes.
fn init_module() -> i32 {
    let nothing = CString::default();
    // SAFETY: no bytes of a buffer, and a C string that lives through the call.
    errno(unsafe { libc::syscall(libc::SYS_init_module, nothing.as_ptr(), 0, nothing.as_ptr()) })
}

/// `bpf(2)` with the first bytes of its attributes, for commands that make a descriptor.
fn bpf_open(command: i64, attributes: &[u8]) -> Result<OwnedFd, i32> {
    // SAFETY: a buffer that lives through the call, and its size.
    let made = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), attributes.len()) };
    i32::try_from(made).map_or(Err(libc::EINVAL), own)
}

fn bpf(command: i64, attributes: &[u8]) -> i32 {
    bpf_open(command, attributes).err().unwrap_or_default()
}

fn bpf_map() -> i32 {
    // map_type (an array), key_size, value_size, max_entries.
    let attributes: Vec<u8> = [2_u32, 4, 4, 1].iter().flat_map(|word| word.to_ne_bytes()).collect();
    bpf(0, &attributes)
}

fn bpf_get(path: &str) -> Result<i32> {
    Ok(pinned(path)?.err().unwrap_or_default())
}

/// The attributes of commands that find something by its number.
fn id_attributes(id: u32) -> Vec<u8> {
    let mut attributes = id.to_ne_bytes().to_vec();
    attributes.extend([0; 8]);
    attributes
}

fn by_id(command: i64, id: u32) -> i32 {
    bpf(command, &id_attributes(id))
}

/// Removes an element with a key of zeroes from a map that is pinned, which has none (`MAP_DELETE_ELEM`).
fn bpf_delete(path: &str) -> Result<i32> {
    let map = need("the map", pinned(path)?)?;
    Ok(delete_nothing(&map))
}

/// Takes a program off what its link, which is pinned, ties it to (`LINK_DETACH`).
fn bpf_detach(path: &str) -> Result<i32> {
    let link = need("the link", pinned(path)?)?;
    let mut attributes = link.as_raw_fd().to_ne_bytes().to_vec();
    attributes.extend([0; 4]);
    // SAFETY: a buffer that lives through the call, and its size.
    Ok(errno(unsafe { libc::syscall(libc::SYS_bpf, 34, attributes.as_ptr(), attributes.len()) }))
}

/// The same from a map in one that is pinned.
fn bpf_delete_inner(path: &str) -> Result<i32> {
    let outer = need("the map", pinned(path)?)?;
    let (key, mut id) = ([0_u8; 64], 0_u32);
    let attributes = element(&outer, key.as_ptr() as u64, std::ptr::from_mut(&mut id) as u64);
    // SAFETY: attributes that live through the call, and what they point to is as large as the map's keys and values.
    let code = unsafe { libc::syscall(libc::SYS_bpf, 1, attributes.as_ptr(), attributes.len()) };
    anyhow::ensure!(code == 0, "the outer map has nothing at 0");
    let inner = need("the inner map", bpf_open(14, &id_attributes(id)))?;
    Ok(delete_nothing(&inner))
}

/// Puts so many elements into a map that is pinned, with keys of 64 bits and values of 32 (`MAP_UPDATE_BATCH`).
fn bpf_fill(path: &str, count: u32) -> Result<i32> {
    let map = need("the map", pinned(path)?)?;
    let keys: Vec<u64> = (1..=u64::from(count)).map(|number| number << 40).collect();
    let values = vec![0_u32; keys.len()];
    let count_and_map = u64::from(map.as_raw_fd().cast_unsigned()) << 32 | u64::from(count);
    // in_batch, out_batch, keys, values, count and map_fd, elem_flags, flags.
    let words = [0, 0, keys.as_ptr() as u64, values.as_ptr() as u64, count_and_map, 0, 0];
    let attributes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    // SAFETY: attributes that live through the call, and as many keys and values as they say.
    Ok(errno(unsafe { libc::syscall(libc::SYS_bpf, 26, attributes.as_ptr(), attributes.len()) }))
}

fn pinned(path: &str) -> Result<Result<OwnedFd, i32>> {
    let path = CString::new(path)?;
    // pathname, bpf_fd, file_flags.
    let mut attributes = (path.as_ptr() as u64).to_ne_bytes().to_vec();
    attributes.extend([0; 8]);
    Ok(bpf_open(7, &attributes))
}

/// map_fd, key, value, flags.
fn element(map: &OwnedFd, key: u64, value: u64) -> Vec<u8> {
    let words = [u64::from(map.as_raw_fd().cast_unsigned()), key, value, 0];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn delete_nothing(map: &OwnedFd) -> i32 {
    let key = [0_u8; 64];
    let attributes = element(map, key.as_ptr() as u64, 0);
    // SAFETY: attributes that live through the call, and a key that is as large as the map's.
    errno(unsafe { libc::syscall(libc::SYS_bpf, 3, attributes.as_ptr(), attributes.len()) })
}

fn perf() -> i32 {
    // struct perf_event_attr: a software event (type 1), its size, the CPU's clock (config 0).
    let mut attributes = [0_u8; 64];
    attributes
        .iter_mut()
        .zip(1_u32.to_ne_bytes().into_iter().chain(64_u32.to_ne_bytes()))
        .for_each(|(to, from)| *to = from);
    // SAFETY: a structure that lives through the call; this process, any CPU, no group, no flags.
    let opened =
        unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1_i64, -1_i64, 0_u64) };
    match i32::try_from(opened).map(own) {
        Ok(Ok(_closed)) => 0,
        Ok(Err(errno)) => errno,
        Err(_) => libc::EINVAL,
    }
}

/// Forgets the kernel that isn't loaded.
fn kexec_unload() -> i32 {
    // SAFETY: no segments.
    errno(unsafe { libc::syscall(libc::SYS_kexec_load, 0_u64, 0_u64, 0_u64, 0_u64) })
}

/// Ctrl-Alt-Del shall be told to init.
fn reboot_key() -> i32 {
    // SAFETY: takes a number.
    errno(unsafe { libc::reboot(libc::RB_DISABLE_CAD) })
}

fn clock_same() -> i32 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    errno_of(rustix::time::clock_settime(rustix::time::ClockId::Realtime, now))
}

fn clock_adjust() -> i32 {
    // SAFETY: plain integers, for which zero means nothing.
    let mut how: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: a structure that lives through the call.
    unsafe { libc::adjtimex(&raw mut how) };
    // What it is already.
    how.modes = libc::ADJ_FREQUENCY;
    // SAFETY: as above.
    errno(unsafe { libc::adjtimex(&raw mut how) })
}

fn swapoff() -> i32 {
    let path = CString::from(c"/no/such/swap");
    // SAFETY: a C string that lives through the call.
    errno(unsafe { libc::swapoff(path.as_ptr()) })
}

fn hostname_same() -> Result<i32> {
    let name = rustix::system::uname().nodename().to_owned();
    Ok(errno_of(rustix::system::sethostname(name.to_bytes())))
}

fn socket(family: i32, kind: i32, protocol: i32) -> i32 {
    // SAFETY: takes numbers.
    match own(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) }) {
        Ok(_closed) => 0,
        Err(errno) => errno,
    }
}

fn add_key() -> i32 {
    /// `KEY_SPEC_PROCESS_KEYRING`.
    const PROCESS_KEYRING: i64 = -2;
    let (kind, name, payload) = (c"user", c"agent-guard-test", c"x");
    // SAFETY: C strings that live through the call.
    errno(unsafe {
        libc::syscall(
            libc::SYS_add_key,
            kind.as_ptr(),
            name.as_ptr(),
            payload.as_ptr(),
            1_u64,
            PROCESS_KEYRING,
        )
    })
}

/// A child's own priority, which needs a capability.
fn nice_raise() -> i32 {
    errno_of(rustix::process::setpriority_process(None, -5))
}
