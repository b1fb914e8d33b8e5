//! From a call to a decision: the session, the generation in force and its tables, what needs no rule.

mod judgement;

use agent_guard_common::{
    Fault, Op, Source, Verdict,
    decide::{self, Decision},
    event::Hook,
    names::{FILTER_WORDS, Shapes},
    net::{Endpoint, NamedKey, NetKey, Protocol, effective},
    object::{AbstractKey, AbstractName, NameKey, ObjectKey, SideKey},
    rules::{AbstractEntry, CommandState, Named, NetEntry, Place, Profile, Side, Tables},
    subject::{Session, Tag},
};
use aya_ebpf::{btf_maps::lpm_trie, helpers::generated::bpf_ktime_get_boot_ns};

pub use judgement::Judgement;

use crate::{
    asked::Asked,
    kernel::{Address, Dentry, Path, Untyped, VfsMount},
    maps::{
        ABSTRACTS, COMMANDS, FILTERS, Filter, GENERATION, NAMED, NAMES, NETWORKS, OBJECTS, PLACES, PROFILES,
        PROGRAMS, SHAPES, SIDES,
    },
    questions,
    tag::Subject,
    walk::scratch,
};

/// What every call needs of the generation in force, looked up once.
pub struct Generation {
    /// Its number.
    pub number: u32,
    /// The tag of the current task, in place.
    pub tag: *mut Tag,
    filter: &'static Filter,
    /// Operations that are judged at all, see [`Profile::judged`].
    judged: u32,
}

impl Generation {
    /// Where the rest is.
    #[inline(always)]
    pub fn parity(&self) -> Parity {
        Parity(self.number & 1)
    }

    /// Whether an operation has to be judged for this profile.
    #[inline(always)]
    pub fn judges(&self, op: Op) -> bool {
        self.judged >> (op.0 & 7) & 1 != 0
    }

    /// Whether any of these has: bits by their numbers.
    #[inline(always)]
    pub fn judges_any(&self, ops: u32) -> bool {
        self.judged & ops != 0
    }

    /// Whether a bit of the filter is set.
    #[inline(always)]
    pub fn may_have(&self, bit: u32) -> bool {
        has(self.filter, bit)
    }

    /// Bit `n` is set if a rule is about names that end in `n + 1` bytes. The word behind the filter.
    #[inline(always)]
    pub fn suffixes(&self) -> u32 {
        self.filter.get(FILTER_WORDS).map_or(u32::MAX, |word| *word as u32)
    }
}

#[inline(always)]
fn has(filter: &Filter, bit: u32) -> bool {
    match filter.get(bit / 64) {
        Some(word) => word >> (bit % 64) & 1 != 0,
        None => true,
    }
}

/// The tables of one generation: which of two, everywhere. A number, so that it can be handed to functions that the
/// verifier looks at by themselves.
#[derive(Clone, Copy)]
pub struct Parity(pub u32);

/// A place that no table has: what is looked up in a table that isn't there.
const NO_PLACE: u32 = u32::MAX;

/// What a table's words are.
#[inline(always)]
fn read<T, W>(words: &W) -> &T {
    const { assert!(size_of::<T>() == size_of::<W>() && align_of::<T>() <= align_of::<W>()) }
    // SAFETY: of that size and alignment, and made of integers: every bit pattern is a value.
    unsafe { &*core::ptr::from_ref(words).cast() }
}

impl Tables for Parity {
    #[inline(always)]
    fn may_have(&self, bit: u32) -> bool {
        FILTERS.get(self.0).is_none_or(|filter| has(filter, bit))
    }

    #[inline(always)]
    fn object(&self, key: &ObjectKey) -> Option<u32> {
        let Some(objects) = OBJECTS.get(self.0) else { return Some(NO_PLACE) };
        // SAFETY: entries of a published table are only added.
        unsafe { objects.get(key) }.copied()
    }

    #[inline(always)]
    fn name(&self, key: &NameKey) -> Option<u32> {
        let Some(names) = NAMES.get(self.0) else { return Some(NO_PLACE) };
        // SAFETY: entries of a published table are only added.
        unsafe { names.get(key) }.copied()
    }

    #[inline(always)]
    fn shapes(&self, name: u64) -> Option<&Shapes> {
        // SAFETY: entries of a published table are added, or exchanged for ones that have more.
        unsafe { SHAPES.get(self.0)?.get(name) }.map(read)
    }

