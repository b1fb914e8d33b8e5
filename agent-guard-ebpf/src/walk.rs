//! From an object to the root: what is met on the way, level by level.

use agent_guard_common::{
    Chain, Fault, ObjectKey, Op, Verdict,
    decide::{Decision, Walk},
    names::{beginning, name_bit, object_bit},
    rules::Tables,
    subject::Session,
    verdict::Source,
};

use aya_ebpf::{
    bindings::BPF_LOCAL_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_get_current_task_btf, bpf_task_storage_get},
};

use crate::{
    judge::{Generation, Judgement, Parity},
    kernel::{Dentry, GO_ON, Path, STOP, VfsMount, file, mount, repeat},
    known::{self, known_get, known_keep, known_lane},
    maps::{SCRATCH, Scratch},
    names::{names_chains, names_suffixes},
};

/// Directories and mount points that a walk goes up, at most. A path of `PATH_MAX` bytes has fewer, but one
/// can be built up from within.
const DEPTH: u32 = 4096;

/// Beside an operation in one argument: the scope doesn't count.
const NO_SCOPE: u32 = 0x100;

/// A walk under way: what is typed; the rest is in [`Scratch`].
struct Climb<'a> {
    /// What it looks things up in.
    tables: &'a Generation,
    scratch: &'a mut Scratch,
    /// Where it is, within the object's own file system.
    at: Dentry,
    /// Device of that file system.
    dev: u32,
    /// Which suffixes there are rules about.
    suffixes: u32,
}

impl Scratch {
    /// Notes why the walk can't go on.
    #[inline(always)]
    pub fn fail(&mut self, fault: Fault) {
        self.fault = u32::from(fault.0);
    }
}

/// An object, or a name that is free, that operations are judged on.
pub struct Spot {
    mount: VfsMount,
    dentry: Dentry,
    /// See [`known`]; 0 if there is none.
    print: u64,
}

impl Spot {
    /// Of some operations: bits by their numbers. Where none of them is judged, nothing is looked at.
    #[inline(always)]
    pub fn new(tables: &Generation, session: &Session, ops: u32, mount: VfsMount, dentry: Dentry) -> Self {
        let wanted = tables.judges_any(ops);
        let print = if wanted { known::print(tables, session, mount.0, dentry.0) } else { 0 };
        // VERIFIER: mixed with a zero that it doesn't know, or it follows each way on which there is none.
        Self { mount, dentry, print: print ^ u64::from(session.pad) }
    }

    /// One that has to be looked at, in a mount by its address.
    #[inline(always)]
    pub fn known(tables: &Generation, session: &Session, mount: u64, dentry: Dentry) -> Self {
        let mount = VfsMount(core::ptr::with_exposed_provenance(mount as usize));
        let print = known::print(tables, session, mount.0, dentry.0);
        Self { mount, dentry, print: print ^ u64::from(session.pad) }
    }

    /// The decision about an operation. `unscoped` where no scope counts: a device node is a way to the device, wherever
    /// somebody has made it, and an ioctl can reach the whole file system.
    #[inline(always)]
    pub fn judge(&self, tables: &Generation, session: &Session, op: Op, unscoped: bool) -> Judgement {
        if !tables.judges(op) {
            return not_judged();
        }
        let op = op.0 as u32 | if unscoped { NO_SCOPE } else { 0 };
        Judgement(walk(tables, session, self, op)).forget(session.pad)
    }
}

/// The decision about one operation on one object, or on a name that doesn't exist.
#[inline(always)]
pub fn object(tables: &Generation, session: &Session, op: Op, path: Path, dentry: Dentry) -> Judgement {
    object_at(tables, session, op, path.mount(), dentry)
}

/// The same with the mount itself; none where the hook doesn't know it.
#[inline(always)]
pub fn object_at(
    tables: &Generation,
    session: &Session,
    op: Op,
    mount: VfsMount,
    dentry: Dentry,
) -> Judgement {
    Spot::new(tables, session, op.bit(), mount, dentry).judge(tables, session, op, false)
}

