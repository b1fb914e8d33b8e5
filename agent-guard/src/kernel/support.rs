//! What this kernel can enforce: preconditions and hooks.

use std::path::Path;

use agent_guard_common::{Op, event::Hook};

use super::{Error, btf::Btf, host::Host};

/// Where the kernel describes its own types.
pub const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Where the kernel lists its security modules.
pub const LSM_LIST: &str = "/sys/kernel/security/lsm";
/// How far the kernel is locked down: the modes, the one in force in brackets. Not there without that security module.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To the LSM hook of its name.
    Lsm,
    /// To another one.
    LsmAt(Hook),
    /// To a tracepoint with BTF.
    Tracepoint,
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
            Kind::Tracepoint | Kind::Iterator(_) => None,
        }
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
        &[Op::READ, Op::WRITE, Op::CREATE, Op::EXECUTE, Op::RAW_DISK, Op::CGROUPS, Op::SYSCTL, Op::HELPERS],
        "read, write and execute: opening; create: files without a name; raw_disk, cgroups, sysctl, helpers: opening theirs",
    ),
    hook(
        Hook::FILE_RECEIVE,
        &[Op::READ, Op::WRITE, Op::RAW_DISK, Op::CGROUPS, Op::SYSCTL, Op::HELPERS],
        "read and write, and what else opening is: descriptors from elsewhere",
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
    hook(Hook::SOCKET_SENDMSG, &[Op::CONNECT], "connect: messages sent to an address"),
    hook(Hook::UNIX_MAY_SEND, &[Op::UNIX], "connect: Unix sockets, datagrams"),
    hook(Hook::SOCKET_POST_CREATE, &[Op::UNIX], "connect: which Unix sockets are a session's own"),
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
    hook(Hook::SOCKET_CREATE, &[Op::RAW_NETWORK], "raw_network: raw and packet sockets"),
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
    tracepoint("sched_process_fork", "who started whom"),
    tracepoint("sched_process_exec", "which program"),
    tracepoint("sched_process_exit", "when it ended"),
];

/// The iterator that tells identities.
pub const IDENTIFY: &str = "identify";

/// The iterator that tags a tree.
pub const TREE: &str = "tree";

/// Checks what must be there before anything is loaded, and reads the kernel's BTF.
///
/// # Errors
///
/// What is missing, and what to do about it.
pub fn check() -> Result<Btf, Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let host = Host::this();
    let btf = host.btf()?;
    let list = host.read(LSM_LIST).map_err(|source| Error::NoLsmList { source })?;
    if !has_bpf(&list) {
        return Err(Error::NoBpfLsm { parameter: lsm_parameter(&host, Some(&list)) });
    }
    Ok(btf)
}

/// Whether `bpf` is among these security modules.
#[must_use]
pub fn has_bpf(list: &str) -> bool {
    list.trim().split(',').any(|name| name == "bpf")
}

/// The boot parameter that adds `bpf` to what is there: to what the command line says, else to the modules that the
/// kernel lists. `capability` is always on and not named.
#[must_use]
pub fn lsm_parameter(host: &Host, list: Option<&str>) -> String {
    let said = host.boot_parameter("lsm");
    let names = said.as_deref().or(list).unwrap_or_default().split(',').map(str::trim);
    let names = names.filter(|name| !["", "capability", "bpf"].contains(name));
    let names: Vec<_> = names.chain(["bpf"]).collect();
    format!("lsm={}", names.join(","))
}

/// Whether the kernel has a program's hook.
#[must_use]
pub fn present(btf: &Btf, program: &Program) -> bool {
    match program.kind {
        Kind::Lsm | Kind::LsmAt(_) => {
            program.lsm_hook().is_some_and(|hook| btf.has_function(&format!("bpf_lsm_{hook}")))
        }
        // A tracepoint's type is `btf_trace_NAME`; the kernels that have BTF have these four.
        Kind::Tracepoint | Kind::Iterator(_) => true,
    }
}

/// Checks that the BPF file system is where pins go.
///
/// # Errors
///
/// If it isn't mounted there.
pub fn bpf_file_system(pins: &Path) -> Result<(), Error> {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let mut at = pins;
    loop {
        match rustix::fs::statfs(at) {
            #[expect(clippy::unnecessary_cast, reason = "the type differs between architectures")]
            Ok(stat) if stat.f_type as i64 == BPF_FS_MAGIC => return Ok(()),
            Ok(_) => return Err(Error::NoBpfFs { path: pins.into() }),
            Err(_) => match at.parent() {
                Some(parent) => at = parent,
                None => return Err(Error::NoBpfFs { path: pins.into() }),
            },
        }
    }
}

/// Says why the kernel has refused a program, where that is known.
#[must_use]
pub fn because(error: Error) -> Error {
    let refused = matches!(error, Error::Object(_) | Error::Program { .. });
    let mode = std::fs::read_to_string(LOCKDOWN).unwrap_or_default();
    if refused && keeps_memory_to_itself(&mode) { Error::LockedDown(Box::new(error)) } else { error }
}

