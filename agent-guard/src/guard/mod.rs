//! The daemon's core: what it knows, behind the API on one side and the kernel's records on the other.
//!
//! Locks are taken in one order: state, then maps.

mod answers;
mod attach;
mod backend;
mod endings;
mod enroll;
mod explaining;
mod inside;
mod known;
mod names;
mod nested;
mod own;
mod paths;
mod policy;
mod records;
mod sessions;
mod status;
mod sweep;
mod witness;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use agent_guard_common::subject::Guard as Told;
use ulid::Ulid;

pub use self::policy::{Refused, check};
use crate::{
    api::types::{SessionState, Time},
    config::Config,
    events::{
        EventLog,
        activity::{Activity, GuardStarted, GuardStopped, PolicyRef},
    },
    hold::Hold,
    kernel::{self, enforcement::Enforcement, identity, load::Attached, maps::Maps},
    policy::{Compiled, Filesystem as _, HostFilesystem, Policy, PolicySummary, RuleInfo},
    session::{Session, Store, StoreError, proc, processes::Processes},
};

/// Why the core could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel side.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// Sessions' files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// When the host was started can't be left for the next daemon.
    #[error("the state directory can't be written: {0}")]
    BootTime(std::io::Error),
    /// No random bytes for the key.
    #[error("no random bytes: {0}")]
    Random(std::io::Error),
}

/// A policy generation, as far as old events and holds need it.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Generation {
    /// Digest of the text.
    digest: String,
    /// Rules by number, from 1.
    rules: Vec<RuleInfo>,
}

/// The policy in force.
pub(crate) struct InForce {
    policy: Policy,
    summary: PolicySummary,
    compiled: Compiled,
    generation: u32,
    loaded: Time,
    /// Why no session with paths of its own can start: its tables have no room left, and may hold half of one.
    full: Option<String>,
}

/// What changes while the daemon runs.
#[derive(Default)]
pub(crate) struct State {
    /// Sessions by number.
    sessions: HashMap<u64, Session>,
    processes: Processes,
    /// Sessions that a look at all processes found nobody of.
    empty: HashMap<u64, endings::Empty>,
    holds: BTreeMap<Ulid, Hold>,
    enrolled: enroll::Enrolled,
    /// Addresses that sessions have from asking for names, by number of the session.
    learned: HashMap<u64, names::Learned>,
    in_force: Option<InForce>,
    /// Generation that was in force when the daemon started; 0 for none.
    adopted: u32,
    generations: BTreeMap<u32, Generation>,
    /// Why the policy on disk isn't the one in force.
    refused: Option<String>,
    /// Losses that were told already.
    lost: [u64; 2],
    lost_since: Option<Time>,
}

/// The core.
pub struct Guard {
    config: Config,
    kernel: String,
    attached: Attached,
    /// What a policy can have enforced here.
    possible: Enforcement,
    /// The host's file systems, with identities as the hooks have them.
    fs: HostFilesystem,
    /// Key of digests and names.
    key: [u64; 2],
    started: Instant,
    store: Store,
    log: Arc<EventLog>,
    maps: Mutex<Maps>,
    state: Mutex<State>,
    /// Held while a tree is attached: one at a time. Taken before the others.
    attaching: Mutex<()>,
    /// About which programs the kernel asks.
    asking: Mutex<Option<Arc<enroll::Asking>>>,
    /// What sessions have learned by asking, on disk.
    names: Mutex<names::Kept>,
    /// Whom sessions ask for names. Taken last.
    resolver: Mutex<Option<crate::dns::Resolver>>,
}