/// Nothing in the policy says anything but `allow` of the operation.
#[inline(always)]
pub fn not_judged() -> Judgement {
    Judgement::decided(Decision::new(Verdict::ALLOW, Source::OUTSIDE, 0))
}

/// What the current task walks with, if it has walked before; else it is made.
#[inline(always)]
pub fn make_scratch() -> Option<&'static mut Scratch> {
    find(u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE))
}

/// What the current task walks with.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    find(0)
}

#[inline(always)]
fn find(flags: u64) -> Option<&'static mut Scratch> {
    // SAFETY: map, task and no value are what the helper takes: it begins with zeroes.
    let scratch = unsafe {
        bpf_task_storage_get(
            (&raw const SCRATCH).cast_mut().cast(),
            bpf_get_current_task_btf(),
            core::ptr::null_mut(),
            flags,
        )
    };
    if scratch.is_null() {
        return None;
    }
    // SAFETY: storage of the current task, which only it uses, for one walk at a time.
    Some(unsafe { &mut *scratch.cast::<Scratch>() })
}

/// Finds out what was decided before, or walks.
///
/// VERIFIER: a function of its own keeps the stack of hooks with several walks small.
#[inline(never)]
pub fn walk(tables: &Generation, session: &Session, spot: &Spot, op: u32) -> u64 {
    let Spot { mount, dentry, print } = *spot;
    let known = known_get(print, op);
    if known != 0 {
        return known;
    }
    let Some(scratch) = make_scratch() else { return Judgement::fault(Fault::MEMORY).0 };
    let (profile, binding) = (session.profile(tables.number), session.binding(tables.number));
    scratch.walk = Walk::new(profile, binding, Op(op as u8));
    scratch.mount = mount.0 as u64;
    scratch.private = 0;
    scratch.lost = 0;
    scratch.renamed = known::renamed();
    let dev = dentry.device();
    scratch.print = known::first(tables, session, dev);
    scratch.own = known::own(tables, dentry, dev);
    // It ends with no fault only if it comes to its end.
    scratch.fault = u32::from(Fault::DEPTH.0);
    let mut climb = Climb { tables, scratch, at: dentry, dev, suffixes: tables.suffixes() };
    repeat(DEPTH, step_within, &mut climb);
    let judgement = walk_end(op, tables.parity().0);
    known_keep(op, judgement);
    judgement
}

/// Goes on beyond the object's own file system, and comes to a decision.
///
/// VERIFIER: functions with numbers for arguments and names of their own are looked at once, by themselves, and not
/// again for every way on which they are called. So whatever is rare or long is one. What the walk is at, they find in
/// the task's [`Scratch`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn walk_end(op: u32, parity: u32) -> u64 {
    let Some(scratch) = scratch() else { return Judgement::fault(Fault::MEMORY).0 };
    let tables = Parity(parity & 1);
    if scratch.mount != 0 {
        scratch.print = known::on(scratch.print, known_lane(scratch.mount));
    }
    if scratch.mount != 0 && scratch.fault == u32::from(Fault::NONE.0) {
        scratch.walk.leave_file_system();
        scratch.fail(Fault::DEPTH);
        scratch.dentry = 0;
        repeat(DEPTH, step_beyond, &mut Beyond { scratch, tables });
    }
    if scratch.fault != u32::from(Fault::NONE.0) {
        return Judgement::fault(Fault(scratch.fault as u8)).0;
    }
    if scratch.lost != 0 {
        // A step didn't find what it works on: what it would have met isn't known.
        return Judgement::fault(Fault::MEMORY).0;
    }
    if scratch.private != 0 {
        return Judgement::builtin().0;
    }
    if op & NO_SCOPE != 0 {
        scratch.walk.ignore_scope();
    }
    Judgement::from(scratch.walk.finish(&tables)).0
}

