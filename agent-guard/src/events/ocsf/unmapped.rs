//! What OCSF has no field for: one flat object, and a sentence for people.

use agent_guard_common::{Fault, Verdict, event::Hook};
use serde_json::{Map, Value, json};

use super::objects::name_of;
use crate::{
    events::activity::{
        Activity, Actor, Decided, EventsLost, Object, Outcome, SessionRef, SocketRef, SystemRef,
    },
    policy::rules,
};

/// The session an event is of.
pub(super) fn session(activity: &Activity) -> Option<&SessionRef> {
    actor(activity)?.session.as_ref()
}

/// Its profile.
pub(super) fn profile(activity: &Activity) -> Option<&str> {
    session(activity).map(|session| session.profile.as_str())
}

fn actor(activity: &Activity) -> Option<&Actor> {
    match activity {
        Activity::SessionStarted(event) => Some(&event.actor),
        Activity::SessionEnded(event) => Some(&event.actor),
        Activity::SessionKilled(event) => Some(&event.actor),
        Activity::Judged(event) => Some(&event.actor),
        Activity::Held(event) => Some(&event.actor),
        Activity::Answered(event) => Some(&event.actor),
        _ => None,
    }
}

/// The kind of an event, as `unmapped.agent_guard.kind` has it.
pub(super) const fn kind(activity: &Activity) -> &'static str {
    match activity {
        Activity::GuardStarted(_) => "guard_started",
        Activity::GuardStopped(_) => "guard_stopped",
        Activity::GuardDegraded(_) => "guard_degraded",
        Activity::SessionStarted(_) => "session_started",
        Activity::SessionEnded(_) => "session_ended",
        Activity::SessionKilled(_) => "session_killed",
        Activity::Judged(_) => "judged",
        Activity::Held(_) => "held",
        Activity::Answered(_) => "answered",
        Activity::PolicyReloaded(_) => "policy_reloaded",
        Activity::PolicyRefused(_) => "policy_refused",
        Activity::EventsLost(_) => "events_lost",
    }
}

/// The flat object.
pub(super) fn fields(activity: &Activity) -> Value {
    let mut out = Map::new();
    out.insert("kind".to_owned(), json!(kind(activity)));
    if let Some(session) = session(activity) {
        of_session(session, &mut out);
    }
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    match activity {
        Activity::GuardStarted(event) => {
            put("hooks", json!(event.hooks));
            put("hooks_absent", json!(event.absent));
            put("adopted", json!(event.adopted));
            put("degraded", json!(event.degraded));
        }
        Activity::GuardStopped(event) => put("reason", json!(event.reason)),
        Activity::GuardDegraded(event) => put("degraded", json!(event.degraded)),
        Activity::SessionStarted(event) => {
            put("command", json!(event.command));
            put("cwd", json!(event.cwd));
            put("origin", json!(event.origin.name()));
            put("parent", json!(event.parent.map(|parent| parent.to_string())));
            put("attached", json!((!event.attached.is_empty()).then_some(&event.attached)));
        }
        Activity::SessionEnded(event) => put("killed", json!(event.killed)),
        Activity::SessionKilled(event) => put("processes", json!(event.processes)),
        Activity::Judged(event) => {
            decided(&event.decision, &mut put);
            put("verdict", json!(event.verdict.name()));
            put("hold", json!(event.hold.map(|hold| hold.to_string())));
        }
        Activity::Held(event) => {
            decided(&event.decision, &mut put);
            put("verdict", json!(Verdict::HOLD.name()));
            put("hold", json!(event.hold.to_string()));
        }
        Activity::Answered(event) => {
            decided(&event.decision, &mut put);
            put("verdict", json!(verdict_of(event.outcome)));
            put("hold", json!(event.hold.to_string()));
            put("outcome", json!(event.outcome.name()));
            put("held_ms", json!(event.held_ms));
            put("answered_by_uid", json!(event.by.as_ref().map(|who| who.uid)));
            put("answered_by", json!(event.by.as_ref().and_then(|who| who.user.clone())));
            put("answered_by_login_uid", json!(event.by.as_ref().and_then(|who| who.login_uid)));
        }
        Activity::PolicyReloaded(event) => {
            put("generation_before", json!(event.before.generation));
            put("generation", json!(event.policy.generation));
            put("digest_before", json!(event.before.digest));
            put("digest", json!(event.policy.digest));
            put("profiles", json!(event.profiles));
            put("rules", json!(event.rules));
        }
        Activity::PolicyRefused(event) => {
            put("generation", json!(event.policy.generation));
            put("errors", json!(event.errors));
        }
        Activity::EventsLost(event) => {
            put("lost", json!(event.kind));
            put("place", json!(event.place));
            put("count", json!(event.count));
        }
    }
    Value::Object(out)
}

/// What an answer means for the call. Withdrawn: nothing happened, as if denied.
const fn verdict_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Approved => Verdict::ALLOW.name(),
        Outcome::Denied | Outcome::Withdrawn => Verdict::DENY.name(),
    }
}

fn of_session(session: &SessionRef, out: &mut Map<String, Value>) {
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    put("session", json!(session.id.to_string()));
    put("session_name", json!(session.name));
    put("profile", json!(session.profile));
    put("mode", json!(session.mode.name()));
    put("task", json!(session.task));
    put("started_by_uid", json!(session.started_by.uid));
    put("started_by", json!(session.started_by.user));
    put("login_uid", json!(session.started_by.login_uid));
}

