//! The paths of sessions: what `${cwd}`, `${home}` and `${tmp}` stand for, and that it stays so.

use std::{collections::BTreeMap, io, path::PathBuf};

use agent_guard_common::ObjectKey;
use ulid::Ulid;

use super::{Error, Guard, InForce, State, lock, sessions::internal};
use crate::{
    api::{
        convert,
        error::{ApiError, Code},
    },
    kernel::tables,
    policy::{Changes, Compiled, Diagnostic, Filesystem as _, SessionPaths, session},
    session::{OwnPaths, OwnRules, Session, proc},
    sys,
};

fn no_room(why: &str) -> ApiError {
    let detail = format!(
        "the policy's tables have no room for paths of one more session ({why}); make some: agent-guard policy reload"
    );
    ApiError::new(Code::Unavailable, detail)
}

fn has_room(in_force: &InForce) -> Result<(), ApiError> {
    in_force.full.as_ref().map_or(Ok(()), |full| Err(no_room(full)))
}

fn inapplicable(diagnostics: &[Diagnostic]) -> ApiError {
    let first = diagnostics.first().map(ToString::to_string).unwrap_or_default();
    ApiError::new(Code::BadRequest, format!("the policy can't be applied to this session: {first}"))
        .with_errors(convert::errors(diagnostics))
}

/// `${tmp}`.
const TMP: &str = "/tmp";

fn key_of((dev, ino, igen): (u32, u64, u32)) -> ObjectKey {
    ObjectKey::new(dev, ino, igen)
}

/// The paths of rules that a session can have, for the tables.
fn paths_of(profile: &str, binding: u32, own: &OwnPaths) -> SessionPaths {
    let OwnPaths { cwd, home, tmp, .. } = own.clone();
    SessionPaths { profile: profile.to_owned(), binding, cwd, home, tmp }
}

/// The same, if they have any.
pub(super) fn paths_of_rules(rules: &OwnRules) -> Option<SessionPaths> {
    rules.paths.as_ref().map(|own| paths_of(&rules.profile, rules.binding, own))
}

impl State {
    /// Whether a profile says anything of its sessions' own paths.
    pub(super) fn has_own_paths(&self, profile: &str) -> bool {
        let policy = self.in_force.as_ref().map(|in_force| &in_force.policy);
        policy.and_then(|policy| policy.profile(profile)).is_some_and(session::needs_session_paths)
    }

    /// Whether a session that hasn't ended has a binding, or was started in one that has it.
    fn uses(&self, binding: u32) -> bool {
        self.running().any(|session| {
            session.binding == binding || session.outer.iter().any(|outer| outer.rules.binding == binding)
        })
    }
}

impl Guard {
    /// The paths of all sessions that run and of those that they were started in, as far as there still is what was there when they began. A session can put
    /// something else in such a place, a symbolic link for one: it must not get that.
    pub(super) fn session_paths(&self, state: &State) -> Vec<SessionPaths> {
        let all = state.running().flat_map(|session| {
            let outer = session.outer.iter().map(|outer| (outer.id, outer.rules.clone()));
            outer.chain([(session.id, session.own_rules())])
        });
        // Several can have the same.
        let all: BTreeMap<u32, (Ulid, OwnRules)> = all
            .filter(|(_, rules)| rules.paths.is_some())
            .map(|(id, rules)| (rules.binding, (id, rules)))
            .collect();
        // The same sessions make the same tables: in the order of their bindings.
        all.values()
            .filter(|(id, rules)| {
                let same = rules.paths.as_ref().is_some_and(|own| self.unchanged(own));
                if !same {
                    tracing::warn!(
                        session = %id,
                        "a directory that ${{cwd}}, ${{home}} or ${{tmp}} stands for isn't there any more: what the policy says \
                     of them doesn't apply to the session"
                    );
                }
                same
            })
            .filter_map(|(_, rules)| paths_of_rules(rules))
            .collect()
    }

    fn unchanged(&self, own: &OwnPaths) -> bool {
        let paths = own.all();
        let wanted: Vec<(PathBuf, bool)> = paths.iter().map(|path| (path.clone(), false)).collect();
        let found = self.fs.lookup_all(&wanted);
        found.len() == own.objects.len()
            && found.into_iter().zip(&paths).zip(&own.objects).all(|((found, path), object)| {
                found.is_ok_and(|found| found.path == *path && found.key == key_of(*object))
            })
    }

    /// Whether what makes something run later says anything of the home directory of whoever started the session.
    fn persists_at_home(&self, state: &State, session: &Session) -> bool {
        let Some(policy) = state.in_force.as_ref().map(|in_force| &in_force.policy) else { return false };
        let Some(profile) = policy.profile(&session.profile) else { return false };
        let home = sys::home_of(session.started_by.uid).and_then(|home| self.real(home));
        home.is_some_and(|home| session::persists_at_home(policy, profile, &home))
    }

    /// Whether a new session's profile says anything of its own paths.
    pub(super) fn needs_paths(&self, state: &State, session: &Session) -> bool {
        state.has_own_paths(&session.profile) || self.persists_at_home(state, session)
    }

