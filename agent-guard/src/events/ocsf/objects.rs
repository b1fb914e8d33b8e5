//! How OCSF names the things that many events are about.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Host;
use crate::{
    api::types::{ProcessInfo, Who},
    events::activity::{
        Actor, AddressRef, CommandRef, FileRef, NameRef, Object, PolicyRef, QueryOutcome, RuleRef,
        SessionRef, SocketRef,
    },
};

/// Drops what isn't known, so that nothing is there with a value that says nothing.
pub(super) fn compact(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| (key, compact(value)))
                .filter(|(_, value)| !says_nothing(value))
                .collect::<Map<_, _>>(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(compact).collect()),
        other => other,
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

pub(super) fn product() -> Value {
    json!({ "name": "agent-guard", "vendor_name": "agent-guard", "version": env!("CARGO_PKG_VERSION") })
}

/// `type_id` 0: whether a host is a server, a desktop or a virtual machine isn't the guard's to know.
pub(super) fn device(host: &Host) -> Value {
    json!({
        "hostname": host.hostname,
        "uid": host.machine_id,
        "type_id": 0,
        "type": "Unknown",
        "os": { "name": host.os_name, "type_id": 200, "type": "Linux", "kernel_release": host.kernel },
    })
}

pub(super) fn user(who: &Who) -> Value {
    json!({
        "uid": who.uid.to_string(),
        "name": who.user,
        "type_id": if who.uid == 0 { 2 } else { 1 },
        "type": if who.uid == 0 { "Admin" } else { "User" },
    })
}

/// A process without its ancestors.
pub(super) fn process(process: &ProcessInfo) -> Value {
    json!({
        "pid": process.pid,
        "created_time": process.started.ms(),
        "name": name_of(&process.exe),
        "cmd_line": process.cmd_line,
        "file": exe(process),
        "user": user(&Who { uid: process.uid, user: process.user.clone(), ..Who::default() }),
    })
}

fn exe(process: &ProcessInfo) -> Value {
    if process.exe.is_empty() {
        return Value::Null;
    }
    json!({ "name": name_of(&process.exe), "path": process.exe, "type_id": 1, "type": "Regular File" })
}

/// A process with its parent, and all of its ancestors up to the session's first process.
fn process_with_parents(actor: &Actor) -> Value {
    let mut out = process(&actor.process);
    if let (Some(map), Some(parent)) = (out.as_object_mut(), actor.parents.first()) {
        map.insert("parent_process".to_owned(), process(parent));
        let ancestry: Vec<Value> = actor.parents.iter().map(entity).collect();
        map.insert("ancestry".to_owned(), Value::Array(ancestry));
    }
    out
}

/// The short form of a process that `ancestry` has.
fn entity(process: &ProcessInfo) -> Value {
    json!({
        "pid": process.pid,
        "created_time": process.started.ms(),
        "name": name_of(&process.exe),
        "path": process.exe,
        "cmd_line": process.cmd_line,
    })
}

pub(super) fn actor(actor: &Actor) -> Value {
    let process = &actor.process;
    json!({
        "process": process_with_parents(actor),
        "user": user(&Who { uid: process.uid, user: process.user.clone(), ..Who::default() }),
        "session": actor.session.as_ref().map(session),
    })
}

/// A person who acts through the control socket, or the daemon itself.
pub(super) fn person(who: Option<&Who>, through: Option<&ProcessInfo>) -> Value {
    match who {
        Some(who) => json!({ "user": user(who), "process": through.map(process) }),
        None => json!({ "app_name": "agent-guard" }),
    }
}

pub(super) fn session(session: &SessionRef) -> Value {
    json!({
        "uid": session.id.to_string(),
        "created_time": session.started.ms(),
        "issuer": "agent-guard",
        "terminal": session.started_by.tty,
    })
}

pub(super) fn policy(policy: &PolicyRef, profile: Option<&str>) -> Value {
    if policy.generation == 0 && policy.digest.is_empty() {
        return Value::Null;
    }
    json!({
        "uid": policy.digest,
        "name": profile.unwrap_or("agent-guard"),
        "version": policy.generation.to_string(),
    })
}

pub(super) fn file(file: &FileRef) -> Value {
    let (type_id, kind) = file_type(file.mode);
    let uid = (file.ino != 0).then(|| format!("{}:{}", file.dev, file.ino));
    json!({
        "name": name_of(&file.path),
        "path": file.path,
        "type_id": type_id,
        "type": kind,
        "uid": uid,
    })
}

/// `file.type_id` of a mode.
fn file_type(mode: u32) -> (u32, &'static str) {
    match mode & 0o170_000 {
        0o100_000 => (1, "Regular File"),
        0o040_000 => (2, "Folder"),
        0o020_000 => (3, "Character Device"),
        0o060_000 => (4, "Block Device"),
        0o140_000 => (5, "Local Socket"),
        0o010_000 => (6, "Named Pipe"),
        0o120_000 => (7, "Symbolic Link"),
        _ => (0, "Unknown"),
    }
}