    #[inline(always)]
    fn place(&self, number: u32) -> Option<&Place> {
        // SAFETY: entries of a published table are added, or exchanged for ones that say more.
        unsafe { PLACES.get(self.0)?.get(number) }.map(read)
    }

    #[inline(always)]
    fn side(&self, key: &SideKey) -> Option<&Side> {
        // SAFETY: entries of a published table are only added.
        unsafe { SIDES.get(self.0)?.get(key) }.map(read)
    }

    #[inline(always)]
    fn profile(&self, index: u32) -> Option<&Profile> {
        PROFILES.get(self.0)?.get(index).map(read)
    }

    #[inline(always)]
    fn command(&self, number: u32) -> Option<&CommandState> {
        COMMANDS.get(self.0)?.get(number).map(read)
    }

    #[inline(always)]
    fn program(&self, key: &ObjectKey) -> u8 {
        // SAFETY: entries of a published table never change.
        PROGRAMS
            .get(self.0)
            .and_then(|programs| unsafe { programs.get(key) })
            .map_or(0, |number| *number as u8)
    }

    #[inline(always)]
    fn network(&self, key: &NetKey) -> Option<&NetEntry> {
        NETWORKS.get(self.0)?.get(&lpm_trie::Key::new(NetKey::BITS, *key)).map(read)
    }

    #[inline(always)]
    fn named(&self, key: &NamedKey) -> Option<&Named> {
        // SAFETY: entries of a published table are added, or exchanged for ones that say more.
        unsafe { NAMED.get(self.0)?.get(key) }.map(read)
    }
    #[inline(always)]
    fn abstract_name(&self, key: &AbstractKey) -> Option<&AbstractEntry> {
        // VERIFIER: the key stays where it is, which is no place on the stack.
        ABSTRACTS.get(self.0)?.get(read::<lpm_trie::Key<AbstractName>, _>(key)).map(read)
    }
}

/// A call under judgement.
pub struct Call {
    /// Who.
    pub subject: Subject,
    /// What.
    pub asked: Asked,
}

impl Subject {
    /// The operations that have to be judged in a generation, looked up once for each.
    #[inline(always)]
    fn judged(&mut self, session: &Session, generation: u32) -> u32 {
        let tag = self.tag_mut();
        if tag.generation == generation {
            return tag.judged;
        }
        match Parity(generation & 1).profile(session.profile(generation)) {
            Some(profile) if profile.flags & Profile::PRESENT != 0 => {
                tag.judged = profile.judged as u32;
                tag.generation = generation;
                tag.judged
            }
            // The decision says what is wrong.
            _ => u32::MAX,
        }
    }
}

/// Looks up the session and the generation in force, and has the decision made with them. The number of the
/// generation is read once; a missing table is a fault, not an empty one.
///
/// VERIFIER: the tables are handed down, not returned: in a `Result` the compiler copies the pointers in
/// pieces, which the verifier refuses.
#[inline(always)]
fn judge(
    subject: &mut Subject,
    generation: &mut u32,
    decide: impl FnOnce(&Session, &Generation) -> Judgement,
) -> Judgement {
    let session = match subject.session() {
        Ok(session) => session,
        Err(fault) => return Judgement::fault(fault),
    };
    let none = Judgement::fault(Fault::GENERATION);
    let Some(number) = in_force() else { return none };
    *generation = number;
    let slot = number & 1;
    let Some(filter) = FILTERS.get(slot) else { return none };
    if session.state == Session::KILLED {
        return Judgement::decided(Decision::new(Verdict::KILL, Source::SESSION, 0));
    }
    let judged = subject.judged(session, number);
    decide(session, &Generation { number, tag: subject.tag_pointer(), filter, judged })
}

impl Call {
    /// A call of the current task.
    #[inline(always)]
    pub fn new(subject: Subject, hook: Hook, op: Op) -> Self {
        let asked = Asked {
            first: Untyped::NONE,
            second: Untyped::NONE,
            address: Address::NONE,
            detail: 0,
            protocol: 0,
            op,
            hook,
            generation: 0,
            restarts: 1,
            target: 0,
        };
        Self { subject, asked }
    }

    /// What it acts on.
    #[inline(always)]
    pub fn on(self, mount: Path, dentry: Dentry) -> Self {
        self.on_mounted(mount.mount(), dentry)
    }

    /// What it acts on, in a mount.
    #[inline(always)]
    pub fn on_mounted(mut self, mount: VfsMount, dentry: Dentry) -> Self {
        self.asked.first = Untyped { dentry: dentry.address(), mount: mount.0 as u64 };
        self
    }

