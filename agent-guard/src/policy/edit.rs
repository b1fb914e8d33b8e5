//! Changes of tables that exist: for one more session, and for what can be seen in several places.
//!
//! Whoever looks at the tables in between must never see something milder. So a key gets another place, with all that
//! its place said and more; a place that others share is never changed.

use std::collections::{BTreeMap, BTreeSet};

use agent_guard_common::{
    Op, Verdict,
    decide::Walk,
    enroll,
    object::SideKey,
    rules::{OpRules, Place, Side, Slot, Tables},
};

use super::{
    compile::Said,
    model::Policy,
    resolve::{Binding, Key, Owner, Shared},
    session::{Changes, NO_SESSION},
    tables::Compiled,
    walk,
};

/// Tables that are being changed, and what has been.
pub(super) struct Edit<'c> {
    compiled: &'c mut Compiled,
    changes: Changes,
    places: BTreeSet<u32>,
    sides: BTreeSet<SideKey>,
}

impl Compiled {
    /// Gives a key a place, so that the kernel finds it; says what has to be written for that.
    pub(super) fn point(&mut self, key: Key, place: u32) -> Changes {
        let mut changes = Changes::default();
        match key {
            Key::Object(key) => {
                self.objects.insert(key, place);
                changes.objects.push((key, place));
                changes.filter.push(self.set_bit(agent_guard_common::names::object_bit(key.dev, key.ino)));
            }
            Key::Chain(name, last, bit, shape) => {
                let shapes = self.shapes.entry(last).or_default();
                let added = shapes.add(shape);
                debug_assert!(added, "`compile::room_for_shapes` says that there is room");
                changes.shapes.push((last, *shapes));
                self.names.insert(name, place);
                changes.names.push((name, place));
                changes.filter.push(self.set_bit(bit));
            }
            Key::Ending(name, bit, length) => {
                self.head.suffixes |= 1 << (length.saturating_sub(1) & 31);
                self.names.insert(name, place);
                changes.names.push((name, place));
                changes.filter.push(self.set_bit(bit));
            }
        }
        changes
    }

    fn place_at(&self, key: Key) -> Option<u32> {
        match key {
            Key::Object(key) => self.objects.get(&key).copied(),
            Key::Chain(name, ..) | Key::Ending(name, ..) => self.names.get(&name).copied(),
        }
    }
}

impl<'c> Edit<'c> {
    pub(super) fn new(compiled: &'c mut Compiled) -> Self {
        Self { compiled, changes: Changes::default(), places: BTreeSet::new(), sides: BTreeSet::new() }
    }

    /// What has to be written.
    pub(super) fn finish(self) -> Changes {
        let Self { compiled, mut changes, places, sides } = self;
        let place = |number| Some((number, *compiled.places.get(&number)?));
        let side = |key| Some((key, *compiled.sides.get(&key)?));
        changes.places = places.into_iter().filter_map(place).collect();
        changes.sides = sides.into_iter().filter_map(side).collect();
        // The last is what is so then.
        changes.filter = changes.filter.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect();
        changes.shapes = changes.shapes.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect();
        changes
    }

    /// A place of its own that says what another one says.
    fn copy(&mut self, of: Option<u32>) -> u32 {
        let compiled = &mut *self.compiled;
        let number = compiled.places.last_key_value().map_or(1, |(last, _)| last.saturating_add(1));
        let place = of.and_then(|of| compiled.places.get(&of)).copied().unwrap_or_default();
        if let Some(of) = of {
            let sides = SideKey { place: of, side: 0 }..=SideKey { place: of, side: u32::MAX };
            let sides: Vec<_> = compiled.sides.range(sides).map(|(key, side)| (key.side, *side)).collect();
            for (side, said) in sides {
                let key = SideKey { place: number, side };
                compiled.sides.insert(key, said);
                self.sides.insert(key);
            }
        }
        compiled.places.insert(number, place);
        compiled.own.insert(number);
        self.places.insert(number);
        number
    }

    /// The place of a key, which no other key has.
    fn own_place(&mut self, key: Key) -> u32 {
        let old = self.compiled.place_at(key);
        if let Some(old) = old.filter(|old| self.compiled.own.contains(old)) {
            return old;
        }
        let number = self.copy(old);
        let Changes { filter, shapes, objects, names, .. } = self.compiled.point(key, number);
        self.changes.filter.extend(filter);
        self.changes.shapes.extend(shapes);
        self.changes.objects.extend(objects);
        self.changes.names.extend(names);
        number
    }

