//! The programs of the kernel side: which there are, how each is attached, and what needs it.

use agent_guard_common::{Op, event::Hook};

use super::{btf::Btf, support::Tier};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To the LSM hook of its name.
    Lsm,
    /// To another one.
    LsmAt(Hook),
    /// To a tracepoint with BTF.
    Tracepoint,
    /// To the root control group, for all sockets: it changes where questions go, and decides nothing.
    Sockets,
    /// To the root control group, for all sockets: it judges where they go.
    Addresses,
    /// To the root control group: it judges sockets as they are made.
    Creation,
    /// To the root control group: it judges what leaves sockets.
    Packets,
    /// To nothing: the daemon runs it, over what is named so (`bpf_iter_reg_target`, `kernel/bpf/task_iter.c`).
    Iterator(&'static str),
}

/// A program of the kernel side.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name of program and hook.
    pub name: &'static str,
    /// How it is attached.
    pub kind: Kind,
    /// What it enforces, for people.
    pub enforces: &'static str,
    /// Where this kernel may do without: which other hook sees the same there.
    pub instead: Option<&'static str>,
    /// The operations that it judges.
    pub ops: &'static [Op],
    /// Whether it is attached whatever the policy says; else only while that says anything but `allow` of one of these.
    pub always: bool,
}

impl Program {
    /// The LSM hook that it is attached to, if it is.
    #[must_use]
    pub const fn lsm_hook(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Lsm => Some(self.name),
            Kind::LsmAt(hook) => Some(hook.name()),
            Kind::Tracepoint
            | Kind::Iterator(_)
            | Kind::Sockets
            | Kind::Addresses
            | Kind::Creation
            | Kind::Packets => None,
        }
    }

    /// Whether it is of use where no LSM programs run. Those that judge there bring questions for names to the daemon, too.
    fn is_plain(&self) -> bool {
        let brings =
            self.kind == Kind::Sockets && (self.name.contains("connect") || self.name.contains("sendmsg"));
        self.lsm_hook().is_none() && self.ops != [Op::ENROLL] && !brings
    }

    /// Whether it decides anything.
    #[must_use]
    pub const fn decides(&self) -> bool {
        self.lsm_hook().is_some() || matches!(self.kind, Kind::Addresses | Kind::Creation | Kind::Packets)
    }

    /// Whether it is attached to the root control group.
    #[must_use]
    pub const fn in_group(&self) -> bool {
        matches!(self.kind, Kind::Sockets | Kind::Addresses | Kind::Creation | Kind::Packets)
    }

    /// Whether it judges one of these operations.
    #[must_use]
    pub fn judges(&self, ops: &[Op]) -> bool {
        ops.iter().any(|op| self.ops.contains(op))
    }

    /// Whether it must be attached for a policy that judges these operations: bits by their numbers.
    #[must_use]
    pub fn needed(&self, judged: u64) -> bool {
        self.always || self.ops.iter().any(|op| judged & op.mask() != 0)
    }
}

const fn lsm(hook: Hook, enforces: &'static str) -> Program {
    Program { name: hook.name(), kind: Kind::Lsm, enforces, instead: None, ops: &[], always: true }
}

const fn hook(hook: Hook, ops: &'static [Op], enforces: &'static str) -> Program {
    Program { name: hook.name(), kind: Kind::Lsm, enforces, instead: None, ops, always: false }
}

/// One that keeps the guard from sessions, too.
const fn guard(hook: Hook, ops: &'static [Op], enforces: &'static str) -> Program {
    Program { name: hook.name(), kind: Kind::Lsm, enforces, instead: None, ops, always: true }
}

const fn enrolls(name: &'static str, kind: Kind, enforces: &'static str) -> Program {
    Program { name, kind, enforces, instead: None, ops: &[Op::ENROLL], always: false }
}

/// One that changes where questions for names go.
const fn names(name: &'static str, enforces: &'static str) -> Program {
    Program { name, kind: Kind::Sockets, enforces, instead: None, ops: &[Op::NAMES], always: false }
}

/// One that judges where no LSM programs run.
const fn plain(hook: Hook, kind: Kind, ops: &'static [Op], enforces: &'static str) -> Program {
    Program { name: hook.name(), kind, enforces, instead: None, ops, always: false }
}

const fn tracepoint(name: &'static str, enforces: &'static str) -> Program {
    Program { name, kind: Kind::Tracepoint, enforces, instead: None, ops: &[], always: true }
}

