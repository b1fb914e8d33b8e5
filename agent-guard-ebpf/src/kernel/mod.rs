//! Typed views of kernel objects: the only place that names a kernel structure's member.
//!
//! Two ways to read. A *typed load* is one instruction that the verifier type-checks; it works on hook
//! arguments and on what is reached from them by typed loads. A *probe read* is a helper call that works on any
//! address; what it returns is a plain number, from which only probe reads go on. The hot path uses typed loads.

mod cgroup;
pub mod descriptors;
pub mod file;
mod inode;
mod memory;
pub mod mount;
mod net;
pub mod relatives;
mod task;

use core::ptr;

use agent_guard_common::layout::KernelLayout;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};

pub use self::{
    cgroup::Cgroup,
    file::{Attributes, Dentry, File, Path, Untyped, VfsMount, Vma, key_of, mode_of},
    inode::{Device, Inode, PROC_SUPER_MAGIC, Sysctl},
    memory::{PAGE, memory_page},
    net::{AF_INET, AF_INET6, AF_UNIX, Address, Message, SOCK_SEQPACKET, Sock, Socket, UnixSocket},
    task::{Bprm, Task, UserNamespace},
};

/// Offsets of the running kernel. User space overwrites the whole before the load, and the map behind it is
/// frozen then, so that the verifier takes the values for constants.
#[unsafe(no_mangle)]
static LAYOUT: KernelLayout = KernelLayout::ABSENT;

/// Address of the kernel's lock for renames; 0 where it isn't known. Set like [`LAYOUT`].
#[unsafe(no_mangle)]
pub static RENAME_LOCK: u64 = 0;

/// The offset of a member. Volatile, or the compiler would take the value in this file for the real one.
macro_rules! offset {
    ($member:ident) => {
        // SAFETY: a valid, aligned, initialised static.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::LAYOUT.$member) as usize }
    };
}

/// A typed load of a member.
macro_rules! load {
    ($object:expr, $member:ident, $type:ty) => {{
        let address = ($object as *const u8).wrapping_add($crate::kernel::offset!($member)).cast::<$type>();
        // SAFETY: the verifier checks type and offset, and turns faults into zeroes.
        unsafe { core::ptr::read_volatile(address) }
    }};
}

/// A probe read of a member.
macro_rules! probe {
    ($object:expr, $member:ident, $type:ty) => {
        $crate::kernel::probe_at::<$type>(($object).wrapping_add($crate::kernel::offset!($member) as u64))
    };
}

use load;
use offset;
use probe;

/// Reads kernel memory at any address; nothing if it can't be read.
#[inline(always)]
pub fn probe_at<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the destination is a local of that size; the helper checks the source.
    let code = unsafe {
        bpf_probe_read_kernel(
            ptr::from_mut(&mut value).cast(),
            size_of::<T>() as u32,
            ptr::with_exposed_provenance(address as usize),
        )
    };
    if code == 0 { Some(value) } else { None }
}

/// What a step of [`repeat`] says: go on, or that was all.
pub const GO_ON: i64 = 0;
/// See [`GO_ON`].
pub const STOP: i64 = 1;

/// Calls a step up to `times` times with the same state, until it says [`STOP`].
///
/// VERIFIER: a loop in the program is verified turn by turn, which for walks up a tree takes the verifier seconds; a
/// step of `bpf_loop` (Linux 5.17) is verified until its state repeats.
#[inline(always)]
pub fn repeat<S>(times: u32, step: extern "C" fn(u32, *mut S) -> i64, state: &mut S) {
    // SAFETY: the step has the signature that the helper asks for, and the state outlives the call. If the helper
    // fails, no step was taken, which every caller's state says.
    let _turns = unsafe { bpf_loop(times, step as *mut _, ptr::from_mut(state).cast(), 0) };
}

/// Whether the arguments of `inode_setattr` begin with the id map of the mount.
#[inline(always)]
pub fn setattr_has_idmap() -> bool {
    offset!(arg_setattr_dentry) != 0
}

/// Whether the arguments of `perf_event_open` begin with the attributes.
#[inline(always)]
pub fn perf_has_attributes() -> bool {
    offset!(arg_perf_type) != 0
}
