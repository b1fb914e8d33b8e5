//! Inodes: what a name stands for.

use super::{Dentry, load, offset, probe, probe_at, task::Task};

/// `struct inode *`, typed.
#[derive(Clone, Copy)]
pub struct Inode(*const u8);

/// `S_IFMT`, `S_IFCHR`.
const S_IFMT: u16 = 0o170_000;
const S_IFCHR: u16 = 0o020_000;
const S_IFBLK: u16 = 0o060_000;
const S_IFREG: u16 = 0o100_000;
const S_IFDIR: u16 = 0o040_000;

/// `PROC_SUPER_MAGIC` (`include/uapi/linux/magic.h`).
pub const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// What an inode is a node of.
#[derive(Clone, Copy)]
pub enum Device {
    /// No device.
    None,
    /// A character device, by number.
    Character(u32),
    /// A block device.
    Block,
}

/// What a file below `/proc/sys` is about.
#[derive(Clone, Copy)]
pub enum Sysctl {
    /// It isn't there.
    None,
    /// A setting.
    Plain,
    /// Which program the kernel starts by itself.
    Helper,
}

impl Inode {
    /// The one at an address.
    #[inline(always)]
    pub fn at(address: *const u8) -> Self {
        Self(address)
    }

    /// Its number.
    #[inline(always)]
    pub fn number(self) -> u64 {
        load!(self.0, inode_i_ino, u64)
    }

    /// How many names it has.
    #[inline(always)]
    pub fn names(self) -> u32 {
        load!(self.0, inode_i_nlink, u32)
    }

    /// Which of the inodes that have had this number it is.
    #[inline(always)]
    pub fn generation(self) -> u32 {
        load!(self.0, inode_i_generation, u32)
    }

    /// Whether it is a regular file or a directory.
    #[inline(always)]
    pub fn is_file_or_directory(self) -> bool {
        matches!(load!(self.0, inode_i_mode, u16) & S_IFMT, S_IFREG | S_IFDIR)
    }

    /// Whether it is a file of `/proc` about the task itself. Compares the kernel's own names of processes (`struct pid`),
    /// so that no number or namespace can stand for another process.
    #[inline(always)]
    pub fn is_own_proc_file(self, dentry: Dentry, task: Task) -> bool {
        if dentry.file_system() != PROC_SUPER_MAGIC || load!(self.0, inode_i_mode, u16) & S_IFMT != S_IFREG {
            return false;
        }
        let whole = (self.0 as u64).wrapping_sub(offset!(proc_inode_vfs_inode) as u64);
        match probe!(whole, proc_inode_pid, u64) {
            Some(pid) => pid != 0 && (pid == task.pid() || pid == task.leader_pid()),
            None => false,
        }
    }

    /// What a file of `/proc` says of the kernel. The names are the kernel's own, not those of directories.
    #[inline(always)]
    pub fn sysctl(self) -> Sysctl {
        let whole = (self.0 as u64).wrapping_sub(offset!(proc_inode_vfs_inode) as u64);
        // What can't be read may be a setting.
        let Some(entry) = probe!(whole, proc_inode_sysctl_entry, u64) else { return Sysctl::Helper };
        if entry == 0 {
            return Sysctl::None;
        }
        let name = probe!(entry, ctl_table_procname, u64).and_then(probe_at::<u64>);
        match name.map(u64::to_ne_bytes) {
            // `core_pattern` (and `core_pipe_limit`, which belongs to it), `modprobe`, `hotplug`, `poweroff_cmd`.
            Some([b'c', b'o', b'r', b'e', b'_', b'p', ..])
            | Some([b'm', b'o', b'd', b'p', b'r', b'o', b'b', b'e'])
            | Some([b'h', b'o', b't', b'p', b'l', b'u', b'g', 0])
            | Some([b'p', b'o', b'w', b'e', b'r', b'o', b'f', b'f'])
            | None => Sysctl::Helper,
            Some(_) => Sysctl::Plain,
        }
    }

    /// What it is a node of.
    #[inline(always)]
    pub fn device(self) -> Device {
        match load!(self.0, inode_i_mode, u16) & S_IFMT {
            S_IFCHR => Device::Character(load!(self.0, inode_i_rdev, u32)),
            S_IFBLK => Device::Block,
            _ => Device::None,
        }
    }
}
