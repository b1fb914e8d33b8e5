//! Executing programs: with which arguments, and those that no path leads to. Whether the file may be executed at all is told by
//! opening it ([`super::files`]).

use agent_guard_common::{Op, Verdict, event::Hook};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{arguments, asked::More, enforce::enforce_more, judge::Call, kernel::Bprm, tag::Subject};

// int bprm_check_security(struct linux_binprm *bprm)
// Once for a program, and again for each interpreter that a script names, with the arguments that this one gets.
#[lsm(hook = "bprm_check_security")]
pub fn bprm_check_security(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let bprm = Bprm(ctx.arg(0));
    let path = bprm.file().path();
    let mut call = Call::new(subject, Hook::BPRM_CHECK_SECURITY, Op::EXEC).on(path, path.dentry());
    let judgement = call.judge(|session, tables| arguments::judge(tables, session, bprm));
    let verdict = judgement.decision().verdict;
    let mut more = More::NONE;
    if verdict.0 != Verdict::ALLOW.0 {
        arguments::keep(bprm.0);
    }
    // Also for a call that was held: whether it is that one is told by what it is about.
    if verdict.0 == Verdict::HOLD.0 || call.subject.tag().hold != 0 {
        more.arguments = arguments::digest(bprm.0);
    }
    enforce_more(call, judgement, more)
}
