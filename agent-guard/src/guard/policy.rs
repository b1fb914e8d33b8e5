//! The policy in force: read, compile, publish; and what earlier generations said.

use std::{collections::BTreeMap, fs, path::PathBuf};

use agent_guard_common::rules::Profile;

use super::{Generation, Guard, InForce, State, enroll, lock, nested::Choice, own};
use crate::{
    api::{
        error::{ApiError, Code},
        types::{Reloaded, SessionState, Time, Who},
    },
    config::Config,
    events::activity::{Activity, PolicyRef, PolicyRefused, PolicyReloaded, RuleRef},
    kernel::{enforcement::Enforcement, memory, tables},
    policy::{
        self, Compiled, Diagnostic, HostFilesystem, Level, Policy, PolicySummary, RuleInfo,
        source::{self, SourceError, Trust},
    },
    session::Session,
    sys,
};

/// Generations whose rules are kept for old events and holds.
const KEPT: usize = 8;

/// Why a policy doesn't come into force.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Its files can't be read, or could be somebody else's.
    #[error("the policy can't be read: {0}")]
    Source(#[from] SourceError),
    /// It has mistakes.
    #[error("the policy is invalid:\n{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Diagnostic>),
    /// The kernel doesn't take it.
    #[error("the policy can't be published: {0}")]
    Kernel(#[from] crate::kernel::Error),
}

/// Reads the policy that a configuration names, and what the kernel can't do of what it only wants to be told.
///
/// # Errors
///
/// If it can't be read, has mistakes, or wants stopped what the kernel can't stop: all of them.
fn read(config: &Config, kernel: &Enforcement) -> Result<(Policy, Vec<Diagnostic>), Refused> {
    let sources = source::read(std::slice::from_ref(&config.policy), Trust::Root)?;
    let mut policy = policy::load(sources).map_err(Refused::Invalid)?;
    for home in policy.persist(&sys::homes()) {
        tracing::warn!(home = %home.display(), "no rule can name this home directory: persistence says nothing of it");
    }
    unreadable(&policy)?;
    let wrong = enroll::mistakes(&policy);
    if !wrong.is_empty() {
        return Err(Refused::Invalid(wrong));
    }
    for path in policy.protect(&own::files(config)) {
        tracing::warn!(path = %path.display(), "no rule can protect this path of the guard's own: give it a plain name");
    }
    let (errors, warnings): (Vec<_>, Vec<_>) =
        policy::unenforceable(&policy, kernel).into_iter().partition(|found| found.level == Level::Error);
    if errors.is_empty() { Ok((policy, warnings)) } else { Err(Refused::Invalid(errors)) }
}

/// Refuses rules about commands where arguments can't be read.
fn unreadable(policy: &Policy) -> Result<(), Refused> {
    let mut rules = policy.profiles.iter().flat_map(|profile| &profile.exec.rules);
    let Some(rule) = rules.next() else { return Ok(()) };
    match memory::missing() {
        Some(why) => Err(Refused::Invalid(vec![Diagnostic::error(&rule.origin, why.to_owned())])),
        None => Ok(()),
    }
}

/// Reads the policy that a configuration names and compiles it on trial: what it says of objects is good for nothing but finding
/// mistakes.
///
/// # Errors
///
/// If it can't be read or has mistakes, all of them.
pub fn check(config: &Config, kernel: &Enforcement) -> Result<(), Refused> {
    let (policy, _) = read(config, kernel)?;
    policy::build(&policy, &HostFilesystem::default(), &BTreeMap::new(), policy::TRIAL_KEY, &[])
        .map(drop)
        .map_err(Refused::Invalid)
}

impl Guard {
    /// Reads what is known of the generations before this daemon.
    pub(super) fn adopt_generations(&self) {
        let mut state = lock(&self.state);
        let Ok(entries) = fs::read_dir(self.generations()) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            let read = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
            if let (Some(number), Some(generation)) = (number, read) {
                state.generations.insert(number, generation);
            }
        }
    }

    fn generations(&self) -> PathBuf {
        self.config.state.join("generations")
    }

    /// Brings the policy on disk into force at start. If it can't, what an earlier daemon published stays.
    ///
    /// # Errors
    ///
    /// If there is nothing that could stay.
    pub fn first_policy(&self) -> Result<(), Refused> {
        let mut state = lock(&self.state);
        let before = lock(&self.maps).outer.generation()?;
        state.adopted = before;
        let result = self.read_and_use(&mut state);
        let refused = match result {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        let stays = if before == 0 { Err(refused) } else { self.stay_in_force(&mut state).map(|()| refused) };
        let refused = match stays {
            Ok(refused) => refused,
            Err(error) => {
                self.attached.abandon()?;
                return Err(error);
            }
        };
        tracing::error!(%refused, generation = before, "the policy on disk is refused; the old one stays in force");
        self.say_refused(&mut state, None, &refused);
        Ok(())
    }

    /// What stays in force must have its hooks, those of this version's programs. Where other programs have judged by it,
    /// it becomes a generation of its own.
    fn stay_in_force(&self, state: &mut State) -> Result<(), Refused> {
        let mut maps = lock(&self.maps);
        let before = maps.outer.generation()?;
        let tables = maps.outer.read()?;
        let judged = judged(&tables.profiles);
        if self.attached.upgrades()? {
            self.attached.replace(judged)?;
            let named = maps.outer.named()?;
            let number = maps.outer.publish(&tables, &named)?;
            let kept = state.generations.get(&before).cloned().unwrap_or_default();
            self.keep(state, number, kept);
            state.adopted = number;
        }
        self.attached.require(judged)?;
        Ok(self.attached.release(judged)?)
    }

    /// Reads the policy again.
    ///
    /// # Errors
    ///
    /// If it can't be used: then the old one stays in force.
    pub fn reload_policy(&self, by: Option<Who>) -> Result<Reloaded, Refused> {
        let mut state = lock(&self.state);
        let before = state.policy_ref();
        let result = self.read_and_use(&mut state);
        match result {
            Ok(()) => {
                self.reconfigure_resolver(&state);
                // What waits is judged anew, by what is in force now.
                state.holds.values().filter(|hold| hold.open()).for_each(|hold| self.nudge(hold));
            }
            Err(refused) => {
                tracing::error!(%refused, "the policy on disk is refused; the old one stays in force");
                self.say_refused(&mut state, by, &refused);
                return Err(refused);
            }
        }
        Ok(self.say_reloaded(&state, by, before))
    }

    fn say_reloaded(&self, state: &State, by: Option<Who>, before: PolicyRef) -> Reloaded {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let policy = state.policy_ref();
        let compiled = state.in_force.as_ref().map(|in_force| &in_force.compiled);
        let reloaded =
            Reloaded {
                generation_before: before.generation,
                generation: policy.generation,
                digest: policy.digest.clone(),
                profiles: count(compiled.map_or(0, |compiled| compiled.profiles.len())),
                rules: count(compiled.map_or(0, |compiled| {
                    compiled.rules.iter().filter(|rule| rule.kind.is_written()).count()
                })),
                warnings: warnings(state),
            };
        for warning in &reloaded.warnings {
            tracing::warn!("{warning}");
        }
        self.log.say(Activity::PolicyReloaded(PolicyReloaded {
            by,
            before,
            policy,
            profiles: reloaded.profiles,
            rules: reloaded.rules,
        }));
        reloaded
    }

    /// Reads, compiles and brings into force what is on disk.
    fn read_and_use(&self, state: &mut State) -> Result<(), Refused> {
        let (policy, warnings) = read(&self.config, &self.possible)?;
        self.use_policy(state, policy, warnings)
    }

    /// Compiles a policy and brings it into force.
    fn use_policy(
        &self,
        state: &mut State,
        mut policy: Policy,
        warnings: Vec<Diagnostic>,
    ) -> Result<(), Refused> {
        policy
            .number_standing(&Self::standing_numbers(state))
            .map_err(|mistake| Refused::Invalid(vec![mistake]))?;
        let sessions = self.session_paths(state);
        let mut compiled = policy::build(&policy, &self.fs, &assigned(state), self.key, &sessions)
            .map_err(Refused::Invalid)?;
        compiled.warnings.extend(warnings);
        let choices = self.choose(state, &policy, &compiled, &sessions);
        let asking = Self::before_enrolling(&policy, &compiled)?;
        let in_force = self.put_in_force(state, policy, compiled, &choices)?;
        self.take_choices(state, &choices);
        state.in_force = Some(in_force);
        self.after_enrolling(state, asking);
        Ok(())
    }

    /// Looks up anew what the policy in force names: one of its paths leads somewhere else now.
    pub(super) fn look_up_again(&self) -> Result<(), Refused> {
        let mut state = lock(&self.state);
        let Some(in_force) = &state.in_force else { return Ok(()) };
        let policy = in_force.policy.clone();
        self.use_policy(&mut state, policy, Vec::new())
    }

    /// Publishes a compiled policy, unless the very same tables are in force already. Hooks that it needs are attached
    /// before, those that it doesn't need any more detached after.
    fn put_in_force(
        &self,
        state: &mut State,
        policy: Policy,
        compiled: Compiled,
        choices: &[Choice],
    ) -> Result<InForce, Refused> {
        let generation = Generation { digest: compiled.digest.clone(), rules: compiled.rules.clone() };
        let mut maps = lock(&self.maps);
        let before = maps.outer.generation()?;
        let upgrades = self.attached.upgrades()?;
        // Only this daemon's first policy finds something that it hasn't made itself.
        let found = before != 0 && state.in_force.is_none();
        let in_kernel = if found { maps.outer.read()? } else { tables::Compiled::default() };
        let entries = entries(&compiled);
        let (judged, before_that) = (judged(&entries.profiles), judged(&in_kernel.profiles));
        // What sessions that have ended have left there isn't known here: places that are given again would be theirs, too.
        let same = found
            && !upgrades
            && state.has_chosen(choices)
            && state
                .generations
                .get(&before)
                .is_some_and(|old| (&old.digest, &old.rules) == (&generation.digest, &generation.rules))
            && in_kernel.sorted() == entries.clone().sorted();
        if upgrades {
            // Until it is published, the one before judges.
            self.attached.replace(judged | before_that)?;
        }
        self.attached.require(judged)?;
        let number = if same {
            before
        } else {
            Self::write_choices(state, &mut maps, choices, before.wrapping_add(1))?;
            // What sessions have learned is said anew, under the rules that they have then.
            let named = Self::named(state, &compiled, |session| {
                let instead = choices.iter().find(|(number, _)| *number == session.number);
                let chosen = instead.map(|(_, instead)| Session { instead: *instead, ..session.clone() });
                chosen.as_ref().unwrap_or(session).rules().index
            });
            let number = maps.outer.publish(&entries, &named)?;
            // The next publication writes what it needs, and the next daemon begins with this.
            if let Err(error) = Self::settle_rules(&mut maps) {
                tracing::error!(%error, "the slots of sessions");
            }
            number
        };
        self.attached.release(judged)?;
        drop(maps);
        self.keep(state, number, generation);
        state.refused = None;
        let summary = PolicySummary::new(&policy);
        Ok(InForce { policy, summary, compiled, generation: number, loaded: Time::now(), full: None })
    }

    /// Keeps a generation's rules for events, holds and the next daemon.
    fn keep(&self, state: &mut State, number: u32, generation: Generation) {
        let directory = self.generations();
        let written = fs::create_dir_all(&directory).and_then(|()| {
            fs::write(directory.join(format!("{number}.json")), serde_json::to_vec(&generation)?)
        });
        if let Err(error) = written {
            // The next daemon can't tell the rules of old holds then, and publishes anew.
            tracing::warn!(%error, "the generation's rules can't be kept");
        }
        state.generations.insert(number, generation);
        while state.generations.len() > KEPT
            && let Some((old, _)) = state.generations.pop_first()
        {
            if let Err(error) = fs::remove_file(directory.join(format!("{old}.json"))) {
                tracing::debug!(%error, old, "an old generation's rules can't be removed");
            }
        }
    }

    fn say_refused(&self, state: &mut State, by: Option<Who>, refused: &Refused) {
        let errors = match refused {
            Refused::Invalid(diagnostics) => diagnostics.iter().map(ToString::to_string).collect(),
            other => vec![other.to_string()],
        };
        state.refused = Some(format!(
            "the policy on disk is refused, the one before stays in force: {}",
            errors.first().map_or("", |error: &String| error.as_str())
        ));
        self.log.say(Activity::PolicyRefused(PolicyRefused { by, policy: state.policy_ref(), errors }));
    }

    /// Hooks of this kernel that enforce a rule.
    pub(super) fn hooks_of(&self, rule: &RuleInfo) -> Vec<String> {
        self.possible.hooks(&rule.operations())
    }
}

impl State {
    /// A rule of a generation, for events.
    pub(super) fn rule(&self, generation: u32, number: u32) -> Option<&RuleInfo> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.generations.get(&generation)?.rules.get(index)
    }

    /// The same, as events say it.
    pub(super) fn rule_ref(&self, generation: u32, number: u32) -> Option<RuleRef> {
        self.rule(generation, number).map(|rule| RuleRef {
            number,
            kind: rule.kind,
            text: rule.text(),
            reason: rule.reason.clone(),
            file: rule.file.clone(),
            line: rule.line,
        })
    }

    /// A generation, as events say it.
    pub(super) fn generation_ref(&self, generation: u32) -> PolicyRef {
        let digest = self.generations.get(&generation).map(|kept| kept.digest.clone());
        PolicyRef { generation, digest: digest.unwrap_or_default() }
    }
}

