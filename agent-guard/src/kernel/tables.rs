//! Generations: fills the idle slot of every table, then publishes all with one write.

use std::path::Path;

use agent_guard_common::{
    object::{NetKey, ObjectKey, ProfileKey},
    rules::{MAX_PROFILES, NetEntry, ObjectEntry, Profile, ProfileEntry},
};
use aya::maps::{Array, ArrayOfMaps, HashMap, LpmTrie, MapData, lpm_trie::Key};

use super::{Error, maps::open};

/// `BPF_F_NO_PREALLOC`, which a trie must have (`kernel/bpf/lpm_trie.c`).
const NO_PREALLOC: u32 = 1;

type Objects = HashMap<MapData, ObjectKey, ObjectEntry>;
type ProfileObjects = HashMap<MapData, ProfileKey, ProfileEntry>;
type Profiles = Array<MapData, Profile>;
type Networks = LpmTrie<MapData, NetKey, NetEntry>;

/// A compiled policy, as lists of entries.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// Objects with rules.
    pub objects: Vec<(ObjectKey, ObjectEntry)>,
    /// What profiles say of objects.
    pub profile_objects: Vec<(ProfileKey, ProfileEntry)>,
    /// Profiles by index.
    pub profiles: Vec<(u32, Profile)>,
    /// Address prefixes: bits that count, address.
    pub networks: Vec<(u32, NetKey, NetEntry)>,
}

/// The outer maps and the number in force.
pub struct Outer {
    generation: Array<MapData, u32>,
    objects: ArrayOfMaps<MapData, Objects>,
    profile_objects: ArrayOfMaps<MapData, ProfileObjects>,
    profiles: ArrayOfMaps<MapData, Profiles>,
    networks: ArrayOfMaps<MapData, Networks>,
}

/// The inner maps of one generation, filled and not yet published.
struct Inner {
    objects: Objects,
    profile_objects: ProfileObjects,
    profiles: Profiles,
    networks: Networks,
}

impl Outer {
    pub(super) fn open(maps: &Path) -> Result<Self, Error> {
        Ok(Self {
            generation: open(maps, "GENERATION")?,
            objects: open(maps, "OBJECTS")?,
            profile_objects: open(maps, "PROFILE_OBJECTS")?,
            profiles: open(maps, "PROFILES")?,
            networks: open(maps, "NETWORKS")?,
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

    /// Publishes a policy; returns the number of its generation.
    ///
    /// The slot that is filled has been idle since the last publication, which waited until no hook looked at
    /// it any more. Until the last write the old generation judges, after it the new one.
    ///
    /// # Errors
    ///
    /// If a map can't be made or filled: then the old generation stays in force.
    pub fn publish(&mut self, compiled: &Compiled) -> Result<u32, Error> {
        let before = self.generation()?;
        // 0 means none, and the slot must change.
        let next = before.checked_add(1).unwrap_or(2);
        let inner = fill(compiled)?;
        let slot = next & 1;
        self.set(slot, &inner)?;
        self.generation.set(0, next, 0).map_err(Error::map("GENERATION"))?;
        // Changing an array of maps waits for every running program (`maybe_wait_bpf_programs`), so when this
        // returns nobody looks at the old slot, and the next publication can fill it.
        self.profiles.set(slot, &inner.profiles, 0).map_err(Error::map("PROFILES"))?;
        Ok(next)
    }

    fn set(&mut self, slot: u32, inner: &Inner) -> Result<(), Error> {
        self.objects.set(slot, &inner.objects, 0).map_err(Error::map("OBJECTS"))?;
        self.profile_objects.set(slot, &inner.profile_objects, 0).map_err(Error::map("PROFILE_OBJECTS"))?;
        self.profiles.set(slot, &inner.profiles, 0).map_err(Error::map("PROFILES"))?;
        self.networks.set(slot, &inner.networks, 0).map_err(Error::map("NETWORKS"))
    }
}

/// A map has room for one entry at least.
fn room(entries: usize) -> u32 {
    u32::try_from(entries).unwrap_or(u32::MAX).max(1)
}

fn fill(compiled: &Compiled) -> Result<Inner, Error> {
    let mut objects = Objects::create(room(compiled.objects.len()), 0).map_err(Error::map("OBJECTS"))?;
    for (key, entry) in &compiled.objects {
        objects.insert(key, entry, 0).map_err(Error::map("OBJECTS"))?;
    }
    let mut profile_objects = ProfileObjects::create(room(compiled.profile_objects.len()), 0)
        .map_err(Error::map("PROFILE_OBJECTS"))?;
    for (key, entry) in &compiled.profile_objects {
        profile_objects.insert(key, entry, 0).map_err(Error::map("PROFILE_OBJECTS"))?;
    }
    let mut profiles = Profiles::create(MAX_PROFILES, 0).map_err(Error::map("PROFILES"))?;
    for (index, profile) in &compiled.profiles {
        profiles.set(*index, profile, 0).map_err(Error::map("PROFILES"))?;
    }
    let mut networks =
        Networks::create(room(compiled.networks.len()), NO_PREALLOC).map_err(Error::map("NETWORKS"))?;
    for (bits, key, entry) in &compiled.networks {
        networks.insert(&Key::new(*bits, *key), entry, 0).map_err(Error::map("NETWORKS"))?;
    }
    Ok(Inner { objects, profile_objects, profiles, networks })
}
