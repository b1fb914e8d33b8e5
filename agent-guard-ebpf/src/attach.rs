//! Tagging a tree that runs already, so that nobody of it is missed while it forks.
//!
//! One invariant, from the moment that the tree is watched: of every living task of it, one of its ancestors or itself is
//! among [`RELATIVES`]. The daemon puts the first process there. A task keeps its ancestors until one of them ends, and who
//! ends notes its children first ([`ends`]); a task that is made as its maker's sibling is noted by its maker ([`made`]). So
//! the iterator ([`tree`]) finds everybody by climbing, whatever became of the parents, and tags.
//!
//! Who is tagged makes tagged tasks. That leaves those that were being made meanwhile: [`makes`] and [`completes`].

use core::ptr;

use agent_guard_common::{
    attach::{Attaching, Member, Relative},
    event,
    subject::Guard,
};
use aya_ebpf::{EbpfContext, helpers::generated::bpf_seq_write};
use aya_log_ebpf::error;

use crate::{
    emit,
    kernel::{
        GO_ON, STOP, Task,
        relatives::{Address, Siblings},
        repeat,
    },
    maps::{ATTACHING, PROGRESS, RELATIVES},
    tag::{self, Subject, session_of},
};

/// Generations of parents, at most.
const DEPTH: u32 = 4096;
/// Children of a task that ends, at most, those that were looked at twice included.
const CHILDREN: u32 = 1 << 20;

/// What is attached, if anything is.
#[inline(always)]
fn attaching() -> Option<&'static Attaching> {
    ATTACHING.get(0).filter(|attaching| attaching.phase != Attaching::OFF)
}

/// Says that something could not be noted or found out.
#[inline(always)]
fn lost() {
    if let Some(progress) = PROGRESS.get_ptr_mut(0) {
        // SAFETY: a map value; what is lost of the count, because two count at once, leaves it above zero.
        unsafe { ptr::write_volatile(&raw mut (*progress).lost, (*progress).lost.wrapping_add(1)) };
    }
}

/// Says that somebody was tagged.
#[inline(always)]
fn tagged() {
    if let Some(progress) = PROGRESS.get_ptr_mut(0) {
        // SAFETY: as above: what counts is whether it has changed.
        unsafe { ptr::write_volatile(&raw mut (*progress).tagged, (*progress).tagged.wrapping_add(1)) };
    }
}

/// A climb from a task to the tree.
struct Climb {
    at: u64,
    /// Not 0 if it has come there.
    found: u32,
    /// Not 0 if it has come to an end.
    ended: u32,
}

extern "C" fn climb_step(_: u32, climb: *mut Climb) -> i64 {
    // SAFETY: the state that `repeat` was given.
    let climb = unsafe { &mut *climb };
    let at = Address(climb.at);
    let Some(process) = at.process() else { return STOP };
    // SAFETY: the value isn't looked at.
    if unsafe { RELATIVES.get(process) }.is_some() {
        climb.found = 1;
        climb.ended = 1;
        return STOP;
    }
    // Nobody attaches the first process, or the kernel's own.
    if process.tgid <= 1 {
        climb.ended = 1;
        return STOP;
    }
    let Some(parent) = at.parent() else { return STOP };
    climb.at = parent.0;
    GO_ON
}

/// Whether a task belongs to the tree.
#[inline(always)]
fn belongs(task: Address) -> bool {
    let mut climb = Climb { at: task.0, found: 0, ended: 0 };
    repeat(DEPTH, climb_step, &mut climb);
    if climb.ended == 0 {
        lost();
    }
    climb.found != 0
}

/// Notes a process as belonging to the tree.
#[inline(always)]
fn note(process: Option<Relative>) {
    let noted = process.map(|process| RELATIVES.insert(process, 1, 0));
    if !matches!(noted, Some(Ok(()))) {
        lost();
    }
}

/// A way along a list of children.
struct Children {
    list: u64,
    at: u64,
    /// Not 0 if it has come to its end.
    ended: u64,
}

extern "C" fn children_step(_: u32, children: *mut Children) -> i64 {
    // SAFETY: the state that `repeat` was given.
    let children = unsafe { &mut *children };
    let at = Siblings(children.at);
    let Some(next) = at.next() else { return STOP };
    if next.0 == children.list {
        children.ended = 1;
        return STOP;
    }
    // It was taken out under our eyes, and isn't met again.
    // VERIFIER: how often that happens isn't counted: a state for each count would be too many.
    if next == at {
        children.at = children.list;
        return GO_ON;
    }
    note(next.child().process());
    children.at = next.0;
    GO_ON
}