    /// Finds out what a new session's paths are, if its profile says anything of them, and writes that into the tables
    /// that are in force.
    pub(super) fn bind(&self, state: &mut State, session: &mut Session) -> Result<(), ApiError> {
        if !self.needs_paths(state, session) {
            return Ok(());
        }
        let Some(in_force) = &mut state.in_force else { return Ok(()) };
        has_room(in_force)?;
        let own = self.own_paths(session)?;
        session.binding = self.next_binding().map_err(internal)?;
        let paths = paths_of(&session.profile, session.binding, &own);
        let changes = in_force.compiled.bind_session(&in_force.policy, &self.fs, &paths);
        let changes = changes.map_err(|diagnostics| inapplicable(&diagnostics))?;
        self.add_to_tables(in_force, session.binding, changes)?;
        session.paths = Some(own);
        Ok(())
    }

    /// The same on trial, for a session within a session: the tables as they would be, and what has to be written for that.
    pub(super) fn bind_on_trial(
        &self,
        in_force: &InForce,
        session: &mut Session,
    ) -> Result<(Compiled, Changes), ApiError> {
        has_room(in_force)?;
        let own = self.own_paths(session)?;
        session.binding = self.next_binding().map_err(internal)?;
        let paths = paths_of(&session.profile, session.binding, &own);
        let mut trial = in_force.compiled.clone();
        let changes = trial.bind_session(&in_force.policy, &self.fs, &paths);
        let changes = changes.map_err(|diagnostics| inapplicable(&diagnostics))?;
        session.paths = Some(own);
        Ok((trial, changes))
    }

    /// Writes what the compiled tables have already.
    pub(super) fn add_to_tables(
        &self,
        in_force: &mut InForce,
        binding: u32,
        changes: Changes,
    ) -> Result<(), ApiError> {
        let Changes { sides, places, filter, shapes, objects, names } = changes;
        let entries = tables::Entries { sides, places, filter, shapes, objects, names };
        let mut maps = lock(&self.maps);
        if let Err(error) = maps.outer.add(&entries) {
            // What was compiled isn't all there: another session that finds its paths known already would go without.
            tracing::error!(%error, "the policy's tables have no room for a session's own paths");
            let sides = in_force.compiled.release_session(binding);
            if let Err(error) = maps.outer.remove_sides(&sides) {
                tracing::warn!(%error, "what was said of the paths of a session that did not start stays in the tables");
            }
            return Err(no_room(in_force.full.insert(error.to_string())));
        }
        Ok(())
    }

    /// Forgets what was said of a session's paths.
    pub(super) fn unbind(&self, state: &mut State, binding: u32) {
        // Sessions within a session can have the same, and fall back on those of the one that they are in.
        if binding == session::NO_SESSION || state.uses(binding) {
            return;
        }
        let Some(in_force) = &mut state.in_force else { return };
        let sides = in_force.compiled.release_session(binding);
        if let Err(error) = lock(&self.maps).outer.remove_sides(&sides) {
            // Nobody gets this binding again, so it only takes room, until the next reload.
            tracing::warn!(%error, "what was said of an ended session's paths stays in the tables");
        }
    }

    /// What a home directory really is; none if there is certainly nothing: a user without one has sessions all the same.
    fn real(&self, home: PathBuf) -> Option<PathBuf> {
        match self.fs.lookup(&home, true) {
            Ok(found) => Some(found.path),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                None
            }
            Err(_) => Some(home),
        }
    }

    pub(super) fn own_paths(&self, session: &Session) -> Result<OwnPaths, ApiError> {
        let bad = |what: String| ApiError::new(Code::BadRequest, what);
        // A standing session has no first process.
        let cwd = if session.root_pid == 0 { Some(session.cwd.clone()) } else { proc::cwd(session.root_pid) };
        let cwd = cwd.map(PathBuf::from);
        let cwd = cwd.ok_or_else(|| bad("the session's directory (${cwd}) can't be found".to_owned()))?;
        let mut own = OwnPaths {
            cwd,
            home: sys::home_of(session.started_by.uid),
            tmp: PathBuf::from(TMP),
            objects: Vec::new(),
        };
        for path in [Some(&mut own.cwd), own.home.as_mut(), Some(&mut own.tmp)].into_iter().flatten() {
            let found = self.fs.lookup(path, true).map_err(|error| {
                bad(format!(
                    "{}, which the policy means by a variable, can't be looked at: {error}",
                    path.display()
                ))
            })?;
            own.objects.push((found.key.dev, found.key.ino, found.key.igen));
            *path = found.path;
        }
        Ok(own)
    }

    /// A binding that no session has had since boot.
    fn next_binding(&self) -> Result<u32, Error> {
        let mut maps = lock(&self.maps);
        let mut told = maps.guard()?;
        told.bindings += 1;
        maps.set_guard(&told)?;
        u32::try_from(told.bindings)
            .ok()
            .filter(|binding| *binding < session::SUPPOSED_SESSION)
            .ok_or_else(|| Error::BootTime(io::Error::other("all bindings of this boot are used up")))
    }
}
