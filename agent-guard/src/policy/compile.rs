//! From bindings to tables.
//!
//! At one object and for one operation the binding with the greatest depth wins, then the strictest verdict,
//! then the lowest rule number.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
};

use agent_guard_common::{
    NetKey, ObjectKey, Op, Verdict,
    object::ProfileKey,
    rules::{MAX_PROFILES, NetEntry, ObjectEntry, Profile, ProfileEntry, Tables},
};

pub use super::rules::{RuleInfo, RuleKind};
use super::{
    diagnostic::Diagnostic,
    model::{FileRule, Mode, Policy},
    network,
    resolve::{Resolved, Shared, Subject},
    rules::{self, Numbers},
};

/// One generation: the tables that the kernel judges by, and what people need to read them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compiled {
    /// Name, index and entry of each profile, by name.
    pub profiles: Vec<(String, u32, Profile)>,
    /// What all profiles together say of objects.
    pub objects: BTreeMap<ObjectKey, ObjectEntry>,
    /// What single profiles say of objects.
    pub entries: BTreeMap<ProfileKey, ProfileEntry>,
    /// What profiles say of networks: number of bits, those of the profile included, and first key.
    pub networks: BTreeMap<(u32, NetKey), NetEntry>,
    /// The rules; a rule's number is its place, from 1.
    pub rules: Vec<RuleInfo>,
    /// SHA-256 of the sources, in hexadecimal.
    pub digest: String,
    /// What the author of the policy should know.
    pub warnings: Vec<Diagnostic>,
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
        self.rules.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }
}

impl Tables for Compiled {
    fn object(&self, key: &ObjectKey) -> Option<&ObjectEntry> {
        self.objects.get(key)
    }

    fn profile_object(&self, key: &ProfileKey) -> Option<&ProfileEntry> {
        self.entries.get(key)
    }

    fn profile(&self, index: u32) -> Option<&Profile> {
        self.profiles.iter().find(|&&(_, other, _)| other == index).map(|(.., profile)| profile)
    }

    fn network(&self, key: &NetKey) -> Option<&NetEntry> {
        (NetKey::PROFILE_BITS..=NetKey::BITS)
            .rev()
            .find_map(|bits| self.networks.get(&(bits, network::first_key(key, bits))))
    }
}

/// Makes the tables.
///
/// # Errors
///
/// Everything that doesn't fit into the tables.
pub fn compile(
    resolved: &Resolved<'_>,
    assigned: &BTreeMap<String, u32>,
) -> Result<Compiled, Vec<Diagnostic>> {
    let policy = resolved.policy;
    let indexes = indexes(policy, assigned)?;
    let networks = network::compile(policy, &indexes)?;
    let mut tables = Builder { policy, indexes: &indexes, best: BTreeMap::new(), scope: Vec::new() };
    for binding in &resolved.bindings {
        tables.bind(binding.key, binding.subject, binding.depth);
    }
    for shared in &resolved.shared {
        tables.share(shared);
    }
    let (objects, entries) = tables.finish();
    let profiles = policy.profiles.iter().zip(&indexes).map(|(profile, &index)| {
        let report = if profile.mode == Mode::Report { Profile::REPORT_ONLY } else { 0 };
        let entry = Profile {
            flags: Profile::PRESENT | report,
            connect: profile.connect.0,
            pad: [0; 3],
            outside: profile.outside.bytes(),
        };
        (profile.name.clone(), index, entry)
    });
    Ok(Compiled {
        profiles: profiles.collect(),
        objects,
        entries,
        networks,
        rules: rules::list(policy),
        digest: policy.digest.clone(),
        warnings: resolved.warnings.clone(),
    })
}

/// An index for each profile: the one it has had, else one that no profile has had.
fn indexes(policy: &Policy, assigned: &BTreeMap<String, u32>) -> Result<Vec<u32>, Vec<Diagnostic>> {
    let mut mistakes = Vec::new();
    let mut indexes = Vec::new();
    let mut free = (0..MAX_PROFILES).filter(|index| !assigned.values().any(|taken| taken == index));
    for profile in &policy.profiles {
        let index = match assigned.get(&profile.name) {
            Some(&index) if index < MAX_PROFILES && !indexes.contains(&index) => Some(index),
            Some(index) => {
                let message =
                    format!("profile `{}` can't have the index {index} that it has had", profile.name);
                mistakes.push(
                    Diagnostic::error(&profile.origin, message)
                        .help("the guard's state is damaged: end all sessions and start it anew"),
                );
                continue;
            }
            None => free.next(),
        };
        match index {
            Some(index) => indexes.push(index),
            None => mistakes.push(
                Diagnostic::error(
                    &profile.origin,
                    format!(
                        "no room for profile `{}`: there can be {MAX_PROFILES} since the guard started, \
                     and profiles that are gone count too",
                        profile.name
                    ),
                )
                .help("use fewer profiles, or end all sessions and start the guard anew"),
            ),
        }
    }
    if mistakes.is_empty() { Ok(indexes) } else { Err(mistakes) }
}

