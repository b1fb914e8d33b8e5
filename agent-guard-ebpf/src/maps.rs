//! Every map: who writes it, who reads it, its bound, and what a full one means.

use core::ptr;

use agent_guard_common::{
    attach::{Attaching, Progress, Relative},
    decide::Walk,
    digest::Digest,
    enroll::{MAX_CGROUPS, MAX_SEATS, MAX_STANDING, MAX_USERS, Missed, Seat},
    event,
    names::{ChainHash, FILTER_WORDS, NameHash, Shape, Shapes},
    net::{Asker, NamedKey, NetKey, Question},
    object::{AbstractKey, AbstractName, NameKey, ObjectKey, SideKey},
    rules::{AbstractEntry, CommandState, MAX_NAMED, MAX_PROFILES, Named, NetEntry, Place, Profile, Side},
    subject::{Answer, Belonging, Guard, MAX_SESSIONS, Session, Tag},
};
use aya_ebpf::{
    bindings::{
        BPF_F_INNER_MAP, BPF_F_NO_PREALLOC,
        bpf_map_type::{BPF_MAP_TYPE_SK_STORAGE, BPF_MAP_TYPE_TASK_STORAGE},
    },
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray, RingBuf},
    macros::btf_map,
};

use crate::{
    arguments::Arguments,
    asked::{Asked, More},
    kernel::mount,
    known::Known,
    sockets::Mark,
};

/// Definition of a map that keeps a value beside each task or socket, which aya-ebpf has no type for: the members are read
/// from BTF by their names and types (`libbpf` calls this a BTF-defined map).
#[repr(C)]
pub struct Storage<T: 'static, const TYPE: usize> {
    r#type: *const [i32; TYPE],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: nobody reads the members; only the map's address is used.
unsafe impl<T, const TYPE: usize> Sync for Storage<T, TYPE> {}

/// Beside tasks.
pub type TaskStorage<T> = Storage<T, { BPF_MAP_TYPE_TASK_STORAGE as usize }>;
/// Beside sockets.
pub type SocketStorage<T> = Storage<T, { BPF_MAP_TYPE_SK_STORAGE as usize }>;