impl Program {
    const fn or(self, instead: &'static str) -> Self {
        Self { instead: Some(instead), ..self }
    }
}

/// What a new file is judged as.
const MADE: &[Op] = &[Op::CREATE, Op::WRITE];

/// All programs. The tag comes first: before it goes on by itself, no session may begin.
pub const PROGRAMS: &[Program] = &[
    lsm(Hook::TASK_ALLOC, "the tag goes on to every new task"),
    guard(
        Hook::UNIX_STREAM_CONNECT,
        &[Op::UNIX],
        "connect: Unix sockets, streams; sessions can't talk to the guard",
    ),
    Program {
        name: IDENTIFY,
        kind: Kind::Iterator("task_file"),
        enforces: "what the policy names, as the hooks see it",
        instead: None,
        ops: &[],
        always: true,
    },
    Program {
        name: TREE,
        kind: Kind::Iterator("task"),
        enforces: "attaching: the tag reaches every thread of a tree that runs already",
        instead: None,
        ops: &[],
        always: true,
    },
    hook(Hook::PATH_UNLINK, &[Op::DELETE], "delete: files"),
    hook(Hook::PATH_RMDIR, &[Op::DELETE], "delete: directories"),
    hook(
        Hook::PATH_RENAME,
        &[Op::RENAME, Op::CREATE, Op::DELETE],
        "rename, create and delete: renames, both sides",
    ),
    hook(Hook::PATH_TRUNCATE, &[Op::WRITE], "write: truncate"),
    hook(Hook::FILE_TRUNCATE, &[Op::WRITE], "write: truncate through a descriptor").or("path_truncate"),
    hook(
        Hook::FILE_OPEN,
        &[
            Op::READ,
            Op::WRITE,
            Op::CREATE,
            Op::EXECUTE,
            Op::RAW_DISK,
            Op::CGROUPS,
            Op::SYSCTL,
            Op::HELPERS,
            Op::TUN,
        ],
        "read, write and execute: opening; create: files without a name; raw_disk, cgroups, sysctl, helpers, tun: opening theirs",
    ),
    hook(
        Hook::FILE_RECEIVE,
        &[
            Op::READ,
            Op::WRITE,
            Op::RAW_DISK,
            Op::CGROUPS,
            Op::SYSCTL,
            Op::HELPERS,
            Op::TUN,
            Op::CONNECT,
            Op::LISTEN,
        ],
        "read and write, and what else opening is: descriptors from elsewhere; connect and listen: sockets from elsewhere",
    ),
    hook(Hook::MMAP_FILE, &[Op::EXECUTE], "execute: mapping as code"),
    hook(Hook::FILE_MPROTECT, &[Op::EXECUTE], "execute: turning what is mapped into code"),
    hook(Hook::PATH_MKNOD, MADE, "create: files, nodes, sockets"),
    hook(Hook::PATH_MKDIR, &[Op::CREATE], "create: directories"),
    hook(Hook::PATH_SYMLINK, &[Op::CREATE], "create: symbolic links"),
    hook(
        Hook::PATH_LINK,
        &[Op::CREATE, Op::WRITE, Op::READ],
        "create: hard links; read and write: what they are of",
    ),
    hook(Hook::PATH_CHMOD, &[Op::METADATA], "metadata: mode"),
    hook(Hook::PATH_CHOWN, &[Op::METADATA], "metadata: owner"),
    hook(Hook::INODE_SETATTR, &[Op::METADATA], "metadata: times"),
    hook(Hook::INODE_SETXATTR, &[Op::METADATA], "metadata: extended attributes"),
    hook(Hook::INODE_REMOVEXATTR, &[Op::METADATA], "metadata: extended attributes, removed"),
    hook(Hook::INODE_SET_ACL, &[Op::METADATA], "metadata: access control lists").or("inode_setxattr"),
    hook(Hook::INODE_REMOVE_ACL, &[Op::METADATA], "metadata: access control lists, removed")
        .or("inode_removexattr"),
    hook(Hook::INODE_FILE_SETATTR, &[Op::METADATA], "metadata: flags").or("file_ioctl"),
    hook(Hook::FILE_IOCTL, &[Op::METADATA, Op::WRITE], "metadata: flags; write: what else ioctls do"),
    hook(
        Hook::FILE_IOCTL_COMPAT,
        &[Op::METADATA, Op::WRITE],
        "metadata: flags; write: what else ioctls do, by 32-bit calls",
    )
    .or("file_ioctl"),
    hook(Hook::SOCKET_CONNECT, &[Op::CONNECT], "connect: IPv4 and IPv6"),
    hook(
        Hook::SOCKET_SENDMSG,
        &[Op::CONNECT],
        "connect: messages sent to an address, or by a socket that was connected elsewhere",
    ),
    hook(Hook::SCTP_BIND_CONNECT, &[Op::CONNECT, Op::LISTEN], "connect and listen: what SCTP does besides"),
    hook(Hook::UNIX_MAY_SEND, &[Op::UNIX], "connect: Unix sockets, datagrams"),
    hook(Hook::SOCKET_POST_CREATE, &[Op::UNIX], "connect: which sockets are a session's own"),
    hook(Hook::SOCKET_BIND, &[Op::LISTEN], "listen: binding to a port"),
    hook(Hook::SOCKET_LISTEN, &[Op::LISTEN], "listen: waiting for connections"),
    hook(Hook::SOCKET_ACCEPT, &[Op::LISTEN], "listen: accepting connections"),
    hook(Hook::SOCK_GRAFT, &[Op::LISTEN], "listen: which connections were accepted"),
    names("names_connect4", "connect: names are asked of the daemon, by IPv4, connected"),
    names("names_connect6", "connect: names are asked of the daemon, by IPv6, connected"),
    names("names_sendmsg4", "connect: names are asked of the daemon, by IPv4, by messages"),
    names("names_sendmsg6", "connect: names are asked of the daemon, by IPv6, by messages"),
    names("names_recvmsg4", "connect: answers come from where they were asked for, by IPv4"),
    names("names_recvmsg6", "connect: answers come from where they were asked for, by IPv6"),
    names("names_getpeername4", "connect: who was asked, by IPv4"),
    names("names_getpeername6", "connect: who was asked, by IPv6"),
    hook(
        Hook::CAPABLE,
        &[
            Op::CAPABILITY,
            Op::MOUNT,
            Op::NAMESPACES,
            Op::MODULES,
            Op::BPF,
            Op::PERF,
            Op::KEXEC,
            Op::REBOOT,
            Op::CLOCK,
            Op::SWAP,
            Op::HOSTNAME,
            Op::RAW_DISK,
            Op::RAW_NETWORK,
            Op::PTRACE,
            Op::SIGNAL,
        ],
        "capabilities, and operations on the system that need one",
    ),
    hook(Hook::SB_MOUNT, &[Op::MOUNT], "mount: mounting, mounting anew, binding"),
    hook(Hook::SB_UMOUNT, &[Op::MOUNT], "mount: unmounting"),
    hook(Hook::SB_PIVOTROOT, &[Op::MOUNT], "mount: another root directory"),
    hook(Hook::MOVE_MOUNT, &[Op::MOUNT], "mount: moving, and what the new calls have made"),
    hook(Hook::USERNS_CREATE, &[Op::NAMESPACES], "namespaces: of users, without a capability"),
    guard(Hook::BPF, &[Op::BPF], "bpf; the guard's programs and maps can't be reached by number or name"),
    hook(Hook::PERF_EVENT_OPEN, &[Op::PERF], "perf"),
    hook(Hook::SETTIME, &[Op::CLOCK], "clock: setting it"),
    hook(
        Hook::SOCKET_CREATE,
        &[Op::RAW_NETWORK, Op::VSOCK, Op::NETLINK, Op::CRYPTO, Op::BLUETOOTH, Op::SOCKETS],
        "raw_network: raw and packet sockets; vsock, netlink, crypto, bluetooth, sockets: those of other families",
    ),
    hook(
        Hook::BPRM_CHECK_SECURITY,
        &[Op::EXEC],
        "exec: what programs are executed with, and those without a path",
    ),
    hook(Hook::BPRM_CREDS_FROM_FILE, &[Op::SETUID], "setuid: programs that give more rights"),
    hook(Hook::KEY_ALLOC, &[Op::KEYRINGS], "keyrings: new keys"),
    hook(Hook::KEY_PERMISSION, &[Op::KEYRINGS], "keyrings: using keys"),
    hook(Hook::KERNEL_MODULE_REQUEST, &[Op::MODULES], "modules: asking for what needs one"),
    guard(
        Hook::PTRACE_ACCESS_CHECK,
        &[Op::PTRACE],
        "ptrace: tracing, reading and writing processes, taking descriptors; the guard is nobody's",
    ),
    guard(Hook::TASK_KILL, &[Op::SIGNAL], "signal: to processes outside the session; the guard gets none"),
    guard(Hook::TASK_SETNICE, &[Op::PRIORITY], "priority: of others; the guard's stays"),
    guard(
        Hook::TASK_SETIOPRIO,
        &[Op::PRIORITY],
        "priority: of input and output of others; the guard's stays",
    ),
    guard(Hook::TASK_SETSCHEDULER, &[Op::PRIORITY], "priority: how others are scheduled; the guard's stays"),
    guard(Hook::TASK_SETRLIMIT, &[Op::PRIORITY], "priority: limits of others; the guard's stay"),
    guard(Hook::TASK_MOVEMEMORY, &[Op::PRIORITY], "priority: where memory of others is; the guard's stays"),
    enrolls(
        "enroll",
        Kind::LsmAt(Hook::BPRM_CREDS_FOR_EXEC),
        "enroll: programs, users and control groups that become sessions by themselves",
    ),
    enrolls("enroll_interpreter", Kind::LsmAt(Hook::BPRM_CHECK_SECURITY), "enroll: interpreters of scripts"),
    enrolls("cgroup_mkdir", Kind::Tracepoint, "enroll: control groups, as soon as they are made"),
    enrolls("cgroup_rmdir", Kind::Tracepoint, "enroll: control groups that are no more"),
    tracepoint("sched_process_fork", "who started whom"),
    tracepoint("sched_process_exec", "which program"),
    tracepoint("sched_process_exit", "when it ended"),
];

