//! Operations: what a session can try to do.

/// An operation, as rules name it. On the wire a byte.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Op(pub u8);

impl Op {
    /// Open a file for reading.
    pub const READ: Self = Self(0);
    /// Execute a file.
    pub const EXECUTE: Self = Self(1);
    /// Open for writing, truncate.
    pub const WRITE: Self = Self(2);
    /// Make a file, directory, link, node or socket; the target of a rename.
    pub const CREATE: Self = Self(3);
    /// Unlink, remove a directory, be replaced by a rename.
    pub const DELETE: Self = Self(4);
    /// Be moved away.
    pub const RENAME: Self = Self(5);
    /// Mode, owner, times, attributes, ACL, flags.
    pub const METADATA: Self = Self(6);
    /// Connect a socket, or send without connecting.
    pub const CONNECT: Self = Self(7);
    /// The same to a Unix socket, where it counts which hooks see it. Calls, rules and events have [`Op::CONNECT`].
    pub const UNIX: Self = Self(8);
    /// Bind a socket to an address of the host's, listen there, or accept a connection.
    pub const LISTEN: Self = Self(9);
    /// Ask for names, where it counts which programs bring the questions to the daemon. Calls, rules and events have
    /// [`Op::CONNECT`].
    pub const NAMES: Self = Self(10);

    /// Execute a program with arguments.
    pub const EXEC: Self = Self(16);
    /// Execute a program outside of sessions that becomes part of one by that ([`crate::enroll`]). No operation of a session's.
    pub const ENROLL: Self = Self(17);
    /// Mount, unmount, move, change the root directory.
    pub const MOUNT: Self = Self(32);
    /// Make or enter name spaces.
    pub const NAMESPACES: Self = Self(33);
    /// Load and unload modules of the kernel, also by asking for what needs one.
    pub const MODULES: Self = Self(34);
    /// `bpf(2)`.
    pub const BPF: Self = Self(35);
    /// `perf_event_open(2)`.
    pub const PERF: Self = Self(36);
    /// Load another kernel.
    pub const KEXEC: Self = Self(37);
    /// Reboot, halt, power off.
    pub const REBOOT: Self = Self(38);
    /// Set the system's clock.
    pub const CLOCK: Self = Self(39);
    /// Add and remove swap space.
    pub const SWAP: Self = Self(40);
    /// Set the names of host and domain.
    pub const HOSTNAME: Self = Self(41);
    /// Open block devices, memory, ports, and devices that pass commands on to disks.
    pub const RAW_DISK: Self = Self(42);
    /// Make raw and packet sockets.
    pub const RAW_NETWORK: Self = Self(43);
    /// Open files of control groups for writing.
    pub const CGROUPS: Self = Self(44);
    /// Execute a program that gives another user, group, or capabilities.
    pub const SETUID: Self = Self(45);
    /// Make and use the kernel's keys.
    pub const KEYRINGS: Self = Self(46);
    /// Open files of `/proc/sys` for writing.
    pub const SYSCTL: Self = Self(47);
    /// Say which programs the kernel starts by itself.
    pub const HELPERS: Self = Self(48);
    /// Trace, read or write processes outside the session, or take their descriptors.
    pub const PTRACE: Self = Self(49);
    /// Send signals to processes outside the session.
    pub const SIGNAL: Self = Self(50);
    /// Change priorities and limits of processes outside the session.
    pub const PRIORITY: Self = Self(51);
    /// Make sockets of virtual machines' (`AF_VSOCK`).
    pub const VSOCK: Self = Self(52);
    /// Make netlink sockets other than for routes, which libraries ask for the host's addresses.
    pub const NETLINK: Self = Self(53);
    /// Make sockets of the kernel's cryptography (`AF_ALG`).
    pub const CRYPTO: Self = Self(54);
    /// Make Bluetooth sockets.
    pub const BLUETOOTH: Self = Self(55);
    /// Make network devices whose other end is a process (`/dev/net/tun`).
    pub const TUN: Self = Self(56);
    /// Make sockets of any other family, or of a protocol of the Internet's that rules don't know.
    pub const SOCKETS: Self = Self(57);
    /// Use a capability that isn't part of another operation.
    pub const CAPABILITY: Self = Self(63);

    /// Number of operations on files and networks, and of slots in [`crate::rules::OpRules`].
    pub const COUNT: usize = 8;

