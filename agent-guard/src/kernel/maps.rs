//! The maps, opened from their pins: what the daemon writes and reads.

mod enrollment;

use std::{
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    path::Path,
};

use agent_guard_common::{
    attach::{Attaching, Progress, Relative},
    enroll::{Missed, Seat},
    event::{self, Judged},
    net::{Asker, Question},
    subject::{Answer, Guard, MAX_SESSIONS, Session, Tag},
};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};

use super::{Error, tables::Outer};
use crate::sys::bpf;

/// All maps that are pinned, by the names of the kernel side.
pub const NAMES: [&str; 38] = [
    "TAGS",
    "SOCKETS",
    "ASKING",
    "ASKERS",
    "PROCESSES",
    "SCRATCH",
    "KNOWN",
    "RENAMED",
    "SESSIONS",
    "ATTACHING",
    "PROGRESS",
    "RELATIVES",
    "SEATS",
    "STANDING",
    "ENROLLED_USERS",
    "ENROLLED_CGROUPS",
    "MISSED",
    "LOOKED",
    "GENERATION",
    "FILTERS",
    "OBJECTS",
    "NAMES",
    "SHAPES",
    "PLACES",
    "SIDES",
    "PROFILES",
    "NETWORKS",
    "NAMED",
    "ABSTRACTS",
    "COMMANDS",
    "PROGRAMS",
    "GUARD",
    "HOLDS",
    "ANSWERS",
    "BLANK",
    "DECISIONS",
    "REPORTS",
    "COUNTS",
];

/// The maps behind the daemon.
pub struct Maps {
    tags: MapData,
    sessions: Array<MapData, Session>,
    guard: Array<MapData, Guard>,
    attaching: Array<MapData, Attaching>,
    progress: Array<MapData, Progress>,
    relatives: HashMap<MapData, Relative, u32>,
    seats: HashMap<MapData, Relative, Seat>,
    standing: Array<MapData, Seat>,
    users: HashMap<MapData, u32, u32>,
    groups: HashMap<MapData, u64, u32>,
    askers: HashMap<MapData, Asker, Question>,
    missed: Array<MapData, Missed>,
    looked: Array<MapData, Missed>,
    holds: HashMap<MapData, u64, Record>,
    answers: HashMap<MapData, u64, Answer>,
    counts: PerCpuArray<MapData, u64>,
    /// The tables and the number of the generation.
    pub outer: Outer,
}

/// A [`Judged`] as a map value.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Record(pub Judged);

// SAFETY: `repr(C)` integers and byte arrays without padding (see the sizes in the tests of the type).
unsafe impl aya::Pod for Record {}