/// Those that judge where no LSM programs run.
const NETWORK_ONLY: &[Program] = &[
    plain(Hook::CONNECT4, Kind::Addresses, &[Op::CONNECT], "connect: TCP and UDP, by IPv4"),
    plain(Hook::CONNECT6, Kind::Addresses, &[Op::CONNECT], "connect: TCP and UDP, by IPv6"),
    plain(
        Hook::SENDMSG4,
        Kind::Addresses,
        &[Op::CONNECT],
        "connect: messages of UDP sent to an address, by IPv4",
    ),
    plain(
        Hook::SENDMSG6,
        Kind::Addresses,
        &[Op::CONNECT],
        "connect: messages of UDP sent to an address, by IPv6",
    ),
    plain(
        Hook::EGRESS,
        Kind::Packets,
        &[Op::CONNECT],
        "connect: sockets that go on under another policy; whose questions for names are whose",
    ),
    plain(Hook::BIND4, Kind::Addresses, &[Op::LISTEN], "listen: binding to a port, by IPv4"),
    plain(Hook::BIND6, Kind::Addresses, &[Op::LISTEN], "listen: binding to a port, by IPv6"),
    plain(
        Hook::SOCK_CREATE,
        Kind::Creation,
        &[Op::RAW_NETWORK, Op::SOCKETS, Op::CONNECT],
        "raw_network: raw sockets of IPv4 and IPv6; sockets: other protocols than TCP and UDP",
    ),
];

