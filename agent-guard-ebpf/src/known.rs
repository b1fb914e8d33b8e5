//! Decisions that were made before: a walk costs more than the call that it judges.
//!
//! A decision depends on the generation, on the profile and the paths of the session, on the operation, and on what a walk
//! meets: the objects and names from the object to the root. Over all of that goes a *print*, 64 bits that a session can
//! neither choose nor see: object numbers and generations, the kernel's hashes of names, from the directory upwards. Of the
//! object itself only where a rule may be about it or its name, so that what is new in a directory is known, too. By its
//! print a decision is found again; whatever changes on the way has another print.
//!
//! A decision is kept under the print of what the walk itself has met, not of what was there before or after it. And only if
//! no session has renamed anything meanwhile: a name could change while it is looked at.

use agent_guard_common::{
    Fault,
    names::{beginning, name_bit, object_bit},
    subject::{Directory, Lane, Session, Tag},
};

use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::{
    judge::{Generation, Judgement},
    kernel::{Dentry, Task, file, mount},
    maps::{GUARD, KNOWN, KNOWN_SLOTS, RENAMED},
    tag::Subject,
    walk::scratch,
};

/// Levels that are looked at, within the object's own file system and beyond; deeper is walked each time.
const LEVELS: u32 = 24;
const BEYOND: u32 = 16;
const MOUNTS: u32 = 4;

/// A decision under its print. Whoever reads while somebody else writes sees halves that don't belong together: their
/// combination is no print of anything.
#[repr(C)]
pub struct Known {
    /// The print, combined with the decision.
    mixed: u64,
    /// A [`Judgement`].
    judgement: u64,
}

/// A print on its way. It begins with a secret, and its end is shown to nobody.
#[derive(Clone, Copy)]
struct Print(u64);

impl Print {
    #[inline(always)]
    fn word(self, word: u64) -> Self {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(mixed ^ (mixed >> 32))
    }

    /// A directory: its object and its name.
    #[inline(always)]
    fn level(self, at: Dentry) -> Self {
        let (ino, igen) = at.identity();
        self.word(ino ^ u64::from(igen).rotate_left(32)).word(at.name_hash())
    }
}

/// What every print of a session begins with; 0 if it can't be found out.
#[inline(always)]
fn begin(tables: &Generation, session: &Session, dev: u32) -> u64 {
    let Some(guard) = GUARD.get(0) else { return 0 };
    let [key, _] = guard.key;
    Print(key)
        .word(u64::from(tables.number) << 32 | u64::from(session.binding(tables.number)))
        .word(u64::from(session.profile(tables.number)) << 32 | u64::from(dev))
        .0
}

/// The print that a walk begins with.
#[inline(always)]
pub fn first(tables: &Generation, session: &Session, dev: u32) -> u64 {
    begin(tables, session, dev)
}

/// The print with one directory more.
#[inline(always)]
pub fn next(print: u64, at: Dentry) -> u64 {
    Print(print).level(at).0
}

/// The print of directories, with that of what their file system is mounted on.
#[inline(always)]
pub fn on(print: u64, lane: u64) -> u64 {
    if print == 0 || lane == 0 { 0 } else { Print(print).word(lane).0 }
}

/// The print of a directory, with what the object in it adds.
#[inline(always)]
pub fn with(print: u64, own: u64) -> u64 {
    if print == 0 { 0 } else { Print(print).word(own).0 }
}

/// The print of an object or a free name for a session; 0 if it has none.
///
/// VERIFIER: a function of its own keeps the stack of hooks small.
#[inline(never)]
pub fn print(tables: &Generation, session: &Session, mount: *const u8, dentry: *const u8) -> u64 {
    let at = Dentry(dentry);
    // SAFETY: the current task's, which only it uses.
    let tag = unsafe { &mut *tables.tag };
    let dev = at.device();
    let begin = begin(tables, session, dev);
    with(directory(tag, begin, mount, at.parent()), own(tables, at, dev))
}

