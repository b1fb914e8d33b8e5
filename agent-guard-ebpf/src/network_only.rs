//! What is judged where the kernel runs no LSM programs: where sockets of TCP and UDP go, where they are bound, and which are made,
//! by programs of the root control group, which see everybody's.
//!
//! In kernels before 6.16 such programs can't look at what is kept beside a task. So there is a table of the processes of sessions,
//! too, kept where tags are given ([`belongs`]), and by the tracepoints at which a program is executed and a task ends. Nothing of this
//! runs where LSM programs do.

use agent_guard_common::{
    Fault, Op, Source, Verdict,
    decide::{self, Decision},
    event::{Hook, count},
    net::{Endpoint, Protocol, effective, inner},
    rules::{Profile, Tables as _},
    subject::{Belonging, Session},
};
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_send_signal, bpf_set_retval},
};

use crate::{
    asked::Asked,
    emit,
    enforce::{ECONNREFUSED, EPERM, Outcome, would_have},
    judge::{Judgement, Parity, in_force, now},
    kernel::Address,
    maps::{PROCESSES, SESSIONS},
};

/// 1 where the kernel runs no LSM programs. Set like [`crate::kernel`]'s offsets, so that the verifier leaves out what hangs on it.
#[unsafe(no_mangle)]
static NETWORK_ONLY: u32 = 0;

/// `SIGKILL`.
const SIGKILL: u32 = 9;

/// Whether the network is all that is judged here.
#[inline(always)]
pub fn is_all() -> bool {
    // SAFETY: a valid, aligned, initialised static; volatile, or the compiler would take the value in this file for the real one.
    unsafe { core::ptr::read_volatile(&raw const NETWORK_ONLY) != 0 }
}

/// Notes that a process belongs to a session.
#[inline(always)]
pub fn belongs(tgid: u32, session: u64, slot: u32) -> Result<(), Fault> {
    if !is_all() {
        return Ok(());
    }
    PROCESSES.insert(tgid, Belonging { session, slot, pad: 0 }, 0).map_err(|_full| Fault::TAG)
}

/// Whether a process is noted, for whichever session.
#[inline(always)]
pub fn is_noted(tgid: u32) -> bool {
    PROCESSES.get_ptr(tgid).is_some()
}

/// Who can't be noted, or makes what can't be noted, is killed: a tracepoint can't refuse anything.
#[inline(always)]
pub fn give_up() {
    emit::count(count::FAULTS);
    emit::count(count::KILLED);
    // SAFETY: the helper takes a number.
    let _sent = unsafe { bpf_send_signal(SIGKILL) };
}

/// The last thread of a process ends.
#[inline(always)]
pub fn ends(tgid: u32) {
    let _gone = PROCESSES.remove(tgid);
}

/// The current process, if it belongs to a session.
#[inline(always)]
pub fn current() -> Option<Belonging> {
    // SAFETY: the value is copied at once, and written whole before its process runs.
    unsafe { PROCESSES.get((bpf_get_current_pid_tgid() >> 32) as u32) }.copied()
}

/// What is asked for, in the words of [`network_only_judge`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Inquiry {
    /// Who asks.
    pub who: Belonging,
    /// The address; IPv4 mapped.
    pub addr: [u8; 16],
    /// Its port, in host order.
    pub port: u16,
    /// `IPPROTO_*`.
    pub protocol: u16,
    /// The operation.
    pub op: u32,
    /// Not 0 if the session has gone there before.
    pub again: u32,
    /// The generation that was asked, 0 if there is none.
    pub generation: u32,
    /// Whose socket it is, where that isn't the current task's; 0 if it is.
    pub tgid: u32,
    /// VERIFIER: what it copies has to be initialised.
    pub pad: u32,
}

impl Inquiry {
    /// About an address.
    #[inline(always)]
    pub fn new(who: Belonging, op: Op, at: &Address, protocol: u16) -> Self {
        let (addr, port, op) = (at.addr, at.port, op.0 as u32);
        Self { who, addr, port, protocol, op, again: 0, generation: 0, tgid: 0, pad: 0 }
    }

    /// The decision.
    #[inline(always)]
    pub fn judge(&mut self) -> Judgement {
        Judgement(network_only_judge(self))
    }

    /// What is told of it.
    #[inline(always)]
    fn asked(&self, hook: Hook, family: u16) -> Asked {
        let mut asked = Asked::witnessed(Op(self.op as u8), hook, 0, 0);
        asked.address = Address { family, port: self.port, addr: self.addr };
        asked.protocol = self.protocol;
        asked.generation = self.generation;
        asked
    }
}

