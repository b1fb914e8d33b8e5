//! From a decision to a return code: the only place that knows what a verdict and a fault mean to the kernel.

use agent_guard_common::{
    Fault, Op, Verdict,
    decide::Decision,
    event::{Judged, count},
    rules::{Profile, Tables as _},
};
use aya_ebpf::helpers::generated::bpf_send_signal;

use crate::{
    asked::{Asked, More},
    emit, hold,
    judge::{Call, Judgement, Parity},
    tag::Subject,
    walk::{make_scratch, scratch},
};

/// `EPERM`.
pub const EPERM: i32 = 1;
/// `ECONNREFUSED`.
pub const ECONNREFUSED: i32 = 111;
/// `EAGAIN`.
pub const EAGAIN: i32 = 11;
/// `ERESTARTNOINTR` (`include/linux/errno.h`): undo the call and start it again after signals were handled.
pub const ERESTARTNOINTR: i32 = 513;
/// Signals.
const SIGKILL: u32 = 9;
const SIGSTOP: u32 = 19;

/// What becomes of a call, as the event says it.
#[derive(Clone, Copy)]
pub struct Outcome {
    /// What was decided.
    pub decision: Decision,
    /// What was done.
    pub done: Verdict,
    /// What went wrong.
    pub fault: Fault,
    /// How it came about, one of [`Judged`]'s constants.
    pub answer: u8,
    /// The hold, 0 for none.
    pub hold: u64,
    /// What the hook returns.
    pub code: i32,
}

impl Outcome {
    /// The same, mixed with a zero that the verifier doesn't know.
    ///
    /// VERIFIER: else it follows each of the outcomes apart through all of the telling.
    #[inline(always)]
    fn forget(self, zero: u32) -> Self {
        Self {
            decision: self.decision,
            done: Verdict(self.done.0 ^ zero as u8),
            fault: Fault(self.fault.0 ^ zero as u8),
            answer: self.answer ^ zero as u8,
            hold: self.hold ^ (u64::from(zero) << 32 | u64::from(zero)),
            code: self.code ^ zero as i32,
        }
    }

    /// A decision carried out as it is.
    #[inline(always)]
    pub fn fresh(decision: Decision, code: i32) -> Self {
        Self { decision, done: decision.verdict, fault: Fault::NONE, answer: Judged::FRESH, hold: 0, code }
    }

    /// A decision that can't be carried out, turned into a denial.
    #[inline(always)]
    pub fn refused(decision: Decision, fault: Fault) -> Self {
        Self { fault, done: Verdict::DENY, ..Self::fresh(decision, -EPERM) }
    }
}

/// Carries a decision out and returns what the hook returns.
#[inline(always)]
pub fn enforce(call: Call, judgement: Judgement) -> i32 {
    enforce_more(call, judgement, More::NONE)
}

/// The same where more is asked for than a call has room for.
#[inline(always)]
pub fn enforce_more(call: Call, judgement: Judgement, more: More) -> i32 {
    if goes_on(&call.subject, judgement) {
        return 0;
    }
    let Some(scratch) = make_scratch() else { return no_memory() };
    scratch.asked = call.asked;
    scratch.more = more;
    act(judgement)
}

/// The same where [`crate::maps::Scratch`] has what is asked for already.
#[inline(always)]
pub fn enforce_noted(subject: &Subject, judgement: Judgement) -> i32 {
    if goes_on(subject, judgement) { 0 } else { act(judgement) }
}

/// A call that there was no memory to judge or to tell of.
#[inline(always)]
pub fn no_memory() -> i32 {
    emit::count(count::FAULTS);
    emit::count(count::DENIED);
    emit::count(count::LOST_DECISIONS);
    -EPERM
}

/// Whether nothing is to be done or told.
#[inline(always)]
fn goes_on(subject: &Subject, judgement: Judgement) -> bool {
    emit::count(count::JUDGED);
    judgement.decision().verdict.0 == Verdict::ALLOW.0 && subject.tag().hold == 0
}

