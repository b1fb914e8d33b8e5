use agent_guard_common::{Fault, Op, Source, Verdict};
use serde_json::Value;

use super::{render, samples};
use crate::events::activity::{Activity, Decided, Event, Judged, Object, Outcome};

fn rendered(event: &Event) -> Value {
    let mut value = render(event, &samples::host(), Some(7));
    value["metadata"]["logged_time"] = Value::from(event.time.ms());
    value["metadata"]["product"]["version"] = Value::from("0.1.0");
    if value.get("app").is_some() {
        value["app"]["version"] = Value::from("0.1.0");
    }
    value
}

/// Attributes that each class must have, of OCSF 1.8.0; "a|b" for at least one of several.
fn required(class: u64) -> &'static [&'static str] {
    match class {
        1001 => &["actor", "device", "file"],
        1003 => &["actor", "device", "kernel"],
        1007 => &["actor", "device", "process"],
        2004 => &["finding_info/uid", "finding_info/analytic/type_id"],
        3002 => &["user", "service|dst_endpoint"],
        3004 => &["entity/name|entity/uid"],
        4001 => &["dst_endpoint/ip|dst_endpoint/name|src_endpoint/ip", "connection_info/direction_id"],
        4003 => &["query/hostname", "src_endpoint/ip"],
        6002 => &["app/name"],
        6008 => &["message"],
        _ => panic!("class {class} is not in the mapping"),
    }
}

#[test]
fn required_attributes_are_there() {
    const BASE: [&str; 12] = [
        "class_uid",
        "category_uid",
        "activity_id",
        "type_uid",
        "time",
        "severity_id",
        "metadata/version",
        "metadata/product/name",
        "metadata/uid",
        "device/type_id",
        "device/os/name",
        "device/os/type_id",
    ];
    for (heading, event) in samples::all() {
        let value = rendered(&event);
        let class = value["class_uid"].as_u64().unwrap();
        for wanted in BASE.iter().chain(required(class)) {
            let there = wanted.split('|').any(|path| value.pointer(&format!("/{path}")).is_some());
            assert!(there, "{heading}: {wanted}");
        }
        let activity = value["activity_id"].as_u64().unwrap();
        assert_eq!(value["type_uid"], class * 100 + activity, "{heading}");
        assert_eq!(value["category_uid"], class / 1000, "{heading}");
        assert!(!value.to_string().contains("null"), "{heading}: {value}");
    }
}

/// Objects that must have certain attributes wherever they are.
#[test]
fn objects_are_whole() {
    fn walk(value: &Value, path: &str) {
        match value {
            Value::Object(map) => {
                let has = |key: &str| map.contains_key(key);
                match path.rsplit('/').next().unwrap_or_default() {
                    "file" | "file_result" => assert!(has("name") && has("type_id"), "{path}"),
                    "process" | "parent_process" => assert!(has("pid"), "{path}"),
                    "user" => assert!(has("uid") || has("name"), "{path}"),
                    "policy" => assert!(has("uid") || has("name"), "{path}"),
                    "actor" => {
                        assert!(has("process") || has("user") || has("app_name") || has("session"), "{path}");
                    }
                    _ => {}
                }
                map.iter().for_each(|(key, value)| walk(value, &format!("{path}/{key}")));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, path)),
            _ => {}
        }
    }
    for (heading, event) in samples::all() {
        walk(&rendered(&event), heading);
    }
}

fn file_event(op: Op, verdict: Verdict) -> Value {
    let object = Object::File(samples::file("/srv/x", 0o100_644), None);
    rendered(&samples::judged(samples::decided(op, object, verdict), verdict))
}

#[test]
fn rows_of_files() {
    for (op, type_uid) in [
        (Op::READ, 100_102),
        (Op::EXECUTE, 100_114),
        (Op::WRITE, 100_103),
        (Op::CREATE, 100_101),
        (Op::DELETE, 100_104),
        (Op::RENAME, 100_105),
        (Op::METADATA, 100_106),
    ] {
        let value = file_event(op, Verdict::DENY);
        assert_eq!(value["type_uid"], type_uid, "{}", op.name());
        assert_eq!(value["file"]["uid"], "254:1:131074");
        assert_eq!(value["unmapped"]["agent_guard"]["operation"], op.name());
    }
}

#[test]
fn rows_of_verdicts() {
    for (verdict, action, disposition, status) in [
        (Verdict::ALLOW, 1, 1, 1),
        (Verdict::REPORT, 3, 17, 1),
        (Verdict::HOLD, 4, 14, 99),
        (Verdict::DENY, 2, 2, 2),
        (Verdict::KILL, 2, 2, 2),
    ] {
        let value = file_event(Op::DELETE, verdict);
        let got = (&value["action_id"], &value["disposition_id"], &value["status_id"]);
        assert_eq!(got, (&action.into(), &disposition.into(), &status.into()), "{}", verdict.name());
    }
}

#[test]
fn would_have_been_blocked() {
    let object = Object::File(samples::file("/srv/x", 0o100_644), None);
    let decision = Decided { source: Source::OUTSIDE, ..samples::decided(Op::DELETE, object, Verdict::DENY) };
    let value = rendered(&samples::judged(decision, Verdict::REPORT));
    assert_eq!(value["disposition_id"], 15);
    assert_eq!(value["severity_id"], 2);
    assert_eq!(value["unmapped"]["agent_guard"]["policy_verdict"], "deny");
    assert_eq!(value["unmapped"]["agent_guard"]["verdict"], "report");
}

