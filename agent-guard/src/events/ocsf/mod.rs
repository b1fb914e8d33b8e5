//! The one home of the mapping to OCSF 1.8.0. `docs/events.md` describes it, with an example of each
//! event; a test keeps the two equal.
//!
//! `classes` says which class and activity an event is, `objects` how things look that many events
//! name, `unmapped` what OCSF has no field for.

mod classes;
mod objects;
mod unmapped;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use super::activity::{Activity, Event};
use crate::api::types::Time;

/// Version of the schema.
pub const VERSION: &str = "1.8.0";
/// Profiles that every event has: who says `actor` and `device`, who says `action_id`.
const PROFILES: [&str; 2] = ["host", "security_control"];

/// The host, as every event names it.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name.
    pub hostname: String,
    /// `/etc/machine-id`, if there is one.
    pub machine_id: Option<String>,
    /// Name of the operating system, `PRETTY_NAME` of `/etc/os-release`.
    pub os_name: String,
    /// The running kernel's release.
    pub kernel: String,
}

impl Host {
    /// This host.
    #[must_use]
    pub fn this() -> Self {
        let uname = rustix::system::uname();
        let machine_id = std::fs::read_to_string("/etc/machine-id").ok();
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let os_name = release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="))
            .map(|name| name.trim_matches('"').to_owned());
        Self {
            hostname: uname.nodename().to_string_lossy().into_owned(),
            machine_id: machine_id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()),
            os_name: os_name.unwrap_or_else(|| "Linux".to_owned()),
            kernel: uname.release().to_string_lossy().into_owned(),
        }
    }
}

/// An event in its form for the outside.
#[must_use]
pub fn render(event: &Event, host: &Host, sequence: Option<u64>) -> Value {
    let mut out = Map::new();
    let class = classes::of(&event.activity);
    out.insert("class_uid".to_owned(), json!(class.class));
    out.insert("class_name".to_owned(), json!(class.name()));
    out.insert("category_uid".to_owned(), json!(class.class / 1000));
    out.insert("activity_id".to_owned(), json!(class.activity));
    out.insert("activity_name".to_owned(), json!(class.activity_name));
    out.insert("type_uid".to_owned(), json!(class.class * 100 + class.activity));
    out.insert("severity_id".to_owned(), json!(class.severity.0));
    out.insert("severity".to_owned(), json!(class.severity.name()));
    if let Some((id, name)) = class.status {
        out.insert("status_id".to_owned(), json!(id));
        out.insert("status".to_owned(), json!(name));
    }
    if let Some(outcome) = class.outcome {
        out.insert("action_id".to_owned(), json!(outcome.action));
        out.insert("action".to_owned(), json!(outcome.action_name()));
        out.insert("disposition_id".to_owned(), json!(outcome.disposition));
        out.insert("disposition".to_owned(), json!(outcome.disposition_name()));
    }
    out.insert("time".to_owned(), json!(event.time.ms()));
    out.insert("message".to_owned(), json!(unmapped::message(&event.activity)));
    out.insert("metadata".to_owned(), metadata(event, sequence));
    out.insert("device".to_owned(), objects::device(host));
    classes::fill(&event.activity, event, &mut out);
    out.insert("unmapped".to_owned(), json!({ "agent_guard": unmapped::fields(&event.activity) }));
    objects::compact(Value::Object(out))
}

fn metadata(event: &Event, sequence: Option<u64>) -> Value {
    json!({
        "version": VERSION,
        "uid": event.uid.to_string(),
        "sequence": sequence,
        "correlation_uid": correlation(&event.activity),
        "profiles": PROFILES,
        "logged_time": Time::now().ms().max(event.time.ms()),
        "product": objects::product(),
    })
}

/// What belongs together: everything about a hold, everything of a session.
fn correlation(activity: &Activity) -> Option<String> {
    match activity {
        Activity::Held(held) => Some(held.hold.to_string()),
        Activity::Answered(answered) => Some(answered.hold.to_string()),
        Activity::Judged(judged) if judged.hold.is_some() => judged.hold.map(|hold| hold.to_string()),
        other => unmapped::session(other).map(|session| session.id.to_string()),
    }
}

/// One line of the log: the event without line breaks.
#[must_use]
pub fn line(event: &Event, host: &Host, sequence: Option<u64>) -> String {
    render(event, host, sequence).to_string()
}