#[inline(always)]
fn act(judgement: Judgement) -> i32 {
    const RESTARTS: i64 = -(ERESTARTNOINTR as i64);
    const REFUSED: i64 = -(ECONNREFUSED as i64);
    // VERIFIER: it wants to see the range of what a hook returns, and loses it where half of a register is compared.
    match enforce_act(judgement.0) {
        0 => 0,
        RESTARTS => -ERESTARTNOINTR,
        REFUSED => -ECONNREFUSED,
        _ => -EPERM,
    }
}

/// Carries out what was decided about what the task's [`crate::maps::Scratch`] says is asked for.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn enforce_act(judgement: u64) -> i64 {
    let judgement = Judgement(judgement);
    let (Some(mut subject), Some(scratch)) = (Subject::current(), scratch()) else {
        return i64::from(-EPERM);
    };
    let asked = &scratch.asked;
    let zero = subject.tag().pad;
    let decision = judgement.decision();
    let held = decision.verdict.0 == Verdict::HOLD.0 || subject.tag().hold != 0;
    let digest = if held { hold::hold_digest(asked) } else { 0 };
    let mut outcome = carry_out(&mut subject, asked, decision, digest).forget(zero);
    if judgement.what_went_wrong().0 != Fault::NONE.0 {
        outcome.fault = judgement.what_went_wrong();
    }
    if outcome.code == -EPERM && asked.op.0 == Op::CONNECT.0 && says_refused(&subject, asked.generation) {
        outcome.code = -ECONNREFUSED;
    }
    if outcome.answer != hold::SILENT {
        tell(&subject, asked, &outcome);
    }
    i64::from(outcome.code)
}

/// Whether a connection that is denied fails as one that nobody listens for.
#[inline(always)]
fn says_refused(subject: &Subject, generation: u32) -> bool {
    let Ok(session) = subject.session() else { return false };
    let profile = session.profile(generation);
    Parity(generation & 1).profile(profile).is_some_and(|profile| profile.flags & Profile::REFUSED != 0)
}

#[inline(always)]
fn carry_out(subject: &mut Subject, asked: &Asked, decision: Decision, digest: u64) -> Outcome {
    if decision.verdict.0 == Verdict::HOLD.0 {
        return hold::hold(subject, asked, decision, digest);
    }
    // Judged anew under another policy, a held call needs no answer any more.
    hold::settle(subject, digest);
    if decision.verdict.0 == Verdict::ALLOW.0 {
        return Outcome { answer: hold::SILENT, ..Outcome::fresh(decision, 0) };
    }
    if decision.verdict.0 == Verdict::REPORT.0 {
        return Outcome::fresh(decision, 0);
    }
    if decision.verdict.0 == Verdict::KILL.0 {
        // SAFETY: the helper takes a number. If it fails, the call fails all the same.
        let code = unsafe { bpf_send_signal(SIGKILL) };
        let fault = if code == 0 { Fault::NONE } else { Fault::SIGNAL };
        return Outcome { fault, ..Outcome::fresh(decision, -EPERM) };
    }
    Outcome::fresh(decision, -EPERM)
}

/// Stops the process. False if it could not be stopped: then it must not be told to wait.
#[inline(always)]
pub fn stop() -> bool {
    // SAFETY: the helper takes a number.
    unsafe { bpf_send_signal(SIGSTOP) == 0 }
}

/// Counts what the policy would have stopped and the profile only reports.
#[inline(always)]
pub fn would_have(decision: Decision) {
    if decision.policy.0 > decision.verdict.0 {
        emit::count(count::would_have(decision.policy));
    }
}

/// Counts and tells.
#[inline(always)]
fn tell(subject: &Subject, asked: &Asked, outcome: &Outcome) {
    if outcome.fault.0 != Fault::NONE.0 {
        emit::count(count::FAULTS);
    }
    would_have(outcome.decision);
    if outcome.done.0 == Verdict::DENY.0 {
        emit::count(count::DENIED);
    }
    if outcome.done.0 == Verdict::KILL.0 {
        emit::count(count::KILLED);
    }
    emit::judged(subject.tag().session, asked, outcome);
}