    /// What it acts on, where the hook doesn't know the mount.
    #[inline(always)]
    pub fn on_dentry(mut self, dentry: Dentry) -> Self {
        self.asked.first = Untyped { dentry: dentry.address(), mount: 0 };
        self
    }

    /// What it moves or links it to.
    #[inline(always)]
    pub fn to(mut self, mount: Path, dentry: Dentry) -> Self {
        self.asked.second = Untyped { dentry: dentry.address(), mount: mount.mount().0 as u64 };
        self
    }

    /// Looks up the session and the generation in force, and has the decision made with them.
    #[inline(always)]
    pub fn judge(&mut self, decide: impl FnOnce(&Session, &Generation) -> Judgement) -> Judgement {
        judge(&mut self.subject, &mut self.asked.generation, decide)
    }

    /// The decision about an operation on the system.
    #[inline(always)]
    pub fn system(&mut self, op: Op) -> Judgement {
        self.judge(|session, tables| system(tables, session, op))
    }

    /// The decision about the use of a capability that is no other operation.
    #[inline(always)]
    pub fn capability(&mut self, number: u32) -> Judgement {
        self.judge(|session, tables| {
            Judgement::from(decide::capability(&tables.parity(), session.profile(tables.number), number))
                .forget(session.pad)
        })
    }
}

/// The socket has gone there before, see [`judge_noted`].
pub const AGAIN: u32 = 1;
/// A question for a name goes to the daemon's resolver, see [`judge_noted`].
pub const ASKS: u32 = 2;

/// The decision about what the task's [`crate::maps::Scratch`] says is asked for: where a socket goes or listens, or an operation on
/// the system. `how` is [`AGAIN`] and [`ASKS`].
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn judge_noted(how: u32) -> u64 {
    let (Some(mut subject), Some(scratch)) = (Subject::current(), scratch()) else {
        return Judgement::fault(Fault::MEMORY).0;
    };
    let Asked { address, protocol, op, generation, .. } = &mut scratch.asked;
    let (op, number) = (*op, *protocol);
    judge(&mut subject, generation, |session, tables| {
        let profile = session.profile(tables.number);
        if op.0 == Op::CONNECT.0
            && how & ASKS != 0
            && questions::are_ours(tables, session, address.port, number)
        {
            return Judgement::question();
        }
        let (tables, protocol) = (tables.parity(), Protocol::of(number));
        if op.0 == Op::LISTEN.0 {
            let at = Endpoint { addr: address.addr, port: address.port, protocol };
            return Judgement::from(decide::listen(&tables, profile, &at));
        }
        if op.0 != Op::CONNECT.0 {
            return Judgement::from(decide::system(&tables, profile, op));
        }
        let to = Endpoint { addr: effective(address.addr), port: address.port, protocol };
        let now = if how & AGAIN != 0 { 0 } else { now() };
        Judgement::from(decide::connect(&tables, profile, session.id, &to, now))
    })
    .0
}

/// The number of the generation in force, read once; none if there is none.
#[inline(always)]
pub fn in_force() -> Option<u32> {
    let number = GENERATION.get(0)?;
    // SAFETY: a map value; volatile, so that it is read just once.
    let number = unsafe { core::ptr::read_volatile(number) };
    if number == 0 { None } else { Some(number) }
}

/// Nanoseconds since boot, time asleep included.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The decision about an operation on the system.
#[inline(always)]
pub fn system(tables: &Generation, session: &Session, op: Op) -> Judgement {
    Judgement(judge_system(session.profile(tables.number), op.0 as u32, tables.parity().0))
        .forget(session.pad)
}

/// The same in plain numbers.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn judge_system(profile: u32, op: u32, parity: u32) -> u64 {
    Judgement::from(decide::system(&Parity(parity & 1), profile, Op(op as u8))).0
}

/// Whether reading from and writing to a device needs no rule: nothing is lost by it, and no program can do without.
#[inline(always)]
pub fn needs_no_rule(session: &Session, device: u32) -> bool {
    is_harmless(device) || (session.tty != 0 && device == session.tty)
}

/// The same whoever's session it is.
#[inline(always)]
pub fn is_harmless(device: u32) -> bool {
    /// `/dev/null`, `zero`, `full`, `random`, `urandom` (`drivers/char/mem.c`), and `/dev/tty`.
    const MEM: u32 = 1 << 20;
    const TTY: u32 = 5 << 20;
    device == MEM | 3
        || device == MEM | 5
        || device == MEM | 7
        || device == MEM | 8
        || device == MEM | 9
        || device == TTY
}
