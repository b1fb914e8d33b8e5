//! How the guard is: hooks, rules and what enforces them, counters, and what is wrong.

use agent_guard_common::{ABI, Verdict, event::count};

use super::{
    Guard, State, lock,
    policy::{judged, warnings},
};
use crate::{
    api::types::{Counters, Extent, HookInfo, HookState, Lost, Mode, RuleStatus, Status},
    kernel::{
        Error,
        enforcement::{Coverage, Enforcement, gone},
        programs::Program,
    },
    policy::{Demand, Part, demands, model},
};

impl Guard {
    /// Looks at everything.
    pub(super) fn how_it_is(&self) -> Result<Status, Error> {
        let state = lock(&self.state);
        let judged = self.operations(&state)?;
        let counts = lock(&self.maps).counts()?;
        let enforcement = self.attached.enforcement(judged);
        let policy = state.policy_ref();
        let rules = rules(&state, &enforcement);
        let mut degraded = self.log.degraded();
        degraded.extend(self.missing_links(judged));
        let full = state.in_force.as_ref().and_then(|in_force| in_force.full.as_ref());
        degraded.extend(full.map(|why| {
            format!(
                "no session of a profile with ${{cwd}}, ${{home}} or ${{tmp}} can start: the policy's tables are full ({why})"
            )
        }));
        degraded.extend(state.enrolled.problems().cloned());
        degraded.extend(crate::kernel::support::shortcomings(&crate::kernel::host::Host::this()));
        degraded.extend(unenforced(&rules));
        degraded.extend(self.attached.tier.why().map(str::to_owned));
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: ABI,
            kernel: self.kernel.clone(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            generation: policy.generation,
            policy_digest: policy.digest,
            socket: self.config.socket.display().to_string(),
            hooks: self.hooks(judged),
            rules,
            sessions: u64::try_from(state.running().count()).unwrap_or(u64::MAX),
            holds_waiting: u64::try_from(state.holds.values().filter(|hold| hold.waits()).count())
                .unwrap_or(u64::MAX),
            counters: counters(&counts),
            lost: Lost {
                decisions: slot(&counts, count::LOST_DECISIONS),
                reports: slot(&counts, count::LOST_REPORTS),
            },
            degraded,
            warnings: warnings(&state),
        })
    }

    /// Operations that what is in force judges: by this daemon's policy, or by an earlier one's, as the kernel has it.
    fn operations(&self, state: &State) -> Result<u64, Error> {
        match &state.in_force {
            Some(in_force) => {
                let profiles = in_force.compiled.profiles.iter().map(|(_, _, profile)| profile);
                let all = profiles.chain([&in_force.compiled.enrollment]);
                Ok(all.fold(0, |judged, profile| judged | profile.judged))
            }
            None => Ok(judged(&lock(&self.maps).outer.read()?.profiles)),
        }
    }

    fn hooks(&self, judged: u64) -> Vec<HookInfo> {
        let info = |program: &Program, state| HookInfo {
            name: program.name.to_owned(),
            state,
            enforces: match (state, program.instead) {
                (HookState::Absent, Some(instead)) => format!("{} (here: {instead})", program.enforces),
                _ => program.enforces.to_owned(),
            },
        };
        let present = self.attached.present.iter().map(|program| {
            let state = match () {
                () if self.attached.at_work(program) => HookState::Attached,
                () if program.needed(judged) => HookState::Gone,
                () => HookState::Idle,
            };
            info(program, state)
        });
        let absent = self.attached.absent.iter().map(|program| info(program, HookState::Absent));
        present.chain(absent).collect()
    }

    /// Programs whose pin somebody has taken away: what holds them at work may be gone.
    fn missing_links(&self, judged: u64) -> impl Iterator<Item = String> {
        let present = self.attached.present.iter();
        present.filter(move |program| program.needed(judged) && !self.attached.at_work(program)).map(gone)
    }
}

/// A number of [`count`].
fn slot(counts: &[u64; count::SLOTS as usize], slot: u32) -> u64 {
    usize::try_from(slot).ok().and_then(|slot| counts.get(slot)).copied().unwrap_or_default()
}