/// Opens one map.
pub(super) fn open<T>(maps: &Path, name: &'static str) -> Result<T, Error>
where
    T: TryFrom<Map, Error = MapError>,
{
    let data = MapData::from_pin(maps.join(name)).map_err(Error::map(name))?;
    let map = Map::from_map_data(data).map_err(Error::map(name))?;
    T::try_from(map).map_err(Error::map(name))
}

impl Maps {
    /// Opens all.
    ///
    /// # Errors
    ///
    /// If one isn't there or isn't what it should be.
    pub fn open(maps: &Path) -> Result<Self, Error> {
        Ok(Self {
            tags: MapData::from_pin(maps.join("TAGS")).map_err(Error::map("TAGS"))?,
            sessions: open(maps, "SESSIONS")?,
            guard: open(maps, "GUARD")?,
            attaching: open(maps, "ATTACHING")?,
            progress: open(maps, "PROGRESS")?,
            relatives: open(maps, "RELATIVES")?,
            seats: open(maps, "SEATS")?,
            standing: open(maps, "STANDING")?,
            users: open(maps, "ENROLLED_USERS")?,
            groups: open(maps, "ENROLLED_CGROUPS")?,
            askers: open(maps, "ASKERS")?,
            missed: open(maps, "MISSED")?,
            looked: open(maps, "LOOKED")?,
            holds: open(maps, "HOLDS")?,
            answers: open(maps, "ANSWERS")?,
            counts: open(maps, "COUNTS")?,
            outer: Outer::open(maps)?,
        })
    }

    /// The two rings: decisions and reports.
    ///
    /// # Errors
    ///
    /// If one isn't there.
    pub fn rings(maps: &Path) -> Result<[RingBuf<MapData>; 2], Error> {
        Ok([open(maps, "DECISIONS")?, open(maps, "REPORTS")?])
    }

    /// Tags a process: its first thread, which must be its only one.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, or the process has gone.
    pub fn tag(&self, process: BorrowedFd<'_>, tag: &Tag) -> Result<(), Error> {
        bpf::update(self.tags.fd().as_fd(), &process.as_raw_fd(), tag, bpf::NO_EXIST)
            .map_err(Error::call("bpf(BPF_MAP_UPDATE_ELEM)", "the tag of a process"))
    }

    /// Gives a process of a session the tag of another one: its first thread, which should be its only one. Others, and what
    /// they make, stay in the session that they are in.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, the process has gone, or it has no tag.
    pub fn exchange(&self, process: BorrowedFd<'_>, tag: &Tag) -> Result<(), Error> {
        bpf::update(self.tags.fd().as_fd(), &process.as_raw_fd(), tag, bpf::EXIST)
            .map_err(Error::call("bpf(BPF_MAP_UPDATE_ELEM)", "the tag of a process"))
    }

    /// The tag of a process, if it has one.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, or the process has gone.
    pub fn tag_of(&self, process: BorrowedFd<'_>) -> Result<Option<Tag>, Error> {
        let mut tag = Tag::default();
        bpf::lookup(self.tags.fd().as_fd(), &process.as_raw_fd(), &mut tag)
            .map(|found| found.then_some(tag))
            .map_err(Error::call("bpf(BPF_MAP_LOOKUP_ELEM)", "the tag of a process"))
    }

    /// All sessions that the kernel knows, with their slots.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn sessions(&self) -> Result<Vec<(u32, Session)>, Error> {
        let all = (1..MAX_SESSIONS).map(|slot| {
            let session = self.sessions.get(&slot, 0).map_err(Error::map("SESSIONS"))?;
            Ok((slot, session))
        });
        all.filter(|entry| !matches!(entry, Ok((_, session)) if session.state == 0)).collect()
    }

    /// Writes a session's slot.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn set_session(&mut self, slot: u32, session: &Session) -> Result<(), Error> {
        self.sessions.set(slot, session, 0).map_err(Error::map("SESSIONS"))
    }

    /// What the kernel side was told.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn guard(&self) -> Result<Guard, Error> {
        self.guard.get(&0, 0).map_err(Error::map("GUARD"))
    }

    /// Tells the kernel side.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn set_guard(&mut self, guard: &Guard) -> Result<(), Error> {
        self.guard.set(0, guard, 0).map_err(Error::map("GUARD"))
    }

    /// Whose questions come from there; nobody's if they aren't a session's.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn question(&self, from: &Asker) -> Result<Option<Question>, Error> {
        match self.askers.get(from, 0) {
            Ok(question) => Ok(Some(question)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(Error::map("ASKERS")(error)),
        }
    }

    /// How far the kernel side is with what is being attached.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn progress(&self) -> Result<Progress, Error> {
        self.progress.get(&0, 0).map_err(Error::map("PROGRESS"))
    }

    /// Says what is being attached.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn set_attaching(&mut self, attaching: &Attaching) -> Result<(), Error> {
        self.attaching.set(0, attaching, 0).map_err(Error::map("ATTACHING"))
    }

    /// Notes the first process of a tree.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn relate(&mut self, process: &Relative) -> Result<(), Error> {
        self.relatives.insert(process, 1, 0).map_err(Error::map("RELATIVES"))
    }

    /// Nothing is attached, and nobody belongs to it.
    ///
    /// # Errors
    ///
    /// If a map can't be written.
    pub fn detach(&mut self) -> Result<(), Error> {
        self.set_attaching(&Attaching::default())?;
        self.progress.set(0, Progress::default(), 0).map_err(Error::map("PROGRESS"))?;
        loop {
            // Taken out while they are walked over, some would be passed over.
            let some: Vec<Relative> = self.relatives.keys().take(4096).filter_map(Result::ok).collect();
            if some.is_empty() {
                return Ok(());
            }
            some.iter().try_for_each(|process| gone(self.relatives.remove(process), "RELATIVES"))?;
        }
    }

    /// The calls that wait, by number.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn holds(&self) -> Result<Vec<(u64, Judged)>, Error> {
        let all = self.holds.iter().map(|entry| {
            let (id, Record(record)) = entry.map_err(Error::map("HOLDS"))?;
            Ok((id, record))
        });
        all.filter(|entry| !matches!(entry, Ok((_, record)) if record.header.size == 0)).collect()
    }

    /// Whether a call still waits.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn waits(&self, hold: u64) -> Result<bool, Error> {
        match self.holds.get(&hold, 0) {
            Ok(_) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(Error::map("HOLDS")(error)),
        }
    }

    /// Writes people's answer.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn answer(&mut self, hold: u64, answer: &Answer) -> Result<(), Error> {
        self.answers.insert(hold, answer, 0).map_err(Error::map("ANSWERS"))
    }

    /// The calls that have an answer, by number: those whose hold has gone meanwhile, too.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn answers(&self) -> Result<Vec<u64>, Error> {
        self.answers.keys().collect::<Result<_, _>>().map_err(Error::map("ANSWERS"))
    }

    /// Takes an answer back that the kernel hasn't used.
    ///
    /// # Errors
    ///
    /// If the map can't be written.
    pub fn unanswer(&mut self, hold: u64) -> Result<(), Error> {
        gone(self.answers.remove(&hold), "ANSWERS")
    }

    /// Takes a hold and its answer away, after its process has gone.
    ///
    /// # Errors
    ///
    /// If a map can't be written.
    pub fn forget(&mut self, hold: u64) -> Result<(), Error> {
        // The answer first: without its hold nobody could take it back.
        self.unanswer(hold)?;
        gone(self.holds.remove(&hold), "HOLDS")
    }

    /// Counts, summed over CPUs, by slot.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn counts(&self) -> Result<[u64; event::count::SLOTS as usize], Error> {
        let mut sums = [0u64; event::count::SLOTS as usize];
        for (slot, sum) in (0u32..).zip(&mut sums) {
            let values = self.counts.get(&slot, 0).map_err(Error::map("COUNTS"))?;
            *sum = values.iter().fold(0, |sum, value| sum.wrapping_add(*value));
        }
        Ok(sums)
    }
}

/// What isn't there needs no removing.
fn gone(result: Result<(), MapError>, name: &'static str) -> Result<(), Error> {
    taken(result, name).map(drop)
}

/// Whether something was there to be removed.
fn taken(result: Result<(), MapError>, name: &'static str) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
            Ok(false)
        }
        Err(error) => Err(Error::map(name)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever changes one of them is told of: the kernel side has a list of its own.
    #[test]
    fn the_kernel_side_knows_all_of_them_for_its_own() {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../agent-guard-ebpf/src/maps.rs"));
        let (_, list) = text.split_once("own! {").unwrap();
        let (list, _) = list.split_once('}').unwrap();
        let mut known: Vec<&str> = list
            .split(|c: char| c.is_whitespace() || c == ';')
            .filter(|word| !word.is_empty() && !word.ends_with(':'))
            .collect();
        let mut all = NAMES.to_vec();
        known.sort_unstable();
        all.sort_unstable();
        assert_eq!(known, all);
    }
}
