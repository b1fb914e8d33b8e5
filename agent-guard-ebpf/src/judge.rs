//! From a call to a decision: the generation in force, the walk, what needs no rule.

use agent_guard_common::{
    Chain, Fault, Op, Source, Verdict,
    decide::{self, Decision, Walk},
    event::Hook,
    object::{NetKey, ObjectKey, ProfileKey},
    rules::{NetEntry, ObjectEntry, Profile, ProfileEntry, Tables},
    subject::Session,
};
use aya_ebpf::btf_maps::{HashMap, LpmTrie, lpm_trie};

use crate::{
    kernel::{Address, Dentry, GO_ON, Path, STOP, Untyped, file, repeat},
    maps::{
        GENERATION, NETWORKS, NetWords, OBJECTS, ObjectWords, PROFILE_OBJECTS, PROFILES, ProfileWords,
        Profiles,
    },
    tag::Subject,
};

/// Directories and mount points that a walk goes up, at most. A path of `PATH_MAX` bytes has fewer, but one
/// can be built up from within.
const DEPTH: u32 = 4096;

/// The tables of one generation, looked up once a call.
pub struct Generation {
    objects: &'static HashMap<ObjectKey, ObjectWords, 1>,
    profile_objects: &'static HashMap<ProfileKey, ProfileWords, 1>,
    profiles: &'static Profiles,
    networks: &'static LpmTrie<NetKey, NetWords, 1>,
}

/// What a table's words are.
#[inline(always)]
fn read<T, W>(words: &W) -> &T {
    const { assert!(size_of::<T>() == size_of::<W>() && align_of::<T>() <= align_of::<W>()) }
    // SAFETY: of that size and alignment, and made of integers: every bit pattern is a value.
    unsafe { &*core::ptr::from_ref(words).cast() }
}

impl Tables for Generation {
    #[inline(always)]
    fn object(&self, key: &ObjectKey) -> Option<&ObjectEntry> {
        // SAFETY: nobody changes a published table.
        unsafe { self.objects.get(key) }.map(read)
    }

    #[inline(always)]
    fn profile_object(&self, key: &ProfileKey) -> Option<&ProfileEntry> {
        // SAFETY: nobody changes a published table.
        unsafe { self.profile_objects.get(key) }.map(read)
    }

    #[inline(always)]
    fn profile(&self, index: u32) -> Option<&Profile> {
        self.profiles.get(index).map(read)
    }

    #[inline(always)]
    fn network(&self, key: &NetKey) -> Option<&NetEntry> {
        self.networks.get(&lpm_trie::Key::new(NetKey::BITS, *key)).map(read)
    }
}

/// A decision, or why there is none, in one word: verdict, policy's verdict, source, fault, rule, from the top. So
/// the strictest of several is the greatest.
///
/// VERIFIER: a `Result` leaves some of its bytes undefined, and the compiler moves those around too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Judgement(u64);

impl Judgement {
    #[inline(always)]
    fn new(decision: Decision, fault: Fault) -> Self {
        Self(
            (decision.verdict.0 as u64) << 56
                | (decision.policy.0 as u64) << 48
                | (decision.source.0 as u64) << 40
                | (fault.0 as u64) << 32
                | decision.rule as u64,
        )
    }

    /// No decision: a denial.
    #[inline(always)]
    pub fn fault(fault: Fault) -> Self {
        Self::new(Decision::new(Verdict::DENY, Source::FAULT, 0), fault)
    }

    /// A decision.
    #[inline(always)]
    pub fn decided(decision: Decision) -> Self {
        Self::new(decision, Fault::NONE)
    }

    /// The stricter of two.
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        if other.0 > self.0 { other } else { self }
    }

    /// The same, mixed with a zero that the verifier doesn't know.
    ///
    /// VERIFIER: else it follows every constant that a judgement can be through all that comes after. Only once: twice
    /// would be nothing.
    #[inline(always)]
    fn forget(self, zero: u32) -> Self {
        Self(self.0 ^ (u64::from(zero) << 32 | u64::from(zero)))
    }

    /// The decision: for a fault the denial.
    #[inline(always)]
    pub fn decision(self) -> Decision {
        Decision {
            verdict: Verdict((self.0 >> 56) as u8),
            policy: Verdict((self.0 >> 48) as u8),
            source: Source((self.0 >> 40) as u8),
            rule: self.0 as u32,
        }
    }

    /// What went wrong.
    #[inline(always)]
    pub fn what_went_wrong(self) -> Fault {
        Fault((self.0 >> 32) as u8)
    }
}

