//! Generations: fills the idle slot of every table, then publishes all with one write.

use std::path::Path;

use agent_guard_common::{
    NameKey, NetKey, ObjectKey,
    names::{FILTER_WORDS, Shapes},
    net::NamedKey,
    object::{AbstractName, SideKey},
    rules::{AbstractEntry, CommandState, MAX_NAMED, MAX_PROFILES, Named, NetEntry, Place, Profile, Side},
};
use aya::{
    Pod,
    maps::{Array, ArrayOfMaps, HashMap, LpmTrie, MapData, MapError, lpm_trie::Key},
};

use super::{Error, maps::open};

/// `BPF_F_NO_PREALLOC`: memory is taken when an entry comes. A trie must have it (`kernel/bpf/lpm_trie.c`).
const NO_PREALLOC: u32 = 1;
/// `BPF_F_INNER_MAP`: an array in an array of maps can have another size than the template.
const INNER_MAP: u32 = 1 << 12;
/// Entries that sessions can add to a table while a generation is in force.
const SPARE: usize = 16384;

type Objects = HashMap<MapData, ObjectKey, u32>;
type Names = HashMap<MapData, NameKey, u32>;
type ShapeTable = HashMap<MapData, u64, Shapes>;
type Places = HashMap<MapData, u32, Place>;
type Sides = HashMap<MapData, SideKey, Side>;
type Filter = Array<MapData, u64>;
type Profiles = Array<MapData, Profile>;
type Commands = Array<MapData, CommandState>;
type Programs = HashMap<MapData, ObjectKey, u32>;
type Networks = LpmTrie<MapData, NetKey, NetEntry>;
type NamedTable = HashMap<MapData, NamedKey, Named>;
type Abstracts = LpmTrie<MapData, AbstractName, AbstractEntry>;

/// Entries of tables: a compiled policy, or what is added to one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entries {
    /// What profiles and sessions say of places.
    pub sides: Vec<(SideKey, Side)>,
    /// Places by number.
    pub places: Vec<(u32, Place)>,
    /// Words of the filter.
    pub filter: Vec<(u32, u64)>,
    /// Shapes by the hash of a name.
    pub shapes: Vec<(u64, Shapes)>,
    /// Places of objects.
    pub objects: Vec<(ObjectKey, u32)>,
    /// Places of names.
    pub names: Vec<(NameKey, u32)>,
}

impl Entries {
    fn sorted(mut self) -> Self {
        self.sides.sort_unstable_by_key(|(key, _)| *key);
        self.places.sort_unstable_by_key(|(number, _)| *number);
        self.filter.sort_unstable();
        self.shapes.sort_unstable_by_key(|(name, _)| *name);
        self.objects.sort_unstable();
        self.names.sort_unstable();
        self
    }
}

/// A compiled policy, as lists of entries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Compiled {
    /// What rules about files need.
    pub files: Entries,
    /// Which suffixes there are rules about, see [`agent_guard_common::rules::Head`].
    pub suffixes: u32,
    /// Profiles by index.
    pub profiles: Vec<(u32, Profile)>,
    /// Address prefixes: bits that count, address.
    pub networks: Vec<(u32, NetKey, NetEntry)>,
    /// Abstract names of Unix sockets: bits that count, name.
    pub abstracts: Vec<(u32, AbstractName, AbstractEntry)>,
    /// States of the automata that read commands.
    pub commands: Vec<CommandState>,
    /// Numbers of programs.
    pub programs: Vec<(ObjectKey, u32)>,
}

impl Compiled {
    /// The same in the one order in which two can be compared.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.files = self.files.sorted();
        self.profiles.sort_unstable_by_key(|(index, _)| *index);
        self.networks.sort_unstable_by_key(|(bits, key, _)| (*bits, *key));
        self.abstracts.sort_unstable_by_key(|(bits, key, _)| (*bits, *key));
        self.programs.sort_unstable_by_key(|(key, _)| *key);
        self
    }
}

/// The outer maps and the number in force.
pub struct Outer {
    generation: Array<MapData, u32>,
    filters: ArrayOfMaps<MapData, Filter>,
    objects: ArrayOfMaps<MapData, Objects>,
    names: ArrayOfMaps<MapData, Names>,
    shapes: ArrayOfMaps<MapData, ShapeTable>,
    places: ArrayOfMaps<MapData, Places>,
    sides: ArrayOfMaps<MapData, Sides>,
    profiles: ArrayOfMaps<MapData, Profiles>,
    networks: ArrayOfMaps<MapData, Networks>,
    named: ArrayOfMaps<MapData, NamedTable>,
    abstracts: ArrayOfMaps<MapData, Abstracts>,
    commands: ArrayOfMaps<MapData, Commands>,
    programs: ArrayOfMaps<MapData, Programs>,
}