impl<T, const TYPE: usize> Storage<T, TYPE> {
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

/// A walk under way: all of it that is plain data.
///
/// VERIFIER: of what is in a map it knows nothing, so every turn of a loop begins alike and is verified once; and the
/// stack, of which all functions together have 512 bytes, is left for pointers.
#[repr(C)]
pub struct Scratch {
    /// What is asked for, on its way to being carried out.
    pub asked: Asked,
    /// And what besides.
    pub more: More,
    /// The digest of what is asked for, on its way.
    pub digest: Digest,
    /// The print of what the walk has met, see [`crate::known`].
    pub print: u64,
    /// What the object itself adds to it.
    pub own: u64,
    /// When a session had last renamed something as the walk began.
    pub renamed: u64,
    /// What was met.
    pub walk: Walk,
    /// Where it is within the object's own file system: a `struct dentry *`.
    pub at: u64,
    /// Where it is beyond that: a `struct dentry *`, 0 on the way to the next mount point.
    pub dentry: u64,
    /// The `struct vfsmount *` it is in; 0 if the hook doesn't know it.
    pub mount: u64,
    /// A [`agent_guard_common::Fault`]: why it can't go on.
    pub fault: u32,
    /// Not 0 once it has come to a mount that no path leads to.
    pub private: u32,
    /// The chain of names that is looked at.
    pub chain: Chain,
    /// Mounts that the object can be seen through, where the hook doesn't know which it was.
    pub seen: mount::Seen,
    /// A name that is looked up.
    pub key: NameKey,
    /// A name, in words.
    pub name: [u64; 32],
    /// What its hash begins with.
    pub name_first: u64,
    /// The hash of that name on its way.
    pub name_hash: NameHash,
    /// A hash that has come to its end.
    pub hash: u64,
    /// Length of that name.
    pub name_length: u32,
    /// Not 0 once a step of the walk has failed to find this.
    pub lost: u32,
    /// An abstract name that is looked up.
    pub abstract_key: AbstractKey,
    /// What a program is executed with.
    pub arguments: Arguments,
}

/// A chain of names on its way up.
#[repr(C)]
pub struct Chain {
    /// Hashes of the names, from the last.
    pub hashes: [u64; 64],
    /// The directory that a chain of that many names begins in: a `struct dentry *`.
    pub above: [u64; 64],
    /// 1 if a chain of that many names goes over a mount point.
    pub beyond: [u64; 64],
    /// The name it is at: a `struct dentry *`.
    pub dentry: u64,
    /// Places that were found for the shapes of one name; above them 1 for those beyond a mount point.
    pub places: [u64; 32],
    /// The `struct vfsmount *` that is in.
    pub mount: u64,
    /// Not 0 beyond a mount point.
    pub crossed: u64,
    /// Names so far.
    pub count: u32,
    /// Names that are wanted.
    pub wanted: u32,
    /// Places that were found.
    pub found: u32,
    /// Zero.
    pub pad: u32,
    /// The shape that is looked up.
    pub shape: Shape,
    /// Not 0 once it has as many names as are wanted, or there are.
    pub complete: u32,
    /// The hash of the chain on its way.
    pub hash: ChainHash,
}

/// Tags, one a task. Written by `task_alloc` (children) and the daemon (a session's first process), read by
/// every hook. No bound but memory; if there is none, the new task isn't made.
#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
pub static TAGS: TaskStorage<Tag> = Storage::new();

/// What a task walks with, one a task, made by its first walk. Written and read by walks. No
/// bound but memory; if there is none, the action is a fault.
#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
pub static SCRATCH: TaskStorage<Scratch> = Storage::new();

/// Which session made a socket, and where it went when it was last judged; nothing for those that sessions have nothing to do
/// with. Written by hooks of tagged tasks, read by those and by what changes where questions for names go. No bound but memory; if
/// there is none, the socket is nobody's own, and is judged at every use.
#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
pub static SOCKETS: SocketStorage<Mark> = Storage::new();

/// Tasks that are about to send a question for a name, by number, and their sessions. Written by hooks of tagged tasks, taken out
/// by the program that changes where it goes, and when the task ends. Full: the question isn't sent.
#[btf_map]
pub static ASKING: HashMap<u64, u64, MAX_ASKING, GROWS> = HashMap::new();

/// Tasks that ask at the same time, at most.
const MAX_ASKING: usize = 65_536;

/// From where sessions ask. Written when they ask, read by the daemon. Full: nobody knows whose question it is,
/// and it isn't answered.
#[btf_map]
pub static ASKERS: HashMap<Asker, Question, MAX_ASKERS, GROWS> = HashMap::new();

/// As many as there are ports, of both protocols.
const MAX_ASKERS: usize = 2 * 65_536;

/// Which session processes belong to, by their numbers; only where no LSM programs run, and empty elsewhere. Written where tags are
/// given, and taken out when a process ends; read by programs of control groups. Full: what can't be noted is killed.
#[btf_map]
pub static PROCESSES: HashMap<u32, Belonging, MAX_PROCESSES, GROWS> = HashMap::new();

/// Processes of sessions at the same time, at most.
const MAX_PROCESSES: usize = 1 << 18;

/// Slots of [`KNOWN`].
pub const KNOWN_SLOTS: u32 = 8192;

/// Decisions that were made before, by their prints. Written and read by hooks of tagged tasks. Never full: a decision
/// takes the place of another.
#[btf_map]
pub static KNOWN: Array<Known, { KNOWN_SLOTS as usize }> = Array::new();

/// When a session last renamed something, nanoseconds. Written and read by hooks of tagged tasks.
#[btf_map]
pub static RENAMED: Array<u64, 1> = Array::new();

/// Sessions by slot. Written by the daemon, read by every hook of a tagged task. Full: no new session starts.
#[btf_map]
pub static SESSIONS: Array<Session, { MAX_SESSIONS as usize }> = Array::new();

/// The number of the generation in force. Written by the daemon in one store, read once by every hook.
/// 0, at the start: no generation, which is a fault.
#[btf_map]
pub static GENERATION: Array<u32, 1> = Array::new();

/// Whether a tree that runs already is being tagged. Written by the daemon, read when a task is made and when one ends.
#[btf_map]
pub static ATTACHING: Array<Attaching, 1> = Array::new();

/// How far that is. Counted here, read and set to zero by the daemon. Apart, so that what the daemon writes wipes nothing
/// out.
#[btf_map]
pub static PROGRESS: Array<Progress, 1> = Array::new();

/// Relatives, at most.
pub const MAX_RELATIVES: usize = 65_536;

/// Processes that belong to the tree that is being tagged, whoever their parents are now. Written by the daemon (the
/// first one; it empties it, too) and here, while that lasts. Full: counted, and the attach fails.
#[btf_map]
pub static RELATIVES: HashMap<Relative, u32, MAX_RELATIVES, GROWS> = HashMap::new();

/// Sessions of processes that are about to execute a program that is enrolled by what it is. Written by the daemon, taken out
/// here by who sits down, and by the daemon where nobody has. Full: such a program isn't executed.
#[btf_map]
pub static SEATS: HashMap<Relative, Seat, { MAX_SEATS as usize }> = HashMap::new();

/// Sessions of control groups and users that are enrolled, by number; 0 is never used. Written by the daemon, read when a task
/// outside of sessions executes a program. Full: the policy is refused.
#[btf_map]
pub static STANDING: Array<Seat, { MAX_STANDING as usize }> = Array::new();

/// Users that are enrolled, and the numbers of their standing sessions. As [`STANDING`].
#[btf_map]
pub static ENROLLED_USERS: HashMap<u32, u32, { MAX_USERS as usize }> = HashMap::new();

/// Control groups that are enrolled, by their numbers, and the numbers of their standing sessions. Written by the daemon (those
/// that are there when a policy comes into force) and by `cgroup_mkdir`, read as [`STANDING`], taken out by `cgroup_rmdir`. Full:
/// see [`MISSED`].
#[btf_map]
pub static ENROLLED_CGROUPS: HashMap<u64, u32, { MAX_CGROUPS as usize }, GROWS> = HashMap::new();

/// Control groups that could not be noted in [`ENROLLED_CGROUPS`]. Written by `cgroup_mkdir`, of which there is one at a time, read
/// as [`STANDING`] and by the daemon: until that has looked at all there are, nothing is executed in those made since the first
/// of them.
#[btf_map]
pub static MISSED: Array<Missed, 1> = Array::new();

/// How many of [`MISSED`] there were when the daemon last looked at all control groups; or, if it could not note one either, that
/// one, and a count that never comes. Apart, so that what the daemon writes wipes nothing out.
#[btf_map]
pub static LOOKED: Array<Missed, 1> = Array::new();

/// Size that the inner maps have in this object. The daemon makes the real ones to the policy's size.
const INNER: usize = 1;

/// An inner array can have another size than the one in this object. As [`GROWS`].
const INNER_MAP: usize = BPF_F_INNER_MAP as usize;

/// Inner maps take memory when an entry comes. Part of what the real ones are compared with.
const GROWS: usize = BPF_F_NO_PREALLOC as usize;

/// Values of the inner maps, as words.
///
/// VERIFIER: up to 6.1 an inner map whose template has a structure for its value can't be replaced by one without BTF
/// (`bpf_map_meta_equal` compares what was found in the structure, and "nothing" differs from "no structure").
pub type Words<const N: usize> = [u64; N];
/// [`Place`] in words.
pub type PlaceWords = Words<{ size_of::<Place>() / 8 }>;
/// [`Side`] in words.
pub type SideWords = Words<{ size_of::<Side>() / 8 }>;
/// [`Profile`] in words.
pub type Profiles = Array<Words<{ size_of::<Profile>() / 8 }>, { MAX_PROFILES as usize }>;
/// States of commands, in words; as many as the policy has.
pub type Commands = Array<Words<{ size_of::<CommandState>() / 8 }>, INNER, INNER_MAP>;
/// [`NetEntry`] in words; shorter ones, because in a trie the value comes behind a key of 20 bytes.
pub type NetWords = [u32; size_of::<NetEntry>() / 4];
/// [`AbstractEntry`] in words; as [`NetWords`].
pub type AbstractWords = [u32; size_of::<AbstractEntry>() / 4];
/// [`Shapes`] in words.
pub type ShapeWords = Words<{ size_of::<Shapes>() / 8 }>;
/// The filter of [`agent_guard_common::names`], and behind it one word that says which suffixes there are.
pub type Filter = Array<u64, { FILTER_WORDS as usize + 1 }>;

/// Which objects and names may have rules at all, one map for each parity of the generation. Written by the daemon
/// (the idle one; bits are added to the one in force for a new session), read at every step of a walk.
#[btf_map]
pub static FILTERS: ArrayOfMaps<Filter, 2> = ArrayOfMaps::new();

/// Places of objects; as [`FILTERS`]. Full: the policy isn't published, or the session doesn't start.
#[btf_map]
pub static OBJECTS: ArrayOfMaps<HashMap<ObjectKey, u32, INNER, GROWS>, 2> = ArrayOfMaps::new();

/// Places of names; as [`OBJECTS`].
#[btf_map]
pub static NAMES: ArrayOfMaps<HashMap<NameKey, u32, INNER, GROWS>, 2> = ArrayOfMaps::new();

/// Shapes of the chains that end in a name; as [`OBJECTS`].
#[btf_map]
pub static SHAPES: ArrayOfMaps<HashMap<u64, ShapeWords, INNER, GROWS>, 2> = ArrayOfMaps::new();

/// Places; as [`OBJECTS`].
#[btf_map]
pub static PLACES: ArrayOfMaps<HashMap<u32, PlaceWords, INNER, GROWS>, 2> = ArrayOfMaps::new();

/// What profiles and sessions say of places; as [`OBJECTS`].
#[btf_map]
pub static SIDES: ArrayOfMaps<HashMap<SideKey, SideWords, INNER, GROWS>, 2> = ArrayOfMaps::new();

/// Profiles by index; as [`OBJECTS`].
#[btf_map]
pub static PROFILES: ArrayOfMaps<Profiles, 2> = ArrayOfMaps::new();

/// Address prefixes; as [`OBJECTS`].
#[btf_map]
pub static NETWORKS: ArrayOfMaps<LpmTrie<NetKey, NetWords, INNER>, 2> = ArrayOfMaps::new();

/// [`Named`] in words.
pub type NamedWords = Words<{ size_of::<Named>() / 8 }>;
/// Addresses that sessions have from asking for names, by session and address. Written by the daemon before it answers; entries
/// are exchanged for ones that say more, or last longer. Full: the name isn't answered.
#[btf_map]
pub static NAMED: ArrayOfMaps<HashMap<NamedKey, NamedWords, { MAX_NAMED as usize }, GROWS>, 2> =
    ArrayOfMaps::new();

/// Abstract names of Unix sockets; as [`OBJECTS`].
#[btf_map]
pub static ABSTRACTS: ArrayOfMaps<LpmTrie<AbstractName, AbstractWords, INNER>, 2> = ArrayOfMaps::new();

/// States of the automata that read commands; as [`OBJECTS`].
#[btf_map]
pub static COMMANDS: ArrayOfMaps<Commands, 2> = ArrayOfMaps::new();

/// Numbers of programs that rules about commands know; as [`OBJECTS`].
#[btf_map]
pub static PROGRAMS: ArrayOfMaps<HashMap<ObjectKey, u32, INNER, GROWS>, 2> = ArrayOfMaps::new();

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

/// Whether a `struct bpf_map *` is one of the guard's maps, or of the inner ones in force or idle.
///
/// VERIFIER: addresses of maps can be compared with numbers, and with nothing else.
#[inline(always)]
pub fn is_own(map: u64) -> bool {
    macro_rules! own {
        (plain: $($plain:ident)+; outer: $($outer:ident)+) => {
            $(map == (&raw const $plain).expose_provenance() as u64)||+
                || $(map == (&raw const $outer).expose_provenance() as u64)||+
                $(|| inner(map, $outer.get(0)) || inner(map, $outer.get(1)))+
        };
    }
    own! {
        plain: TAGS SCRATCH SOCKETS ASKING ASKERS KNOWN RENAMED SESSIONS GENERATION ATTACHING PROGRESS RELATIVES SEATS STANDING
            ENROLLED_USERS ENROLLED_CGROUPS MISSED LOOKED GUARD HOLDS ANSWERS BLANK DECISIONS REPORTS COUNTS PROCESSES;
        outer: FILTERS OBJECTS NAMES SHAPES PLACES SIDES PROFILES NETWORKS NAMED ABSTRACTS COMMANDS PROGRAMS
    }
}

#[inline(always)]
fn inner<T>(map: u64, inner: Option<&T>) -> bool {
    inner.is_some_and(|inner| ptr::from_ref(inner).expose_provenance() as u64 == map)
}
