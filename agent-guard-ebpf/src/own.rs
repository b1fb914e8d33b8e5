//! What opening a file is: something that needs no rule, because no program can do without it and nothing is lost by it; or an
//! operation on the system.

use agent_guard_common::{Op, subject::Session};

use crate::{
    judge::{Generation, Judgement, needs_no_rule},
    kernel::{Dentry, Device, Inode, PROC_SUPER_MAGIC, Sysctl, Task},
    maps::GUARD,
    walk::Spot,
};

/// `CGROUP_SUPER_MAGIC`, `CGROUP2_SUPER_MAGIC`, `BINFMTFS_MAGIC` (`include/uapi/linux/magic.h`).
const CGROUP_SUPER_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
const BINFMTFS_MAGIC: u64 = 0x4249_4e4d;

/// `/dev/net/tun` (`include/linux/miscdevice.h`: `TUN_MINOR`).
const TUN: u32 = 10 << 20 | 200;

/// What opening a file can be besides reading and writing it; 0 if it is no more than that.
///
/// VERIFIER: a number, not an option: see [`crate::known::known_beyond`].
#[inline(always)]
fn beside(inode: Inode, dentry: Dentry, writes: bool) -> u32 {
    let op = match inode.device() {
        Device::Block => Op::RAW_DISK,
        Device::Character(number) if reaches_disks(number) => Op::RAW_DISK,
        Device::Character(TUN) => Op::TUN,
        Device::None if writes => match dentry.file_system() {
            CGROUP_SUPER_MAGIC | CGROUP2_SUPER_MAGIC => Op::CGROUPS,
            BINFMTFS_MAGIC => Op::HELPERS,
            PROC_SUPER_MAGIC => match inode.sysctl() {
                Sysctl::None => return 0,
                Sysctl::Plain => Op::SYSCTL,
                Sysctl::Helper => Op::HELPERS,
            },
            _ => return 0,
        },
        _ => return 0,
    };
    op.0 as u32
}

/// Whether a character device reads or writes memory, ports, or disks past their file systems: `mem`, `kmem`, `port`
/// (`drivers/char/mem.c`), SCSI commands (`sg`, 21), tapes (9), flash (90), and among the miscellaneous ones btrfs's (234),
/// those that make block devices (`device-mapper` 236, `loop-control` 237). NVMe's have no number of their own: the daemon
/// looks for those.
#[inline(always)]
fn reaches_disks(device: u32) -> bool {
    const MEM: u32 = 1 << 20;
    const MISC: u32 = 10 << 20;
    let major = device >> 20;
    device == MEM | 1
        || device == MEM | 2
        || device == MEM | 4
        || device == MISC | 234
        || device == MISC | 236
        || device == MISC | 237
        || major == 21
        || major == 9
        || major == 90
        || GUARD.get(0).is_none_or(|guard| {
            let [a, b, c, d, e, f, g, h] = guard.disks;
            major == a
                || major == b
                || major == c
                || major == d
                || major == e
                || major == f
                || major == g
                || major == h
        })
}

/// How reading from and writing to a file is judged; and above the last byte what opening it is besides.
#[derive(Clone, Copy)]
pub struct Kind(u32);

impl Kind {
    const BUILTIN: u32 = 0;
    const SCOPED: u32 = 1;
    const UNSCOPED: u32 = 2;

    /// Of a file, which may be a device or about the task itself.
    ///
    /// VERIFIER: mixed with a zero that it doesn't know, or it follows each kind through each operation.
    #[inline(always)]
    pub fn of(session: &Session, dentry: Dentry, writes: bool) -> Self {
        let (how, system) = match dentry.inode() {
            None => (Self::SCOPED, 0),
            Some(inode) => match inode.device() {
                Device::Character(number) if needs_no_rule(session, number) => (Self::BUILTIN, 0),
                Device::None if inode.is_own_proc_file(dentry, Task::current()) => (Self::BUILTIN, 0),
                Device::None => (Self::SCOPED, beside(inode, dentry, writes)),
                _ => (Self::UNSCOPED, beside(inode, dentry, writes)),
            },
        };
        Self((how | system << 8) ^ session.pad)
    }

    /// The decision about one operation.
    #[inline(always)]
    pub fn judge(self, tables: &Generation, session: &Session, spot: &Spot, op: Op) -> Judgement {
        let how = self.0 & 0xff;
        if how == Self::BUILTIN {
            return Judgement::builtin();
        }
        spot.judge(tables, session, op, how == Self::UNSCOPED)
    }

    /// What opening it is besides, if that is anything.
    #[inline(always)]
    pub fn system(self) -> Option<Op> {
        if self.0 >> 8 == 0 { None } else { Some(Op((self.0 >> 8) as u8)) }
    }
}
