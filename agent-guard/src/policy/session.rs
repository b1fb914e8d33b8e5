//! The paths of single sessions: `${cwd}`, `${home}` and `${tmp}`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    compile,
    diagnostic::Diagnostic,
    edit::Edit,
    fs::Filesystem,
    model::{Base, PathPattern, Policy, Profile},
    narrower::Rules,
    resolve::{self, Resolved},
    tables::Compiled,
};
use agent_guard_common::{
    NameKey, ObjectKey, Op, Verdict,
    names::Shapes,
    object::SideKey,
    rules::{Place, Side, Slot},
};

/// What variables stand for in one session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionPaths {
    /// Its profile.
    pub profile: String,
    /// What its paths are kept under, see [`SideKey::session`]. Never [`NO_SESSION`], never used twice since boot.
    pub binding: u32,
    /// `${cwd}`: where it was started.
    pub cwd: PathBuf,
    /// `${home}`; none for a user without one.
    pub home: Option<PathBuf>,
    /// `${tmp}`.
    pub tmp: PathBuf,
}

/// The binding of a session without paths of its own.
pub const NO_SESSION: u32 = 0;

/// The binding of a session that doesn't exist, to explain what one would see.
pub const SUPPOSED_SESSION: u32 = u32::MAX - agent_guard_common::rules::MAX_PROFILES;

/// What has to be written into tables that are in force, in the order of the members: whoever looks at them meanwhile
/// sees what was so before, or what is so then, and for other sessions both are the same.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// New sides.
    pub sides: Vec<(SideKey, Side)>,
    /// New places; of one that was there only [`Place::below`] changes, to a place that says more.
    pub places: Vec<(u32, Place)>,
    /// Words of the filter, with the bits that they had.
    pub filter: Vec<(u32, u64)>,
    /// Shapes, with those that there were.
    pub shapes: Vec<(u64, Shapes)>,
    /// Objects that have another place now, or have one now.
    pub objects: Vec<(ObjectKey, u32)>,
    /// Names that have another place now, or have one now.
    pub names: Vec<(NameKey, u32)>,
}

impl Compiled {
    /// Adds what the policy says of a session's own paths; returns what has to be written for that.
    ///
    /// # Errors
    ///
    /// What of the policy can't be said of these paths. Nothing has changed then.
    pub fn bind_session(
        &mut self,
        policy: &Policy,
        fs: &dyn Filesystem,
        session: &SessionPaths,
    ) -> Result<Changes, Vec<Diagnostic>> {
        let Some(profile) = self.profile_index(&session.profile) else { return Ok(Changes::default()) };
        let Resolved { mut bindings, shared, .. } = resolve::session(policy, fs, self.key, session)?;
        compile::room_for_shapes(self, &bindings)?;
        bindings.sort_unstable_by_key(|binding| (binding.key, binding.below));
        let mut edit = Edit::new(self);
        for group in bindings.chunk_by(|one, other| one.key == other.key) {
            edit.say(session.binding, group);
        }
        for shared in &shared {
            edit.share(policy, shared, Some((profile, session.binding)));
        }
        Ok(edit.finish())
    }

    /// Has a session's own rules follow what those of the session that it is in have followed: what the same path led to when
    /// that one began may be elsewhere now, and it is still bound there. To be called for one that was bound just now; adds what
    /// has to be written.
    pub fn follow(&mut self, outer: Rules<'_>, inner: Rules<'_>, changes: &mut Changes) {
        let (Some(old), Some(new)) = (outer.paths, inner.paths) else { return };
        let rules = self.own_rules(inner.profile);
        let (from, to) = (SideKey::session(outer.binding), SideKey::session(inner.binding));
        let there: Vec<_> =
            self.sides.iter().filter(|(key, _)| key.side == from).map(|(key, side)| (*key, *side)).collect();
        for (key, said) in there {
            let key = SideKey { side: to, ..key };
            let mut side = self.sides.get(&key).copied().unwrap_or_default();
            let before = side;
            for op in Op::FILE.into_iter().chain([Op::CONNECT]) {
                let Some(rule) = self.rule(said.rules.slot(op).rule()) else { continue };
                let Some(slot) =
                    rules.get(&(rule.target.clone(), op)).filter(|_| same_base(&rule.target, old, new))
                else {
                    continue;
                };
                let slot = side.rules.slot(op).stricter(*slot);
                side.rules.set(op, slot.verdict(), slot.rule());
            }
            if side != before {
                self.sides.insert(key, side);
                changes.sides.retain(|(other, _)| *other != key);
                changes.sides.push((key, side));
            }
        }
    }

    /// What a profile's rules about its sessions' own paths say, by path and operation; of several the strictest.
    fn own_rules(&self, profile: &str) -> BTreeMap<(String, Op), Slot> {
        let mut all: BTreeMap<(String, Op), Slot> = BTreeMap::new();
        let mine = self.rules.iter().filter(|rule| rule.profile.as_deref() == Some(profile));
        for rule in mine.filter(|rule| rule.target.starts_with("${")) {
            let Some(verdict) = Verdict::from_name(&rule.verdict) else { continue };
            for op in rule.operations() {
                let slot = all.entry((rule.target.clone(), op)).or_default();
                *slot = slot.stricter(Slot::new(verdict, rule.number));
            }
        }
        all
    }

    /// Forgets a session; returns the sides that can be taken away.
    pub fn release_session(&mut self, binding: u32) -> Vec<SideKey> {
        let session = SideKey::session(binding);
        let gone: Vec<_> = self.sides.keys().copied().filter(|key| key.side == session).collect();
        for key in &gone {
            self.sides.remove(key);
        }
        gone
    }
}

/// Whether the variable that a path begins with stands for the same in both.
fn same_base(path: &str, one: &SessionPaths, other: &SessionPaths) -> bool {
    [
        (Base::Cwd, one.cwd == other.cwd),
        (Base::Home, one.home == other.home),
        (Base::Tmp, one.tmp == other.tmp),
    ]
    .into_iter()
    .any(|(base, same)| same && path.starts_with(base.text()))
}

/// Whether a profile says anything of a session's own paths, so that a session must be bound before it starts.
#[must_use]
pub fn needs_session_paths(profile: &Profile) -> bool {
    let scope = profile.scope.iter().map(|entry| &entry.path);
    let rules = profile.rules.iter().chain(&profile.sockets).map(|rule| &rule.path);
    scope.chain(rules).any(PathPattern::is_variable)
}

/// Whether a session must be bound because `persistence` is about its home directory, and no path without a variable is.
#[must_use]
pub fn persists_at_home(policy: &Policy, profile: &Profile, home: &Path) -> bool {
    !profile.persistence.rules.is_empty() && !policy.knows_home(home)
}
