//! Sessions within sessions: started by a process of one, and certainly as strict as that one ([`crate::policy::narrower`]),
//! when they begin and under every policy that comes later.

use std::os::fd::AsFd as _;

use agent_guard_common::subject::{Session as Slot, Tag};

use super::{Guard, State, known::check_length, lock, paths::paths_of_rules, sessions::internal};
use crate::{
    api::{
        backend::Peer,
        error::{ApiError, Code, ErrorItem},
        types::{SessionStarted, SessionState, StartSession},
    },
    kernel::{self, maps::Maps},
    policy::{Compiled, Policy, Rules, SessionPaths, Wider, narrower},
    session::{Outer, OwnRules, Session},
};

/// Sessions within one that nobody else's is in, at most: there are only so many slots for all.
const MOST: usize = 32;
/// How deep they can be within each other.
const DEEPEST: usize = 8;

/// Which rules a session is to have: its number, and which of those that it is in, as [`Session::instead`].
pub(super) type Choice = (u64, Option<usize>);

impl Guard {
    /// Starts a session with the caller's own process, which belongs to another one.
    pub(super) fn start_nested(
        &self,
        peer: &Peer,
        request: StartSession,
    ) -> Result<SessionStarted, ApiError> {
        let pid = Self::check_caller(peer, &request)?;
        check_length("name", request.name.as_deref(), 128)?;
        check_length("task", request.task.as_deref(), 4096)?;
        let mut state = lock(&self.state);
        // Under the lock: two requests of one process are one within the other.
        let tag = lock(&self.maps).tag_of(peer.pidfd.as_fd()).map_err(internal)?.unwrap_or_default();
        let outer = state.room_in(&tag)?;
        let profile = request.profile.clone().unwrap_or_else(|| outer.rules().profile);
        let (generation, index, mode) = state.profile(&profile)?;
        let mut session = self.describe(&state, peer, pid, (profile, index, mode), request)?;
        // Whoever a process of a session has become: it is still the work of who started that one, at that terminal.
        session.started_by = outer.started_by.clone();
        session.tty = outer.tty;
        session.outer.clone_from(&outer.outer);
        session.outer.push(Outer { id: outer.id, number: outer.number, rules: outer.own_rules() });
        self.bind_within(&mut state, &mut session, &outer.rules())?;
        if let Err(error) = self.put_to_work(&session, peer) {
            self.unbind(&mut state, session.binding);
            return Err(error);
        }
        Ok(self.has_begun(&mut state, session, generation))
    }

    /// Binds a session's own paths, if it has certainly no more rights than these rules give.
    fn bind_within(
        &self,
        state: &mut State,
        session: &mut Session,
        outer: &OwnRules,
    ) -> Result<(), ApiError> {
        let needs = self.needs_paths(state, session);
        let Some(in_force) = &mut state.in_force else { return Ok(()) };
        if !needs {
            let inner = session.own_rules();
            return within(self, &in_force.policy, &in_force.compiled, outer, &inner)
                .map_err(|wider| refusal(&wider));
        }
        // The same rules about the same paths: what they have followed since, the new session's follow as well.
        if session.profile == outer.profile && Some(&self.own_paths(session)?) == outer.paths.as_ref() {
            (session.binding, session.paths) = (outer.binding, outer.paths.clone());
            return Ok(());
        }
        let (mut trial, mut changes) = self.bind_on_trial(in_force, session)?;
        let inner = session.own_rules();
        let (bound, mine) = (paths_of_rules(outer), paths_of_rules(&inner));
        trial.follow(rules(outer, bound.as_ref()), rules(&inner, mine.as_ref()), &mut changes);
        within(self, &in_force.policy, &trial, outer, &inner).map_err(|wider| refusal(&wider))?;
        in_force.compiled = trial;
        self.add_to_tables(in_force, session.binding, changes)
    }

    /// Which rules the sessions that are in others are to have under a policy that is about to be published. `sessions` are the
    /// paths that its tables know. Who gets others is told in the log.
    pub(super) fn choose(
        &self,
        state: &State,
        policy: &Policy,
        compiled: &Compiled,
        sessions: &[SessionPaths],
    ) -> Vec<Choice> {
        let paths = |rules: &OwnRules| sessions.iter().find(|paths| paths.binding == rules.binding);
        let fits = |outer: &OwnRules, inner: &OwnRules| {
            narrower(policy, compiled, &self.fs, rules(outer, paths(outer)), rules(inner, paths(inner)))
        };
        let nested = state.running().filter(|session| !session.outer.is_empty());
        nested.map(|session| (session.number, chosen(session, fits))).collect()
    }