impl From<Result<Decision, Fault>> for Judgement {
    #[inline(always)]
    fn from(result: Result<Decision, Fault>) -> Self {
        match result {
            Ok(decision) => Self::decided(decision),
            Err(fault) => Self::fault(fault),
        }
    }
}

/// A call under judgement.
pub struct Call {
    /// Who.
    pub subject: Subject,
    /// Where.
    pub hook: Hook,
    /// The operation that events name.
    pub op: Op,
    /// Generation that judges; 0 if there is none.
    pub generation: u32,
    /// What is acted on; for a rename its source.
    pub first: Untyped,
    /// Target of a rename or a link.
    pub second: Untyped,
    /// What else belongs to what is asked for: the type of a new file, the flags of a rename.
    pub detail: u32,
    /// Where a socket wants to go; family 0 for files.
    pub address: Address,
    /// Protocol of that socket.
    pub protocol: u32,
}

impl Call {
    /// A call of the current task.
    #[inline(always)]
    pub fn new(subject: Subject, hook: Hook, op: Op) -> Self {
        Self {
            subject,
            hook,
            op,
            generation: 0,
            first: Untyped::NONE,
            second: Untyped::NONE,
            detail: 0,
            address: Address::NONE,
            protocol: 0,
        }
    }

    /// What it acts on.
    #[inline(always)]
    pub fn on(mut self, mount: Path, dentry: Dentry) -> Self {
        self.first = Untyped { dentry: dentry.address(), mount: mount.mount().0 as u64 };
        self
    }

    /// What it moves or links it to.
    #[inline(always)]
    pub fn to(mut self, mount: Path, dentry: Dentry) -> Self {
        self.second = Untyped { dentry: dentry.address(), mount: mount.mount().0 as u64 };
        self
    }

    /// Looks up the session and the generation in force, and has the decision made with them. The number of the
    /// generation is read once; a missing table is a fault, not an empty one.
    ///
    /// VERIFIER: the tables are handed down, not returned: in a `Result` the compiler copies the pointers in
    /// pieces, which the verifier refuses.
    #[inline(always)]
    pub fn judge(&mut self, decide: impl FnOnce(&Session, &Generation) -> Judgement) -> Judgement {
        let session = match self.subject.session() {
            Ok(session) => session,
            Err(fault) => return Judgement::fault(fault),
        };
        let none = Judgement::fault(Fault::GENERATION);
        let Some(number) = GENERATION.get(0) else { return none };
        // SAFETY: a map value; volatile, so that it is read just once.
        let number = unsafe { core::ptr::read_volatile(number) };
        if number == 0 {
            return none;
        }
        self.generation = number;
        let slot = number & 1;
        let Some(objects) = OBJECTS.get(slot) else { return none };
        let Some(profile_objects) = PROFILE_OBJECTS.get(slot) else { return none };
        let Some(profiles) = PROFILES.get(slot) else { return none };
        let Some(networks) = NETWORKS.get(slot) else { return none };
        if session.state == Session::KILLED {
            return Judgement::decided(Decision::new(Verdict::KILL, Source::SESSION, 0));
        }
        decide(session, &Generation { objects, profile_objects, profiles, networks })
    }
}

impl Call {
    /// The decision about where the socket wants to go.
    #[inline(always)]
    pub fn connect(&mut self) -> Judgement {
        let Address { addr, port, .. } = self.address;
        self.judge(|session, tables| {
            Judgement::from(decide::connect(tables, session.profile, addr, port)).forget(session.pad)
        })
    }
}

/// A walk within the object's own file system.
struct Within<'a> {
    tables: &'a Generation,
    walk: Walk,
    at: Dentry,
    fault: Fault,
}

/// A walk beyond it, over mount points.
struct Beyond<'a> {
    tables: &'a Generation,
    walk: Walk,
    dentry: u64,
    mount: u64,
    fault: Fault,
}

/// The decision about one operation on one object.
#[inline(always)]
pub fn object(tables: &Generation, session: &Session, op: Op, path: Path, dentry: Dentry) -> Judgement {
    Judgement(walk(tables, session, op.0 as u32, path.mount().0 as u64, dentry.0)).forget(session.pad)
}

