//! Telling the daemon: reserve, fill, submit, count what was lost.

use agent_guard_common::{
    ABI, Op,
    event::{self, ARGS_BYTES, Exec, Header, Judged, Lifecycle, PATH_BYTES, Seen, count as slot},
    object::AbstractName,
};
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel, bpf_ringbuf_output};

use crate::{
    asked::{Asked, More},
    enforce::Outcome,
    kernel::{AF_UNIX, Bprm, GO_ON, STOP, Task, Untyped, file, key_of, mode_of, mount, repeat},
    maps::{COUNTS, DECISIONS, REPORTS},
    tag::Subject,
    walk::scratch,
};

/// Components of a path text, at most.
const COMPONENTS: u32 = 512;
/// Longest name of a component (`NAME_MAX`).
const NAME_MAX: u32 = 255;

/// Adds one to a counter.
#[inline(always)]
pub fn count(slot: u32) {
    if let Some(counter) = COUNTS.get_ptr_mut(slot) {
        // SAFETY: this CPU's own value. A preempted addition can lose one; these are figures, not decisions.
        unsafe { *counter += 1 };
    }
}

/// Tells what became of a call. Reports have a ring of their own, so that a flood of them loses no denial.
#[inline(always)]
pub fn judged(session: u64, asked: &Asked, outcome: &Outcome) {
    let report = outcome.done.goes_on() && outcome.answer == Judged::FRESH;
    let entry = if report { REPORTS.reserve(0) } else { DECISIONS.reserve(0) };
    let Some(mut entry) = entry else {
        count(if report { slot::LOST_REPORTS } else { slot::LOST_DECISIONS });
        return;
    };
    // SAFETY: reserved for a record, all of whose bytes that readers look at are written.
    fill(unsafe { &mut *entry.as_mut_ptr() }, session, asked, outcome);
    entry.submit(0);
}

/// Tells that a call is held: the record is the one that the table of holds keeps.
#[inline(always)]
pub fn held(record: &Judged) {
    count(slot::HELD);
    // SAFETY: the record is a map value of that size.
    let code = unsafe {
        bpf_ringbuf_output(
            (&raw const DECISIONS).cast_mut().cast(),
            core::ptr::from_ref(record).cast_mut().cast(),
            size_of::<Judged>() as u64,
            0,
        )
    };
    if code != 0 {
        count(slot::LOST_DECISIONS);
    }
}

/// Tells what became of a call that has no objects, from a program that can't look at what is kept for the task; by the current process,
/// or one of which only the number is known, if that isn't 0.
#[inline(always)]
pub fn judged_plainly((session, of): (u64, u32), asked: &Asked, outcome: &Outcome) {
    let report = outcome.done.goes_on();
    let entry = if report { REPORTS.reserve(0) } else { DECISIONS.reserve(0) };
    let Some(mut entry) = entry else {
        count(if report { slot::LOST_REPORTS } else { slot::LOST_DECISIONS });
        return;
    };
    // SAFETY: reserved for a record, all of whose bytes that readers look at are written.
    let record = unsafe { &mut *entry.as_mut_ptr() };
    facts(record, session, asked, outcome, More { target: asked.target, ..More::NONE });
    see(&mut record.first, 0);
    see(&mut record.second, 0);
    if of != 0 {
        let header = &mut record.header;
        (header.start, header.tgid, header.tid, header.ppid, header.comm) = (0, of, of, 0, [0; 16]);
    }
    record.header.size = size_of::<Judged>() as u32;
    entry.submit(0);
}

/// Writes what was asked for and what became of it, but for objects.
#[inline(always)]
fn facts(record: &mut Judged, session: u64, asked: &Asked, outcome: &Outcome, more: More) {
    header(&mut record.header, event::JUDGED, 0, session);
    record.hold = outcome.hold;
    record.generation = asked.generation;
    record.rule = outcome.decision.rule;
    record.errno = outcome.code;
    record.op = asked.op.0;
    record.policy = outcome.decision.policy.0;
    record.done = outcome.done.0;
    record.source = outcome.decision.source.0;
    record.fault = outcome.fault.0;
    record.hook = asked.hook.0;
    record.answer = outcome.answer;
    record.pad = 0;
    record.protocol = u32::from(asked.protocol);
    record.detail = asked.detail;
    record.target = more.target;
    record.capability = more.capability;
    record.family = asked.address.family;
    record.port = asked.address.port;
    record.addr = asked.address.addr;
}