pub(super) fn endpoint(address: &AddressRef) -> Value {
    let hostname = match address.names.as_slice() {
        [name] => Some(name),
        _ => None,
    };
    json!({ "ip": address.ip.to_string(), "port": address.port, "hostname": hostname })
}

/// From where a name is asked for.
pub(super) fn asker(name: &NameRef) -> Value {
    json!({ "ip": name.from.ip().to_canonical().to_string(), "port": name.from.port() })
}

/// The question for a name.
pub(super) fn query(name: &NameRef) -> Value {
    json!({ "hostname": name.name, "type": name.record, "class": "IN", "opcode_id": 0, "opcode": "Query" })
}

/// The addresses that it was answered with.
pub(super) fn answers(name: &NameRef) -> Value {
    let answer = |addr: &std::net::IpAddr| {
        let kind = if addr.is_ipv4() { "A" } else { "AAAA" };
        json!({ "rdata": addr.to_string(), "type": kind, "class": "IN" })
    };
    match name.addresses.as_slice() {
        [] => Value::Null,
        addresses => addresses.iter().map(answer).collect(),
    }
}

/// `rcode_id` and its caption (RFC 1035, 4.1.1): what whoever asks is told. None where that isn't always the same.
pub(super) const fn rcode(outcome: QueryOutcome) -> Option<(u32, &'static str)> {
    match outcome {
        QueryOutcome::Answered | QueryOutcome::Empty | QueryOutcome::Rebinding => Some((0, "NoError")),
        QueryOutcome::Failed => Some((2, "ServError")),
        QueryOutcome::Unknown | QueryOutcome::Refused => Some((3, "NXDomain")),
        QueryOutcome::Limited | QueryOutcome::Unsupported => None,
    }
}

pub(super) fn connection(address: &AddressRef) -> Value {
    let name = match address.protocol {
        1 => Some("icmp"),
        6 => Some("tcp"),
        17 => Some("udp"),
        58 => Some("ipv6-icmp"),
        132 => Some("sctp"),
        _ => None,
    };
    json!({
        "protocol_num": address.protocol,
        "protocol_name": name,
        "protocol_ver_id": if address.ip.is_ipv4() { 4 } else { 6 },
        "direction_id": if address.local { 1 } else { 2 },
        "direction": if address.local { "Inbound" } else { "Outbound" },
    })
}

/// A Unix socket has a path and no address: OCSF calls that the name of the endpoint.
pub(super) fn socket_endpoint(socket: &SocketRef) -> Value {
    json!({ "name": socket.text() })
}

pub(super) fn socket_connection() -> Value {
    json!({ "protocol_name": "unix", "direction_id": 4, "direction": "Local" })
}

/// What a hold is about, as evidence.
pub(super) fn evidence(who: &Actor, object: &Object) -> Value {
    let mut out = Map::new();
    out.insert("actor".to_owned(), actor(who));
    match object {
        Object::File(about, _) => {
            out.insert("file".to_owned(), file(about));
        }
        Object::Name(about) => {
            out.insert("query".to_owned(), query(about));
        }
        Object::Address(about) => {
            let end = if about.local { "src_endpoint" } else { "dst_endpoint" };
            out.insert(end.to_owned(), endpoint(about));
            out.insert("connection_info".to_owned(), connection(about));
        }
        Object::Socket(about) => {
            out.insert("dst_endpoint".to_owned(), socket_endpoint(about));
            out.insert("connection_info".to_owned(), socket_connection());
        }
        Object::Command(about) => {
            out.insert("process".to_owned(), command(about, who.process.pid));
        }
        Object::System(about) => {
            out.insert("process".to_owned(), about.target.as_ref().map_or(Value::Null, process));
        }
    }
    Value::Object(out)
}

/// The process that executes a program, as it would be.
pub(super) fn command(command: &CommandRef, pid: u32) -> Value {
    json!({
        "pid": pid,
        "name": name_of(&command.file.path),
        "cmd_line": command.line(),
        "file": file(&command.file),
    })
}

/// Something of the kernel that is used.
pub(super) fn kernel(name: &str) -> Value {
    json!({ "name": name, "type_id": 2, "type": "System Call" })
}

/// The rule that asks.
pub(super) fn analytic(rule: Option<&RuleRef>, source: &str) -> Value {
    match rule {
        Some(rule) => json!({
            "type_id": 1,
            "type": "Rule",
            "uid": rule.number.to_string(),
            "name": rule.text,
            "desc": rule.reason,
        }),
        None => json!({ "type_id": 1, "type": "Rule", "name": source }),
    }
}

/// The last component of a path.
pub(super) fn name_of(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path)
}
