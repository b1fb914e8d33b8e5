//! The record that crosses the ring buffer.
//!
//! Each record begins with a [`Header`]; `kind` says which struct the whole is. Text of variable length
//! is a bounded tail whose used length the record states; readers check it against the record's size.

use crate::object::ObjectKey;

/// Kind of a record: [`Judged`].
pub const JUDGED: u16 = 1;
/// Kind of a record: [`Exec`].
pub const EXEC: u16 = 2;
/// Kind of a record: [`Lifecycle`], a task of a session was made.
pub const FORK: u16 = 3;
/// Kind of a record: [`Lifecycle`], the first thread of a process of a session ended. Others may go on.
pub const EXIT: u16 = 4;

/// Bytes of path text in a [`Judged`], for each of its two paths.
pub const PATH_BYTES: usize = 1024;
/// Bytes of file name and of arguments in an [`Exec`].
pub const ARGS_BYTES: usize = 1024;
/// Bytes of the executable's name in an [`Exec`].
pub const EXE_BYTES: usize = 256;

/// How every record begins: what, when, who.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Size of the whole record in bytes. 0 while it is being written.
    pub size: u32,
    /// What follows, one of the kinds of this module.
    pub kind: u16,
    /// [`crate::ABI`].
    pub abi: u16,
    /// Nanoseconds since boot, suspend included (`CLOCK_BOOTTIME`).
    pub time: u64,
    /// Number of the session.
    pub session: u64,
    /// When the process (its first thread) started, nanoseconds since boot.
    pub start: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Parent process.
    pub ppid: u32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Zero.
    pub pad: u32,
    /// The task's short name; for people, never for decisions.
    pub comm: [u8; 16],
}

/// An object of a judged call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The object; for one that doesn't exist yet `ino` is 0.
    pub object: ObjectKey,
    /// Directory that holds its name.
    pub parent: ObjectKey,
    /// File type and mode; 0 if it doesn't exist yet.
    pub mode: u32,
    /// Bytes used of the path text.
    pub path_len: u16,
    /// 1 if the path text is cut: its beginning is missing.
    pub cut: u16,
}

/// A decision that was made in a hook.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// What, when, who.
    pub header: Header,
    /// The hold this is about; 0 for none.
    pub hold: u64,
    /// Policy generation that judged.
    pub generation: u32,
    /// Number of the rule in that generation; 0 where no single rule decided.
    pub rule: u32,
    /// What the hook returned: 0, `-EPERM`, or what a hold returns.
    pub errno: i32,
    /// [`crate::Op`] as the policy names it.
    pub op: u8,
    /// What the policy says, a [`crate::Verdict`].
    pub policy: u8,
    /// What was done, a [`crate::Verdict`].
    pub done: u8,
    /// A [`crate::Source`].
    pub source: u8,
    /// A [`crate::Fault`].
    pub fault: u8,
    /// A [`Hook`].
    pub hook: u8,
    /// How the decision came about: [`Judged::FRESH`] and others.
    pub answer: u8,
    /// Zero.
    pub pad: u8,
    /// Address family (`AF_UNIX`, `AF_INET`, `AF_INET6`), 0 for files. `AF_UNIX` has no address: the socket is the first
    /// object, or has an abstract name, which is the first path text then.
    pub family: u16,
    /// Port, host order.
    pub port: u16,
    /// Protocol of the socket (`IPPROTO_*`).
    pub protocol: u32,
    /// What else the call is about: the number of an ioctl, the type of a new file, the flags of a rename, a signal, a
    /// command of `bpf(2)`, the family of a socket.
    pub detail: u32,
    /// The process that is acted on, 0 for none.
    pub target: u32,
    /// 1 more than the number of the capability that is used, 0 for none.
    pub capability: u32,
    /// Address; IPv4 mapped.
    pub addr: [u8; 16],
    /// What is acted on; for a rename its source.
    pub first: Seen,
    /// Target of a rename or a link.
    pub second: Seen,
    /// Path texts, see [`Components`]. For [`crate::Op::EXEC`] the second are the arguments, each ended by a zero byte.
    pub path: [[u8; PATH_BYTES]; 2],
}

