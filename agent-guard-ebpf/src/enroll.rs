//! Enrollment: a task outside of sessions executes a program, and becomes part of one by that before anything of the program runs.
//!
//! Of programs that are enrolled by what they are the daemon knows before we do: it was asked when the file was opened, has
//! made a session and left a seat for the process. Where it hasn't, because it is dead or knows less of files than the
//! rules, the program isn't executed. Control groups and users have sessions that are there all the time, and don't need the
//! daemon.

use agent_guard_common::{
    Fault, Op, Source, Verdict,
    decide::{self, Command, Decision},
    enroll::{PROFILE, SESSION, SLOT, Seat},
    event::{self, Hook},
};
use aya_ebpf::helpers::{bpf_get_current_uid_gid, generated::bpf_get_current_cgroup_id};

use crate::{
    asked::Asked,
    emit,
    enforce::{EPERM, Outcome, enforce},
    judge::{Call, Judgement, Parity},
    kernel::{
        Bprm, Cgroup, GO_ON, STOP, Task, descriptors::descriptors_unjudged, key_of, probe_at,
        relatives::Address, repeat,
    },
    maps::{ENROLLED_CGROUPS, ENROLLED_USERS, GENERATION, GUARD, LOOKED, MISSED, SEATS, SESSIONS, STANDING},
    tag::{self, Subject, tag_current},
    walk::object,
};

/// Bytes of the path of a control group (`PATH_MAX`).
const PATH_MAX: u32 = 4096;

/// Enrolls the current task, if anything says so. Not 0 if it must be and can't.
#[inline(always)]
pub fn enroll(bprm: Bprm, hook: Hook) -> i32 {
    if Subject::current().is_some() {
        return 0;
    }
    // Only while a policy names programs.
    if SESSIONS.get(SLOT).is_some_and(|session| session.state != 0) {
        if let Some(seat) = reserved() {
            return sit(hook, seat);
        }
        if refuse(bprm.0, hook.0 as u32, Judgement::none().0) != 0 {
            return -EPERM;
        }
    }
    let Some(seat) = standing() else { return 0 };
    if is_executor(bprm) {
        return 0;
    }
    let fault = match seat.session {
        0 => Fault::NO_SESSION,
        _ if descriptors_unjudged() != 0 => Fault::INHERITED,
        _ => return sit(hook, seat),
    };
    refuse(bprm.0, hook.0 as u32, Judgement::unseated(seat.rule, fault).0);
    -EPERM
}

/// The seat that the daemon has left for the process. It is for one program.
#[inline(always)]
fn reserved() -> Option<Seat> {
    let process = Address::current().process()?;
    // SAFETY: copied, and written once before it is looked for.
    let seat = unsafe { SEATS.get(process) }.copied()?;
    // Two threads of a process can't both have it: who fails to take it has none.
    SEATS.remove(process).ok()?;
    Some(seat)
}

/// The standing session that the task belongs to, by its control group, else by its user. One that isn't there is a seat
/// nowhere.
#[inline(always)]
fn standing() -> Option<Seat> {
    // SAFETY: the helper takes nothing.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    let user = bpf_get_current_uid_gid() as u32;
    // SAFETY: numbers; one that is exchanged meanwhile was, or is, right.
    let number = match unsafe { ENROLLED_CGROUPS.get(cgroup) } {
        Some(number) => number,
        None if missed(cgroup) => return Some(Seat::default()),
        // SAFETY: as above.
        None => unsafe { ENROLLED_USERS.get(user) }?,
    };
    Some(STANDING.get(*number).copied().unwrap_or_default())
}

/// Whether a control group that isn't noted may be one that could not be.
#[inline(always)]
fn missed(cgroup: u64) -> bool {
    let (Some(missed), Some(looked)) = (MISSED.get(0), LOOKED.get(0)) else { return true };
    // SAFETY: map values; others write them meanwhile.
    let (missed, looked) = unsafe { (core::ptr::read_volatile(missed), core::ptr::read_volatile(looked)) };
    missed.may_have(looked, cgroup)
}

/// A control group can't be noted that is, or may be, enrolled.
///
/// VERIFIER: a function of its own keeps the program small.
#[inline(never)]
fn miss(cgroup: u64) -> u32 {
    emit::count(event::count::FAULTS);
    let (Some(missed), Some(looked)) = (MISSED.get_ptr_mut(0), LOOKED.get(0)) else { return 0 };
    // SAFETY: map values. Nobody else writes the one: control groups are made one at a time (`cgroup_mutex`).
    unsafe {
        let count = (*missed).count;
        if count == core::ptr::read_volatile(&raw const looked.count) {
            core::ptr::write_volatile(&raw mut (*missed).first, cgroup);
        }
        core::ptr::write_volatile(&raw mut (*missed).count, count + 1);
    }
    1
}

/// A control group in which nobody is was removed.
#[inline(always)]
pub fn removed(cgroup: Cgroup) {
    if cgroup.is_unified() {
        // That it isn't there is no mistake: most aren't enrolled.
        let _removed = ENROLLED_CGROUPS.remove(cgroup.id());
    }
}

