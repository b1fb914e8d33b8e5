//! One generation of tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use agent_guard_common::{
    NameKey, NetKey, ObjectKey,
    names::Shapes,
    net::NamedKey,
    object::{AbstractKey, AbstractName, SideKey},
    rules::{AbstractEntry, CommandState, Head, Named, NetEntry, Place, Profile, Side, Tables},
};

use super::{
    diagnostic::Diagnostic,
    hosts::Hosts,
    model::{Part, PathPattern},
    network,
    rules::RuleInfo,
    sockets,
};

/// One generation: the tables that the kernel judges by, and what people need to read them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Compiled {
    /// Name, index and entry of each profile, by name.
    pub profiles: Vec<(String, u32, Profile)>,
    /// What is said of who isn't in a session ([`agent_guard_common::enroll`]).
    pub enrollment: Profile,
    /// What is true of the whole generation.
    pub head: Head,
    /// The filter: words that aren't 0, by their place.
    pub filter: BTreeMap<u32, u64>,
    /// Places of objects.
    pub objects: BTreeMap<ObjectKey, u32>,
    /// Places of names.
    pub names: BTreeMap<NameKey, u32>,
    /// Shapes of the chains that end in a name, by its hash.
    pub shapes: BTreeMap<u64, Shapes>,
    /// What the policy says of places, by number, from 1.
    pub places: BTreeMap<u32, Place>,
    /// What profiles and sessions say of places.
    pub sides: BTreeMap<SideKey, Side>,
    /// What profiles say of networks, to connect to and to listen at: number of bits, those of the profile included, and first key.
    pub networks: BTreeMap<(u32, NetKey), NetEntry>,
    /// What profiles say of names of hosts: for the resolver, the kernel doesn't know them.
    pub hosts: Arc<Hosts>,
    /// What profiles say of abstract names of Unix sockets: number of bits that count, and first key.
    pub abstracts: BTreeMap<(u32, AbstractName), AbstractEntry>,
    /// States of the automata that read commands, by number, see [`CommandState`].
    pub commands: Vec<CommandState>,
    /// Programs that rules about commands know, by number.
    pub programs: BTreeMap<ObjectKey, u32>,
    /// The rules; a rule's number is its place, from 1.
    pub rules: Vec<RuleInfo>,
    /// SHA-256 of the sources, in hexadecimal.
    pub digest: String,
    /// What the author of the policy should know.
    pub warnings: Vec<Diagnostic>,
    /// The secret key that names are hashed with.
    pub key: [u64; 2],
    /// Where the scopes of profiles begin that are the same for all sessions.
    pub(super) scopes: Vec<ScopePlace>,
    /// Places that sessions have sides at: those are of one object or name alone.
    pub(super) own: BTreeSet<u32>,
}

/// Where an entry of a profile's scope began when it was looked up, all links followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ScopePlace {
    pub(super) profile: String,
    pub(super) path: PathPattern,
    /// What was there, and which object that was.
    pub(super) there: PathBuf,
    pub(super) object: ObjectKey,
    /// Names behind that which weren't there.
    pub(super) missing: PathBuf,
    /// What comes behind those: it begins with `*`.
    pub(super) rest: Vec<Part>,
}

/// Tables, the kernel's or others, and what explanations need beside them.
#[derive(Debug)]
pub struct View<'a, T> {
    /// The tables.
    pub tables: &'a T,
    /// Their head.
    pub head: Head,
    /// The key that their names are hashed with.
    pub key: [u64; 2],
    /// The rules that they know by number.
    pub rules: &'a [RuleInfo],
    /// What the resolver knows of names of hosts.
    pub hosts: &'a Hosts,
}

impl<T> View<'_, T> {
    /// The rule with that number.
    #[must_use]
    pub fn rule(&self, number: u32) -> Option<&RuleInfo> {
        rule(self.rules, number)
    }
}

fn rule(rules: &[RuleInfo], number: u32) -> Option<&RuleInfo> {
    rules.get(usize::try_from(number).ok()?.checked_sub(1)?)
}

impl Compiled {
    /// Index of the profile with that name.
    #[must_use]
    pub fn profile_index(&self, name: &str) -> Option<u32> {
        self.profiles.iter().find(|(other, ..)| other == name).map(|&(_, index, _)| index)
    }

    /// The rule with that number.
    #[must_use]
    pub fn rule(&self, number: u32) -> Option<&RuleInfo> {
        rule(&self.rules, number)
    }

    /// For explanations.
    #[must_use]
    pub fn view(&self) -> View<'_, Self> {
        View { tables: self, head: self.head, key: self.key, rules: &self.rules, hosts: &self.hosts }
    }

    /// Sets a bit of the filter; its word and what that is then.
    pub(super) fn set_bit(&mut self, bit: u32) -> (u32, u64) {
        let word = self.filter.entry(bit / 64).or_default();
        *word |= 1 << (bit % 64);
        (bit / 64, *word)
    }
}

impl Tables for Compiled {
    fn may_have(&self, bit: u32) -> bool {
        self.filter.get(&(bit / 64)).is_some_and(|word| word >> (bit % 64) & 1 != 0)
    }

    fn object(&self, key: &ObjectKey) -> Option<u32> {
        self.objects.get(key).copied()
    }

    fn name(&self, key: &NameKey) -> Option<u32> {
        self.names.get(key).copied()
    }

    fn shapes(&self, name: u64) -> Option<&Shapes> {
        self.shapes.get(&name)
    }

    fn place(&self, number: u32) -> Option<&Place> {
        self.places.get(&number)
    }

    fn side(&self, key: &SideKey) -> Option<&Side> {
        self.sides.get(key)
    }

    fn profile(&self, index: u32) -> Option<&Profile> {
        if index == agent_guard_common::enroll::PROFILE {
            return Some(&self.enrollment);
        }
        self.profiles.iter().find(|&&(_, other, _)| other == index).map(|(.., profile)| profile)
    }

    fn command(&self, number: u32) -> Option<&CommandState> {
        self.commands.get(usize::try_from(number).ok()?)
    }

    fn program(&self, key: &ObjectKey) -> u8 {
        self.programs.get(key).and_then(|number| u8::try_from(*number).ok()).unwrap_or(0)
    }

    fn network(&self, key: &NetKey) -> Option<&NetEntry> {
        (NetKey::PROFILE_BITS..=NetKey::BITS)
            .rev()
            .find_map(|bits| self.networks.get(&(bits, network::first_key(key, bits))))
    }

    fn named(&self, _key: &NamedKey) -> Option<&Named> {
        None // Sessions have addresses from asking for names; a policy has none.
    }

    fn abstract_name(&self, key: &AbstractKey) -> Option<&AbstractEntry> {
        (AbstractName::bits(0)..=key.bits)
            .rev()
            .step_by(8)
            .find_map(|bits| self.abstracts.get(&(bits, sockets::first_key(&key.name, bits))))
    }
}
