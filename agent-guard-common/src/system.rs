//! Which operation on the system the use of a capability is.
//!
//! Much of what is done to the system has no LSM hook of its own: the kernel asks for a capability, and the system call says
//! what for.

use crate::op::Op;

/// Capabilities by their numbers (`include/uapi/linux/capability.h`), without `CAP_`.
pub const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// Numbers in [`CAPABILITIES`].
pub const KILL: u32 = 5;
const NET_RAW: u32 = 13;
const SYS_MODULE: u32 = 16;
const SYS_RAWIO: u32 = 17;
const SYS_CHROOT: u32 = 18;
const SYS_PTRACE: u32 = 19;
/// The one that is asked for by whatever has none of its own.
pub const SYS_ADMIN: u32 = 21;
const SYS_BOOT: u32 = 22;
const SYS_TIME: u32 = 25;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// A system call of x86-64 or arm64 that needs [`SYS_ADMIN`] for one thing (`arch/x86/entry/syscalls/syscall_64.tbl`,
/// `include/uapi/asm-generic/unistd.h`).
const fn of_call(call: u64) -> Option<Op> {
    #[cfg(target_arch = "aarch64")]
    const CALLS: [u64; 12] = [40, 39, 41, 97, 220, 268, 224, 225, 161, 162, 280, 241];
    #[cfg(not(target_arch = "aarch64"))]
    const CALLS: [u64; 12] = [165, 166, 155, 272, 56, 308, 167, 168, 170, 171, 321, 298];
    let [mount, umount, pivot, unshare, clone, setns, swapon, swapoff, hostname, domain, bpf, perf] = CALLS;
    // New ones have the same number everywhere: open_tree to fspick, mount_setattr, open_tree_attr; clone3.
    const OPEN_TREE: u64 = 428;
    const FSPICK: u64 = 433;
    if call == mount
        || call == umount
        || call == pivot
        || (call >= OPEN_TREE && call <= FSPICK)
        || call == 442
        || call == 467
    {
        Some(Op::MOUNT)
    } else if call == unshare || call == clone || call == setns || call == 435 {
        Some(Op::NAMESPACES)
    } else if call == swapon || call == swapoff {
        Some(Op::SWAP)
    } else if call == hostname || call == domain {
        Some(Op::HOSTNAME)
    } else if call == bpf {
        Some(Op::BPF)
    } else if call == perf {
        Some(Op::PERF)
    } else {
        None
    }
}

/// `kexec_load`, `kexec_file_load`.
const fn is_kexec(call: u64) -> bool {
    if cfg!(target_arch = "aarch64") { call == 104 || call == 294 } else { call == 246 || call == 320 }
}

/// What the use of a capability in a system call is. `call` is none where its number means something else, as in 32-bit
/// calls: then it can be any of [`could_be`], too.
#[must_use]
pub const fn operation(capability: u32, call: Option<u64>) -> Op {
    match (capability, call) {
        (SYS_MODULE, _) => Op::MODULES,
        (SYS_RAWIO, _) => Op::RAW_DISK,
        (SYS_CHROOT, _) => Op::MOUNT,
        (SYS_PTRACE, _) => Op::PTRACE,
        (SYS_TIME, _) => Op::CLOCK,
        (NET_RAW, _) => Op::RAW_NETWORK,
        (PERFMON, _) => Op::PERF,
        (BPF, _) => Op::BPF,
        (KILL, _) => Op::SIGNAL,
        (SYS_BOOT, Some(call)) => {
            if is_kexec(call) {
                Op::KEXEC
            } else {
                Op::REBOOT
            }
        }
        (SYS_ADMIN, Some(call)) => match of_call(call) {
            Some(op) => op,
            None => Op::CAPABILITY,
        },
        _ => Op::CAPABILITY,
    }
}

/// Operations that the use of a capability can be where the system call isn't known, besides [`Op::CAPABILITY`].
#[must_use]
pub const fn could_be(capability: u32) -> &'static [Op] {
    match capability {
        SYS_ADMIN => &[Op::MOUNT, Op::NAMESPACES, Op::SWAP, Op::HOSTNAME, Op::BPF, Op::PERF],
        SYS_BOOT => &[Op::KEXEC, Op::REBOOT],
        _ => &[],
    }
}

/// Whether an operation has a hook of its own in every system call where a capability is asked for it, so that this hook can
/// hold the call.
#[must_use]
pub const fn has_own_hook(op: Op, call: Option<u64>) -> bool {
    let Some(call) = call else { return false };
    #[cfg(target_arch = "aarch64")]
    const CALLS: [u64; 6] = [40, 39, 41, 198, 170, 112];
    #[cfg(not(target_arch = "aarch64"))]
    const CALLS: [u64; 6] = [165, 166, 155, 41, 164, 227];
    let [mount, umount, pivot, socket, settimeofday, clock_settime] = CALLS;
    const MOVE_MOUNT: u64 = 429;
    match op {
        Op::MOUNT => call == mount || call == umount || call == pivot || call == MOVE_MOUNT,
        Op::CLOCK => call == settimeofday || call == clock_settime,
        Op::BPF | Op::PERF => matches!(of_call(call), Some(of) if of.0 == op.0),
        Op::RAW_NETWORK => call == socket,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations() {
        let is = |capability, call| operation(capability, Some(call)).name();
        assert_eq!(is(SYS_MODULE, 313), "modules");
        assert_eq!(is(SYS_TIME, 159), "clock");
        assert_eq!(is(KILL, 62), "signal");
        assert_eq!(is(0, 92), "capability");
        assert_eq!(operation(SYS_ADMIN, None), Op::CAPABILITY);
        assert_eq!(operation(SYS_BOOT, None), Op::CAPABILITY);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn calls() {
        let is = |call| operation(SYS_ADMIN, Some(call)).name();
        let calls = [165, 166, 155, 428, 429, 433, 442, 272, 56, 435, 308, 167, 170, 321, 298, 0, 257];
        let names = calls.map(is);
        assert_eq!(names.iter().filter(|name| **name == "mount").count(), 7);
        assert_eq!(names.iter().filter(|name| **name == "namespaces").count(), 4);
        assert_eq!(&names[11..], ["swap", "hostname", "bpf", "perf", "capability", "capability"]);
        for call in 0..512 {
            let (admin, boot) = (operation(SYS_ADMIN, Some(call)), operation(SYS_BOOT, Some(call)));
            assert!(admin == Op::CAPABILITY || could_be(SYS_ADMIN).contains(&admin));
            assert!(could_be(SYS_BOOT).contains(&boot));
        }
        assert_eq!(operation(SYS_BOOT, Some(246)), Op::KEXEC);
        assert_eq!(operation(SYS_BOOT, Some(169)), Op::REBOOT);
    }
}