/// Writes the record of a call. Path texts are written up to their stated length only.
#[inline(never)]
pub fn fill(record: &mut Judged, session: u64, asked: &Asked, outcome: &Outcome) {
    let more = match scratch() {
        Some(scratch) => scratch.more,
        // Outside of sessions nothing is kept, and nothing but this is told.
        None => More { target: asked.target, ..More::NONE },
    };
    facts(record, session, asked, outcome, more);
    let Untyped { dentry, mount } = asked.first;
    emit_see(record, 0, dentry);
    emit_path(record, 0, dentry, mount);
    let Untyped { dentry, mount } = asked.second;
    emit_see(record, 1, dentry);
    emit_path(record, 1, dentry, mount);
    if asked.op.0 == Op::EXEC.0 {
        emit_arguments(record);
    }
    if asked.address.family == AF_UNIX && asked.first.dentry == 0 {
        emit_abstract(record);
    }
    // Last, so that who reads a record in the table of holds can tell a whole one.
    // SAFETY: a member of a record that is ours.
    unsafe { core::ptr::write_volatile(&raw mut record.header.size, size_of::<Judged>() as u32) };
}

/// Writes who and when.
#[inline(always)]
fn header(header: &mut Header, kind: u16, size: u32, session: u64) {
    // Not by helpers, which not all programs of control groups have in all kernels.
    let task = Task::current();
    let (uid, gid) = task.ids();
    header.size = size;
    header.kind = kind;
    header.abi = ABI as u16;
    // SAFETY: the helper takes nothing.
    header.time = unsafe { bpf_ktime_get_boot_ns() };
    header.session = session;
    header.start = task.start();
    header.tgid = task.tgid();
    header.tid = task.tid();
    header.ppid = task.parent_tgid();
    header.uid = uid;
    header.gid = gid;
    header.pad = 0;
    header.comm = task.name();
}

/// Writes the first or the second object of a record.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn emit_see(record: *mut Judged, which: u32, dentry: u64) -> u32 {
    // SAFETY: the caller's, and whole.
    let Some(record) = (unsafe { record.as_mut() }) else { return 0 };
    see(if which == 0 { &mut record.first } else { &mut record.second }, dentry);
    0
}

/// Writes the path of the first or the second object of a record.
///
/// VERIFIER: see [`crate::walk::walk_end`]. Beside [`emit_see`], not below it: the stack is short.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn emit_path(record: *mut Judged, which: u32, dentry: u64, mount: u64) -> u32 {
    // SAFETY: the caller's, and whole.
    let Some(record) = (unsafe { record.as_mut() }) else { return 0 };
    let Judged { first, second, path: [first_path, second_path], .. } = record;
    let (seen, text) = if which == 0 { (first, first_path) } else { (second, second_path) };
    if dentry != 0 {
        path(seen, text, Untyped { dentry, mount });
    }
    0
}

/// Writes the arguments of a program where the second path would be.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn emit_arguments(record: *mut Judged) -> u32 {
    // SAFETY: the caller's, and whole.
    let (Some(record), Some(scratch)) = (unsafe { record.as_mut() }, scratch()) else { return 0 };
    let Judged { second, path: [_, text], .. } = record;
    let arguments = &scratch.arguments;
    const { assert!(PATH_BYTES == ARGS_BYTES) }
    // SAFETY: as many bytes here as there.
    let code = unsafe {
        bpf_probe_read_kernel(text.as_mut_ptr().cast(), PATH_BYTES as u32, arguments.text.as_ptr().cast())
    };
    second.path_len = if code == 0 { arguments.length as u16 } else { 0 };
    second.cut = arguments.cut as u16;
    0
}

/// Writes an abstract name where the first path would be.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn emit_abstract(record: *mut Judged) -> u32 {
    // SAFETY: the caller's, and whole.
    let (Some(record), Some(scratch)) = (unsafe { record.as_mut() }, scratch()) else { return 0 };
    let Judged { first, path: [text, _], .. } = record;
    let More { name, name_length, .. } = scratch.more;
    const { assert!(PATH_BYTES > AbstractName::ROOM) }
    // VERIFIER: the bound has to be on the very value that is passed on.
    let length = name_length & AbstractName::ROOM as u32;
    // SAFETY: there is room for as much; the helper checks the source.
    let code = unsafe {
        bpf_probe_read_kernel(
            text.as_mut_ptr().cast(),
            length,
            core::ptr::with_exposed_provenance(name as usize),
        )
    };
    first.path_len = if code == 0 { length as u16 } else { 0 };
    0
}