    /// Slots for operations on the system, of which a byte holds the verdict.
    pub const SYSTEM_COUNT: usize = 32;

    /// Operations on the system that have a verdict, in the order of their numbers.
    pub const SYSTEM: [Self; 26] = [
        Self::MOUNT,
        Self::NAMESPACES,
        Self::MODULES,
        Self::BPF,
        Self::PERF,
        Self::KEXEC,
        Self::REBOOT,
        Self::CLOCK,
        Self::SWAP,
        Self::HOSTNAME,
        Self::RAW_DISK,
        Self::RAW_NETWORK,
        Self::CGROUPS,
        Self::SETUID,
        Self::KEYRINGS,
        Self::SYSCTL,
        Self::HELPERS,
        Self::PTRACE,
        Self::SIGNAL,
        Self::PRIORITY,
        Self::VSOCK,
        Self::NETLINK,
        Self::CRYPTO,
        Self::BLUETOOTH,
        Self::TUN,
        Self::SOCKETS,
    ];

    /// Operations on files, in the order of their numbers.
    pub const FILE: [Self; 7] =
        [Self::READ, Self::EXECUTE, Self::WRITE, Self::CREATE, Self::DELETE, Self::RENAME, Self::METADATA];

    /// The name that policy, command line and events use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::READ => "read",
            Self::EXECUTE => "execute",
            Self::WRITE => "write",
            Self::CREATE => "create",
            Self::DELETE => "delete",
            Self::RENAME => "rename",
            Self::METADATA => "metadata",
            Self::CONNECT | Self::UNIX | Self::NAMES => "connect",
            Self::LISTEN => "listen",
            Self::EXEC => "exec",
            Self::ENROLL => "enroll",
            Self::MOUNT => "mount",
            Self::NAMESPACES => "namespaces",
            Self::MODULES => "modules",
            Self::BPF => "bpf",
            Self::PERF => "perf",
            Self::KEXEC => "kexec",
            Self::REBOOT => "reboot",
            Self::CLOCK => "clock",
            Self::SWAP => "swap",
            Self::HOSTNAME => "hostname",
            Self::RAW_DISK => "raw_disk",
            Self::RAW_NETWORK => "raw_network",
            Self::CGROUPS => "cgroups",
            Self::SETUID => "setuid",
            Self::KEYRINGS => "keyrings",
            Self::SYSCTL => "sysctl",
            Self::HELPERS => "helpers",
            Self::PTRACE => "ptrace",
            Self::SIGNAL => "signal",
            Self::PRIORITY => "priority",
            Self::VSOCK => "vsock",
            Self::NETLINK => "netlink",
            Self::CRYPTO => "crypto",
            Self::BLUETOOTH => "bluetooth",
            Self::TUN => "tun",
            Self::SOCKETS => "sockets",
            Self::CAPABILITY => "capability",
            _ => "unknown",
        }
    }

    /// Its bit in a set of operations on files and networks.
    #[inline(always)]
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << (self.0 & 7)
    }

    /// Its bit in a set of all operations.
    #[inline(always)]
    #[must_use]
    pub const fn mask(self) -> u64 {
        1 << (self.0 & 63)
    }

    /// Whether it is one on the system.
    #[inline(always)]
    #[must_use]
    pub const fn is_system(self) -> bool {
        self.0 & 32 != 0
    }

    /// All of them that can be asked for by name: not [`Op::CAPABILITY`], [`Op::UNIX`], [`Op::NAMES`] and [`Op::ENROLL`].
    pub fn all() -> impl Iterator<Item = Self> {
        Self::FILE.into_iter().chain([Self::CONNECT, Self::LISTEN, Self::EXEC]).chain(Self::SYSTEM)
    }

    /// The operation with that name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|op| op.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for op in Op::all() {
            assert_eq!(Op::from_name(op.name()), Some(op));
            assert_eq!(op.is_system(), Op::SYSTEM.contains(&op));
            assert_eq!(op.mask().trailing_zeros(), u32::from(op.0));
        }
        for (at, op) in Op::SYSTEM.into_iter().enumerate() {
            assert_eq!(usize::from(op.0) & (Op::SYSTEM_COUNT - 1), at);
        }
        assert_eq!(Op::from_name("unknown"), None);
    }
}