/// Whether a kernel that is locked down so lets no program read its memory (`LOCKDOWN_BPF_READ_KERNEL`,
/// `security/lockdown/lockdown.c`).
fn keeps_memory_to_itself(mode: &str) -> bool {
    mode.contains("[confidentiality]")
}

/// What a kernel can't do in full, although all hooks are there.
#[must_use]
pub fn shortcomings(host: &Host) -> Vec<String> {
    let mut found = Vec::new();
    if overlooks_tags(&host.release()) && preemption(host) == Some(true) {
        found.push(
            "this kernel is fully preemptible and older than 6.2: the look-up of a tag can fail while another one on the \
             same CPU is preempted, and that action isn't judged; boot with preempt=voluntary, or use a later kernel"
                .to_owned(),
        );
    }
    found
}

/// Whether a kernel of that release overlooks tags where its code can be preempted anywhere: `bpf_task_storage_get`
/// gives up there until 6.2.
#[must_use]
pub fn overlooks_tags(release: &str) -> bool {
    series(release) < (6, 2)
}

/// The first two numbers of a release.
#[must_use]
pub fn series(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

/// Whether kernel code can be preempted anywhere: by the kernel's configuration (`uname -v`), or as chosen at boot or run
/// time where that is possible (`PREEMPT_DYNAMIC`). Nothing where that can't be told: the mode in force is for root, and
/// on debugfs.
#[must_use]
pub fn preemption(host: &Host) -> Option<bool> {
    let version = host.version();
    let mut words = version.split_ascii_whitespace();
    if words.any(|word| ["PREEMPT", "PREEMPT_RT"].contains(&word)) {
        return Some(true);
    }
    if !version.contains("PREEMPT_DYNAMIC") {
        return Some(false);
    }
    if let Ok(mode) = host.read("/sys/kernel/debug/sched/preempt")
        && !mode.is_empty()
    {
        return Some(mode.contains("(full)"));
    }
    host.boot_parameter("preempt").map(|mode| mode == "full")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::host::tests::Tree;

    #[test]
    fn bpf_among_lsms() {
        assert!(has_bpf("lockdown,capability,landlock,yama,bpf\n"));
        assert!(!has_bpf("lockdown,capability,ebpf"));
        let tree = Tree::new("lsms");
        let parameter = |list| lsm_parameter(&tree.host(), Some(list));
        assert_eq!(parameter("lockdown,capability,yama"), "lsm=lockdown,yama,bpf");
        assert_eq!(parameter("capability"), "lsm=bpf");
        assert_eq!(lsm_parameter(&tree.host(), None), "lsm=bpf");
        // What the command line says is kept as it is, also what this kernel doesn't have; the last one counts.
        tree.write("/proc/cmdline", "quiet lsm=yama lsm=landlock,tomoyo,,yama -- lsm=none\n");
        assert_eq!(parameter("lockdown,capability,landlock,yama"), "lsm=landlock,tomoyo,yama,bpf");
    }

    #[test]
    fn lockdown() {
        assert!(keeps_memory_to_itself("none integrity [confidentiality]\n"));
        assert!(!keeps_memory_to_itself("none [integrity] confidentiality\n") && !keeps_memory_to_itself(""));
    }

    #[test]
    fn preempted_anywhere() {
        assert!(overlooks_tags("6.1.0-56-cloud-amd64") && overlooks_tags("5.10.1"));
        assert!(!overlooks_tags("6.2.0-rc1") && !overlooks_tags("6.12.1") && !overlooks_tags("7.0"));
        let tree = Tree::new("preemption");
        let mode = |version: &str, mode: Option<&str>, line: &str| {
            tree.write("/proc/sys/kernel/version", version);
            tree.write("/sys/kernel/debug/sched/preempt", mode.unwrap_or_default());
            tree.write("/proc/cmdline", line);
            preemption(&tree.host())
        };
        let dynamic = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.1 (2026-01-01)";
        assert_eq!(mode(dynamic, Some("none (voluntary) full"), "quiet"), Some(false));
        assert_eq!(mode(dynamic, Some("none voluntary (full)"), "quiet"), Some(true));
        assert_eq!(mode(dynamic, Some("none (voluntary) full"), "preempt=full"), Some(false));
        assert_eq!(mode(dynamic, None, "quiet preempt=full"), Some(true));
        assert_eq!(mode(dynamic, None, "quiet preempt=none"), Some(false));
        assert_eq!(mode(dynamic, None, "quiet"), None);
        assert_eq!(mode("#1 SMP PREEMPT Debian", None, ""), Some(true));
        assert_eq!(mode("#1 SMP Debian", None, ""), Some(false));
    }

    #[test]
    fn every_hook_has_a_program() {
        for hook in Hook::ALL {
            assert!(
                PROGRAMS.iter().any(|program| program.lsm_hook() == Some(hook.name())),
                "{}",
                hook.name()
            );
        }
    }
}
