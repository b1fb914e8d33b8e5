//! Holding a call: stop the process inside it, undo the call, and have the kernel start it again.
//!
//! Nothing waits in the kernel. On `SIGCONT` the same call is judged anew; if people have answered by then,
//! their answer decides, else the process stops again. An answer covers what was asked for, by a keyed digest
//! over the objects and names, and nothing else; it is used once.

use agent_guard_common::{
    Fault, Op, Verdict,
    decide::Decision,
    digest::Digest,
    event::{Hook, Judged},
};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_get_prandom_u32, bpf_map_lookup_elem},
};

use crate::{
    asked::{Asked, More},
    emit,
    enforce::{EPERM, ERESTARTNOINTR, Outcome, stop},
    kernel::{AF_UNIX, GO_ON, STOP, file, key_of, probe_at, repeat},
    maps::{ANSWERS, BLANK, GUARD, HOLDS, Scratch},
    tag::Subject,
    walk::scratch,
};

/// Mark in [`Outcome::answer`]: nobody needs to hear of this again.
pub const SILENT: u8 = u8::MAX;

/// Words of a name: 255 bytes at most (`NAME_MAX`).
const NAME_WORDS: u32 = 32;

/// Holds the call, or lets it go on or fail if it was held before and has an answer.
#[inline(always)]
pub fn hold(subject: &mut Subject, asked: &Asked, decision: Decision, digest: u64) -> Outcome {
    if asked.restarts == 0 || !subject.task().can_restart() {
        return Outcome::refused(decision, Fault::UNHOLDABLE);
    }
    if digest == 0 {
        return Outcome::refused(decision, Fault::READ);
    }
    let id = subject.tag().hold;
    if id != 0 && subject.tag().digest == digest {
        // SAFETY: the value is copied at once; the daemon writes it once and never changes it.
        return match unsafe { ANSWERS.get(id) } {
            Some(answer) => answered(subject, asked, decision, id, digest, answer.verdict),
            // Still the same question, unless nobody can see it any more.
            // SAFETY: only whether there is one.
            None if unsafe { HOLDS.get(id) }.is_some() => {
                wait(subject, Outcome { answer: SILENT, ..waiting(decision, id) })
            }
            None => ask(subject, asked, decision, digest),
        };
    }
    if is_executing(asked) && was_approved(subject, digest) {
        return Outcome { answer: SILENT, ..Outcome::fresh(decision, 0) };
    }
    let granted = subject.tag().granted == digest;
    subject.tag_mut().granted = 0;
    if granted && is_truncation(asked) {
        return Outcome { answer: SILENT, ..Outcome::fresh(decision, 0) };
    }
    ask(subject, asked, decision, digest)
}

/// The hook for truncation. An approved open for writing includes one truncation of the same object: as part of the same
/// call, which has a hook of its own, or through the descriptor.
#[inline(always)]
fn is_truncation(asked: &Asked) -> bool {
    asked.hook.0 == Hook::PATH_TRUNCATE.0 || asked.hook.0 == Hook::FILE_TRUNCATE.0
}

/// A hook of `execve` before the new program runs. There are several, each for a question of its own, and the call begins again for
/// each: what was approved must not be asked again then, or two would ask in turns for ever.
#[inline(always)]
fn is_executing(asked: &Asked) -> bool {
    (asked.hook.0 == Hook::FILE_OPEN.0 && asked.op.0 == Op::EXECUTE.0)
        || asked.hook.0 == Hook::BPRM_CHECK_SECURITY.0
        || asked.hook.0 == Hook::BPRM_CREDS_FROM_FILE.0
}

#[inline(always)]
fn was_approved(subject: &Subject, digest: u64) -> bool {
    let [a, b, c, d] = subject.tag().executing;
    digest == a || digest == b || digest == c || digest == d
}