fn counters(counts: &[u64; count::SLOTS as usize]) -> Counters {
    let of = |number| slot(counts, number);
    let (denied, held, killed) =
        (of(count::WOULD_HAVE_DENIED), of(count::WOULD_HAVE_HELD), of(count::WOULD_HAVE_KILLED));
    Counters {
        judged: of(count::JUDGED),
        denied: of(count::DENIED),
        held: of(count::HELD),
        killed: of(count::KILLED),
        would_have: denied.saturating_add(held).saturating_add(killed),
        would_have_denied: denied,
        would_have_held: held,
        would_have_killed: killed,
        faults: of(count::FAULTS),
    }
}

/// What is in force, one by one. Of a policy that an earlier daemon has published, and that can't be read any more, the
/// rules are known and nothing else.
fn rules(state: &State, enforcement: &Enforcement) -> Vec<RuleStatus> {
    let all = match &state.in_force {
        Some(in_force) => demands(&in_force.policy),
        None => {
            let kept = state.generations.get(&state.adopted);
            let rules = kept.into_iter().flat_map(|kept| &kept.rules);
            rules.map(|rule| Demand::of_rule(rule, model::Mode::Enforce)).collect()
        }
    };
    let said = all.into_iter().map(|demand| of_demand(&demand, enforcement));
    said.chain(enforcement.always().map(|(program, coverage)| of_program(program, coverage))).collect()
}

fn of_demand(demand: &Demand, enforcement: &Enforcement) -> RuleStatus {
    let Coverage { hooks, extent, why } = enforcement.verdict(&demand.ops, demand.verdict);
    RuleStatus {
        number: demand.number,
        kind: demand.part.name().to_owned(),
        profile: demand.profile.clone(),
        text: demand.text.clone(),
        operations: demand.ops.iter().map(|op| op.name().to_owned()).collect(),
        verdict: demand.verdict.name().to_owned(),
        mode: crate::api::convert::mode(demand.mode),
        file: demand.origin.file.clone(),
        line: demand.origin.line,
        enforced: extent,
        hooks: hooks.into_iter().map(str::to_owned).collect(),
        why,
    }
}

/// What is enforced whatever the policy says.
fn of_program(program: &Program, coverage: Coverage) -> RuleStatus {
    RuleStatus {
        number: None,
        kind: Part::Guard.name().to_owned(),
        profile: None,
        text: program.enforces.to_owned(),
        operations: program.ops.iter().map(|op| op.name().to_owned()).collect(),
        verdict: Verdict::DENY.name().to_owned(),
        mode: Mode::Enforce,
        file: "built in".to_owned(),
        line: 0,
        enforced: coverage.extent,
        hooks: coverage.hooks.into_iter().map(str::to_owned).collect(),
        why: coverage.why,
    }
}

/// What should stop something and doesn't stop anything.
fn unenforced(rules: &[RuleStatus]) -> Option<String> {
    let stops = |rule: &&RuleStatus| {
        let verdict = Verdict::from_name(&rule.verdict).unwrap_or(Verdict::DENY);
        rule.enforced == Extent::None && rule.mode == Mode::Enforce && !verdict.goes_on()
    };
    let texts: Vec<&str> = rules.iter().filter(stops).map(|rule| rule.text.as_str()).collect();
    (!texts.is_empty()).then(|| format!("not enforced: {}", texts.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_their_slots() {
        let mut counts = [0; count::SLOTS as usize];
        for (number, value) in (0..).zip(&mut counts) {
            *value = 1_u64 << number;
        }
        let counted = counters(&counts);
        assert_eq!(counted.denied, 1 << count::DENIED);
        assert_eq!(counted.would_have_held, 1 << count::WOULD_HAVE_HELD);
        assert_eq!(
            counted.would_have,
            counted.would_have_denied + counted.would_have_held + counted.would_have_killed
        );
        assert_eq!(counted.faults, 1 << count::FAULTS);
    }

    #[test]
    fn what_stops_nothing_is_named() {
        let program = crate::kernel::programs::PROGRAMS[0];
        let coverage = |extent| Coverage { hooks: Vec::new(), extent, why: Vec::new() };
        let (none, part) =
            (of_program(&program, coverage(Extent::None)), of_program(&program, coverage(Extent::Part)));
        assert_eq!(unenforced(std::slice::from_ref(&part)), None);
        let told = RuleStatus { mode: Mode::Report, ..none.clone() };
        let allowed = RuleStatus { verdict: "allow".to_owned(), ..none.clone() };
        assert_eq!(unenforced(&[told, allowed]), None);
        assert!(unenforced(&[part, none]).unwrap().contains("the tag"));
    }
}
