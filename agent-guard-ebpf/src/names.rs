//! Names on the way to the root: `agent_guard_common::names` says how rules find objects by them.
//!
//! Rare: a name comes here only if the filter says that a rule may end in it. So everything is read by probe reads.

use agent_guard_common::{
    Fault, ObjectKey,
    names::{ChainHash, MAX_SHAPES, NameHash, STAR, Shape, Shapes, suffix_bit},
    object::NameKey,
    rules::Tables,
};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::{
    judge::Parity,
    kernel::{GO_ON, STOP, file, key_of, mount, probe_at, repeat},
    maps::{GUARD, SHAPES, Scratch},
    walk::{scratch, walk_meet},
};

/// Longest name (`NAME_MAX`).
const NAME_MAX: u32 = 255;
/// Names and mount points that a chain goes up, at most.
const TURNS: u32 = 256;

/// The key of hashes.
#[inline(always)]
fn key() -> Option<[u64; 2]> {
    GUARD.get(0).map(|guard| guard.key)
}

/// An index that is within an array of that many, a power of two.
///
/// VERIFIER: a mask bounds the very value that is used; after a comparison the compiler uses another copy. It must not
/// know that the mask changes nothing, or it leaves it out.
#[inline(always)]
fn within<const N: usize>(index: u32) -> usize {
    const { assert!(N.is_power_of_two()) }
    core::hint::black_box(index) as usize & (N - 1)
}

/// A chain on its way up.
struct Up<'a> {
    scratch: &'a mut Scratch,
}

/// Looks whether chains of names that rules are about end here.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn names_chains(parity: u32) -> u32 {
    let Some(scratch) = scratch() else { return 1 };
    let dentry = scratch.at;
    let tables = Parity(parity & 1);
    let hash = names_hash(dentry);
    if hash == 0 {
        scratch.fail(Fault::READ);
        return 0;
    }
    if SHAPES.get(tables.0).is_none() {
        // No table is something else than a table without this name.
        return 1;
    }
    let Some(shapes) = tables.shapes(hash) else { return 0 };
    scratch.chain.dentry = dentry;
    scratch.chain.mount = scratch.mount;
    scratch.chain.crossed = 0;
    scratch.chain.count = 0;
    scratch.chain.wanted = shapes.longest;
    scratch.chain.complete = 0;
    repeat(TURNS, step_up, &mut Up { scratch });
    if scratch.chain.complete == 0 {
        scratch.fail(Fault::READ);
        return 0;
    }
    scratch.chain.found = 0;
    repeat(MAX_SHAPES as u32, step_shape, &mut All { scratch, shapes, tables });
    let found = scratch.chain.found;
    repeat(found, step_found, &mut All { scratch, shapes, tables });
    0
}

/// Tells the walk of one place that was found.
///
/// VERIFIER: after the look-ups and not within them, for the stack's sake.
extern "C" fn step_found(turn: u32, all: *mut All<'_>) -> i64 {
    // SAFETY: the state of `names_chains`, which waits for us.
    let all = unsafe { &mut *all };
    let Some(&found) = all.scratch.chain.places.get(within::<32>(turn)) else { return STOP };
    all.scratch.lost |= walk_meet(found as u32, (found >> 32) as u32, all.tables.0);
    GO_ON
}