impl Judged {
    /// Decided by the policy.
    pub const FRESH: u8 = 0;
    /// Held; people are asked.
    pub const ASKED: u8 = 1;
    /// A held call went on, approved.
    pub const APPROVED: u8 = 2;
    /// A held call failed, denied.
    pub const DENIED: u8 = 3;
}

/// A program was executed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Exec {
    /// What, when, who.
    pub header: Header,
    /// Bytes used of `exe`.
    pub exe_len: u32,
    /// Bytes used of `args`.
    pub args_len: u32,
    /// Name that the program was executed by.
    pub exe: [u8; EXE_BYTES],
    /// Its arguments, each ended by a zero byte; cut if longer.
    pub args: [u8; ARGS_BYTES],
}

/// A task of a session was made or ended.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Lifecycle {
    /// What, when, who: for a fork the parent.
    pub header: Header,
    /// For a fork when the child started, nanoseconds since boot.
    pub child_start: u64,
    /// For a fork the child.
    pub child: u32,
    /// Zero.
    pub pad: u32,
}

/// Which hook judged. On the wire a byte.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hook(pub u8);

/// Declares the hooks and their names from one list.
macro_rules! hooks {
    ($($number:literal $constant:ident $name:literal,)+) => {
        impl Hook {
            $(#[doc = concat!("LSM hook `", $name, "`.")] pub const $constant: Self = Self($number);)+

            /// The LSM hook's name (`include/linux/lsm_hook_defs.h`).
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 { $($number => $name,)+ _ => "unknown" }
            }

            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self($number),)+];
        }
    };
}

impl Hook {
    /// No hook: the daemon has seen it.
    pub const NONE: Self = Self(0);
}

hooks! {
    1 PATH_UNLINK "path_unlink",
    2 PATH_RMDIR "path_rmdir",
    3 PATH_RENAME "path_rename",
    4 PATH_TRUNCATE "path_truncate",
    5 FILE_TRUNCATE "file_truncate",
    6 FILE_OPEN "file_open",
    7 PATH_MKNOD "path_mknod",
    8 PATH_MKDIR "path_mkdir",
    9 PATH_SYMLINK "path_symlink",
    10 PATH_LINK "path_link",
    11 SOCKET_CONNECT "socket_connect",
    12 SOCKET_SENDMSG "socket_sendmsg",
    13 UNIX_STREAM_CONNECT "unix_stream_connect",
    14 TASK_ALLOC "task_alloc",
    15 PATH_CHMOD "path_chmod",
    16 PATH_CHOWN "path_chown",
    17 INODE_SETATTR "inode_setattr",
    18 INODE_SETXATTR "inode_setxattr",
    19 INODE_REMOVEXATTR "inode_removexattr",
    20 INODE_SET_ACL "inode_set_acl",
    21 INODE_REMOVE_ACL "inode_remove_acl",
    22 INODE_FILE_SETATTR "inode_file_setattr",
    23 FILE_IOCTL "file_ioctl",
    24 FILE_IOCTL_COMPAT "file_ioctl_compat",
    25 MMAP_FILE "mmap_file",
    26 FILE_MPROTECT "file_mprotect",
    27 FILE_RECEIVE "file_receive",
    28 CAPABLE "capable",
    29 SB_MOUNT "sb_mount",
    30 SB_UMOUNT "sb_umount",
    31 SB_PIVOTROOT "sb_pivotroot",
    32 MOVE_MOUNT "move_mount",
    33 USERNS_CREATE "userns_create",
    34 BPF "bpf",
    35 PERF_EVENT_OPEN "perf_event_open",
    36 SETTIME "settime",
    37 SOCKET_CREATE "socket_create",
    38 BPRM_CREDS_FROM_FILE "bprm_creds_from_file",
    39 KEY_ALLOC "key_alloc",
    40 KEY_PERMISSION "key_permission",
    41 KERNEL_MODULE_REQUEST "kernel_module_request",
    42 PTRACE_ACCESS_CHECK "ptrace_access_check",
    43 TASK_KILL "task_kill",
    44 TASK_SETNICE "task_setnice",
    45 TASK_SETIOPRIO "task_setioprio",
    46 TASK_SETSCHEDULER "task_setscheduler",
    47 TASK_SETRLIMIT "task_setrlimit",
    48 TASK_MOVEMEMORY "task_movememory",
    49 BPRM_CHECK_SECURITY "bprm_check_security",
    50 BPRM_CREDS_FOR_EXEC "bprm_creds_for_exec",
    51 SOCKET_POST_CREATE "socket_post_create",
    52 UNIX_MAY_SEND "unix_may_send",
    53 SOCKET_BIND "socket_bind",
    54 SOCKET_LISTEN "socket_listen",
    55 SOCKET_ACCEPT "socket_accept",
    56 SOCK_GRAFT "sock_graft",
    57 SCTP_BIND_CONNECT "sctp_bind_connect",
    58 CONNECT4 "connect4",
    59 CONNECT6 "connect6",
    60 SENDMSG4 "sendmsg4",
    61 SENDMSG6 "sendmsg6",
    62 BIND4 "bind4",
    63 BIND6 "bind6",
    64 SOCK_CREATE "sock_create",
    65 EGRESS "egress",
}