/// The inner maps of one generation about files.
struct Files {
    filter: Filter,
    objects: Objects,
    names: Names,
    shapes: ShapeTable,
    places: Places,
    sides: Sides,
}

/// The inner maps of one generation, filled and not yet published.
struct Inner {
    files: Files,
    profiles: Profiles,
    networks: Networks,
    named: NamedTable,
    abstracts: Abstracts,
    commands: Commands,
    programs: Programs,
}

impl Outer {
    pub(super) fn open(maps: &Path) -> Result<Self, Error> {
        Ok(Self {
            generation: open(maps, "GENERATION")?,
            filters: open(maps, "FILTERS")?,
            objects: open(maps, "OBJECTS")?,
            names: open(maps, "NAMES")?,
            shapes: open(maps, "SHAPES")?,
            places: open(maps, "PLACES")?,
            sides: open(maps, "SIDES")?,
            profiles: open(maps, "PROFILES")?,
            networks: open(maps, "NETWORKS")?,
            named: open(maps, "NAMED")?,
            abstracts: open(maps, "ABSTRACTS")?,
            commands: open(maps, "COMMANDS")?,
            programs: open(maps, "PROGRAMS")?,
        })
    }

    /// The generation in force; 0 for none.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn generation(&self) -> Result<u32, Error> {
        self.generation.get(&0, 0).map_err(Error::map("GENERATION"))
    }

    /// Publishes a policy, and what its rules about names say of the addresses that sessions have; returns the number of its
    /// generation.
    ///
    /// The slot that is filled has been idle since the last publication, which waited until no hook looked at
    /// it any more. Until the last write the old generation judges, after it the new one.
    ///
    /// # Errors
    ///
    /// If a map can't be made or filled: then the old generation stays in force.
    pub fn publish(&mut self, compiled: &Compiled, named: &[(NamedKey, Named)]) -> Result<u32, Error> {
        let before = self.generation()?;
        // 0 means none, and the slot must change.
        let next = before.checked_add(1).unwrap_or(2);
        let inner = fill(compiled, named)?;
        let slot = next & 1;
        self.set(slot, &inner)?;
        self.generation.set(0, next, 0).map_err(Error::map("GENERATION"))?;
        // Changing an array of maps waits for every running program (`maybe_wait_bpf_programs`), so when this
        // returns nobody looks at the old slot, and the next publication can fill it.
        self.profiles.set(slot, &inner.profiles, 0).map_err(Error::map("PROFILES"))?;
        Ok(next)
    }

    fn set(&mut self, slot: u32, inner: &Inner) -> Result<(), Error> {
        let Inner { files, profiles, networks, named, abstracts, commands, programs } = inner;
        self.filters.set(slot, &files.filter, 0).map_err(Error::map("FILTERS"))?;
        self.objects.set(slot, &files.objects, 0).map_err(Error::map("OBJECTS"))?;
        self.names.set(slot, &files.names, 0).map_err(Error::map("NAMES"))?;
        self.shapes.set(slot, &files.shapes, 0).map_err(Error::map("SHAPES"))?;
        self.places.set(slot, &files.places, 0).map_err(Error::map("PLACES"))?;
        self.sides.set(slot, &files.sides, 0).map_err(Error::map("SIDES"))?;
        self.profiles.set(slot, profiles, 0).map_err(Error::map("PROFILES"))?;
        self.networks.set(slot, networks, 0).map_err(Error::map("NETWORKS"))?;
        self.named.set(slot, named, 0).map_err(Error::map("NAMED"))?;
        self.abstracts.set(slot, abstracts, 0).map_err(Error::map("ABSTRACTS"))?;
        self.commands.set(slot, commands, 0).map_err(Error::map("COMMANDS"))?;
        self.programs.set(slot, programs, 0).map_err(Error::map("PROGRAMS"))
    }

    /// The inner maps about files of the generation in force.
    fn in_force(&self) -> Result<Files, Error> {
        let slot = self.generation()? & 1;
        Ok(Files {
            filter: self.filters.get(&slot, 0).map_err(Error::map("FILTERS"))?,
            objects: self.objects.get(&slot, 0).map_err(Error::map("OBJECTS"))?,
            names: self.names.get(&slot, 0).map_err(Error::map("NAMES"))?,
            shapes: self.shapes.get(&slot, 0).map_err(Error::map("SHAPES"))?,
            places: self.places.get(&slot, 0).map_err(Error::map("PLACES"))?,
            sides: self.sides.get(&slot, 0).map_err(Error::map("SIDES"))?,
        })
    }

    /// Adds entries to the generation in force, in an order in which nobody sees half of them.
    ///
    /// # Errors
    ///
    /// If there is no room for them.
    pub fn add(&mut self, entries: &Entries) -> Result<(), Error> {
        self.in_force()?.add(entries)
    }

    /// Says of an address that a session has from asking for names what the rules about these say, in the generation in force.
    ///
    /// # Errors
    ///
    /// If there is no room for it.
    pub fn set_named(&self, key: &NamedKey, named: &Named) -> Result<(), Error> {
        self.named_in_force()?.insert(key, named, 0).map_err(Error::map("NAMED"))
    }

    /// Takes addresses away again, those of a session that has ended, or that nobody may connect to any more.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn remove_named(&self, keys: &[NamedKey]) -> Result<(), Error> {
        let mut table = self.named_in_force()?;
        keys.iter().try_for_each(|key| remove("NAMED", &mut table, key))
    }

    /// The addresses that sessions have from asking for names, in the generation in force.
    ///
    /// # Errors
    ///
    /// If the map can't be read.
    pub fn named(&self) -> Result<Vec<(NamedKey, Named)>, Error> {
        all("NAMED", &self.named_in_force()?)
    }

    fn named_in_force(&self) -> Result<NamedTable, Error> {
        let slot = self.generation()? & 1;
        self.named.get(&slot, 0).map_err(Error::map("NAMED"))
    }

    /// Takes sides away from the generation in force, those of a session that has ended.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn remove_sides(&mut self, sides: &[SideKey]) -> Result<(), Error> {
        let mut files = self.in_force()?;
        sides.iter().try_for_each(|side| remove("SIDES", &mut files.sides, side))
    }

    /// All that the generation in force says, as the kernel has it.
    ///
    /// # Errors
    ///
    /// If a map can't be read.
    pub fn read(&self) -> Result<Compiled, Error> {
        let files = self.in_force()?;
        let slot = self.generation()? & 1;
        let profiles: Profiles = self.profiles.get(&slot, 0).map_err(Error::map("PROFILES"))?;
        let profiles = (0u32..).zip(profiles.iter());
        let profiles = profiles.map(|(index, profile)| Ok((index, profile.map_err(Error::map("PROFILES"))?)));
        let profiles = profiles.collect::<Result<Vec<_>, Error>>()?;
        let networks: Networks = self.networks.get(&slot, 0).map_err(Error::map("NETWORKS"))?;
        let abstracts: Abstracts = self.abstracts.get(&slot, 0).map_err(Error::map("ABSTRACTS"))?;
        let commands: Commands = self.commands.get(&slot, 0).map_err(Error::map("COMMANDS"))?;
        let commands = commands.iter().map(|state| state.map_err(Error::map("COMMANDS")));
        let mut commands = commands.collect::<Result<Vec<_>, Error>>()?;
        // A table has one entry at least; the first state alone says nothing.
        if commands.len() == 1 {
            commands.clear();
        }
        let programs: Programs = self.programs.get(&slot, 0).map_err(Error::map("PROGRAMS"))?;
        let mut filter = Vec::new();
        let mut suffixes = 0;
        for (word, bits) in (0u32..).zip(files.filter.iter()) {
            let bits = bits.map_err(Error::map("FILTERS"))?;
            if word == FILTER_WORDS {
                suffixes = u32::try_from(bits).unwrap_or(u32::MAX);
            } else if bits != 0 {
                filter.push((word, bits));
            }
        }
        Ok(Compiled {
            files: Entries {
                sides: all("SIDES", &files.sides)?,
                places: all("PLACES", &files.places)?,
                filter,
                shapes: all("SHAPES", &files.shapes)?,
                objects: all("OBJECTS", &files.objects)?,
                names: all("NAMES", &files.names)?,
            },
            suffixes,
            profiles: profiles
                .into_iter()
                .filter(|(_, profile)| profile.flags & Profile::PRESENT != 0)
                .collect(),
            networks: prefixes("NETWORKS", &networks)?,
            abstracts: prefixes("ABSTRACTS", &abstracts)?,
            commands,
            programs: all("PROGRAMS", &programs)?,
        })
    }
}

