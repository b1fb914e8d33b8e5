//! Programs that become sessions by themselves.

use agent_guard_common::event::Hook;
use aya_ebpf::{
    macros::{btf_tracepoint, lsm},
    programs::{BtfTracePointContext, LsmContext},
};

use crate::{
    enroll,
    kernel::{Bprm, Cgroup},
};

// int bprm_creds_for_exec(struct linux_binprm *bprm)
// Once for each program, before it is judged what it is executed with.
#[lsm(hook = "bprm_creds_for_exec")]
pub fn enroll(ctx: LsmContext) -> i32 {
    let bprm = Bprm(ctx.arg(0));
    if bprm.only_checks() {
        return 0;
    }
    enroll::enroll(bprm, Hook::BPRM_CREDS_FOR_EXEC)
}

// int bprm_check_security(struct linux_binprm *bprm)
// For the interpreters that scripts name.
#[lsm(hook = "bprm_check_security")]
pub fn enroll_interpreter(ctx: LsmContext) -> i32 {
    enroll::enroll(Bprm(ctx.arg(0)), Hook::BPRM_CHECK_SECURITY)
}

// void cgroup_mkdir(struct cgroup *cgrp, const char *path)
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    enroll::made(Cgroup(ctx.arg(0)), ctx.arg(1));
    0
}

// void cgroup_rmdir(struct cgroup *cgrp, const char *path)
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    enroll::removed(Cgroup(ctx.arg(0)));
    0
}