/// A thread that panicked while it held a lock has lost nothing that the next can't use: each change is one write.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guard {
    /// Takes up what the kernel enforces and what an earlier daemon has left.
    ///
    /// # Errors
    ///
    /// If maps or files can't be read.
    pub fn new(config: Config, attached: Attached, log: Arc<EventLog>) -> Result<Self, Error> {
        let mut maps = Maps::open(&attached.maps)?;
        let mut told = maps.guard()?;
        if told.key == [0, 0] {
            told.key = random_key().map_err(Error::Random)?;
            maps.set_guard(&told)?;
        }
        let fs = HostFilesystem::new(Box::new(identity::Iterator::new(&attached.identify())?));
        let store = Store::open(&config.state)?;
        proc::fix_boot_time(&config.state).map_err(Error::BootTime)?;
        let kept = names::Kept::new(&config.state);
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let guard = Self {
            config,
            kernel,
            possible: attached.possible(),
            attached,
            fs,
            key: told.key,
            started: Instant::now(),
            store,
            log,
            maps: Mutex::new(maps),
            state: Mutex::new(State::default()),
            attaching: Mutex::new(()),
            asking: Mutex::new(None),
            names: Mutex::new(kept),
            resolver: Mutex::new(None),
        };
        // An attach that an earlier daemon has left unfinished is a session with fewer processes.
        lock(&guard.maps).detach()?;
        guard.adopt_enrollment()?;
        guard.adopt_sessions()?;
        guard.adopt_names();
        guard.adopt_generations();
        guard.adopt_holds()?;
        guard.adopt_losses();
        Ok(guard)
    }

    /// The API for callers that belong to a session.
    #[must_use]
    pub fn inside(self: &Arc<Self>) -> Arc<dyn crate::api::Backend> {
        Arc::new(inside::Inside(Arc::clone(self)))
    }

    /// Tells the kernel which objects the control socket and the one for sessions are.
    ///
    /// # Errors
    ///
    /// If the socket can't be looked at, or the map can't be written.
    pub fn set_sockets(&self, control: &Path, sessions: &Path) -> Result<(), kernel::Error> {
        let look = |path: &Path| {
            self.fs.lookup(path, false).map(|found| found.key).map_err(kernel::Error::looking_at(path))
        };
        let (socket, inside) = (look(control)?, look(sessions)?);
        let mut maps = lock(&self.maps);
        let told = maps.guard()?;
        let (tgid, start) =
            own::process().map_err(kernel::Error::looking_at(Path::new("/proc/self/stat")))?;
        maps.set_guard(&Told { socket, inside, tgid, start, disks: own::disks(), ..told })
    }

    /// The event log.
    #[must_use]
    pub fn log(&self) -> &Arc<EventLog> {
        &self.log
    }

    /// The programs at work.
    #[must_use]
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    /// The programs that are at work: those that the policy needs.
    fn at_work(&self) -> impl Iterator<Item = &kernel::programs::Program> {
        self.attached.present.iter().filter(|program| self.attached.at_work(program))
    }

    /// Where the kernel side's maps are pinned.
    #[must_use]
    pub fn map_pins(&self) -> &Path {
        &self.attached.maps
    }

    /// Says that the guard is at work.
    pub fn say_started(&self) {
        let state = lock(&self.state);
        self.log.say(Activity::GuardStarted(GuardStarted {
            kernel: self.kernel.clone(),
            hooks: self.at_work().map(|program| program.name.to_owned()).collect(),
            absent: self.attached.absent.iter().map(|program| program.name.to_owned()).collect(),
            policy: state.policy_ref(),
            adopted: self.attached.adopted,
            degraded: state.refused.iter().cloned().collect(),
        }));
    }

    /// Says that the daemon ends. What it has loaded stays in force.
    pub fn say_stopped(&self, reason: &str) {
        self.log.say(Activity::GuardStopped(GuardStopped { reason: reason.to_owned() }));
        self.log.close();
    }
}

impl State {
    /// What judges: the policy that was published, by this daemon or, if the one on disk is refused, by one before.
    fn policy_ref(&self) -> PolicyRef {
        match &self.in_force {
            Some(in_force) => in_force.reference(),
            None => self.generation_ref(self.adopted),
        }
    }

    /// Sessions that haven't ended.
    fn running(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values().filter(|session| session.state != SessionState::Ended)
    }

    fn session_by_id(&self, id: Ulid) -> Option<&Session> {
        self.sessions.values().find(|session| session.id == id)
    }
}

impl InForce {
    fn reference(&self) -> PolicyRef {
        PolicyRef { generation: self.generation, digest: self.compiled.digest.clone() }
    }
}

/// A key for [`agent_guard_common::digest`].
fn random_key() -> std::io::Result<[u64; 2]> {
    use std::io::Read as _;
    let mut bytes = [[0u8; 8]; 2];
    let mut source = std::fs::File::open("/dev/urandom")?;
    for word in &mut bytes {
        source.read_exact(word)?;
    }
    // Zero means that none was chosen yet.
    Ok([u64::from_ne_bytes(bytes[0]) | 1, u64::from_ne_bytes(bytes[1])])
}
