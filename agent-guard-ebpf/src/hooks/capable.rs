//! Capabilities: what the kernel asks for where there is no hook for the operation itself.

use agent_guard_common::{
    Fault, Op, Verdict,
    event::{Hook, count},
    system::{could_be, has_own_hook, operation},
};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    asked::More,
    emit,
    enforce::{EPERM, enforce_more, would_have},
    judge::{Call, Judgement},
    kernel::UserNamespace,
    tag::Subject,
};

/// `CAP_OPT_NOAUDIT` (`include/linux/security.h`): whoever asks goes on in another way.
const CAP_OPT_NOAUDIT: u32 = 2;

/// The decision about a capability in a system call.
#[inline(always)]
fn judge(call: &mut Call, capability: u32, number: Option<u64>) -> Judgement {
    let op = operation(capability, number);
    call.asked.op = op;
    if op != Op::CAPABILITY {
        return call.system(op);
    }
    let mut judgement = call.capability(capability);
    // In a 32-bit call: whatever it may be for.
    if number.is_none() {
        for op in could_be(capability) {
            judgement = judgement.and(call.system(*op));
        }
    }
    judgement
}

// int capable(const struct cred *cred, struct user_namespace *ns, int cap, unsigned int opts)
// Only for what reaches beyond name spaces of the session's own making, which have a verdict of their own.
#[lsm(hook = "capable")]
pub fn capable(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    if !UserNamespace(ctx.arg(1)).is_the_hosts() {
        return 0;
    }
    let (capability, silent) = (ctx.arg::<u32>(2), ctx.arg::<u32>(3) & CAP_OPT_NOAUDIT != 0);
    let number = subject.task().system_call();
    let mut call = Call::new(subject, Hook::CAPABLE, Op::CAPABILITY);
    // The kernel has an errno of its own for who isn't capable.
    call.asked.restarts = 0;
    let judgement = judge(&mut call, capability, number);
    let decision = judgement.decision();
    if decision.verdict.0 == Verdict::HOLD.0 && has_own_hook(call.asked.op, number) {
        return 0;
    }
    if !silent {
        return enforce_more(call, judgement, More { capability: capability + 1, ..More::NONE });
    }
    emit::count(count::JUDGED);
    if judgement.what_went_wrong() != Fault::NONE {
        emit::count(count::FAULTS);
    }
    if decision.verdict.goes_on() {
        would_have(decision);
        return 0;
    }
    emit::count(count::DENIED);
    -EPERM
}