/// What runs on a kernel that can have all or only the network enforced. Where only the network is, the programs that judge bring
/// questions for names to the daemon, too.
pub fn programs(tier: &Tier) -> impl Iterator<Item = &'static Program> + use<> {
    let all = *tier == Tier::All;
    let common = PROGRAMS.iter().filter(move |program| all || program.is_plain());
    common.chain(NETWORK_ONLY.iter().filter(move |_| !all))
}

/// The iterator that tells identities.
pub const IDENTIFY: &str = "identify";

/// The iterator that tags a tree.
pub const TREE: &str = "tree";

/// Whether the kernel has a program's hook.
#[must_use]
pub fn present(btf: &Btf, program: &Program) -> bool {
    match program.kind {
        Kind::Lsm | Kind::LsmAt(_) => {
            program.lsm_hook().is_some_and(|hook| btf.has_function(&format!("bpf_lsm_{hook}")))
        }
        // A tracepoint's type is `btf_trace_NAME`; the kernels that have BTF have these four.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_has_a_program() {
        for hook in Hook::ALL {
            let mut all = PROGRAMS.iter().chain(NETWORK_ONLY);
            assert!(
                all.any(|program| program.decides()
                    && (program.name == hook.name() || program.lsm_hook() == Some(hook.name()))),
                "{}",
                hook.name()
            );
        }
    }
}