    /// The place of everything directly in a place, which no other place has.
    fn own_below(&mut self, place: u32) -> u32 {
        let old = self.compiled.places.get(&place).map_or(0, |place| place.below);
        if self.compiled.own.contains(&old) {
            return old;
        }
        let number = self.copy(Some(old).filter(|&old| old != 0));
        self.change(place, |place| place.below = number);
        number
    }

    fn change(&mut self, number: u32, change: impl FnOnce(&mut Place)) {
        if let Some(place) = self.compiled.places.get_mut(&number) {
            let before = *place;
            change(place);
            if *place != before {
                self.places.insert(number);
            }
        }
    }

    fn side(&mut self, place: u32, side: u32, change: impl FnOnce(&mut Side)) {
        let key = SideKey { place, side };
        change(self.compiled.sides.entry(key).or_default());
        self.sides.insert(key);
        self.change(place, |place| match 1_u64.checked_shl(side) {
            Some(bit) => place.profiles |= bit,
            None => place.flags |= Place::SESSIONS,
        });
    }

    /// Says what a session's bindings say; all of one key, those of the thing itself first.
    pub(super) fn say(&mut self, binding: u32, group: &[Binding<'_>]) {
        for part in group.chunk_by(|one, other| one.below == other.below) {
            let Some(Binding { key, below, .. }) = part.first() else { continue };
            let mut said = Said::default();
            part.iter().for_each(|binding| said.add(binding));
            let mut place = self.own_place(*key);
            if *below {
                place = self.own_below(place);
            }
            self.side(place, SideKey::session(binding), |side| *side = said.side());
        }
    }

    /// What stands above another place of an object counts where it is stricter than what holds at the place that
    /// the object really has.
    /// `session` is the index of its profile and its binding.
    pub(super) fn share(&mut self, policy: &Policy, shared: &Shared<'_>, session: Option<(u32, u32)>) {
        let mut above: BTreeMap<(Owner, Op), (u32, Slot)> = BTreeMap::new();
        for &(subject, depth) in &shared.above {
            let Some((number, rule)) = subject.rule else { continue };
            for &op in &rule.ops {
                let best = above.entry((subject.owner, op)).or_insert((0, Slot::NONE));
                let new = Slot::new(rule.verdict, number);
                if depth > best.0 || !best.1.is_some() {
                    *best = (depth, new);
                } else if depth == best.0 {
                    best.1 = best.1.stricter(new);
                }
            }
        }
        for ((owner, op), (_, slot)) in above {
            let (profile, side) = match (owner, session) {
                (Owner::Critical, _) => (None, None),
                (Owner::Profile(at), _) => {
                    let name = policy.profiles.get(at).map(|profile| profile.name.as_str());
                    let Some(index) = name.and_then(|name| self.compiled.profile_index(name)) else {
                        continue;
                    };
                    (Some(index), Some(index))
                }
                (Owner::Enrollment, _) => (Some(enroll::PROFILE), Some(enroll::PROFILE)),
                (Owner::Session, Some((index, binding))) => (Some(index), Some(SideKey::session(binding))),
                (Owner::Session, None) => continue,
            };
            if slot.verdict() > self.holds(shared, op, profile, session) {
                self.make_stricter(Key::Object(shared.key), side, op, slot);
            }
        }
    }

    /// What the object's own place says: for a profile, or for what is critical.
    fn holds(
        &self,
        shared: &Shared<'_>,
        op: Op,
        profile: Option<u32>,
        session: Option<(u32, u32)>,
    ) -> Verdict {
        let binding = session.map_or(NO_SESSION, |(_, binding)| binding);
        let mut walk = Walk::new(profile.unwrap_or_default(), binding, op);
        walk::walk(&self.compiled.view(), &mut walk, &shared.tree);
        let (critical, rule, scope) = walk.own();
        let Some(profile) = profile else { return critical.verdict() };
        if rule.is_some() {
            rule.verdict()
        } else if scope {
            Verdict::ALLOW
        } else {
            let outside =
                self.compiled.profile(profile).and_then(|entry| entry.outside.get(usize::from(op.0)));
            outside.copied().map_or(Verdict::DENY, Verdict)
        }
    }

    fn make_stricter(&mut self, key: Key, side: Option<u32>, op: Op, slot: Slot) {
        let set = |rules: &mut OpRules| rules.set(op, slot.verdict(), slot.rule());
        let place = self.own_place(key);
        match side {
            None => self.change(place, |place| set(&mut place.critical)),
            Some(side) => self.side(place, side, |side| set(&mut side.rules)),
        }
    }
}