    /// Writes which rules sessions have in the next generation. In the one in force nothing changes, so that the number which
    /// publishes tables publishes this as well.
    pub(super) fn write_choices(
        state: &State,
        maps: &mut Maps,
        choices: &[Choice],
        next: u32,
    ) -> Result<(), kernel::Error> {
        let slots = maps.sessions()?;
        for (number, instead) in choices {
            let Some(session) = state.sessions.get(number) else { continue };
            let Some((at, slot)) = slots.iter().find(|(_, slot)| slot.id == *number) else { continue };
            let chosen = Session { instead: *instead, ..session.clone() }.rules();
            maps.set_session(*at, &with_rules(*slot, next, &chosen))?;
        }
        Ok(())
    }

    /// Has all sessions have the rules in every generation that they have in the one in force. To be called when nobody looks
    /// at the tables before any more, or yet at those that come.
    pub(super) fn settle_rules(maps: &mut Maps) -> Result<(), kernel::Error> {
        let generation = maps.outer.generation()?;
        for (at, slot) in maps.sessions()? {
            let (profiles, bindings) = ([slot.profile(generation); 2], [slot.binding(generation); 2]);
            if (profiles, bindings) != (slot.profiles, slot.bindings) {
                maps.set_session(at, &Slot { profiles, bindings, ..slot })?;
            }
        }
        Ok(())
    }

    /// Takes up what is in force now.
    pub(super) fn take_choices(&self, state: &mut State, choices: &[Choice]) {
        for (number, instead) in choices {
            let Some(session) = state.sessions.get_mut(number) else { continue };
            if session.instead == *instead {
                continue;
            }
            session.instead = *instead;
            let rules = session.rules();
            if let Some(outer) = instead.and_then(|at| session.outer.get(at)) {
                tracing::warn!(
                    session = %session.id, of = %outer.id, profile = rules.profile,
                    "by this policy a session could do more than the one that it is in: it has the rules of that one now"
                );
            } else {
                tracing::info!(session = %session.id, profile = rules.profile, "a session has its own rules again");
            }
            if let Err(error) = self.store.write(session) {
                tracing::error!(%error, "the session's file");
            }
        }
    }
}

impl State {
    /// Whether sessions have these rules already.
    pub(super) fn has_chosen(&self, choices: &[Choice]) -> bool {
        choices.iter().all(|(number, instead)| {
            self.sessions.get(number).is_none_or(|session| session.instead == *instead)
        })
    }

    /// The session of a tag, if another one can be started in it.
    fn room_in(&self, tag: &Tag) -> Result<Session, ApiError> {
        let outer = self.sessions.get(&tag.session).filter(|outer| outer.state == SessionState::Running);
        let Some(outer) = outer else {
            return Err(ApiError::new(
                Code::Conflict,
                "the session that the caller is in has ended, or was killed",
            ));
        };
        if tag.hold != 0 {
            return Err(ApiError::new(Code::Conflict, "the caller waits for people's answer"));
        }
        if outer.outer.len() >= DEEPEST {
            let detail = format!("sessions can be {DEEPEST} deep within each other");
            return Err(ApiError::new(Code::Unavailable, detail));
        }
        let outermost = outer.outer.first().map_or(outer.number, |outermost| outermost.number);
        if self.running().filter(|session| session.is_in(outermost)).count() >= MOST {
            let detail = format!("{MOST} sessions run within one, more than that can't be");
            return Err(ApiError::new(Code::Unavailable, detail));
        }
        Ok(outer.clone())
    }
}

/// Which rules a session that is in others is to have: its own, if they fit into those of the innermost one which themselves
/// fit into what is around them; else these.
fn chosen(session: &Session, fits: impl Fn(&OwnRules, &OwnRules) -> Result<(), Vec<Wider>>) -> Option<usize> {
    let (first, rest) = session.outer.split_first()?;
    let (mut at, mut bound) = (0, &first.rules);
    for (next, outer) in (1..).zip(rest) {
        if fits(bound, &outer.rules).is_ok() {
            (at, bound) = (next, &outer.rules);
        }
    }
    let own = fits(bound, &session.own_rules());
    for wider in own.as_ref().err().into_iter().flatten() {
        tracing::warn!(session = %session.id, %wider, "a session within a session might do more than that one");
    }
    own.is_err().then_some(at)
}

/// A slot with other rules in generations like this one.
fn with_rules(slot: Slot, generation: u32, rules: &OwnRules) -> Slot {
    let (mut profiles, mut bindings) = (slot.profiles, slot.bindings);
    let at = usize::try_from(generation & 1).unwrap_or_default();
    if let (Some(profile), Some(binding)) = (profiles.get_mut(at), bindings.get_mut(at)) {
        (*profile, *binding) = (rules.index, rules.binding);
    }
    Slot { profiles, bindings, ..slot }
}

fn rules<'a>(of: &'a OwnRules, paths: Option<&'a SessionPaths>) -> Rules<'a> {
    Rules { profile: &of.profile, binding: of.binding, paths }
}

