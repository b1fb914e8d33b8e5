//! The current task's descriptors. By probe reads: a table of pointers has no types.

use super::{GO_ON, STOP, file, mode_of, offset, probe, probe_at, relatives::Address, repeat};

/// Descriptors that are looked at, at most: as many turns as `bpf_loop` makes. More than a process usually may have.
const MAX: u32 = 1 << 23;
/// `O_PATH` (`include/uapi/asm-generic/fcntl.h`).
const O_PATH: u32 = 0o1000_0000;
/// `S_IFMT`, `S_IFCHR`.
const S_IFMT: u32 = 0o170_000;
const S_IFCHR: u32 = 0o020_000;

/// The current task's table of descriptors.
struct Table {
    /// `struct file **`.
    files: u64,
    /// Bits of those that the program doesn't inherit.
    close: u64,
    count: u32,
    /// Not 0 if one was found, or could not be looked at.
    found: u32,
}

/// Whether the program that the current task executes inherits a file that it could do something with: all but pipes, sockets and
/// what else the kernel has made for itself, terminals, and devices that need no rule. A ring is one: it can hold files. Not 0 if
/// it does.
///
/// VERIFIER: see [`crate::walk::walk_end`]; the stack is short.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn descriptors_unjudged() -> u32 {
    let Some(mut table) = table() else { return 1 };
    let count = table.count;
    if count > MAX {
        return 1;
    }
    repeat(count, step_descriptor, &mut table);
    table.found
}

/// What a descriptor leads to, as the kind of its file keeps it (`private_data`): for one of a map `struct bpf_map *`. Other
/// threads may put another file there the next moment.
#[inline(always)]
pub fn behind(number: u32) -> Option<u64> {
    let table = table()?;
    if number >= table.count {
        return None;
    }
    let file = probe_at::<u64>(table.files.wrapping_add(u64::from(number) * 8))?;
    probe!(file, file_private_data, u64)
}

#[inline(always)]
fn table() -> Option<Table> {
    let files = probe!(Address::current().0, task_files, u64)?;
    let fdt = probe!(files, files_fdt, u64)?;
    Some(Table {
        files: probe!(fdt, fdt_fd, u64)?,
        close: probe!(fdt, fdt_close_on_exec, u64)?,
        count: probe!(fdt, fdt_max_fds, u32)?,
        found: 0,
    })
}

extern "C" fn step_descriptor(turn: u32, table: *mut Table) -> i64 {
    // SAFETY: the state that `repeat` was given.
    let table = unsafe { &mut *table };
    let number = u64::from(turn);
    let inherited = || {
        let word = probe_at::<u64>(table.close.wrapping_add(number / 64 * 8))?;
        if word >> (number & 63) & 1 != 0 {
            return Some(0);
        }
        probe_at::<u64>(table.files.wrapping_add(number * 8))
    };
    match inherited() {
        Some(0) => GO_ON,
        Some(at) if harmless(at) => GO_ON,
        _ => {
            table.found = 1;
            STOP
        }
    }
}

/// Whether nothing can be lost by a file, `struct file *`.
#[inline(always)]
fn harmless(at: u64) -> bool {
    let path = at.wrapping_add(offset!(file_f_path) as u64);
    let (Some(mnt), Some(dentry)) = (probe!(path, path_mnt, u64), probe!(path, path_dentry, u64)) else {
        return false;
    };
    if probe!(mnt, vfsmount_mnt_flags, u32).is_some_and(|flags| flags & file::MNT_INTERNAL != 0) {
        return !file::is_ring(dentry);
    }
    if probe!(at, file_f_flags, u32).is_some_and(|flags| flags & O_PATH != 0) {
        return true;
    }
    mode_of(dentry) & S_IFMT == S_IFCHR && file::device_of(dentry).is_some_and(is_plain)
}

/// Whether reading from and writing to a character device needs no rule: those of [`crate::judge::needs_no_rule`], and
/// terminals that somebody has opened (`Documentation/admin-guide/devices.txt`).
#[inline(always)]
fn is_plain(device: u32) -> bool {
    let major = device >> 20;
    crate::judge::is_harmless(device) || major == 4 || major == 5 || matches!(major, 136..=143)
}