/// Notes one name, or goes over one mount point.
extern "C" fn step_up(_turn: u32, up: *mut Up<'_>) -> i64 {
    // SAFETY: the state of `chains`, which waits for us.
    let scratch = &mut *unsafe { &mut *up }.scratch;
    if scratch.chain.count >= scratch.chain.wanted {
        return end(scratch);
    }
    let dentry = scratch.chain.dentry;
    let Some(parent) = file::up(dentry) else { return STOP };
    if parent == 0 {
        // A root: its name is that of the mount point.
        if scratch.chain.mount == 0 {
            return end(scratch);
        }
        return match mount::mounted_on(scratch.chain.mount) {
            Ok(Some(below)) => {
                scratch.chain.dentry = below.dentry;
                scratch.chain.mount = below.mount;
                scratch.chain.crossed = 1;
                GO_ON
            }
            Ok(None) => end(scratch),
            Err(()) => STOP,
        };
    }
    let hash = names_hash(dentry);
    if hash == 0 {
        return STOP;
    }
    let crossed = scratch.chain.crossed;
    let at = within::<64>(scratch.chain.count);
    if let Some(to) = scratch.chain.hashes.get_mut(at) {
        *to = hash;
    }
    scratch.chain.count += 1;
    let at = within::<64>(scratch.chain.count);
    if let Some(to) = scratch.chain.above.get_mut(at) {
        *to = parent;
    }
    if let Some(to) = scratch.chain.beyond.get_mut(at) {
        *to = crossed;
    }
    scratch.chain.dentry = parent;
    if scratch.chain.count >= 63 { end(scratch) } else { GO_ON }
}

/// That was all of the chain.
#[inline(always)]
fn end(scratch: &mut Scratch) -> i64 {
    scratch.chain.complete = 1;
    STOP
}

/// All shapes of a name.
struct All<'a> {
    scratch: &'a mut Scratch,
    shapes: &'a Shapes,
    tables: Parity,
}

/// Looks one shape up.
extern "C" fn step_shape(turn: u32, all: *mut All<'_>) -> i64 {
    // SAFETY: the state of `chains`, which waits for us.
    let all = unsafe { &mut *all };
    let Some(&shape) = all.shapes.all.get(within::<32>(turn)) else { return STOP };
    if shape.0 == 0 {
        return STOP;
    }
    let length = shape.length();
    let scratch = &mut *all.scratch;
    if length == 0 || length > scratch.chain.count {
        return GO_ON;
    }
    let last = within::<64>(length);
    let (Some(&above), Some(&beyond)) = (scratch.chain.above.get(last), scratch.chain.beyond.get(last))
    else {
        return GO_ON;
    };
    let Some(name) = chain_hash(scratch, shape) else {
        scratch.fail(Fault::GENERATION);
        return STOP;
    };
    let anchor = if shape.is_anywhere() {
        ObjectKey::ANYWHERE
    } else {
        match key_of(above) {
            Some(key) => key,
            None => {
                scratch.fail(Fault::READ);
                return STOP;
            }
        }
    };
    if let Some(place) = all.tables.name(&NameKey { anchor, name }) {
        let at = within::<32>(scratch.chain.found);
        if let Some(to) = scratch.chain.places.get_mut(at) {
            *to = u64::from(place) | beyond << 32;
        }
        scratch.chain.found += 1;
    }
    GO_ON
}

/// The hash of the chain in the scratch, as long as a shape is, with its `*`.
#[inline(always)]
fn chain_hash(scratch: &mut Scratch, shape: Shape) -> Option<u64> {
    scratch.chain.shape = shape;
    scratch.chain.hash = ChainHash::new(key()?);
    repeat(shape.length() + 1, step_mix, &mut Up { scratch });
    Some(scratch.hash)
}

/// Takes one name of a chain in, or comes to its end.
///
/// VERIFIER: the end is a step, too, so that the rounds of the hash are on the stack once.
extern "C" fn step_mix(turn: u32, mix: *mut Up<'_>) -> i64 {
    // SAFETY: the state of `chain_hash`, which waits for us.
    let scratch = &mut *unsafe { &mut *mix }.scratch;
    if turn >= scratch.chain.shape.length() {
        scratch.hash = scratch.chain.hash.finish();
        return STOP;
    }
    let Some(&hash) = scratch.chain.hashes.get(within::<64>(turn)) else { return STOP };
    let hash = if scratch.chain.shape.has_star(turn) { STAR } else { hash };
    scratch.chain.hash = scratch.chain.hash.name(hash);
    GO_ON
}

/// The hash of a name; 0 if it can't be read.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn names_hash(dentry: u64) -> u64 {
    let Some(scratch) = scratch() else { return 0 };
    let Some((from, length)) = file::name_of(dentry) else { return 0 };
    if length > NAME_MAX {
        return 0;
    }
    hash_of(scratch, NameHash::whole(length), from, length)
}

