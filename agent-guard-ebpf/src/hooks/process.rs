//! Processes: the tag goes on, and the daemon hears of it.

use agent_guard_common::{event, subject::Session};
use aya_ebpf::{
    macros::{btf_tracepoint, lsm},
    programs::{BtfTracePointContext, LsmContext},
};
use aya_log_ebpf::error;

use crate::{
    attach, emit,
    enforce::{EAGAIN, EPERM},
    kernel::{Bprm, Task},
    network_only, questions,
    tag::{self, Subject},
};

// int task_alloc(struct task_struct *task, unsigned long clone_flags)
// Every way to make a task comes by here, io_uring's workers included (copy_process), before it can run.
#[lsm(hook = "task_alloc")]
pub fn task_alloc(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else {
        attach::makes(Task(ctx.arg(0)));
        return 0;
    };
    match subject.session() {
        Ok(session) if session.state == Session::KILLED => -EPERM,
        // A session that isn't known makes no new tasks, but what it has keeps its tag.
        Err(_) => -EPERM,
        Ok(_) => match tag::inherit(&subject, Task(ctx.arg(0))) {
            Ok(()) => 0,
            Err(_) => {
                emit::count(event::count::FAULTS);
                error!(&ctx, "no memory for the tag: a new task of a session was not made");
                -EAGAIN
            }
        },
    }
}

// void sched_process_fork(struct task_struct *parent, struct task_struct *child)
#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    let child = Task(ctx.arg(1));
    attach::made(child);
    let Some(subject) = Subject::current() else {
        if network_only::is_all() {
            attach::makes(child);
        }
        return 0;
    };
    attach::completes(&ctx, &subject, child);
    if network_only::is_all() && !network_only::is_noted(child.tgid()) {
        network_only::give_up();
    }
    if child.tid() == child.tgid() {
        emit::lifecycle(&subject, event::FORK, Some(child));
    }
    0
}

// void sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    let Some(mut subject) = Subject::current() else { return 0 };
    if network_only::is_all() {
        let (task, tag) = (subject.task(), subject.tag());
        if network_only::belongs(task.tgid(), tag.session, tag.slot).is_err() {
            network_only::give_up();
        }
    }
    subject.executed();
    emit::exec(&subject, Bprm(ctx.arg(2)));
    0
}

// void sched_process_exit(struct task_struct *p), with a second argument from 6.16 on
#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(_ctx: BtfTracePointContext) -> i32 {
    attach::ends();
    let Some(subject) = Subject::current() else { return 0 };
    if network_only::is_all() && subject.task().was_last() {
        network_only::ends(subject.task().tgid());
    }
    if subject.task().tid() == subject.task().tgid() {
        questions::ends();
        emit::lifecycle(&subject, event::EXIT, None);
    }
    0
}