/// Uses an answer up.
#[inline(always)]
fn answered(
    subject: &mut Subject,
    asked: &Asked,
    decision: Decision,
    id: u64,
    digest: u64,
    verdict: u32,
) -> Outcome {
    let approved = verdict == Verdict::ALLOW.0 as u32;
    forget(id);
    let opened = asked.hook.0 == Hook::FILE_OPEN.0;
    let tag = subject.tag_mut();
    tag.hold = 0;
    tag.digest = 0;
    tag.granted = if approved && opened { digest } else { 0 };
    if approved && is_executing(asked) {
        let [a, b, c, _] = tag.executing;
        tag.executing = [digest, a, b, c];
    }
    let (done, answer, code) = if approved {
        (Verdict::ALLOW, Judged::APPROVED, 0)
    } else {
        (Verdict::DENY, Judged::DENIED, -EPERM)
    };
    Outcome { decision, done, fault: Fault::NONE, answer, hold: id, code }
}

/// Asks people: notes the hold, then stops the process.
#[inline(always)]
fn ask(subject: &mut Subject, asked: &Asked, decision: Decision, digest: u64) -> Outcome {
    if subject.tag().hold != 0 {
        abandon(subject);
    }
    // SAFETY: the helper takes nothing.
    let id = unsafe { (u64::from(bpf_get_prandom_u32()) << 32) | u64::from(bpf_get_prandom_u32()) | 1 };
    let outcome = waiting(decision, id);
    let Some(blank) = BLANK.get(0) else { return Outcome::refused(decision, Fault::HOLDS_FULL) };
    if HOLDS.insert(id, blank, u64::from(BPF_NOEXIST)).is_err() {
        return Outcome::refused(decision, Fault::HOLDS_FULL);
    }
    // SAFETY: map and key are what the helper takes.
    let record = unsafe { bpf_map_lookup_elem((&raw const HOLDS).cast_mut().cast(), (&raw const id).cast()) };
    if record.is_null() {
        return Outcome::refused(decision, Fault::HOLDS_FULL);
    }
    // SAFETY: a value of that map; nobody else knows the number yet.
    let record = unsafe { &mut *record.cast::<Judged>() };
    emit::fill(record, subject.tag().session, asked, &outcome);
    let tag = subject.tag_mut();
    tag.hold = id;
    tag.digest = digest;
    tag.granted = 0;
    let outcome = wait(subject, outcome);
    if outcome.fault.0 == Fault::NONE.0 {
        // The event is the same record; written here, because it is there already.
        emit::held(record);
        return Outcome { answer: SILENT, ..outcome };
    }
    outcome
}

/// Stops the process and has the call started again. If it can't be stopped, the call fails.
#[inline(always)]
fn wait(subject: &mut Subject, outcome: Outcome) -> Outcome {
    if stop() {
        return outcome;
    }
    forget(outcome.hold);
    let tag = subject.tag_mut();
    tag.hold = 0;
    tag.digest = 0;
    Outcome::refused(outcome.decision, Fault::SIGNAL)
}

#[inline(always)]
fn waiting(decision: Decision, id: u64) -> Outcome {
    Outcome {
        decision,
        done: Verdict::HOLD,
        fault: Fault::NONE,
        answer: Judged::ASKED,
        hold: id,
        code: -ERESTARTNOINTR,
    }
}

/// A call that isn't held (any more): if it is the one that was, its hold is settled.
#[inline(always)]
pub fn settle(subject: &mut Subject, digest: u64) {
    if digest != 0 && digest == subject.tag().digest {
        abandon(subject);
    }
}

/// Leaves a hold without an answer. The daemon sees that it is gone.
#[inline(always)]
fn abandon(subject: &mut Subject) {
    let id = subject.tag().hold;
    forget(id);
    let tag = subject.tag_mut();
    tag.hold = 0;
    tag.digest = 0;
}

/// Takes a hold and its answer out of the tables. Either may be gone already.
#[inline(always)]
fn forget(id: u64) {
    let _gone = ANSWERS.remove(id);
    let _gone = HOLDS.remove(id);
}

/// What is asked for, as one number that a session can't choose. 0 if it can't be read.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn hold_digest(asked: *const Asked) -> u64 {
    // SAFETY: the caller's, whole and initialised.
    match unsafe { asked.as_ref() } {
        Some(asked) => digest(asked),
        None => 0,
    }
}

