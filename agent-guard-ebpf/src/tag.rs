//! The tag: get, inherit. There is no drop: a tag ends with its task.

use core::ptr;

use agent_guard_common::{
    Fault, enroll,
    subject::{Directory, Lane, Session, Tag},
};
use aya_ebpf::{
    bindings::BPF_LOCAL_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_task_storage_delete, bpf_task_storage_get},
};

use crate::{
    kernel::Task,
    maps::{SCRATCH, SESSIONS, TAGS},
    network_only,
};

/// A tag of nobody.
const EMPTY: Tag = Tag {
    session: 0,
    slot: 0,
    pad: 0,
    hold: 0,
    digest: 0,
    granted: 0,
    executing: [0; Tag::EXECUTING],
    generation: 0,
    judged: 0,
    named: 0,
    pad2: 0,
    number: 0,
    lane: Lane { mount: 0, mounts: 0, renames: 0, print: 0 },
    directories: [Directory { begin: 0, object: 0, name: 0, mount: 0, renames: 0, mounts: 0, print: 0 };
        Tag::DIRECTORIES],
};

/// The current task, which is tagged: its tag, in place.
pub struct Subject {
    tag: *mut Tag,
}

impl Subject {
    /// The current task, if it belongs to a session. The first thing every hook does.
    #[inline(always)]
    pub fn current() -> Option<Self> {
        let task = Task::current();
        // Most tasks have no storage at all, and leave without a call.
        if task.has_no_storage() {
            return None;
        }
        // SAFETY: map and task are what the helper takes, which the verifier checks; no value to create from.
        let tag = unsafe {
            bpf_task_storage_get(
                (&raw const TAGS).cast_mut().cast(),
                task.0.cast_mut().cast(),
                ptr::null_mut(),
                0,
            )
        };
        if tag.is_null() { None } else { Some(Self { tag: tag.cast() }) }
    }

    /// The task.
    ///
    /// VERIFIER: asked for anew, not kept: the stack is short.
    #[inline(always)]
    pub fn task(&self) -> Task {
        Task::current()
    }

    /// The tag.
    #[inline(always)]
    pub fn tag(&self) -> &Tag {
        // SAFETY: storage of a living task, which the verifier checks; only its own thread writes it.
        unsafe { &*self.tag }
    }

    /// The tag, in place. Only for the current task.
    #[inline(always)]
    pub fn tag_pointer(&self) -> *mut Tag {
        self.tag
    }

    /// The tag, to note a hold in. Only for the current task.
    #[inline(always)]
    pub fn tag_mut(&mut self) -> &mut Tag {
        // SAFETY: as above.
        unsafe { &mut *self.tag }
    }

    /// Another program runs: what was approved for its execution is used up.
    #[inline(always)]
    pub fn executed(&mut self) {
        self.tag_mut().executing = [0; Tag::EXECUTING];
    }

    /// The session.
    #[inline(always)]
    pub fn session(&self) -> Result<&'static Session, Fault> {
        match SESSIONS.get(self.tag().slot) {
            Some(session) if session.id == self.tag().session && session.state != 0 => Ok(session),
            _ => Err(Fault::SESSION),
        }
    }
}

/// The session of a task that a hook has for an argument; 0 for one outside of sessions, or that has one on trial
/// ([`crate::enroll`]).
#[inline(always)]
pub fn session_of(task: Task) -> u64 {
    // SAFETY: map and task are what the helper takes, which the verifier checks; no value to create from.
    let tag = unsafe {
        bpf_task_storage_get(
            (&raw const TAGS).cast_mut().cast(),
            task.0.cast_mut().cast(),
            ptr::null_mut(),
            0,
        )
    };
    // SAFETY: storage of a living task; a tag that is exchanged stays until nobody reads it any more.
    unsafe { tag.cast::<Tag>().as_ref() }
        .map_or(0, |tag| if tag.session == enroll::SESSION { 0 } else { tag.session })
}

/// Gives a new task the tag of the one that makes it. A hold stays with the task that waits in it.
#[inline(always)]
pub fn inherit(from: &Subject, to: Task) -> Result<(), Fault> {
    let tag = from.tag();
    give(tag.session, tag.slot, to)
}

/// The same for the current task; 0 if it has it.
///
/// VERIFIER: see [`crate::walk::walk_end`]; a tag on the stack is large.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn tag_current(session: u64, slot: u32) -> u32 {
    u32::from(give(session, slot, Task::current()).is_err())
}

/// Takes the current task's tag back, and what else is kept for it. Only for one that it was given a moment ago, on trial, and that
/// nobody could have inherited.
#[inline(always)]
pub fn take_back() {
    let task = Task::current().0.cast_mut().cast();
    // SAFETY: maps and task are what the helper takes. What isn't there needn't be taken away.
    unsafe {
        bpf_task_storage_delete((&raw const TAGS).cast_mut().cast(), task);
        bpf_task_storage_delete((&raw const SCRATCH).cast_mut().cast(), task);
    }
}

/// Gives a task that has none the tag of a session.
#[inline(always)]
pub fn give(session: u64, slot: u32, to: Task) -> Result<(), Fault> {
    let mut copy = Tag { session, slot, ..EMPTY };
    // SAFETY: map, task and value are what the helper takes, which the verifier checks.
    let made = unsafe {
        bpf_task_storage_get(
            (&raw const TAGS).cast_mut().cast(),
            to.0.cast_mut().cast(),
            ptr::from_mut(&mut copy).cast(),
            u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE),
        )
    };
    if made.is_null() {
        return Err(Fault::TAG);
    }
    network_only::belongs(to.tgid(), session, slot)
}
