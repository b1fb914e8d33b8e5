//! Processes outside the session: what is done to them.

use agent_guard_common::{Op, Source, Verdict, decide::Decision, event::Hook, subject::Guard};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    asked::{Asked, More},
    emit,
    enforce::{Outcome, enforce_more},
    judge::{Call, Judgement},
    kernel::Task,
    maps::GUARD,
    tag::{self, Subject},
};

/// `PTRACE_MODE_ATTACH` (`include/linux/ptrace.h`): to change the process, or take what it has.
const PTRACE_MODE_ATTACH: u32 = 2;

/// Whether a task is one of the daemon's.
#[inline(always)]
pub(super) fn is_guard(task: Task) -> bool {
    let Some(guard) = GUARD.get(0) else { return true };
    guard.tgid != 0 && task.tgid() == guard.tgid && task.start() / Guard::TICK == guard.start
}

/// Tells what somebody outside of sessions does to the guard.
#[inline(always)]
pub(super) fn told<const HOOK: u8>(op: Op, target: u32, detail: u32) {
    let asked = Asked::witnessed(op, Hook(HOOK), target, detail);
    let decision = Decision::new(Verdict::REPORT, Source::GUARD, 0);
    emit::judged(0, &asked, &Outcome::fresh(decision, 0));
}

/// What somebody outside of sessions does to a task. It is nobody's business, unless that is the guard's: then people hear of
/// it.
#[inline(always)]
fn witness<const HOOK: u8>(op: Op, target: Task, detail: u32) -> i32 {
    // Its own threads and what it starts belong to it.
    if is_guard(target) && Task::current().tgid() != target.tgid() {
        told::<HOOK>(op, target.tgid(), detail);
    }
    0
}

/// What is done to another task. None of these calls can be started again for sure: some reach many processes, others have an
/// errno of their own.
#[inline(always)]
fn towards<const HOOK: u8>(op: Op, target: Task, detail: u32) -> i32 {
    let Some(subject) = Subject::current() else { return witness::<HOOK>(op, target, detail) };
    if tag::session_of(target) == subject.tag().session {
        return 0;
    }
    let mut call = Call::new(subject, Hook(HOOK), op);
    call.asked.detail = detail;
    call.asked.restarts = 0;
    let judgement = if is_guard(target) { Judgement::guarded() } else { call.system(op) };
    enforce_more(call, judgement, More { target: target.tgid(), ..More::NONE })
}

// int task_kill(struct task_struct *p, struct kernel_siginfo *info, int sig, const struct cred *cred)
// Signals that processes send, not those of the kernel itself. Number 0 asks whether the process is there.
#[lsm(hook = "task_kill")]
pub fn task_kill(ctx: LsmContext) -> i32 {
    let signal: u32 = ctx.arg(2);
    if signal == 0 {
        return 0;
    }
    towards::<{ Hook::TASK_KILL.0 }>(Op::SIGNAL, Task(ctx.arg(0)), signal)
}

// int ptrace_access_check(struct task_struct *child, unsigned int mode)
// Also for process_vm_readv and _writev, /proc/PID/mem, pidfd_getfd.
#[lsm(hook = "ptrace_access_check")]
pub fn ptrace_access_check(ctx: LsmContext) -> i32 {
    let mode: u32 = ctx.arg(1);
    if mode & PTRACE_MODE_ATTACH == 0 {
        return 0;
    }
    towards::<{ Hook::PTRACE_ACCESS_CHECK.0 }>(Op::PTRACE, Task(ctx.arg(0)), mode)
}

// int task_setnice(struct task_struct *p, int nice)
#[lsm(hook = "task_setnice")]
pub fn task_setnice(ctx: LsmContext) -> i32 {
    towards::<{ Hook::TASK_SETNICE.0 }>(Op::PRIORITY, Task(ctx.arg(0)), 0)
}

// int task_setioprio(struct task_struct *p, int ioprio)
#[lsm(hook = "task_setioprio")]
pub fn task_setioprio(ctx: LsmContext) -> i32 {
    towards::<{ Hook::TASK_SETIOPRIO.0 }>(Op::PRIORITY, Task(ctx.arg(0)), 0)
}

// int task_setscheduler(struct task_struct *p)
#[lsm(hook = "task_setscheduler")]
pub fn task_setscheduler(ctx: LsmContext) -> i32 {
    towards::<{ Hook::TASK_SETSCHEDULER.0 }>(Op::PRIORITY, Task(ctx.arg(0)), 0)
}

// int task_setrlimit(struct task_struct *p, unsigned int resource, struct rlimit *new_rlim)
#[lsm(hook = "task_setrlimit")]
pub fn task_setrlimit(ctx: LsmContext) -> i32 {
    towards::<{ Hook::TASK_SETRLIMIT.0 }>(Op::PRIORITY, Task(ctx.arg(0)), ctx.arg(1))
}

// int task_movememory(struct task_struct *p)
#[lsm(hook = "task_movememory")]
pub fn task_movememory(ctx: LsmContext) -> i32 {
    towards::<{ Hook::TASK_MOVEMEMORY.0 }>(Op::PRIORITY, Task(ctx.arg(0)), 0)
}
