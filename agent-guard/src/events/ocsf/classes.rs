//! Which class and activity each event is, how severe it is, and what the class asks for.

use agent_guard_common::{Fault, Op, Source, Verdict, event::Hook};
use serde_json::{Map, Value, json};

use super::{objects, unmapped};
use crate::events::activity::{
    Activity, Actor, Answered, Decided, Event, Held, Judged, Object, Outcome, PolicyRef, SystemRef,
};

/// How an event is classified.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    pub(super) class: u32,
    pub(super) activity: u32,
    pub(super) activity_name: &'static str,
    pub(super) severity: Severity,
    pub(super) status: Option<(u32, &'static str)>,
    pub(super) outcome: Option<Outside>,
}

impl Class {
    const fn new(class: u32, activity: u32, activity_name: &'static str) -> Self {
        Self { class, activity, activity_name, severity: Severity::INFO, status: SUCCESS, outcome: None }
    }

    const fn severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    const fn status(self, status: Option<(u32, &'static str)>) -> Self {
        Self { status, ..self }
    }

    const fn outcome(self, outcome: Outside) -> Self {
        Self { outcome: Some(outcome), ..self }
    }

    pub(super) const fn name(self) -> &'static str {
        match self.class {
            1001 => "File System Activity",
            1003 => "Kernel Activity",
            1007 => "Process Activity",
            2004 => "Detection Finding",
            3002 => "Authentication",
            3004 => "Entity Management",
            4001 => "Network Activity",
            4003 => "DNS Activity",
            6002 => "Application Lifecycle",
            6008 => "Application Error",
            _ => "Base Event",
        }
    }
}

const SUCCESS: Option<(u32, &str)> = Some((1, "Success"));
const FAILURE: Option<(u32, &str)> = Some((2, "Failure"));
/// The status of a finding says where it is in its life.
const NEW: Option<(u32, &str)> = Some((1, "New"));
const RESOLVED: Option<(u32, &str)> = Some((4, "Resolved"));
/// Neither done nor failed.
const HELD: Option<(u32, &str)> = Some((99, "Held"));

/// `severity_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Severity(pub(super) u32);

impl Severity {
    pub(super) const INFO: Self = Self(1);
    pub(super) const LOW: Self = Self(2);
    pub(super) const MEDIUM: Self = Self(3);
    pub(super) const HIGH: Self = Self(4);

    pub(super) const fn name(self) -> &'static str {
        match self.0 {
            1 => "Informational",
            2 => "Low",
            3 => "Medium",
            4 => "High",
            _ => "Unknown",
        }
    }
}

/// `action_id` and `disposition_id` of the profile `security_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outside {
    pub(super) action: u32,
    pub(super) disposition: u32,
}

impl Outside {
    const ALLOWED: Self = Self::new(1, 1);
    const APPROVED: Self = Self::new(1, 8);
    const BLOCKED: Self = Self::new(2, 2);
    const REJECTED: Self = Self::new(2, 25);
    const LOGGED: Self = Self::new(3, 17);
    const DETECTED: Self = Self::new(3, 15);
    const DELAYED: Self = Self::new(4, 14);
    /// Observed, with nothing to decide any more.
    const NO_ACTION: Self = Self::new(3, 16);

    const fn new(action: u32, disposition: u32) -> Self {
        Self { action, disposition }
    }

    pub(super) const fn action_name(self) -> &'static str {
        match self.action {
            1 => "Allowed",
            2 => "Denied",
            3 => "Observed",
            4 => "Modified",
            _ => "Unknown",
        }
    }

    pub(super) const fn disposition_name(self) -> &'static str {
        match self.disposition {
            1 => "Allowed",
            2 => "Blocked",
            8 => "Approved",
            14 => "Delayed",
            15 => "Detected",
            16 => "No Action",
            17 => "Logged",
            25 => "Rejected",
            _ => "Unknown",
        }
    }
}

/// How an event is classified.
pub(super) fn of(activity: &Activity) -> Class {
    match activity {
        Activity::GuardStarted(started) => {
            let class = Class::new(6002, 3, "Start");
            if started.degraded.is_empty() { class } else { class.severity(Severity::HIGH) }
        }
        Activity::GuardStopped(_) => Class::new(6002, 4, "Stop").severity(Severity::MEDIUM),
        Activity::GuardDegraded(degraded) if degraded.degraded.is_empty() => {
            Class::new(6002, 99, "Recovered")
        }
        Activity::GuardDegraded(_) => {
            Class::new(6002, 99, "Degraded").severity(Severity::HIGH).status(FAILURE)
        }
        Activity::SessionStarted(_) => Class::new(3002, 1, "Logon"),
        Activity::SessionEnded(_) => Class::new(3002, 2, "Logoff"),
        Activity::SessionKilled(_) => Class::new(1007, 2, "Terminate").severity(Severity::HIGH),
        Activity::Judged(judged) => of_judged(judged),
        Activity::Held(held) => Class::new(2004, 1, "Create")
            .severity(of_held(&held.decision))
            .status(NEW)
            .outcome(Outside::DELAYED),
        Activity::Answered(answered) => Class::new(2004, 3, "Close")
            .severity(of_held(&answered.decision))
            .status(RESOLVED)
            .outcome(match answered.outcome {
                Outcome::Approved => Outside::APPROVED,
                Outcome::Denied => Outside::REJECTED,
                Outcome::Withdrawn => Outside::NO_ACTION,
            }),
        Activity::PolicyReloaded(_) => Class::new(3004, 3, "Update"),
        Activity::PolicyRefused(_) => {
            Class::new(3004, 3, "Update").severity(Severity::MEDIUM).status(FAILURE)
        }
        Activity::EventsLost(lost) => Class::new(6008, 1, "General Error")
            .status(FAILURE)
            .severity(if lost.kind == "reports" { Severity::MEDIUM } else { Severity::HIGH }),
    }
}