/// Looks at one directory entry and goes on to the one that it is in.
extern "C" fn step_within(_turn: u32, climb: *mut Climb<'_>) -> i64 {
    // SAFETY: the state of `walk`, which waits for us.
    let climb = unsafe { &mut *climb };
    let at = climb.at;
    let parity = climb.tables.parity().0;
    // A name that doesn't exist has no object.
    if let Some(inode) = at.inode() {
        let ino = inode.number();
        if climb.tables.may_have(object_bit(climb.dev, ino)) {
            let failed = walk_met(ino, climb.dev, inode.generation(), parity);
            climb.scratch.lost |= failed;
        }
    }
    // VERIFIER: a pointer is no number; read back from a map it is one.
    climb.scratch.at = at.address();
    let length = at.name_length();
    if climb.tables.may_have(name_bit(length, beginning(length, at.name_beginning()))) {
        let failed = names_chains(parity);
        climb.scratch.lost |= failed;
    }
    if climb.suffixes != 0 {
        let failed = names_suffixes(climb.suffixes, parity);
        climb.scratch.lost |= failed;
    }
    if climb.scratch.fault != u32::from(Fault::DEPTH.0) {
        return STOP;
    }
    let parent = at.parent();
    if parent.address() == at.address() {
        // The root. Or reached by a handle and not connected to its tree: nobody can say where that is.
        climb.scratch.fail(if parent.is_file_system_root() { Fault::NONE } else { Fault::READ });
        return STOP;
    }
    if climb.scratch.walk.leave_level() {
        let failed = walk_carry();
        climb.scratch.lost |= failed;
    }
    climb.scratch.print = known::next(climb.scratch.print, parent);
    climb.at = parent;
    GO_ON
}

/// Takes what was met one level on.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn walk_carry() -> u32 {
    let Some(scratch) = scratch() else { return 1 };
    scratch.walk.carry(Chain::Tree);
    0
}

/// Looks an object of the tree up and tells the walk.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn walk_met(ino: u64, dev: u32, igen: u32, parity: u32) -> u32 {
    met(ObjectKey::new(dev, ino, igen), Chain::Tree, Parity(parity & 1))
}

/// Looks an object up and tells the walk.
#[inline(always)]
fn met(key: ObjectKey, chain: Chain, tables: Parity) -> u32 {
    let Some(scratch) = scratch() else { return 1 };
    if let Some(place) = tables.object(&key) {
        scratch.walk.meet(&tables, place, chain);
    }
    0
}

/// Tells the walk of a place.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn walk_meet(place: u32, beyond: u32, parity: u32) -> u32 {
    let chain = if beyond != 0 { Chain::Mount } else { Chain::Tree };
    let Some(scratch) = scratch() else { return 1 };
    scratch.walk.meet(&Parity(parity & 1), place, chain);
    0
}

/// A walk beyond the object's own file system.
struct Beyond<'a> {
    scratch: &'a mut Scratch,
    tables: Parity,
}

/// Goes on where a file system is mounted, up to the root of the mount namespace.
extern "C" fn step_beyond(_turn: u32, beyond: *mut Beyond<'_>) -> i64 {
    // SAFETY: the state of `walk_end`, which waits for us.
    let beyond = unsafe { &mut *beyond };
    let scratch = &mut *beyond.scratch;
    if scratch.dentry == 0 {
        match mount::mounted_on(scratch.mount) {
            Ok(Some(below)) => {
                scratch.dentry = below.dentry;
                scratch.mount = below.mount;
            }
            Ok(None) => {
                scratch.private = u32::from(mount::is_private(scratch.mount));
                scratch.fail(Fault::NONE);
                return STOP;
            }
            Err(()) => {
                scratch.fail(Fault::READ);
                return STOP;
            }
        }
    }
    let dentry = scratch.dentry;
    let Some(key) = file::key_of(dentry) else {
        scratch.fail(Fault::READ);
        return STOP;
    };
    if beyond.tables.may_have(object_bit(key.dev, key.ino)) {
        let failed = met(key, Chain::Mount, beyond.tables);
        scratch.lost |= failed;
    }
    match file::up(dentry) {
        // A root: the directory it is mounted on is of the same level.
        Some(0) => scratch.dentry = 0,
        Some(parent) => {
            scratch.walk.up(Chain::Mount);
            scratch.dentry = parent;
        }
        None => {
            scratch.fail(Fault::READ);
            return STOP;
        }
    }
    GO_ON
}