/// The same for a device node, which no scope covers: it is a way to the device, wherever somebody has made it.
#[inline(always)]
pub fn device(tables: &Generation, session: &Session, op: Op, path: Path, dentry: Dentry) -> Judgement {
    let op = op.0 as u32 | NO_SCOPE;
    Judgement(walk(tables, session, op, path.mount().0 as u64, dentry.0)).forget(session.pad)
}

/// Beside an operation in one argument: the scope doesn't count.
const NO_SCOPE: u32 = 0x100;

/// VERIFIER: a function of its own keeps the stack of hooks with several walks small; five arguments are all there
/// can be.
#[inline(never)]
fn walk(tables: &Generation, session: &Session, op: u32, mount: u64, dentry: *const u8) -> u64 {
    walk_inner(tables, session, op, mount, Dentry(dentry)).0
}

#[inline(always)]
fn walk_inner(tables: &Generation, session: &Session, op: u32, mount: u64, dentry: Dentry) -> Judgement {
    // Both walks end with no fault only if they come to their end.
    let walk = Walk::seeded(session.profile, Op(op as u8), session.pad);
    let mut within = Within { tables, walk, at: dentry, fault: Fault::DEPTH };
    repeat(DEPTH, step_within, &mut within);
    if within.fault.0 != Fault::NONE.0 {
        return Judgement::fault(within.fault);
    }
    let mut beyond = Beyond { tables, walk: within.walk, dentry: 0, mount, fault: Fault::DEPTH };
    repeat(DEPTH, step_beyond, &mut beyond);
    if beyond.fault.0 != Fault::NONE.0 {
        return Judgement::fault(beyond.fault);
    }
    if op & NO_SCOPE != 0 {
        beyond.walk.ignore_scope();
    }
    beyond.walk.finish(tables).into()
}

/// Looks at one directory entry and goes on to the one that it is in.
extern "C" fn step_within(_turn: u32, state: *mut Within<'_>) -> i64 {
    // SAFETY: the state of `object`, which waits for us.
    let state = unsafe { &mut *state };
    let Some(key) = state.at.key() else {
        state.fault = Fault::READ;
        return STOP;
    };
    state.walk.step(state.tables, &key, Chain::Tree);
    let parent = state.at.parent();
    if parent.address() == state.at.address() {
        // The root. Or reached by a handle and not connected to its tree: nobody can say where that is.
        state.fault = if parent.is_file_system_root() { Fault::NONE } else { Fault::READ };
        return STOP;
    }
    state.at = parent;
    GO_ON
}

/// Goes on where a file system is mounted, up to the root of the mount namespace.
extern "C" fn step_beyond(_turn: u32, state: *mut Beyond<'_>) -> i64 {
    // SAFETY: the state of `object`, which waits for us.
    let state = unsafe { &mut *state };
    if state.dentry == 0 {
        match file::mounted_on(state.mount) {
            Ok(Some(below)) => {
                state.mount = below.mount;
                state.dentry = below.dentry;
            }
            Ok(None) => {
                state.fault = Fault::NONE;
                return STOP;
            }
            Err(()) => {
                state.fault = Fault::READ;
                return STOP;
            }
        }
    }
    let Some(key) = file::key_of(state.dentry) else {
        state.fault = Fault::READ;
        return STOP;
    };
    state.walk.step(state.tables, &key, Chain::Mount);
    match file::up(state.dentry) {
        Some(parent) => state.dentry = parent,
        None => {
            state.fault = Fault::READ;
            return STOP;
        }
    }
    GO_ON
}

/// Whether writing to a device needs no rule: nothing is lost by it, and no program can do without.
#[inline(always)]
pub fn needs_no_rule(session: &Session, device: u32) -> bool {
    /// `/dev/null`, `zero`, `full`, `random`, `urandom` (`drivers/char/mem.c`), and `/dev/tty`.
    const MEM: u32 = 1 << 20;
    const TTY: u32 = 5 << 20;
    device == MEM | 3
        || device == MEM | 5
        || device == MEM | 7
        || device == MEM | 8
        || device == MEM | 9
        || device == TTY
        || (session.tty != 0 && device == session.tty)
}
