//! From bindings to tables.
//!
//! At one key and for one operation the binding with the greatest depth wins, then the strictest verdict, then the
//! lowest rule number.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use agent_guard_common::{
    Op, Verdict, enroll,
    names::Shapes,
    object::SideKey,
    rules::{OpRules, Place, Profile, Side},
};

use super::{
    commands::Commands,
    diagnostic::Diagnostic,
    edit::Edit,
    exec, hosts,
    model::{self, Denied, Mode, Policy},
    network, persistence,
    resolve::{Binding, Key, Owner, Resolved},
    rules, sockets, system,
    tables::Compiled,
};

/// Makes the tables.
///
/// # Errors
///
/// Everything that doesn't fit into the tables.
pub(super) fn compile(
    resolved: Resolved<'_>,
    commands: Commands,
    assigned: &BTreeMap<String, u32>,
    key: [u64; 2],
) -> Result<Compiled, Vec<Diagnostic>> {
    let Resolved { policy, mut bindings, shared, scopes, mut warnings } = resolved;
    warnings.extend(system::warnings(policy).chain(persistence::warnings(policy)));
    warnings.extend(exec::warnings(policy).chain(hosts::warnings(policy)));
    let indexes = indexes(policy, assigned)?;
    let networks = network::compile(policy, &indexes)?;
    let hosts = hosts::compile(policy, &indexes)?;
    let abstracts = sockets::compile(policy, &indexes);
    let Commands { states, first, enrollment, programs } = commands;
    let profiles = policy.profiles.iter().zip(&indexes).zip(first);
    let profiles = profiles
        .map(|((profile, &index), first)| (profile.name.clone(), index, entry(policy, profile, first)));
    let mut compiled = Compiled {
        profiles: profiles.collect(),
        enrollment: super::enroll::entry(policy, enrollment),
        networks,
        hosts,
        abstracts,
        commands: states,
        programs,
        rules: rules::list(policy),
        digest: policy.digest.clone(),
        warnings,
        key,
        scopes,
        ..Compiled::default()
    };
    room_for_shapes(&compiled, &bindings)?;
    let mut places = Places { indexes: &indexes, numbers: HashMap::new() };
    bindings.sort_unstable_by_key(|binding| (binding.key, binding.below));
    for group in bindings.chunk_by(|one, other| one.key == other.key) {
        let Some(Binding { key, .. }) = group.first() else { continue };
        let number = places.place(&mut compiled, group);
        compiled.point(*key, number);
    }
    let mut edit = Edit::new(&mut compiled);
    for shared in &shared {
        edit.share(policy, shared, None);
    }
    Ok(compiled)
}

/// What a profile says of everything that no rule names.
fn entry(policy: &Policy, profile: &model::Profile, commands: u32) -> Profile {
    let flags: [(bool, u32); 4] = [
        (true, Profile::PRESENT),
        (profile.mode == Mode::Report, Profile::REPORT_ONLY),
        (profile.connect != Verdict::ALLOW || !profile.names.is_empty(), Profile::NAMES),
        (profile.denied == Denied::Refused, Profile::REFUSED),
    ];
    let flags = flags.into_iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag);
    let elsewhere = Op::FILE.into_iter().map(|op| (op, profile.outside.get(op)));
    let rules = policy.critical.iter().chain(&policy.own);
    let rules = rules.chain(&profile.rules).chain(&profile.persistence.rules);
    let rules = rules.flat_map(|rule| rule.ops.iter().map(|&op| (op, rule.verdict)));
    let judged = elsewhere.chain(rules).filter(|(_, verdict)| *verdict != Verdict::ALLOW);
    // Always: sockets must be known for the session's own from the beginning, whatever the policy is later.
    let always = Op::CONNECT.mask()
        | Op::LISTEN.mask()
        | Op::UNIX.mask()
        | profile.system.judged()
        | profile.exec.judged();
    let always = if flags & Profile::NAMES == 0 { always } else { always | Op::NAMES.mask() };
    let mut outside = profile.outside;
    outside.set(Op::CONNECT, profile.connect);
    Profile {
        flags,
        connect: profile.connect.0,
        anonymous: profile.exec.anonymous.0,
        listen: Verdict::DENY.0,
        pad: 0,
        judged: judged.fold(always, |judged, (op, _)| judged | op.mask()),
        capabilities: profile.system.capabilities,
        outside: outside.bytes(),
        system: profile.system.bytes(),
        commands,
        pad2: 0,
    }
}

/// An index for each profile: the one it has had, else one that no profile has had.
fn indexes(policy: &Policy, assigned: &BTreeMap<String, u32>) -> Result<Vec<u32>, Vec<Diagnostic>> {
    let mut mistakes = Vec::new();
    let mut indexes = Vec::new();
    // The last one is of those who are enrolled.
    let mut free = (0..enroll::PROFILE).filter(|index| !assigned.values().any(|taken| taken == index));
    for profile in &policy.profiles {
        let index = match assigned.get(&profile.name) {
            Some(&index) if index < enroll::PROFILE && !indexes.contains(&index) => Some(index),
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
                        "no room for profile `{}`: there can be {} since the guard started, \
                     and profiles that are gone count too",
                        profile.name,
                        enroll::PROFILE
                    ),
                )
                .help("use fewer profiles, or end all sessions and start the guard anew"),
            ),
        }
    }
    if mistakes.is_empty() { Ok(indexes) } else { Err(mistakes) }
}

