//! What becomes of questions for names, as events.

use std::time::{Duration, Instant};

use agent_guard_common::{Fault, Op, Source, Verdict, event::Hook};

use super::{Names, asking};
use crate::{
    dns::{Outcome, Told},
    events::activity::{Activity, Decided, Judged, NameRef, Object, QueryOutcome},
    guard::{State, lock},
};

/// What an event is about: who, which name, what became of it.
pub(super) type Key = (u64, String, QueryOutcome);

/// How long nothing is told again. An answer is told when a name is used; a refusal nearly each time, but both families of
/// addresses are asked for at once.
const ANSWERED: Duration = Duration::from_secs(60);
const OTHERWISE: Duration = Duration::from_secs(1);
/// What is remembered to have been told, at most.
const MOST: usize = 8192;

impl Names {
    /// Makes an event of what has become of a question.
    pub(super) fn say(&self, told: &Told<'_>) {
        let (Some(client), Some(name)) = (told.client, told.name) else {
            // Nobody's: no session's action. Who runs the host may want to know.
            tracing::debug!(from = %told.from, outcome = ?told.outcome, "a question that is nobody's");
            return;
        };
        let outcome = outcome(&told.outcome);
        if !self.is_news((client.session, name.to_owned(), outcome)) {
            return;
        }
        let state = lock(&self.guard.state);
        let Some((session, in_force)) = asking(&state, client.session) else { return };
        let said = in_force.compiled.hosts.name(session.rules().index, name);
        let verdict = verdict(outcome, said.only_reported);
        let actor = actor(&state, client.session, client.process);
        let rule = state.rule_ref(in_force.generation, said.rule);
        let decision = Decided {
            policy: in_force.reference(),
            operation: Op::CONNECT,
            object: Object::Name(NameRef {
                name: name.to_owned(),
                record: told.record.map(|record| record.to_string()),
                addresses: handed_out(&told.outcome),
                withheld: withheld(&told.outcome),
                outcome,
                detail: detail(&told.outcome),
                from: told.from,
            }),
            policy_verdict: if said.answer && !said.only_reported { verdict } else { Verdict::DENY },
            source: if rule.is_some() { Source::RULE } else { Source::NETWORK },
            rule,
            fault: Fault::NONE,
            hook: Hook::NONE,
            errno: 0,
        };
        self.guard.log.say(Activity::Judged(Judged { actor, decision, verdict, hold: None }));
    }

    /// Whether that wasn't told a moment ago.
    fn is_news(&self, key: Key) -> bool {
        let pause = if key.2 == QueryOutcome::Answered { ANSWERED } else { OTHERWISE };
        let now = Instant::now();
        let mut told = lock(&self.told);
        if told.get(&key).is_some_and(|last| now.duration_since(*last) < pause) {
            return false;
        }
        if told.len() >= MOST {
            told.retain(|_, last| now.duration_since(*last) < OTHERWISE);
        }
        if told.len() < MOST {
            told.insert(key, now);
        }
        true
    }
}

fn actor(state: &State, session: u64, process: Option<u32>) -> crate::events::activity::Actor {
    let known = state.processes.living(session).find(|living| Some(living.pid) == process);
    match (known, state.sessions.get(&session)) {
        (Some(process), _) => state.actor(process),
        (None, Some(session)) => state.actor_of_root(session),
        (None, None) => crate::events::activity::Actor::default(),
    }
}

fn outcome(outcome: &Outcome) -> QueryOutcome {
    match outcome {
        Outcome::Answered { .. } | Outcome::HandedOn(_) => QueryOutcome::Answered,
        Outcome::Nothing { exists: true } => QueryOutcome::Empty,
        Outcome::Nothing { exists: false } => QueryOutcome::Unknown,
        Outcome::Refused => QueryOutcome::Refused,
        Outcome::Limited(_) => QueryOutcome::Limited,
        Outcome::Rebinding(_) => QueryOutcome::Rebinding,
        Outcome::Failed(_) => QueryOutcome::Failed,
        Outcome::Stranger | Outcome::Unsupported(_) => QueryOutcome::Unsupported,
    }
}

/// What happens to the question. A profile that only reports lets everything be asked.
fn verdict(outcome: QueryOutcome, only_reported: bool) -> Verdict {
    match outcome {
        _ if outcome.is_stopped() => Verdict::DENY,
        _ if only_reported => Verdict::REPORT,
        _ => Verdict::ALLOW,
    }
}

fn handed_out(outcome: &Outcome) -> Vec<std::net::IpAddr> {
    match outcome {
        Outcome::Answered { addresses, .. } => addresses.clone(),
        _ => Vec::new(),
    }
}

fn withheld(outcome: &Outcome) -> Vec<std::net::IpAddr> {
    match outcome {
        Outcome::Answered { withheld, .. } | Outcome::Rebinding(withheld) => withheld.clone(),
        _ => Vec::new(),
    }
}

fn detail(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Limited(limit) => Some(limit.to_string()),
        Outcome::Failed(failure) => Some(failure.to_string()),
        Outcome::Unsupported(what) => Some((*what).to_owned()),
        _ => None,
    }
}