/// Takes an entry out; it may be gone already.
fn remove<K: Pod, V: Pod>(
    name: &'static str,
    map: &mut HashMap<MapData, K, V>,
    key: &K,
) -> Result<(), Error> {
    match map.remove(key) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::map(name)(error)),
    }
}

fn all<K: Pod, V: Pod>(name: &'static str, map: &HashMap<MapData, K, V>) -> Result<Vec<(K, V)>, Error> {
    map.iter().map(|entry| entry.map_err(Error::map(name))).collect()
}

fn prefixes<K: Pod, V: Pod>(
    name: &'static str,
    map: &LpmTrie<MapData, K, V>,
) -> Result<Vec<(u32, K, V)>, Error> {
    let entries = map.iter().map(|entry| {
        let (key, entry) = entry.map_err(Error::map(name))?;
        Ok((key.prefix_len(), key.data(), entry))
    });
    entries.collect()
}

/// A trie with these entries.
fn trie<K: Pod, V: Pod>(
    name: &'static str,
    entries: &[(u32, K, V)],
) -> Result<LpmTrie<MapData, K, V>, Error> {
    let room = u32::try_from(entries.len()).unwrap_or(u32::MAX).max(1);
    let mut trie = LpmTrie::create(room, NO_PREALLOC).map_err(Error::map(name))?;
    for (bits, key, entry) in entries {
        trie.insert(&Key::new(*bits, *key), entry, 0).map_err(Error::map(name))?;
    }
    Ok(trie)
}