fn of_held(decided: &Decided) -> Severity {
    if decided.source == Source::CRITICAL { Severity::HIGH } else { Severity::MEDIUM }
}

fn of_judged(judged: &Judged) -> Class {
    let decided = &judged.decision;
    let (class, activity, name) = match (decided.operation, &decided.object) {
        (_, Object::Name(_)) => (4003, 1, "Query"),
        (Op::LISTEN, _) => (4001, 7, "Listen"),
        (Op::CONNECT, _) | (_, Object::Address(_)) => (4001, 1, "Open"),
        (Op::SIGNAL, Object::System(SystemRef { target: Some(_), .. })) => (1007, 2, "Terminate"),
        (Op::PTRACE, Object::System(SystemRef { target: Some(_), .. })) => (1007, 4, "Inject"),
        (Op::PRIORITY, Object::System(SystemRef { target: Some(_), .. })) => (1007, 99, "Set Priority"),
        (_, Object::Command(_)) => (1007, 1, "Launch"),
        (Op::SETUID, Object::File(..)) => (1007, 5, "Set User ID"),
        (Op::MOUNT, Object::File(..)) if decided.hook == Hook::SB_UMOUNT => (1001, 13, "Unmount"),
        (Op::MOUNT, Object::File(..)) => (1001, 12, "Mount"),
        (_, Object::System(_)) => (1003, 4, "Invoke"),
        (Op::READ, _) => (1001, 2, "Read"),
        (Op::EXECUTE | Op::ENROLL, _) => (1001, 14, "Open"),
        (Op::WRITE | Op::RAW_DISK | Op::CGROUPS | Op::SYSCTL | Op::HELPERS, _) => (1001, 3, "Update"),
        (Op::CREATE, _) => (1001, 1, "Create"),
        (Op::DELETE, _) => (1001, 4, "Delete"),
        (Op::RENAME, _) => (1001, 5, "Rename"),
        (Op::METADATA, _) => (1001, 6, "Set Attributes"),
        _ => (1001, 0, "Unknown"),
    };
    let would_have = judged.verdict.goes_on() && !decided.policy_verdict.goes_on();
    let outcome = match judged.verdict {
        _ if judged.hold.is_some() && judged.verdict.goes_on() => Outside::APPROVED,
        _ if judged.hold.is_some() && judged.verdict == Verdict::DENY => Outside::REJECTED,
        _ if would_have => Outside::DETECTED,
        Verdict::ALLOW => Outside::ALLOWED,
        Verdict::REPORT => Outside::LOGGED,
        Verdict::HOLD => Outside::DELAYED,
        _ => Outside::BLOCKED,
    };
    let status = match judged.verdict {
        Verdict::ALLOW | Verdict::REPORT => SUCCESS,
        Verdict::HOLD => HELD,
        _ => FAILURE,
    };
    let stopped = !judged.verdict.goes_on();
    let severity = match judged.verdict {
        Verdict::KILL => Severity::HIGH,
        _ if decided.fault != Fault::NONE => Severity::HIGH,
        _ if stopped && decided.source == Source::CRITICAL => Severity::HIGH,
        _ if stopped => Severity::MEDIUM,
        _ if would_have && judged.hold.is_none() => Severity::LOW,
        _ => Severity::INFO,
    };
    Class::new(class, activity, name).severity(severity).status(status).outcome(outcome)
}