/// Which list of rules: none for critical ones, else the profile's place in the policy.
type Side = Option<usize>;

/// What is best at an object for an operation so far.
type Best = (u32, Verdict, Reverse<u32>);

struct Builder<'p> {
    policy: &'p Policy,
    indexes: &'p [u32],
    best: BTreeMap<(ObjectKey, Side, Op), Best>,
    scope: Vec<(ObjectKey, usize)>,
}

impl<'p> Builder<'p> {
    /// A rule, its list and its number. None for a scope.
    fn rule(&self, subject: Subject) -> Option<(Side, &'p FileRule, u32)> {
        match subject {
            Subject::Critical(at) => {
                let number = Numbers::critical().after(at).take();
                Some((None, self.policy.critical.get(at)?, number))
            }
            Subject::Rule(profile, at) => {
                let before: usize =
                    self.policy.profiles.iter().take(profile).map(|profile| profile.rules.len()).sum();
                let number = Numbers::files(self.policy).after(before).after(at).take();
                Some((Some(profile), self.policy.profiles.get(profile)?.rules.get(at)?, number))
            }
            Subject::Scope(_) => None,
        }
    }

    fn bind(&mut self, key: ObjectKey, subject: Subject, depth: u32) {
        if let Subject::Scope(profile) = subject {
            self.scope.push((key, profile));
        } else if let Some((side, rule, number)) = self.rule(subject) {
            for &op in &rule.ops {
                offer(&mut self.best, (key, side, op), (depth, rule.verdict, Reverse(number)));
            }
        }
    }

    /// What stands above another place of an object counts where it is stricter than what holds at the
    /// place that the object really has.
    fn share(&mut self, shared: &Shared) {
        let Some(&key) = shared.tree.first() else { return };
        let mut above = BTreeMap::new();
        for &(subject, depth) in &shared.above {
            let Some((side, rule, number)) = self.rule(subject) else { continue };
            for &op in &rule.ops {
                offer(&mut above, (key, side, op), (depth, rule.verdict, Reverse(number)));
            }
        }
        for ((key, side, op), best) in above {
            if best.1 > self.holds(&shared.tree, side, op) {
                self.best.insert((key, side, op), best);
            }
        }
    }

    /// What a list of rules says of an object so far.
    fn holds(&self, tree: &[ObjectKey], side: Side, op: Op) -> Verdict {
        if let Some(&(_, verdict, _)) = tree.iter().find_map(|&key| self.best.get(&(key, side, op))) {
            return verdict;
        }
        let Some(profile) = side else { return Verdict::NONE };
        if tree.iter().any(|&key| self.scope.contains(&(key, profile))) {
            return Verdict::ALLOW;
        }
        self.policy.profiles.get(profile).map_or(Verdict::DENY, |profile| profile.outside.get(op))
    }

    fn finish(self) -> (BTreeMap<ObjectKey, ObjectEntry>, BTreeMap<ProfileKey, ProfileEntry>) {
        let mut objects: BTreeMap<ObjectKey, ObjectEntry> = BTreeMap::new();
        let mut entries: BTreeMap<ProfileKey, ProfileEntry> = BTreeMap::new();
        let at = |key: ObjectKey, profile: usize| {
            let profile = self.indexes.get(profile).copied()?;
            Some(ProfileKey { ino: key.ino, dev: key.dev, profile })
        };
        for ((key, side, op), (_, verdict, Reverse(number))) in self.best {
            match side {
                None => objects.entry(key).or_default().critical.set(op, verdict, number),
                Some(profile) => {
                    let Some(at) = at(key, profile) else { continue };
                    entries.entry(at).or_default().rules.set(op, verdict, number);
                }
            }
        }
        for (key, profile) in self.scope {
            let Some(at) = at(key, profile) else { continue };
            entries.entry(at).or_default().scope = 1;
        }
        for key in entries.keys() {
            objects.entry(ObjectKey::new(key.dev, key.ino)).or_default().profiles |= 1 << key.profile;
        }
        (objects, entries)
    }
}

fn offer<K: Ord>(best: &mut BTreeMap<K, Best>, key: K, new: Best) {
    match best.entry(key) {
        Entry::Vacant(free) => {
            free.insert(new);
        }
        Entry::Occupied(mut old) => {
            if new > *old.get() {
                *old.get_mut() = new;
            }
        }
    }
}