/// What the object itself adds: nothing if no rule can be about it.
#[inline(always)]
pub fn own(tables: &Generation, at: Dentry, dev: u32) -> u64 {
    let (length, inode) = (at.name_length(), at.inode());
    let beginning = beginning(length, at.name_beginning());
    let object = match inode {
        Some(inode) => tables.may_have(object_bit(dev, inode.number())),
        None => false,
    };
    if !object && !tables.may_have(name_bit(length, beginning)) && tables.suffixes() == 0 && !at.is_root() {
        return 0;
    }
    let print = Print(1).word(beginning).word(at.name_hash() << 32 | u64::from(length));
    match inode {
        Some(inode) => print.word(inode.number()).word(u64::from(inode.generation())).0,
        None => print.0,
    }
}

/// The print of a directory: the one that the task remembers, or a new one.
///
/// While a directory is in the kernel's memory, those above it are, too, and they change their places only under the kernel's
/// lock for renames, whose count is looked at; what is mounted changes with a count of its name space.
#[inline(always)]
fn directory(tag: &mut Tag, begin: u64, mount: *const u8, at: Dentry) -> u64 {
    let (ino, igen) = at.identity();
    let (object, name) = (ino ^ u64::from(igen).rotate_left(32), at.name_hash());
    let (renames, mounts) = (file::rename_count(), mounts(tag).0);
    let mount = number(tag, mount);
    let Some(known) = tag.directories.get_mut(ino as usize & (Tag::DIRECTORIES - 1)) else { return 0 };
    if known.print != 0
        && known.object == object
        && known.name == name
        && known.begin == begin
        && known.mount == mount
        && known.renames == renames
        && known.mounts == mounts
        && renames & 1 == 0
    {
        return known.print;
    }
    known.print = 0;
    let print = directories(Print(begin), at);
    if print == 0 || mount == 0 {
        return print;
    }
    let lane = if tag.lane.mount == mount
        && tag.lane.mounts == mounts
        && (tag.lane.renames == 0 || tag.lane.renames == renames)
    {
        tag.lane.print
    } else {
        known_lane(mount)
    };
    let print = on(print, lane);
    if print != 0 && tag.lane.mount == mount && file::rename_count() == renames {
        *known = Directory { begin, object, name, mount, renames, mounts, print };
    }
    print
}

/// A kernel address as a number.
///
/// VERIFIER: a pointer is no number; read back from a map it is one.
#[inline(always)]
fn number(tag: &mut Tag, address: *const u8) -> u64 {
    tag.number = address as u64;
    // SAFETY: a member of memory that is ours.
    unsafe { core::ptr::read_volatile(&raw const tag.number) }
}

/// Which mount name space the task is in and how often that has changed, in one number; and the name space.
#[inline(always)]
fn mounts(tag: &mut Tag) -> (u64, u64) {
    let task = Task::current();
    let namespace = number(tag, task.mount_namespace());
    (namespace.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ task.mount_changes(), namespace)
}

/// The print of what a mount is mounted on, which the task remembers then if it can be known when it changes.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn known_lane(mount: u64) -> u64 {
    let Some(mut subject) = Subject::current() else { return 0 };
    let tag = subject.tag_mut();
    let renames = file::rename_count();
    let (mounts, namespace) = mounts(tag);
    tag.lane.renames = 0;
    tag.lane.mount = 0;
    let print = known_beyond(mount);
    // Changes of another name space are counted elsewhere.
    let ours = mount::namespace(mount::whole(mount)) == namespace;
    let above = tag.lane.renames != 0;
    if ours && print != 0 && (!above || renames & 1 == 0) {
        tag.lane = Lane { mount, mounts, renames: if above { renames } else { 0 }, print };
    }
    print
}

/// All directories up to the root of the file system; 0 if there are too many.
#[inline(always)]
fn directories(mut print: Print, mut at: Dentry) -> u64 {
    for _ in 0..LEVELS {
        print = print.level(at);
        let parent = at.parent();
        if parent.address() == at.address() {
            // One that is reached by a handle and not connected to its tree is no such root.
            return if at.is_file_system_root() { print.0 } else { 0 };
        }
        at = parent;
    }
    0
}