/// The hash of that many bytes, after a first word; 0 if they can't be read.
#[inline(always)]
fn hash_of(scratch: &mut Scratch, first: u64, from: u64, length: u32) -> u64 {
    let Some(key) = key() else { return 0 };
    scratch.name_length = length;
    scratch.name_first = first;
    scratch.name_hash = NameHash::new(key);
    // VERIFIER: the bound has to be on the very value that is passed on.
    let size = length & NAME_MAX;
    // SAFETY: there is room for the longest name; the helper checks the source.
    let code = unsafe {
        bpf_probe_read_kernel(
            scratch.name.as_mut_ptr().cast(),
            size,
            core::ptr::with_exposed_provenance(from as usize),
        )
    };
    if code != 0 {
        return 0;
    }
    repeat(NAME_MAX.div_ceil(8) + 2, step_name, &mut Up { scratch });
    scratch.hash
}

/// Takes one word of a name in, or comes to its end.
///
/// VERIFIER: see [`step_mix`].
extern "C" fn step_name(turn: u32, name: *mut Up<'_>) -> i64 {
    // SAFETY: the state of `hash_of`, which waits for us.
    let scratch = &mut *unsafe { &mut *name }.scratch;
    let word = if turn == 0 {
        scratch.name_first
    } else {
        let from = (turn - 1) * 8;
        if from >= scratch.name_length {
            scratch.hash = scratch.name_hash.finish();
            return STOP;
        }
        let Some(&word) = scratch.name.get(within::<32>(turn - 1)) else { return STOP };
        // What is behind the name is of an earlier one, and cut off.
        let rest = scratch.name_length - from;
        if rest < 8 { word & ((1u64 << (rest * 8)) - 1) } else { word }
    };
    scratch.name_hash = scratch.name_hash.word(word);
    GO_ON
}

/// The end of a name.
struct End<'a> {
    scratch: &'a mut Scratch,
    tables: Parity,
    /// Which lengths there are rules about.
    lengths: u32,
    /// Behind its last byte.
    end: u64,
    length: u32,
}

/// Looks whether rules are about names that end like this one.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn names_suffixes(lengths: u32, parity: u32) -> u32 {
    let Some(scratch) = scratch() else { return 1 };
    let dentry = scratch.at;
    let tables = Parity(parity & 1);
    let Some((from, length)) = file::name_of(dentry) else {
        scratch.fail(Fault::READ);
        return 0;
    };
    if !(2..=NAME_MAX).contains(&length) {
        return 0;
    }
    let end = from.wrapping_add(u64::from(length));
    let Some(last) = probe_at::<u16>(end.wrapping_sub(2)) else {
        scratch.fail(Fault::READ);
        return 0;
    };
    if tables.may_have(suffix_bit(last)) {
        repeat(32, step_suffix, &mut End { scratch, tables, lengths, end, length });
    }
    0
}

/// Looks one length of suffixes up.
extern "C" fn step_suffix(turn: u32, end: *mut End<'_>) -> i64 {
    // SAFETY: the state of `names_suffixes`, which waits for us.
    let end = unsafe { &mut *end };
    let length = turn + 1;
    if length > end.length {
        return STOP;
    }
    if end.lengths >> (turn & 31) & 1 == 0 {
        return GO_ON;
    }
    let from = end.end.wrapping_sub(u64::from(length));
    let hash = hash_of(end.scratch, NameHash::suffix(length), from, length);
    if hash == 0 {
        end.scratch.fail(Fault::READ);
        return STOP;
    }
    // VERIFIER: in map memory, the stack is short.
    end.scratch.key = NameKey { anchor: ObjectKey::ANYWHERE, name: hash };
    if let Some(place) = end.tables.name(&end.scratch.key) {
        end.scratch.lost |= walk_meet(place, 0, end.tables.0);
    }
    GO_ON
}