/// VERIFIER: the state is in map memory: a stack frame each for this, for a name and for a word of it is too much below
/// the largest hooks.
#[inline(always)]
fn digest(asked: &Asked) -> u64 {
    let (Some(guard), Some(scratch)) = (GUARD.get(0), scratch()) else { return 0 };
    let state = &mut scratch.digest;
    *state = Digest::new(guard.key).word(asked.op.0 as u64);
    if asked.address.family != 0 && asked.address.family != AF_UNIX {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = asked.address.addr;
        return state
            .word(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
            .word(u64::from_ne_bytes([i, j, k, l, m, n, o, p]))
            .word(u64::from(asked.address.port) | (u64::from(asked.protocol) << 16))
            .finish();
    }
    if asked.op.0 == Op::EXEC.0 {
        if scratch.more.arguments == 0 {
            return 0;
        }
        *state = state.word(scratch.more.arguments);
    }
    if asked.op.is_system() {
        let More { target, capability, arguments, .. } = scratch.more;
        *state = state.word(arguments).word(u64::from(target) << 32 | u64::from(capability));
        if asked.first.dentry == 0 {
            return state.word(u64::from(asked.detail) << 8 | u64::from(asked.hook.0)).finish();
        }
    }
    if asked.op.0 == Op::CONNECT.0 && asked.first.dentry == 0 {
        return if hold_abstract() == 0 { 0 } else { state.finish() };
    }
    // An open for writing and the truncation that belongs to it are one question, although they have two hooks.
    let hook = if asked.op.0 == Op::WRITE.0 { 0 } else { asked.hook.0 };
    *state = state.word(u64::from(asked.detail) << 8 | u64::from(hook));
    // An object that exists is what it is by whatever name; one that doesn't is a name in a directory, and
    // taking a name away is about that name.
    if !object(state, asked.first.dentry)
        || (asked.op.0 != Op::WRITE.0 && hold_name(asked.first.dentry) == 0)
        || (asked.second.dentry != 0
            && (!object(state, asked.second.dentry) || hold_name(asked.second.dentry) == 0))
    {
        return 0;
    }
    state.finish()
}

/// Takes an object in. False if it can't be read.
#[inline(always)]
fn object(state: &mut Digest, dentry: u64) -> bool {
    let Some(object) = key_of(dentry) else { return false };
    *state = state.word(object.ino).word(u64::from(object.dev));
    true
}

/// A name on its way into a digest.
struct Name<'a> {
    scratch: &'a mut Scratch,
    at: u64,
    length: u32,
    good: bool,
}

/// Takes in a name and the directory it is in. 0 if they can't be read.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn hold_name(dentry: u64) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let Some(parent) = file::up(dentry) else { return 0 };
    if !object(&mut scratch.digest, if parent == 0 { dentry } else { parent }) {
        return 0;
    }
    let Some((at, length)) = file::name_of(dentry) else { return 0 };
    text(scratch, at, length)
}

/// Takes in the abstract name of a Unix socket. 0 if it can't be read.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn hold_abstract() -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let More { name, name_length, .. } = scratch.more;
    text(scratch, name, name_length)
}

/// Takes in bytes of the kernel's, and how many. 0 if they can't be read.
#[inline(always)]
fn text(scratch: &mut Scratch, at: u64, length: u32) -> u32 {
    scratch.digest = scratch.digest.word(u64::from(length));
    let mut name = Name { scratch, at, length, good: true };
    repeat(NAME_WORDS, step_name, &mut name);
    u32::from(name.good)
}

/// Takes in one word of a name.
extern "C" fn step_name(word: u32, name: *mut Name<'_>) -> i64 {
    // SAFETY: the state of `hold_name`, which waits for us.
    let name = unsafe { &mut *name };
    let from = word * 8;
    if from >= name.length {
        return STOP;
    }
    let Some(text) = probe_at::<u64>(name.at.wrapping_add(u64::from(from))) else {
        name.good = false;
        return STOP;
    };
    // The bytes behind the name are padding of its last word, and cut off.
    let rest = name.length - from;
    let text = if rest < 8 { text & ((1u64 << (rest * 8)) - 1) } else { text };
    name.scratch.digest = name.scratch.digest.word(text);
    GO_ON
}