fn within(
    guard: &Guard,
    policy: &Policy,
    compiled: &Compiled,
    outer: &OwnRules,
    inner: &OwnRules,
) -> Result<(), Vec<Wider>> {
    let (bound, mine) = (paths_of_rules(outer), paths_of_rules(inner));
    narrower(policy, compiled, &guard.fs, rules(outer, bound.as_ref()), rules(inner, mine.as_ref()))
}

/// Places that are told, at most.
const TOLD: usize = 16;

fn refusal(wider: &[Wider]) -> ApiError {
    let detail = "a session within a session may do no more than that one, and this one might";
    let place = |wider: &Wider| {
        let origin = wider.origin.as_ref().filter(|origin| origin.line > 0);
        ErrorItem {
            message: wider.message.clone(),
            file: origin.map(|origin| origin.file.clone()),
            line: origin.map(|origin| origin.line),
            column: origin.map(|origin| origin.column),
            help: None,
        }
    };
    let mut errors: Vec<_> = wider.iter().take(TOLD).map(place).collect();
    if let Some(more) = wider.len().checked_sub(TOLD).filter(|more| *more > 0) {
        errors.push(ErrorItem { message: format!("and {more} more"), ..ErrorItem::default() });
    }
    ApiError::new(Code::NotPermitted, detail).with_errors(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_named(profile: &str, index: u32) -> OwnRules {
        OwnRules { profile: profile.to_owned(), index, binding: index + 10, paths: None }
    }

    /// A session with its own rules `own` in sessions with these.
    fn within_all(outer: &[&str]) -> Session {
        let slot = Slot { profiles: [7; 2], bindings: [17; 2], state: Slot::LIVE, ..Slot::default() };
        let mut session = super::super::known::nameless(9, 1, &slot, 0);
        session.profile = "own".to_owned();
        session.outer = (1..)
            .zip(outer)
            .map(|(index, name)| Outer {
                id: ulid::Ulid::from(u128::from(index)),
                number: index.into(),
                rules: rules_named(name, index),
            })
            .collect();
        session
    }

    /// What is chosen where these don't fit into those.
    fn choice(outer: &[&str], wider: &[(&str, &str)]) -> Option<usize> {
        chosen(&within_all(outer), |outer, inner| {
            let found = wider.contains(&(outer.profile.as_str(), inner.profile.as_str()));
            if found { Err(vec![Wider { message: String::new(), origin: None }]) } else { Ok(()) }
        })
    }

    #[test]
    fn the_innermost_that_fits() {
        assert_eq!(choice(&["a"], &[]), None);
        assert_eq!(choice(&["a"], &[("a", "own")]), Some(0));
        assert_eq!(choice(&["a", "b"], &[("b", "own")]), Some(1));
        // What doesn't fit itself bounds nobody, and what is around it does.
        assert_eq!(choice(&["a", "b"], &[("a", "b"), ("b", "own")]), None);
        assert_eq!(choice(&["a", "b"], &[("a", "b"), ("a", "own")]), Some(0));
        assert_eq!(choice(&["a", "b", "c"], &[("a", "b"), ("c", "own")]), Some(2));
        assert_eq!(choice(&[], &[]), None);
    }

    #[test]
    fn only_the_next_generation_changes() {
        let session = Session { instead: Some(0), ..within_all(&["a"]) };
        let slot = Slot { profiles: [7; 2], bindings: [17; 2], state: Slot::KILLED, ..Slot::default() };
        let changed = with_rules(slot, 5, &session.rules());
        assert_eq!((changed.profiles, changed.bindings), ([7, 1], [17, 11]));
        assert_eq!(changed.state, Slot::KILLED);
        let slot = super::super::sessions::slot_of(&session, Slot::LIVE);
        assert_eq!((slot.profiles, slot.bindings), ([1; 2], [11; 2]));
    }

    #[test]
    fn a_refusal_names_places() {
        let origin = crate::policy::Origin { file: "a.toml".to_owned(), line: 3, column: 1 };
        let one = Wider { message: "one".to_owned(), origin: Some(origin) };
        let built_in = crate::policy::Origin { file: "built in".to_owned(), line: 0, column: 0 };
        let error = refusal(&[one, Wider { message: "two".to_owned(), origin: Some(built_in) }]);
        let places: Vec<_> = error.errors.iter().map(|item| (item.file.as_deref(), item.line)).collect();
        assert_eq!((error.code, places), (Code::NotPermitted, vec![(Some("a.toml"), Some(3)), (None, None)]));
        let many = vec![Wider { message: "x".to_owned(), origin: None }; TOLD + 3];
        assert_eq!(refusal(&many).errors.last().unwrap().message, "and 3 more");
    }
}