/// The components of a path text, as the kernel side writes them: from the object towards the root,
/// each as one byte of length and that many bytes.
#[derive(Clone, Debug)]
pub struct Components<'a> {
    rest: &'a [u8],
}

impl<'a> Components<'a> {
    /// Reads the used part of a path text.
    #[must_use]
    pub const fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }
}

impl<'a> Iterator for Components<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let (&length, rest) = self.rest.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(length))?;
        self.rest = rest;
        Some(name)
    }
}

/// Losses and counts, one slot each of a per-CPU array.
pub mod count {
    use crate::Verdict;

    /// Records of decisions that the ring buffer had no room for.
    pub const LOST_DECISIONS: u32 = 0;
    /// Records of reports, executions and the like that the ring buffer had no room for.
    pub const LOST_REPORTS: u32 = 1;
    /// Actions judged.
    pub const JUDGED: u32 = 2;
    /// Actions denied.
    pub const DENIED: u32 = 3;
    /// Actions held.
    pub const HELD: u32 = 4;
    /// Processes killed.
    pub const KILLED: u32 = 5;
    /// Actions that would have been denied, had the profile enforced.
    pub const WOULD_HAVE_DENIED: u32 = 6;
    /// Faults.
    pub const FAULTS: u32 = 7;
    /// Actions that would have been held, had the profile enforced.
    pub const WOULD_HAVE_HELD: u32 = 8;
    /// Actions that would have been killed for, had the profile enforced.
    pub const WOULD_HAVE_KILLED: u32 = 9;
    /// Number of slots.
    pub const SLOTS: u32 = 10;

    /// The slot for an action that goes on and that the policy would have stopped with this verdict.
    #[must_use]
    pub const fn would_have(policy: Verdict) -> u32 {
        match policy {
            Verdict::KILL => WOULD_HAVE_KILLED,
            Verdict::HOLD => WOULD_HAVE_HELD,
            _ => WOULD_HAVE_DENIED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size_of::<Header>(), 72);
        assert_eq!(size_of::<Seen>(), 40);
        assert_eq!(size_of::<Judged>(), 72 + 8 + 12 + 8 + 4 + 8 + 8 + 16 + 80 + 2 * PATH_BYTES);
        assert_eq!(size_of::<Judged>() % 8, 0);
    }

    #[test]
    fn components_stop_at_garbage() {
        let good: Vec<&[u8]> = Components::new(b"\x01x\x03srv\x01/").collect();
        assert_eq!(good, [b"x".as_slice(), b"srv", b"/"]);
        assert_eq!(Components::new(b"\x05ab").count(), 0);
        assert_eq!(Components::new(b"").count(), 0);
    }
}