/// Indexes that profiles must keep: those that sessions have.
fn assigned(state: &State) -> BTreeMap<String, u32> {
    let outer = state.running().flat_map(|session| &session.outer).map(|outer| &outer.rules);
    let outer = outer.map(|rules| (rules.profile.clone(), rules.index));
    let running = state.running().map(|session| (session.profile.clone(), session.index));
    let mut assigned: BTreeMap<_, _> = outer.chain(running).collect();
    if let Some(in_force) = &state.in_force {
        for (name, index, _) in &in_force.compiled.profiles {
            assigned.entry(name.clone()).or_insert(*index);
        }
    }
    assigned
}

/// What is good to know of a policy that is in force.
pub(super) fn warnings(state: &State) -> Vec<String> {
    let mut warnings: Vec<String> = state.refused.iter().cloned().collect();
    let Some(in_force) = &state.in_force else { return warnings };
    warnings.extend(in_force.compiled.warnings.iter().map(ToString::to_string));
    for session in state.running().filter(|session| session.state == SessionState::Running) {
        if let Some(outer) = session.instead.and_then(|at| session.outer.get(at)) {
            warnings.push(format!(
                "session {} could do more than session {}, which it is in, and has the rules of that one instead of its own \
                 (profile \"{}\" instead of \"{}\")",
                session.id, outer.id, outer.rules.profile, session.profile
            ));
            continue;
        }
        if in_force.compiled.profile_index(&session.profile).is_none() {
            warnings.push(format!(
                "session {} has profile \"{}\", which the policy doesn't have any more: everything it does that is \
                 judged is denied",
                session.id, session.profile
            ));
        }
    }
    warnings
}

