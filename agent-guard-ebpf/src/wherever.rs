//! Objects of which a hook doesn't know by which mount they were reached: every mount counts that they can be seen through.

use agent_guard_common::{Fault, Op, subject::Session};

use crate::{
    judge::{Generation, Judgement},
    kernel::{Dentry, GO_ON, Task, VfsMount, mount::Seen, repeat},
    walk::{Spot, make_scratch, not_judged, object_at, scratch, walk},
};

/// An object that is judged by each mount that it can be seen through.
struct Wherever<'a> {
    tables: &'a Generation,
    session: &'a Session,
    dentry: Dentry,
    op: u32,
    /// The strictest so far.
    judgement: Judgement,
    /// The mount that has it.
    mount: u64,
}

/// The decision where the hook doesn't know the mount: the strictest of all in the task's name space that the object can be
/// seen through. Also a mount that has it, 0 if there is none.
#[inline(always)]
pub fn wherever(tables: &Generation, session: &Session, op: Op, dentry: Dentry) -> (Judgement, u64) {
    if !tables.judges(op) {
        return (not_judged(), 0);
    }
    let Some(scratch) = make_scratch() else { return (Judgement::fault(Fault::MEMORY), 0) };
    scratch.seen.dentry = dentry.address();
    // Once more if the list has changed on the way.
    let count = if wherever_seen() == 0 { wherever_seen() } else { scratch.seen.count };
    if scratch.seen.whole == 0 {
        return (Judgement::fault(Fault::READ).forget(session.pad), 0);
    }
    if count == 0 {
        return (object_at(tables, session, op, VfsMount::UNKNOWN, dentry), 0);
    }
    let judgement = Judgement::none().forget(session.pad);
    let mut state = Wherever { tables, session, dentry, op: op.0 as u32, judgement, mount: 0 };
    repeat(count, step_wherever, &mut state);
    (state.judgement, state.mount)
}

/// Looks for the mounts that the current task can see the object in its [`crate::maps::Scratch`] through; how many there are, 0 if that
/// can't be said, too.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn wherever_seen() -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    scratch.seen.namespace = Task::current().mount_namespace() as u64;
    scratch.seen.find();
    if scratch.seen.whole == 0 { 0 } else { scratch.seen.count }
}

/// Judges by one mount.
extern "C" fn step_wherever(turn: u32, state: *mut Wherever<'_>) -> i64 {
    // SAFETY: the state of `wherever`, which waits for us.
    let state = unsafe { &mut *state };
    // VERIFIER: the mask is a bound on the very register that is used.
    let at = turn as usize & (Seen::MAX - 1);
    let judgement = match scratch().and_then(|scratch| scratch.seen.mounts.get(at).copied()) {
        Some(mount) => {
            let spot = Spot::known(state.tables, state.session, mount, state.dentry);
            let judgement = walk(state.tables, state.session, &spot, state.op);
            if judgement > state.judgement.0 {
                state.mount = mount;
            }
            judgement
        }
        None => Judgement::fault(Fault::MEMORY).0,
    };
    state.judgement = state.judgement.and(Judgement(judgement));
    GO_ON
}