fn decided(decided: &Decided, put: &mut impl FnMut(&str, Value)) {
    put("operation", json!(decided.operation.name()));
    put("policy_verdict", json!(decided.policy_verdict.name()));
    let kind = decided.rule.as_ref().map(|rule| rule.kind);
    put("source", json!(rules::source(decided.source, kind)));
    if decided.hook != Hook::NONE {
        put("hook", json!(decided.hook.name()));
    }
    put("errno", json!(decided.errno));
    if decided.fault != Fault::NONE {
        put("fault", json!(decided.fault.text()));
    }
    if let Some(rule) = &decided.rule {
        put("rule", json!(rule.number));
        put("rule_text", json!(rule.text));
        put("rule_reason", json!(rule.reason));
        put("rule_file", json!(rule.file));
        put("rule_line", json!(rule.line));
    }
    if let Object::File(file, target) = &decided.object {
        put("path", json!(file.path));
        if file.cut || target.as_ref().is_some_and(|target| target.cut) {
            put("path_cut", json!(true));
        }
        put("target_path", json!(target.as_ref().map(|target| target.path.clone())));
    }
    match &decided.object {
        Object::Socket(SocketRef::File(file)) => {
            put("path", json!(file.path));
            if file.cut {
                put("path_cut", json!(true));
            }
        }
        Object::Socket(SocketRef::Abstract(name)) => put("abstract_name", json!(name)),
        _ => {}
    }
    if let Object::Command(command) = &decided.object {
        put("path", json!(command.file.path));
        put("command_line", json!(command.line()));
        if command.cut {
            put("command_line_cut", json!(true));
        }
    }
    if let Object::Address(address) = &decided.object
        && address.names.len() > 1
    {
        // Which of them it is about can't be told.
        put("names", json!(address.names));
    }
    if let Object::Name(name) = &decided.object {
        put("lookup", json!(name.outcome.name()));
        put("detail", json!(name.detail));
        put("withheld", json!((!name.withheld.is_empty()).then_some(&name.withheld)));
    }
    if let Object::System(system) = &decided.object {
        put("what", json!(system.what));
        put("target_pid", json!(system.target.as_ref().map(|target| target.pid)));
    }
}

/// What was tried, for people: `delete /srv/prod/db`.
pub(super) fn attempt(decided: &Decided) -> String {
    let operation = decided.operation.name();
    match &decided.object {
        Object::File(file, Some(target)) => format!("{operation} {} to {}", file.path, target.path),
        Object::File(file, None) => format!("{operation} {}", file.path),
        Object::Address(address) => {
            let to = std::net::SocketAddr::new(address.ip, address.port);
            match address.names.as_slice() {
                [name] => format!("{operation} {name} ({to})"),
                _ => format!("{operation} {to}"),
            }
        }
        Object::Name(name) => {
            let record = name.record.as_deref().map(|record| format!(" {record}")).unwrap_or_default();
            format!("look up{record} {}: {}", name.name, name.outcome.name())
        }
        Object::Socket(socket) => format!("{operation} {}", socket.text()),
        Object::Command(command) if command.arguments.is_empty() => {
            format!("{operation} {}", command.file.path)
        }
        Object::Command(command) => format!("{operation} {} as {}", command.file.path, command.line()),
        Object::System(SystemRef { what, target }) => {
            let target = target.as_ref().map(|target| format!("to {}({})", name_of(&target.exe), target.pid));
            let words = [Some(operation.to_owned()), Some(what.clone()), target];
            words.into_iter().flatten().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        }
    }
}

fn who(actor: &Actor) -> String {
    format!("{}({})", name_of(&actor.process.exe), actor.process.pid)
}

/// A sentence for people.
pub(super) fn message(activity: &Activity) -> String {
    match activity {
        Activity::GuardStarted(event) => {
            format!(
                "agent-guard started on Linux {}, policy generation {}",
                event.kernel, event.policy.generation
            )
        }
        Activity::GuardStopped(event) => format!("agent-guard stopped: {}", event.reason),
        Activity::GuardDegraded(event) if event.degraded.is_empty() => "agent-guard is well again".to_owned(),
        Activity::GuardDegraded(event) => format!("agent-guard is degraded: {}", event.degraded.join("; ")),
        Activity::SessionStarted(event) => match event.attached.len() {
            0 => format!("session started: {}", event.command.join(" ")),
            count => format!("session attached to {count} running processes: {}", event.command.join(" ")),
        },
        Activity::SessionEnded(event) if event.killed => "session ended: killed".to_owned(),
        Activity::SessionEnded(_) => "session ended".to_owned(),
        Activity::SessionKilled(event) => format!("session killed: {} processes", event.processes),
        Activity::Judged(event) => {
            format!("{}: {} by {}", event.verdict.name(), attempt(&event.decision), who(&event.actor))
        }
        Activity::Held(event) => format!("held: {} by {}", attempt(&event.decision), who(&event.actor)),
        Activity::Answered(event) => {
            format!("{}: {} by {}", event.outcome.name(), attempt(&event.decision), who(&event.actor))
        }
        Activity::PolicyReloaded(event) => {
            format!("policy generation {} is in force", event.policy.generation)
        }
        Activity::PolicyRefused(event) => {
            format!(
                "policy refused with {} errors; generation {} stays in force",
                event.errors.len(),
                event.policy.generation
            )
        }
        Activity::EventsLost(EventsLost { kind, place, count, .. }) => {
            format!("{count} events lost ({kind}, {place})")
        }
    }
}