/// Writes an object. What can't be read is left out: the decision doesn't hang on it.
#[inline(always)]
fn see(seen: &mut Seen, dentry: u64) {
    seen.mode = 0;
    seen.path_len = 0;
    seen.cut = 0;
    seen.object = agent_guard_common::ObjectKey::default();
    seen.parent = agent_guard_common::ObjectKey::default();
    if dentry == 0 {
        return;
    }
    seen.object = key_of(dentry).unwrap_or_default();
    seen.mode = mode_of(dentry);
    if let Some(parent) = file::up(dentry)
        && parent != 0
    {
        seen.parent = key_of(parent).unwrap_or_default();
    }
}

/// A path on its way into a record.
struct Climb<'a> {
    seen: &'a mut Seen,
    text: &'a mut [u8; PATH_BYTES],
    at: Untyped,
}

/// Writes the components of a path from the object to the root of the mount namespace.
#[inline(always)]
fn path(seen: &mut Seen, text: &mut [u8; PATH_BYTES], at: Untyped) {
    // Cut unless it comes to its end.
    seen.cut = 1;
    let mut climb = Climb { seen, text, at };
    repeat(COMPONENTS, step_path, &mut climb);
}

/// Writes one component.
extern "C" fn step_path(_turn: u32, climb: *mut Climb<'_>) -> i64 {
    // SAFETY: the state of `path`, which waits for us.
    let climb = unsafe { &mut *climb };
    let Untyped { dentry, mount } = climb.at;
    if mount::root(mount) == Some(dentry) {
        return match mount::mounted_on(mount) {
            Ok(Some(below)) => {
                climb.at = below;
                GO_ON
            }
            _ => {
                climb.seen.cut = 0;
                STOP
            }
        };
    }
    let Some((name, length)) = file::name_of(dentry) else { return STOP };
    let length = if length > NAME_MAX { NAME_MAX } else { length };
    // VERIFIER: the length so far is read back from the record, of which the verifier knows nothing, so that every turn
    // begins alike; and the bounds are on the very values that are passed on.
    // SAFETY: a member of a record that is ours.
    let used = u32::from(unsafe { core::ptr::read_volatile(&raw const climb.seen.path_len) });
    if used > PATH_BYTES as u32 - 1 - NAME_MAX {
        return STOP;
    }
    let Some(mark) = climb.text.get_mut(used as usize) else { return STOP };
    *mark = length as u8;
    let to = climb.text.as_mut_ptr().wrapping_add(used as usize + 1);
    // SAFETY: the offset leaves room for the longest name; the helper checks the source.
    let code = unsafe {
        bpf_probe_read_kernel(to.cast(), length & NAME_MAX, core::ptr::with_exposed_provenance(name as usize))
    };
    if code != 0 {
        return STOP;
    }
    climb.seen.path_len = (used + 1 + length) as u16;
    let Some(parent) = file::up(dentry) else { return STOP };
    if parent == 0 {
        // The root of a file system that is mounted nowhere.
        climb.seen.cut = 0;
        return STOP;
    }
    climb.at.dentry = parent;
    GO_ON
}

/// Tells that a program was executed.
#[inline(always)]
pub fn exec(subject: &Subject, bprm: Bprm) {
    let Some(mut entry) = REPORTS.reserve_untyped::<Exec>(0) else {
        count(slot::LOST_REPORTS);
        return;
    };
    // SAFETY: reserved for a record, all of whose bytes that readers look at are written below.
    let record = unsafe { &mut *entry.as_mut_ptr() };
    header(&mut record.header, event::EXEC, size_of::<Exec>() as u32, subject.tag().session);
    record.exe_len = bprm.filename(&mut record.exe);
    record.args_len = subject.task().arguments(&mut record.args);
    entry.submit(0);
    const { assert!(ARGS_BYTES.is_power_of_two()) }
}

/// Tells that a process was made or ended.
#[inline(always)]
pub fn lifecycle(subject: &Subject, kind: u16, child: Option<Task>) {
    let Some(mut entry) = REPORTS.reserve_untyped::<Lifecycle>(0) else {
        count(slot::LOST_REPORTS);
        return;
    };
    // SAFETY: reserved for a record, all of whose bytes are written below.
    let record = unsafe { &mut *entry.as_mut_ptr() };
    header(&mut record.header, kind, size_of::<Lifecycle>() as u32, subject.tag().session);
    record.child_start = child.map_or(0, Task::start);
    record.child = child.map_or(0, Task::tgid);
    record.pad = 0;
    entry.submit(0);
}