/// The session of somebody.
#[inline(always)]
pub fn session(who: &Belonging) -> Result<&'static Session, Fault> {
    match SESSIONS.get(who.slot) {
        Some(session) if session.id == who.session && session.state != 0 => Ok(session),
        _ => Err(Fault::SESSION),
    }
}

/// Looks up session and generation, and decides.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn network_only_judge(inquiry: *mut Inquiry) -> u64 {
    // SAFETY: the caller's, and whole.
    let Some(inquiry) = (unsafe { inquiry.as_mut() }) else { return Judgement::fault(Fault::MEMORY).0 };
    let session = match session(&inquiry.who) {
        Ok(session) => session,
        Err(fault) => return Judgement::fault(fault).0,
    };
    if session.state == Session::KILLED {
        return Judgement::decided(Decision::new(Verdict::DENY, Source::SESSION, 0)).0;
    }
    let Some(generation) = in_force() else { return Judgement::fault(Fault::GENERATION).0 };
    inquiry.generation = generation;
    let (tables, profile) = (Parity(generation & 1), session.profile(generation));
    let op = Op(inquiry.op as u8);
    let at = Endpoint {
        addr: if op.0 == Op::LISTEN.0 { inner(inquiry.addr) } else { effective(inquiry.addr) },
        port: inquiry.port,
        protocol: Protocol::of(inquiry.protocol),
    };
    let decision = if op.0 == Op::LISTEN.0 {
        decide::listen(&tables, profile, &at)
    } else if op.0 == Op::CONNECT.0 {
        let now = if inquiry.again != 0 { 0 } else { now() };
        decide::connect(&tables, profile, session.id, &at, now)
    } else {
        decide::system(&tables, profile, op)
    };
    Judgement::from(decision).0
}

/// Carries a judgement out, and tells it. True if the call goes on. What people are to be asked about is denied: nothing can wait here.
#[inline(always)]
pub fn enforce(inquiry: &Inquiry, hook: Hook, family: u16, judgement: Judgement) -> bool {
    emit::count(count::JUDGED);
    let decision = judgement.decision();
    if decision.verdict.0 == Verdict::ALLOW.0 {
        return true;
    }
    let mut outcome = if decision.verdict.0 == Verdict::REPORT.0 {
        Outcome::fresh(decision, 0)
    } else if decision.verdict.0 == Verdict::HOLD.0 {
        Outcome::refused(decision, Fault::UNHOLDABLE)
    } else if decision.verdict.0 == Verdict::KILL.0 {
        Outcome::refused(decision, Fault::SIGNAL)
    } else {
        Outcome::fresh(decision, -EPERM)
    };
    if judgement.what_went_wrong().0 != Fault::NONE.0 {
        outcome.fault = judgement.what_went_wrong();
    }
    if outcome.code != 0 && inquiry.op == Op::CONNECT.0 as u32 && says_refused(inquiry) {
        outcome.code = -ECONNREFUSED;
    }
    tell(inquiry, hook, family, &outcome);
    outcome.code == 0
}

/// Whether a connection that is denied fails as one that nobody listens for.
#[inline(always)]
fn says_refused(inquiry: &Inquiry) -> bool {
    let Ok(session) = session(&inquiry.who) else { return false };
    let tables = Parity(inquiry.generation & 1);
    let profile = tables.profile(session.profile(inquiry.generation));
    profile.is_some_and(|profile| profile.flags & Profile::REFUSED != 0)
}

/// Has the call fail with `ECONNREFUSED` if that is what the session's policy says; `EPERM` else.
#[inline(always)]
pub fn say_why(inquiry: &Inquiry) {
    if says_refused(inquiry) {
        // SAFETY: the helper takes a number. If it fails, the call fails with `EPERM`.
        let _said = unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
}

#[inline(always)]
fn tell(inquiry: &Inquiry, hook: Hook, family: u16, outcome: &Outcome) {
    if outcome.fault.0 != Fault::NONE.0 {
        emit::count(count::FAULTS);
    }
    would_have(outcome.decision);
    if outcome.done.0 == Verdict::DENY.0 {
        emit::count(count::DENIED);
    }
    // VERIFIER: of most programs known to be 0, whose stack is short.
    let of = if hook.0 == Hook::EGRESS.0 { inquiry.tgid } else { 0 };
    emit::judged_plainly((inquiry.who.session, of), &inquiry.asked(hook, family), outcome);
}