/// Refuses chains that end in a name with more shapes than there is room for.
pub(super) fn room_for_shapes(compiled: &Compiled, bindings: &[Binding<'_>]) -> Result<(), Vec<Diagnostic>> {
    let mut all: HashMap<u64, Shapes> = HashMap::new();
    let mut full = BTreeMap::new();
    for Binding { key, subject, .. } in bindings {
        let Key::Chain(_, last, _, shape) = key else { continue };
        let shapes =
            all.entry(*last).or_insert_with(|| compiled.shapes.get(last).copied().unwrap_or_default());
        if !shapes.add(*shape) {
            full.entry(subject.origin).or_insert(subject.path);
        }
    }
    let mistakes: Vec<_> = full
        .into_iter()
        .map(|(origin, path)| {
            let message =
                format!("no room for `{path}`: too many rules of other depths end in the same name");
            Diagnostic::error(origin, message).help("name a directory above, or use `**/NAME`")
        })
        .collect();
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

/// What is best for an operation so far.
type Best = (u32, Verdict, Reverse<u32>);

/// What somebody says at a key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    best: [Option<Best>; Op::COUNT],
    scope: bool,
}

impl Said {
    /// Takes one more binding in.
    pub(super) fn add(&mut self, binding: &Binding<'_>) {
        let Some((number, rule)) = binding.subject.rule else {
            self.scope = true;
            return;
        };
        let new = Some((binding.depth, rule.verdict, Reverse(number)));
        for op in &rule.ops {
            if let Some(best) = self.best.get_mut(usize::from(op.0)) {
                *best = new.max(*best);
            }
        }
    }

    fn rules(&self) -> OpRules {
        let mut rules = OpRules::default();
        for (op, best) in (0..).zip(self.best) {
            if let Some((_, verdict, Reverse(number))) = best {
                rules.set(Op(op), verdict, number);
            }
        }
        rules
    }

    /// As the tables have it.
    pub(super) fn side(&self) -> Side {
        Side { rules: self.rules(), scope: u32::from(self.scope), pad: 0 }
    }
}

/// Places by what they say: those that say the same are one.
struct Places<'a> {
    indexes: &'a [u32],
    numbers: HashMap<Vec<u64>, u32>,
}

impl Places<'_> {
    /// The place of a key with these bindings, those of the thing itself first.
    fn place(&mut self, compiled: &mut Compiled, bindings: &[Binding<'_>]) -> u32 {
        let itself = bindings.partition_point(|binding| !binding.below);
        let (itself, below) = bindings.split_at_checked(itself).unwrap_or((bindings, &[]));
        let below = if below.is_empty() { 0 } else { self.intern(compiled, below, 0) };
        self.intern(compiled, itself, below)
    }

    fn intern(&mut self, compiled: &mut Compiled, bindings: &[Binding<'_>], below: u32) -> u32 {
        let mut said: BTreeMap<Owner, Said> = BTreeMap::new();
        for binding in bindings {
            said.entry(binding.subject.owner).or_default().add(binding);
        }
        let mut place = Place { below, ..Place::default() };
        let mut sides = Vec::new();
        for (owner, said) in said {
            match owner {
                Owner::Critical => place.critical = said.rules(),
                Owner::Profile(at) => {
                    let Some(&index) = self.indexes.get(at) else { continue };
                    place.profiles |= 1 << index;
                    sides.push((index, said.side()));
                }
                Owner::Enrollment => {
                    place.profiles |= 1 << enroll::PROFILE;
                    sides.push((enroll::PROFILE, said.side()));
                }
                Owner::Session => {}
            }
        }
        let next = u32::try_from(self.numbers.len() + 1).unwrap_or(u32::MAX);
        *self.numbers.entry(words(&place, &sides)).or_insert_with(|| {
            compiled.places.insert(next, place);
            let sides = sides.into_iter().map(|(side, said)| (SideKey { place: next, side }, said));
            compiled.sides.extend(sides);
            next
        })
    }
}

/// Everything that a place says, as numbers.
fn words(place: &Place, sides: &[(u32, Side)]) -> Vec<u64> {
    let rules = |rules: &OpRules| {
        let slots = (0..).take(Op::COUNT).map(|op| rules.slot(Op(op)));
        slots.map(|slot| u64::from(slot.verdict().0) << 32 | u64::from(slot.rule())).collect::<Vec<_>>()
    };
    let mut words = rules(&place.critical);
    words.push(u64::from(place.below));
    for (side, said) in sides {
        words.push(u64::from(*side) << 32 | u64::from(said.scope));
        words.extend(rules(&said.rules));
    }
    words
}