/// The current task ends. Its children get other parents after this (`exit_notify`, kernel/exit.c), and nobody else gives it
/// new ones (`find_new_reaper` passes over who ends) but by making siblings, which [`made`] sees.
#[inline(always)]
pub fn ends() {
    if attaching().is_none() {
        return;
    }
    let task = Address::current();
    if !belongs(task) {
        return;
    }
    let list = task.children().0;
    let mut children = Children { list, at: list, ended: 0 };
    repeat(CHILDREN, children_step, &mut children);
    if children.ended == 0 {
        lost();
    }
}

/// The current task has made another one, which doesn't run yet.
#[inline(always)]
pub fn made(child: Task) {
    if attaching().is_none() {
        return;
    }
    let tgid = Task::current().tgid();
    if child.tgid() != tgid && child.parent_tgid() != tgid && belongs(Address::current()) {
        note(Some(Relative { start: child.start() / Guard::TICK, tgid: child.tgid(), pad: 0 }));
    }
}

/// The current task, which isn't tagged, makes another one. Once the tree is tagged it makes no more untagged ones, io_uring's
/// workers included, which pass no [`made`].
#[inline(always)]
pub fn makes(child: Task) {
    let Some(attaching) = attaching() else { return };
    if attaching.phase != Attaching::TAG || !belongs(Address::current()) {
        return;
    }
    match tag::give(attaching.session, attaching.slot, child) {
        Ok(()) => tagged(),
        Err(_) => lost(),
    }
}

/// The current task was tagged by an attach while it was making another one, which is therefore without a tag: it gets it
/// before it runs. Whether anything is attached any more doesn't matter.
#[inline(always)]
pub fn completes(ctx: &impl EbpfContext, subject: &Subject, child: Task) {
    if session_of(child) != 0 {
        return;
    }
    match tag::inherit(subject, child) {
        Ok(()) => tagged(),
        Err(_) => {
            lost();
            emit::count(event::count::FAULTS);
            error!(ctx, "no memory for the tag: a task that was made while its maker was tagged has none");
        }
    }
}

/// Arguments of an iterator over tasks (`bpf_iter__task`, `kernel/bpf/task_iter.c`).
#[repr(C)]
pub struct AnyTask {
    meta: *const *mut core::ffi::c_void,
    task: *const u8,
}

/// One task of all. Tells those of the tree, and tags them if it is time for that.
#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
pub extern "C" fn tree(ctx: *const AnyTask) -> i32 {
    // SAFETY: what the kernel gives to such a program.
    let (meta, task) =
        unsafe { (ptr::read_volatile(&raw const (*ctx).meta), ptr::read_volatile(&raw const (*ctx).task)) };
    let Some(attaching) = attaching() else { return 0 };
    if task.is_null() {
        return 0;
    }
    let task = Task(task);
    if task.is_kernels() {
        return 0;
    }
    let inside = Address::leader_of(task).is_some_and(belongs);
    let mut member = Member {
        start: task.start(),
        session: session_of(task),
        tgid: task.tgid(),
        tid: task.tid(),
        state: match (inside, task.ends(), task.has_ended()) {
            (true, _, true) => Member::ENDED,
            (true, true, false) => Member::ENDING,
            (true, false, false) => Member::INSIDE,
            (false, true, false) => Member::ENDING_OUTSIDE,
            (false, ..) => return 0,
        },
        pad: 0,
    };
    if inside && member.session == 0 && attaching.phase == Attaching::TAG {
        match tag::give(attaching.session, attaching.slot, task) {
            Ok(()) => {
                tagged();
                member.session = attaching.session;
            }
            Err(_) => member.state = Member::NOT_TAGGED,
        }
    }
    // SAFETY: the first member of `struct bpf_iter_meta` is the file that the iterator writes to.
    let seq = unsafe { ptr::read_volatile(meta) };
    // SAFETY: the record is of that size; the helper checks what it writes to.
    let code = unsafe {
        bpf_seq_write(seq.cast(), ptr::from_ref(&member).cast_mut().cast(), size_of::<Member>() as u32)
    };
    // 1: once more, with more room.
    (code != 0) as i32
}