#[test]
fn an_approved_call_goes_on() {
    let Activity::Judged(judged) = samples::denied().activity else { panic!("not judged") };
    let hold = ulid::Ulid(5);
    let go = Judged { verdict: Verdict::ALLOW, hold: Some(hold), ..judged.clone() };
    let value = rendered(&Event::now(Activity::Judged(go)));
    assert_eq!((&value["action_id"], &value["disposition_id"]), (&1.into(), &8.into()));
    assert_eq!(value["metadata"]["correlation_uid"], hold.to_string());
    let stop = Judged { hold: Some(hold), ..judged };
    let value = rendered(&Event::now(Activity::Judged(stop)));
    assert_eq!((&value["action_id"], &value["disposition_id"]), (&2.into(), &25.into()));
}

#[test]
fn rows_of_connections() {
    let value = rendered(&samples::judged(
        samples::decided(Op::CONNECT, samples::address(), Verdict::DENY),
        Verdict::DENY,
    ));
    assert_eq!(value["type_uid"], 400_101);
    assert_eq!(value["dst_endpoint"]["ip"], "10.20.9.1");
    assert_eq!(value["dst_endpoint"]["port"], 5432);
    assert_eq!(value["connection_info"]["protocol_num"], 6);
    assert_eq!(value["connection_info"]["direction_id"], 2);
}

#[test]
fn rows_of_everything_else() {
    let wanted = [
        ("The guard has started", 600_203, 1, None),
        ("The guard has stopped", 600_204, 1, None),
        ("The guard is degraded", 600_299, 2, None),
        ("A session has started", 300_201, 1, None),
        ("A session has ended", 300_202, 1, None),
        ("A session was killed", 100_702, 1, None),
        ("An action is held", 200_401, 1, Some((4, 14))),
        ("A hold was approved", 200_403, 4, Some((1, 8))),
        ("A hold was denied", 200_403, 4, Some((2, 25))),
        ("A hold was withdrawn", 200_403, 4, Some((3, 16))),
        ("A policy is in force", 300_403, 1, None),
        ("A policy was refused", 300_403, 2, None),
        ("Events were lost", 600_801, 2, None),
    ];
    let all = samples::all();
    for (heading, type_uid, status, outcome) in wanted {
        let (_, event) = all.iter().find(|(found, _)| *found == heading).unwrap();
        let value = rendered(event);
        assert_eq!(value["type_uid"], type_uid, "{heading}");
        assert_eq!(value["status_id"], status, "{heading}");
        let got = value.get("action_id").map(|action| (action.clone(), value["disposition_id"].clone()));
        assert_eq!(got, outcome.map(|(a, d): (u32, u32)| (a.into(), d.into())), "{heading}");
    }
}

#[test]
fn holds_belong_together() {
    let hold = rendered(&samples::answered(Outcome::Denied));
    assert_eq!(hold["metadata"]["correlation_uid"], hold["finding_info"]["uid"]);
    assert_eq!(hold["unmapped"]["agent_guard"]["answered_by"], "alice");
    assert_eq!(hold["comment"], "agreed with the team");
    assert_eq!(hold["duration"], 42_000);
    let session = rendered(&samples::session_started());
    assert_eq!(session["metadata"]["correlation_uid"], session["session"]["uid"]);
}

#[test]
fn faults_are_severe_and_named() {
    let object = Object::File(samples::file("/srv/x", 0), None);
    let decision = Decided {
        fault: Fault::DEPTH,
        source: Source::FAULT,
        rule: None,
        ..samples::decided(Op::WRITE, object, Verdict::DENY)
    };
    let value = rendered(&samples::judged(decision, Verdict::DENY));
    assert_eq!(value["severity_id"], 4);
    assert_eq!(value["unmapped"]["agent_guard"]["fault"], Fault::DEPTH.text());
}

/// `docs/events.md` shows what is really written. To bring it up to date, run this test with
/// `AGENT_GUARD_WRITE_DOCS=1`.
#[test]
fn documentation_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut new = text.clone();
    for (heading, event) in samples::all() {
        let start = format!("### {heading}\n");
        let at = new.find(&start).unwrap_or_else(|| panic!("docs/events.md has no section {heading:?}"));
        let open = at + new[at..].find("```json\n").expect("an example") + "```json\n".len();
        let close = open + new[open..].find("\n```").expect("the end of the example");
        let example = serde_json::to_string_pretty(&rendered(&event)).unwrap();
        new.replace_range(open..close, &example);
        let fields = rendered(&event);
        for name in fields["unmapped"]["agent_guard"].as_object().unwrap().keys() {
            assert!(new.contains(&format!("| `{name}` |")), "docs/events.md doesn't explain {name}");
        }
    }
    if std::env::var_os("AGENT_GUARD_WRITE_DOCS").is_some() {
        std::fs::write(path, &new).unwrap();
    } else {
        assert!(new == text, "docs/events.md is out of date: run with AGENT_GUARD_WRITE_DOCS=1");
    }
}