/// Adds what the class asks for.
pub(super) fn fill(activity: &Activity, event: &Event, out: &mut Map<String, Value>) {
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    match activity {
        Activity::GuardStarted(started) => {
            put("app", objects::product());
            put("actor", objects::person(None, None));
            put("policy", objects::policy(&started.policy, None));
        }
        Activity::GuardStopped(stopped) => {
            put("app", objects::product());
            put("actor", objects::person(None, None));
            put("status_detail", json!(stopped.reason));
        }
        Activity::GuardDegraded(degraded) => {
            put("app", objects::product());
            put("actor", objects::person(None, None));
            put("status_detail", json!(degraded.degraded.join("; ")));
        }
        Activity::SessionStarted(started) => {
            put("policy", objects::policy(&started.policy, unmapped::profile(activity)));
            session(&started.actor, &mut put);
        }
        Activity::SessionEnded(ended) => {
            put("duration", json!(ended.duration_ms));
            session(&ended.actor, &mut put);
        }
        Activity::SessionKilled(killed) => {
            put("actor", objects::person(Some(&killed.by), killed.through.as_ref()));
            put("process", objects::process(&killed.actor.process));
            put("count", json!(killed.processes.max(1)));
        }
        Activity::Judged(judged) => fill_judged(judged, unmapped::profile(activity), &mut put),
        Activity::Held(held) => fill_held(held, event, unmapped::profile(activity), &mut put),
        Activity::Answered(answered) => fill_answered(answered, event, unmapped::profile(activity), &mut put),
        Activity::PolicyReloaded(reloaded) => {
            put("actor", objects::person(reloaded.by.as_ref(), None));
            put("entity", entity(&reloaded.before));
            put("entity_result", entity(&reloaded.policy));
            put("policy", objects::policy(&reloaded.policy, None));
        }
        Activity::PolicyRefused(refused) => {
            put("actor", objects::person(refused.by.as_ref(), None));
            put("entity", entity(&refused.policy));
            put("status_detail", json!(refused.errors.join("\n")));
        }
        Activity::EventsLost(lost) => {
            put("actor", objects::person(None, None));
            put("count", json!(lost.count));
            put("start_time", json!(lost.from.ms()));
            put("end_time", json!(lost.to.ms()));
        }
    }
}

fn session(actor: &Actor, put: &mut impl FnMut(&str, Value)) {
    put("actor", objects::actor(actor));
    put("service", json!({ "name": "agent-guard" }));
    if let Some(session) = &actor.session {
        put("user", objects::user(&session.started_by));
        put("session", objects::session(session));
    }
}

fn entity(policy: &PolicyRef) -> Value {
    json!({
        "name": "agent-guard",
        "type_id": 5,
        "type": "Policy",
        "uid": policy.digest,
        "version": policy.generation.to_string(),
        "policy": objects::policy(policy, None),
    })
}

fn fill_judged(judged: &Judged, profile: Option<&str>, put: &mut impl FnMut(&str, Value)) {
    put("actor", objects::actor(&judged.actor));
    put("policy", objects::policy(&judged.decision.policy, profile));
    put("is_alert", json!(!judged.verdict.goes_on()));
    match &judged.decision.object {
        Object::File(file, result) => {
            put("file", objects::file(file));
            put("file_result", result.as_ref().map_or(Value::Null, objects::file));
        }
        Object::Name(name) => {
            put("src_endpoint", objects::asker(name));
            put("query", objects::query(name));
            put("answers", objects::answers(name));
            if let Some((rcode_id, rcode)) = objects::rcode(name.outcome) {
                put("rcode_id", json!(rcode_id));
                put("rcode", json!(rcode));
            }
        }
        Object::Address(address) => {
            put(if address.local { "src_endpoint" } else { "dst_endpoint" }, objects::endpoint(address));
            put("connection_info", objects::connection(address));
        }
        Object::Socket(socket) => {
            put("dst_endpoint", objects::socket_endpoint(socket));
            put("connection_info", objects::socket_connection());
        }
        Object::Command(command) => {
            put("process", objects::command(command, judged.actor.process.pid));
            put("launch_type_id", json!(3));
            put("launch_type", json!("Exec"));
        }
        Object::System(SystemRef { target: Some(target), .. }) => put("process", objects::process(target)),
        Object::System(_) => put("kernel", objects::kernel(judged.decision.operation.name())),
    }
    if judged.decision.operation == Op::SETUID {
        put("process", objects::process(&judged.actor.process));
    }
}

fn fill_held(held: &Held, event: &Event, profile: Option<&str>, put: &mut impl FnMut(&str, Value)) {
    finding(&held.decision, profile, &held.actor, put);
    put("is_alert", json!(true));
    put("finding_info", info(held.hold.to_string(), &held.decision, event.time.ms(), None));
}

fn fill_answered(
    answered: &Answered,
    event: &Event,
    profile: Option<&str>,
    put: &mut impl FnMut(&str, Value),
) {
    finding(&answered.decision, profile, &answered.actor, put);
    put("is_alert", json!(false));
    let asked = answered.asked.ms();
    put("finding_info", info(answered.hold.to_string(), &answered.decision, asked, Some(event.time.ms())));
    put("start_time", json!(asked));
    put("end_time", json!(event.time.ms()));
    put("duration", json!(answered.held_ms));
    put("comment", json!(answered.comment));
}

fn finding(decided: &Decided, profile: Option<&str>, actor: &Actor, put: &mut impl FnMut(&str, Value)) {
    put("actor", objects::actor(actor));
    put("policy", objects::policy(&decided.policy, profile));
    put("evidences", json!([objects::evidence(actor, &decided.object)]));
}

fn info(uid: String, decided: &Decided, created: u64, modified: Option<u64>) -> Value {
    json!({
        "uid": uid,
        "title": unmapped::attempt(decided),
        "desc": decided.rule.as_ref().and_then(|rule| rule.reason.clone()),
        "created_time": created,
        "modified_time": modified,
        "analytic": objects::analytic(decided.rule.as_ref(), decided.source.name()),
    })
}