/// Room for so many entries and those of sessions.
fn room(entries: usize) -> u32 {
    u32::try_from(entries.saturating_add(SPARE)).unwrap_or(u32::MAX)
}

fn table<K: Pod, V: Pod>(name: &'static str, entries: usize) -> Result<HashMap<MapData, K, V>, Error> {
    HashMap::create(room(entries), NO_PREALLOC).map_err(Error::map(name))
}

fn put<K: Pod, V: Pod>(
    name: &'static str,
    map: &mut HashMap<MapData, K, V>,
    entries: &[(K, V)],
) -> Result<(), Error> {
    entries.iter().try_for_each(|(key, value)| map.insert(key, value, 0).map_err(Error::map(name)))
}

impl Files {
    fn new(entries: &Entries, suffixes: u32) -> Result<Self, Error> {
        let mut filter = Filter::create(FILTER_WORDS + 1, 0).map_err(Error::map("FILTERS"))?;
        filter.set(FILTER_WORDS, u64::from(suffixes), 0).map_err(Error::map("FILTERS"))?;
        let mut files = Self {
            filter,
            objects: table("OBJECTS", entries.objects.len())?,
            names: table("NAMES", entries.names.len())?,
            shapes: table("SHAPES", entries.shapes.len())?,
            places: table("PLACES", entries.places.len())?,
            sides: table("SIDES", entries.sides.len())?,
        };
        files.add(entries)?;
        Ok(files)
    }

    /// What is named by others comes first; what makes a walk look, last.
    fn add(&mut self, entries: &Entries) -> Result<(), Error> {
        let Entries { sides, places, filter, shapes, objects, names } = entries;
        put("SIDES", &mut self.sides, sides)?;
        put("PLACES", &mut self.places, places)?;
        put("OBJECTS", &mut self.objects, objects)?;
        put("NAMES", &mut self.names, names)?;
        put("SHAPES", &mut self.shapes, shapes)?;
        filter
            .iter()
            .try_for_each(|(word, bits)| self.filter.set(*word, bits, 0).map_err(Error::map("FILTERS")))
    }
}

fn fill(compiled: &Compiled, named: &[(NamedKey, Named)]) -> Result<Inner, Error> {
    let Compiled { files, suffixes, profiles: all_profiles, networks, abstracts, commands, programs } =
        compiled;
    let files = Files::new(files, *suffixes)?;
    let mut profiles = Profiles::create(MAX_PROFILES, 0).map_err(Error::map("PROFILES"))?;
    for (index, profile) in all_profiles {
        profiles.set(*index, profile, 0).map_err(Error::map("PROFILES"))?;
    }
    let (networks, abstracts) = (trie("NETWORKS", networks)?, trie("ABSTRACTS", abstracts)?);
    let mut addresses = NamedTable::create(MAX_NAMED, NO_PREALLOC).map_err(Error::map("NAMED"))?;
    put("NAMED", &mut addresses, named)?;
    let states = u32::try_from(commands.len()).unwrap_or(u32::MAX).max(1);
    let mut table = Commands::create(states, INNER_MAP).map_err(Error::map("COMMANDS"))?;
    for (number, state) in (0u32..).zip(commands) {
        table.set(number, state, 0).map_err(Error::map("COMMANDS"))?;
    }
    let entries = u32::try_from(programs.len()).unwrap_or(u32::MAX).max(1);
    let mut numbers = Programs::create(entries, NO_PREALLOC).map_err(Error::map("PROGRAMS"))?;
    put("PROGRAMS", &mut numbers, programs)?;
    Ok(Inner { files, profiles, networks, named: addresses, abstracts, commands: table, programs: numbers })
}