/// What the file system is mounted on, up to the root of the name space.
///
/// VERIFIER: see [`crate::walk::walk_end`]. Only plain numbers, of which 0 stands for what can't be read: in others the
/// compiler moves undefined parts around.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn known_beyond(mount: u64) -> u64 {
    let mut print = 1;
    let mut at = mount::whole(mount);
    let mut turn = 0;
    while turn < MOUNTS {
        let (parent, point) = (mount::parent(at), mount::point(at));
        if parent == 0 || point == 0 {
            return 0;
        }
        if parent == at {
            // Where a mount leads nowhere by itself, it counts whose it is.
            return if turn == 0 { Print(print).word(u64::from(mount::is_internal(at))).0 } else { print };
        }
        let above = file::parent_of(point);
        if above == point {
            // On the root of another file system, which stays where it is while this one is mounted on it.
            print = Print(print).word(parent).word(point).0;
        } else {
            print = known_above(print, point);
            if let Some(mut subject) = Subject::current() {
                subject.tag_mut().lane.renames = 1;
            }
        }
        if above == 0 || print == 0 {
            return 0;
        }
        at = parent;
        turn += 1;
    }
    0
}

/// A directory that is a mount point, and those above it in its file system.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn known_above(print: u64, dentry: u64) -> u64 {
    let mut print = print;
    let mut at = dentry;
    let mut turn = 0;
    while turn < BEYOND {
        let (object, dev) = file::number_of(at);
        if object == 0 {
            return 0;
        }
        print = Print(print).word(object).word(file::name_hash_of(at) ^ dev).0;
        let parent = file::parent_of(at);
        if parent == at {
            return print;
        }
        if parent == 0 {
            return 0;
        }
        at = parent;
        turn += 1;
    }
    0
}

/// When a session last renamed something.
#[inline(always)]
pub fn renamed() -> u64 {
    match RENAMED.get(0) {
        // SAFETY: a map value; others write it meanwhile.
        Some(time) => unsafe { core::ptr::read_volatile(time) },
        None => 0,
    }
}

/// A session is about to rename something: a directory perhaps. A time and no count: that would have to be counted up in one
/// step, for which there is no way here, and two times are never the same.
#[inline(always)]
pub fn renaming() {
    if let Some(time) = RENAMED.get_ptr_mut(0) {
        // SAFETY: a map value; the helper takes nothing.
        unsafe { core::ptr::write_volatile(time, bpf_ktime_get_ns()) }
    }
}

#[inline(always)]
fn slot(print: u64) -> u32 {
    (print >> 20) as u32 & (KNOWN_SLOTS - 1)
}

/// The print of one operation.
#[inline(always)]
fn of(print: u64, op: u32) -> u64 {
    Print(print).word(u64::from(op)).0
}

/// What was decided about an operation, if it is known; else 0.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn known_get(print: u64, op: u32) -> u64 {
    if print == 0 {
        return 0;
    }
    let print = of(print, op);
    let Some(known) = KNOWN.get(slot(print)) else { return 0 };
    // SAFETY: a map value; others write it meanwhile.
    let (mixed, judgement) = unsafe {
        (
            core::ptr::read_volatile(&raw const known.mixed),
            core::ptr::read_volatile(&raw const known.judgement),
        )
    };
    if mixed ^ judgement == print { judgement } else { 0 }
}

/// Keeps what the current task's walk has come to. What went wrong isn't kept.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn known_keep(op: u32, judgement: u64) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let wrong = Judgement(judgement).what_went_wrong().0 != Fault::NONE.0;
    if scratch.print == 0 || wrong || renamed() != scratch.renamed {
        return 0;
    }
    let print = of(with(scratch.print, scratch.own), op);
    if let Some(known) = KNOWN.get_ptr_mut(slot(print)) {
        // SAFETY: a map value; others read it meanwhile, see [`Known`].
        unsafe {
            core::ptr::write_volatile(&raw mut (*known).mixed, print ^ judgement);
            core::ptr::write_volatile(&raw mut (*known).judgement, judgement);
        }
    }
    1
}
