//! Every map: who writes it, who reads it, its bound, and what a full one means.

use core::ptr;

use agent_guard_common::{
    event,
    object::{NetKey, ObjectKey, ProfileKey},
    rules::{MAX_PROFILES, NetEntry, ObjectEntry, Profile, ProfileEntry},
    subject::{Answer, Guard, MAX_SESSIONS, Session, Tag},
};
use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE},
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray, RingBuf},
    macros::btf_map,
};

/// Definition of a task storage map, which aya-ebpf has no type for: the members are read from BTF by
/// their names and types (`libbpf` calls this a BTF-defined map).
#[repr(C)]
pub struct TaskStorage<T: 'static> {
    r#type: *const [i32; BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: nobody reads the members; only the map's address is used.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }
}

/// Tags, one a task. Written by `task_alloc` (children) and the daemon (a session's first process), read by
/// every hook. No bound but memory; if there is none, the new task isn't made.
#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
pub static TAGS: TaskStorage<Tag> = TaskStorage::new();

/// Sessions by slot. Written by the daemon, read by every hook of a tagged task. Full: no new session starts.
#[btf_map]
pub static SESSIONS: Array<Session, { MAX_SESSIONS as usize }> = Array::new();

/// The number of the generation in force. Written by the daemon in one store, read once by every hook.
/// 0, at the start: no generation, which is a fault.
#[btf_map]
pub static GENERATION: Array<u32, 1> = Array::new();

/// Size that the inner maps have in this object. The daemon makes the real ones to the policy's size.
const INNER: usize = 1;

/// Values of the inner maps, as words.
///
/// VERIFIER: up to 6.1 an inner map whose template has a structure for its value can't be replaced by one without BTF
/// (`bpf_map_meta_equal` compares what was found in the structure, and "nothing" differs from "no structure").
pub type Words<const N: usize> = [u64; N];
/// [`ObjectEntry`] in words.
pub type ObjectWords = Words<{ size_of::<ObjectEntry>() / 8 }>;
/// [`ProfileEntry`] in words.
pub type ProfileWords = Words<{ size_of::<ProfileEntry>() / 8 }>;
/// [`Profile`] in words.
pub type Profiles = Array<Words<{ size_of::<Profile>() / 8 }>, { MAX_PROFILES as usize }>;
/// [`NetEntry`] in words; shorter ones, because in a trie the value comes behind a key of 20 bytes.
pub type NetWords = [u32; size_of::<NetEntry>() / 4];

/// Objects with rules, one map for each parity of the generation. Written by the daemon (the idle one),
/// read on every walk. Full: the policy isn't published.
#[btf_map]
pub static OBJECTS: ArrayOfMaps<HashMap<ObjectKey, ObjectWords, INNER>, 2> = ArrayOfMaps::new();

/// What profiles say of objects; as [`OBJECTS`].
#[btf_map]
pub static PROFILE_OBJECTS: ArrayOfMaps<HashMap<ProfileKey, ProfileWords, INNER>, 2> = ArrayOfMaps::new();

/// Profiles by index; as [`OBJECTS`].
#[btf_map]
pub static PROFILES: ArrayOfMaps<Profiles, 2> = ArrayOfMaps::new();

/// Address prefixes; as [`OBJECTS`].
#[btf_map]
pub static NETWORKS: ArrayOfMaps<LpmTrie<NetKey, NetWords, INNER>, 2> = ArrayOfMaps::new();

/// What the daemon tells us once. Written by the daemon at start, read by holds and by the guard's own hooks.
#[btf_map]
pub static GUARD: Array<Guard, 1> = Array::new();

/// Holds, at most, at the same time.
pub const MAX_HOLDS: usize = 512;

/// Calls that wait for people, by number, with the record that the daemon shows. Written here, read by the
/// daemon (also one that starts later), removed here when answered and by the daemon when the process has
/// gone. Full: the next hold is a denial.
#[btf_map]
pub static HOLDS: HashMap<u64, event::Judged, MAX_HOLDS> = HashMap::new();

/// People's answers, by number of the hold. Written by the daemon, removed here when used.
#[btf_map]
pub static ANSWERS: HashMap<u64, Answer, MAX_HOLDS> = HashMap::new();

/// An empty record to begin a hold with: map values can only be made from map values or the stack, and the
/// stack is too small. Never written.
#[btf_map]
pub static BLANK: Array<event::Judged, 1> = Array::new();

/// Denials, holds, kills and what became of holds. Written here, read by the daemon. Full: counted in
/// [`COUNTS`]; the denial stands all the same.
#[btf_map]
pub static DECISIONS: RingBuf<event::Judged, { 2 << 20 }> = RingBuf::new();

/// Reports, executions, forks and exits. As [`DECISIONS`]; apart, so that a flood of these loses no denial.
#[btf_map]
pub static REPORTS: RingBuf<event::Judged, { 2 << 20 }> = RingBuf::new();

/// Counts and losses, see [`event::count`]. Written here, read by the daemon.
#[btf_map]
pub static COUNTS: PerCpuArray<u64, { event::count::SLOTS as usize }> = PerCpuArray::new();
