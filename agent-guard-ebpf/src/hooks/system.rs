//! The system: operations with hooks of their own. What has none comes by [`super::capable`].

use agent_guard_common::{Op, event::Hook};
use aya_ebpf::{EbpfContext as _, macros::lsm, programs::LsmContext};

use crate::{
    enforce::enforce,
    hooks::others::{is_guard, told},
    judge::{Call, Judgement},
    kernel::{Bprm, File, Task, descriptors, perf_has_attributes, probe_at},
    maps,
    tag::Subject,
};

/// `include/linux/perf_event.h`, `include/linux/security.h` from 6.14 on.
const PERF_SECURITY_OPEN: u32 = 0;
/// One operation on nothing that has a name. `restarts` where what the hook returns reaches the system call.
#[inline(always)]
fn act<const HOOK: u8>(subject: Subject, op: Op, detail: u32, restarts: bool) -> i32 {
    let mut call = Call::new(subject, Hook(HOOK), op);
    call.asked.detail = detail;
    call.asked.restarts = u32::from(restarts);
    let judgement = call.system(op);
    enforce(call, judgement)
}

// int userns_create(const struct cred *cred)
#[lsm(hook = "userns_create")]
pub fn userns_create(_ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    act::<{ Hook::USERNS_CREATE.0 }>(subject, Op::NAMESPACES, 0, true)
}

/// Commands of `bpf(2)` that reach what others have made, by name or number: the guard's own programs and maps, too
/// (`enum bpf_cmd`: `BPF_OBJ_GET`, `PROG_DETACH`, `PROG_GET_FD_BY_ID`, `MAP_GET_FD_BY_ID`, `LINK_GET_FD_BY_ID`).
const fn reaches_others(command: u32) -> bool {
    matches!(command, 7 | 9 | 13 | 14 | 30)
}

/// Where `union bpf_attr` has the descriptor of the map that a command of `bpf(2)` changes; none for those that change none
/// (`include/uapi/linux/bpf.h`: `MAP_UPDATE_ELEM`, `MAP_DELETE_ELEM`, `MAP_LOOKUP_AND_DELETE_ELEM`, `MAP_FREEZE`, and those of
/// many elements: `MAP_LOOKUP_AND_DELETE_BATCH`, `MAP_UPDATE_BATCH`, `MAP_DELETE_BATCH`).
const fn changed_map(command: u32) -> Option<u64> {
    match command {
        2 | 3 | 21 | 22 => Some(0),
        25..=27 => Some(36),
        _ => None,
    }
}

/// Whoever isn't in a session changes a map. It is nobody's business, unless that is the guard's. The daemon does so all the
/// time; it knows what it does, and that it isn't told.
///
/// The attributes are the kernel's copy, `union bpf_attr *`.
#[inline(always)]
fn witness_change(command: u32, attributes: u64) -> i32 {
    let Some(at) = changed_map(command) else { return 0 };
    let Some(map) = probe_at::<u32>(attributes.wrapping_add(at)).and_then(descriptors::behind) else {
        return 0;
    };
    if maps::is_own(map) && !is_guard(Task::current()) {
        told::<{ Hook::BPF.0 }>(Op::BPF, 0, command);
    }
    0
}

// int bpf(int cmd, union bpf_attr *attr, unsigned int size), with a fourth argument from 6.16 on
#[lsm(hook = "bpf")]
pub fn bpf(ctx: LsmContext) -> i32 {
    let command: u32 = ctx.arg(0);
    let Some(subject) = Subject::current() else { return witness_change(command, ctx.arg(1)) };
    let mut call = Call::new(subject, Hook::BPF, Op::BPF);
    call.asked.detail = command;
    let judgement = if reaches_others(command) { Judgement::guarded() } else { call.system(Op::BPF) };
    enforce(call, judgement)
}

// int perf_event_open(struct perf_event_attr *attr, int type), without the first from 6.14 on
// Asked first for every event, then again for what some of them are about.
#[lsm(hook = "perf_event_open")]
pub fn perf_event_open(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    // VERIFIER: read before it is chosen, see `inode_setattr`. Where there is one argument, what comes behind it is the answer of
    // the hooks before.
    let [first, second] = [0, 1].map(|at| {
        // SAFETY: the context is an array of arguments, which the verifier knows the length of.
        unsafe { core::ptr::read_volatile(ctx.as_ptr().cast::<u64>().add(at)) }
    });
    let asked = if perf_has_attributes() { second } else { first };
    if asked as u32 != PERF_SECURITY_OPEN {
        return 0;
    }
    act::<{ Hook::PERF_EVENT_OPEN.0 }>(subject, Op::PERF, 0, true)
}

// int settime(const struct timespec64 *ts, const struct timezone *tz)
// What an answer is about is when: the clock can be set to another time after it. So a hold is denied.
#[lsm(hook = "settime")]
pub fn settime(_ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    act::<{ Hook::SETTIME.0 }>(subject, Op::CLOCK, 0, false)
}

// int bprm_creds_from_file(struct linux_binprm *bprm, struct file *file)
// Behind the capability LSM, which has worked out what the program gets. The old program is still whole.
#[lsm(hook = "bprm_creds_from_file")]
pub fn bprm_creds_from_file(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let bprm = Bprm(ctx.arg(0));
    if !subject.task().gains(bprm) {
        return 0;
    }
    let path = File(ctx.arg(1)).path();
    let mut call = Call::new(subject, Hook::BPRM_CREDS_FROM_FILE, Op::SETUID).on(path, path.dentry());
    let judgement = call.system(Op::SETUID);
    enforce(call, judgement)
}

// int key_alloc(struct key *key, const struct cred *cred, unsigned long flags)
#[lsm(hook = "key_alloc")]
pub fn key_alloc(_ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    act::<{ Hook::KEY_ALLOC.0 }>(subject, Op::KEYRINGS, 0, false)
}

// int key_permission(key_ref_t key_ref, const struct cred *cred, enum key_need_perm need_perm)
#[lsm(hook = "key_permission")]
pub fn key_permission(_ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    act::<{ Hook::KEY_PERMISSION.0 }>(subject, Op::KEYRINGS, 0, false)
}

// int kernel_module_request(char *kmod_name)
// Whoever asks goes on without the module.
#[lsm(hook = "kernel_module_request")]
pub fn kernel_module_request(_ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    act::<{ Hook::KERNEL_MODULE_REQUEST.0 }>(subject, Op::MODULES, 0, false)
}