fn entries(compiled: &Compiled) -> tables::Compiled {
    fn list<K: Copy, V: Copy>(map: &BTreeMap<K, V>) -> Vec<(K, V)> {
        map.iter().map(|(key, value)| (*key, *value)).collect()
    }
    tables::Compiled {
        files: tables::Entries {
            sides: list(&compiled.sides),
            places: list(&compiled.places),
            filter: list(&compiled.filter),
            shapes: list(&compiled.shapes),
            objects: list(&compiled.objects),
            names: list(&compiled.names),
        },
        suffixes: compiled.head.suffixes,
        profiles: compiled
            .profiles
            .iter()
            .map(|(_, index, profile)| (*index, *profile))
            .chain([(agent_guard_common::enroll::PROFILE, compiled.enrollment)])
            .collect(),
        networks: compiled.networks.iter().map(|((bits, key), entry)| (*bits, *key, *entry)).collect(),
        abstracts: compiled.abstracts.iter().map(|((bits, key), entry)| (*bits, *key, *entry)).collect(),
        commands: compiled.commands.clone(),
        programs: list(&compiled.programs),
    }
}

/// Operations that any of these profiles judges.
pub(super) fn judged(profiles: &[(u32, Profile)]) -> u64 {
    profiles.iter().fold(0, |judged, (_, profile)| judged | profile.judged)
}

/// Nothing can be said of the policy.
pub(super) fn no_policy() -> ApiError {
    ApiError::new(
        Code::Unavailable,
        "the policy on disk is invalid: see agent-guard status and agent-guard policy check",
    )
}