/// Whether this is the service manager, process 1, on its way to executing a service: it has yet to become what the service is to
/// be (`systemd-executor`, from systemd 255 on).
#[inline(always)]
fn is_executor(bprm: Bprm) -> bool {
    let Some(guard) = GUARD.get(0) else { return false };
    if guard.executor.ino == 0 || Task::current().parent_tgid() != 1 {
        return false;
    }
    key_of(bprm.file().path().dentry().address()).is_some_and(|key| {
        key.ino == guard.executor.ino && key.dev == guard.executor.dev && key.igen == guard.executor.igen
    })
}

/// The task belongs to the session from now on.
#[inline(always)]
fn sit(hook: Hook, seat: Seat) -> i32 {
    if tag_current(seat.session, seat.slot) == 0 { 0 } else { not_tagged(hook.0 as u32) }
}

/// There is no memory for a tag: a program that may have to be in a session isn't executed.
///
/// VERIFIER: a function of its own, as [`refuse`].
#[inline(never)]
fn not_tagged(hook: u32) -> i32 {
    emit::count(event::count::FAULTS);
    emit::count(event::count::DENIED);
    let asked = Asked::witnessed(Op::ENROLL, Hook(hook as u8), 0, 0);
    let decision = Decision::new(Verdict::DENY, Source::ENROLL, 0);
    emit::judged(0, &asked, &Outcome::refused(decision, Fault::TAG));
    -EPERM
}

/// Refuses a program: as `judgement` says, or, if that is [`Judgement::none`], if the policy enrolls it by what it is. Not 0 if it
/// does. Whether it does is judged as everything is that a session does: for that the task has a session for a moment.
///
/// VERIFIER: a function of its own, so that a call is on the stack only once.
#[inline(never)]
fn refuse(bprm: *const u8, hook: u32, judgement: u64) -> i32 {
    if tag_current(SESSION, SLOT) != 0 {
        return not_tagged(hook);
    }
    let Some(subject) = Subject::current() else { return -EPERM };
    let path = Bprm(bprm).file().path();
    let mut call = Call::new(subject, Hook(hook as u8), Op::ENROLL).on(path, path.dentry());
    let mut why = Judgement(judgement);
    if judgement == Judgement::none().0 {
        why = call.judge(|session, tables| object(tables, session, Op::CONNECT, path, path.dentry()));
        let (decision, fault) = (why.decision(), why.what_went_wrong());
        if decision.source.0 != Source::RULE.0 && fault.0 == Fault::NONE.0 {
            tag::take_back();
            return 0;
        }
        let fault = if fault.0 == Fault::NONE.0 { Fault::NO_SESSION } else { fault };
        why = Judgement::unseated(decision.rule, fault);
    } else {
        call.asked.generation = GENERATION.get(0).copied().unwrap_or(0);
    }
    enforce(call, why);
    tag::take_back();
    -EPERM
}

/// A path that is read.
struct Reading {
    at: u64,
    parity: u32,
    state: u32,
    /// Not 0 once it has been read to its end.
    whole: u32,
}

extern "C" fn step_path(_turn: u32, reading: *mut Reading) -> i64 {
    // SAFETY: the state that `repeat` was given.
    let reading = unsafe { &mut *reading };
    let Some(byte) = probe_at::<u8>(reading.at) else { return STOP };
    if byte == 0 {
        reading.whole = 1;
        return STOP;
    }
    let mut command = Command { state: reading.state };
    if command.read(&Parity(reading.parity & 1), byte).is_err() {
        return STOP;
    }
    reading.state = command.state;
    reading.at = reading.at.wrapping_add(1);
    if command.goes_on() { GO_ON } else { STOP }
}

/// A control group was made, in which nobody is yet. Notes it if the policy enrolls it.
#[inline(always)]
pub fn made(cgroup: Cgroup, path: u64) {
    if !cgroup.is_unified() {
        return;
    }
    let parity = GENERATION.get(0).copied().unwrap_or(0) & 1;
    let Ok(command) = Command::begin(&Parity(parity), PROFILE, 0) else { return };
    let mut reading = Reading { at: path, parity, state: command.state, whole: 0 };
    if !command.goes_on() {
        return;
    }
    repeat(PATH_MAX, step_path, &mut reading);
    if reading.whole == 0 {
        // It isn't enrolled, or its path could not be read.
        if reading.state != 0 {
            miss(cgroup.id());
        }
        return;
    }
    let command = Command { state: reading.state };
    let noted = match decide::command(&Parity(parity), PROFILE, command, false) {
        Ok(decision) if decision.source.0 != Source::RULE.0 => return,
        Ok(decision) => ENROLLED_CGROUPS.insert(cgroup.id(), decision.rule, 0).is_ok(),
        Err(_) => false,
    };
    if !noted {
        miss(cgroup.id());
    }
}
