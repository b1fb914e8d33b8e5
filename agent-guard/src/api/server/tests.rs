use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    os::unix::net::UnixStream as Blocking,
    path::PathBuf,
};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use ulid::Ulid;

use super::*;
use crate::{
    api::{
        ApiError, Code, EventLines, Problem,
        routes::ROUTES,
        types::{
            Approvals, AttachSession, Counters, EventQuery, ExplainRequest, ExplainedObject, ExplanationView,
            Extent, HoldInfo, HoldState, HookInfo, HookState, Killed, Lost, Mode, NameLimitsView, Origin,
            PolicyView, ProcessInfo, ProfileView, Reloaded, ResolverView, RuleStatus, RuleView,
            SessionAttached, SessionInfo, SessionStarted, SessionState, SessionTree, Sessions, StartSession,
            Status, Time, TreeProcess, Who, ZoneView,
        },
    },
    cli::{Client, ClientError},
};

/// Answers everything with full data, so that field names can be compared.
struct Full;

fn who() -> Who {
    Who { uid: 1, user: Some("a".into()), login_uid: Some(1), tty: Some("pts/0".into()) }
}

fn process() -> ProcessInfo {
    ProcessInfo {
        pid: 2,
        started: Time(1),
        exe: "/x".into(),
        cmd_line: "x".into(),
        uid: 1,
        user: Some("a".into()),
    }
}

fn rule() -> RuleView {
    RuleView { profile: Some("p".into()), reason: Some("r".into()), ..RuleView::default() }
}

fn status_of_a_rule() -> RuleStatus {
    RuleStatus {
        number: Some(1),
        kind: "files".into(),
        profile: Some("p".into()),
        text: "deny delete /x".into(),
        operations: vec!["delete".into()],
        verdict: "deny".into(),
        mode: Mode::Enforce,
        file: "a.toml".into(),
        line: 1,
        enforced: Extent::Full,
        hooks: vec!["path_unlink".into()],
        why: vec![],
    }
}

fn info(id: Ulid) -> SessionInfo {
    SessionInfo {
        id,
        name: None,
        profile: "p".into(),
        mode: Mode::Enforce,
        task: None,
        command: vec![],
        cwd: "/".into(),
        started: Time(1),
        ended: None,
        state: SessionState::Running,
        started_by: who(),
        root_pid: 2,
        origin: Origin::Run,
        parent: Some(Ulid(6)),
        processes: 1,
    }
}

fn hold(id: Ulid, state: HoldState, comment: Option<String>) -> HoldInfo {
    HoldInfo {
        id,
        session: id,
        session_name: None,
        profile: "p".into(),
        process: process(),
        operation: "delete".into(),
        path: Some("/x".into()),
        target_path: None,
        command_line: None,
        address: None,
        port: None,
        rule: Some(rule()),
        asked: Time(1),
        state,
        answered_by: Some(who()),
        answered: Some(Time(2)),
        comment,
        waited_ms: 1,
    }
}

impl Backend for Full {
    fn start_session(&self, peer: &Peer, request: StartSession) -> Result<SessionStarted, ApiError> {
        let profile = request.profile.unwrap_or_else(|| "its own".into());
        if profile == "unknown" {
            return Err(ApiError::unknown_profile("unknown", ["p"]));
        }
        assert_eq!(peer.pid, request.pid);
        Ok(SessionStarted { id: Ulid(7), profile, mode: Mode::Report, generation: 3 })
    }

    fn attach_session(&self, _: &Peer, request: AttachSession) -> Result<SessionAttached, ApiError> {
        Ok(SessionAttached {
            id: Ulid(7),
            profile: request.profile,
            mode: Mode::Enforce,
            generation: 3,
            processes: vec![request.pid],
            threads: 1,
            since_ns: 5,
        })
    }

    fn sessions(&self, _: &Peer) -> Result<Sessions, ApiError> {
        Ok(Sessions { sessions: vec![info(Ulid(7))] })
    }

    fn session(&self, _: &Peer, id: Ulid) -> Result<SessionInfo, ApiError> {
        if id == Ulid(9) { Err(ApiError::not_found("session", id)) } else { Ok(info(id)) }
    }

    fn tree(&self, _: &Peer, session: Ulid) -> Result<SessionTree, ApiError> {
        let entry = TreeProcess { process: process(), parent: 1, depth: 0, hold: Some(Ulid(8)) };
        Ok(SessionTree { session, origin: Origin::Attach, processes: vec![entry] })
    }

    fn kill(&self, _: &Peer, session: Ulid) -> Result<Killed, ApiError> {
        Ok(Killed { session, processes: 2 })
    }

    fn holds(&self, _: &Peer, all: bool) -> Result<Approvals, ApiError> {
        let states: &[HoldState] =
            if all { &[HoldState::Waiting, HoldState::Denied] } else { &[HoldState::Waiting] };
        Ok(Approvals { approvals: states.iter().map(|&state| hold(Ulid(8), state, None)).collect() })
    }

    fn hold(&self, _: &Peer, id: Ulid) -> Result<HoldInfo, ApiError> {
        Ok(hold(id, HoldState::Waiting, None))
    }

    fn answer(
        &self,
        _: &Peer,
        id: Ulid,
        approve: bool,
        comment: Option<String>,
    ) -> Result<HoldInfo, ApiError> {
        Ok(hold(id, if approve { HoldState::Approved } else { HoldState::Denied }, comment))
    }

    fn policy(&self, _: &Peer) -> Result<PolicyView, ApiError> {
        let profile = ProfileView {
            name: "p".into(),
            mode: Mode::Enforce,
            degraded: "refuse".into(),
            scope: vec![],
            outside: BTreeMap::new(),
            persistence: "deny".into(),
            connect: "deny".into(),
            denied: "EPERM".into(),
            names: NameLimitsView {
                length: 128,
                labels: 6,
                label: 56,
                long: 36,
                entropy: 4250,
                rate: "60/1m".into(),
            },
            anonymous: "deny".into(),
            system: BTreeMap::default(),
            capabilities: Vec::new(),
        };
        Ok(PolicyView {
            generation: 3,
            digest: "d".into(),
            loaded: Time(1),
            files: vec![],
            resolver: ResolverView {
                upstream: vec![],
                timeout_ms: 5000,
                zones: vec![ZoneView { name: "corp.example".into(), upstream: vec!["10.1.0.53:53".into()] }],
            },
            profiles: vec![profile],
            rules: vec![rule()],
            builtin: vec![],
            warnings: vec![],
        })
    }

    fn reload(&self, _: &Peer) -> Result<Reloaded, ApiError> {
        let generation = 4;
        Ok(Reloaded {
            generation_before: 3,
            generation,
            digest: "d".into(),
            profiles: 1,
            rules: 1,
            warnings: vec![],
        })
    }

    fn explain(&self, _: &Peer, request: ExplainRequest) -> Result<ExplanationView, ApiError> {
        let object = ExplainedObject { rule: Some(rule()), ..ExplainedObject::default() };
        Ok(ExplanationView {
            profile: request.profile,
            operation: "delete".into(),
            generation: 3,
            verdict: "deny".into(),
            objects: vec![object],
            notes: vec![],
        })
    }

    fn events(&self, _: &Peer, query: EventQuery) -> Result<EventLines, ApiError> {
        let (sender, receiver) = mpsc::channel(8);
        sender.try_send(json!({ "time": 1, "follow": query.follow }).to_string()).unwrap();
        sender.try_send("{}".to_owned()).unwrap();
        Ok(receiver)
    }

    fn status(&self, _: &Peer) -> Result<Status, ApiError> {
        Ok(Status {
            version: "1".into(),
            abi: 1,
            kernel: "6.1".into(),
            pid: 1,
            uptime_ms: 1,
            generation: 3,
            policy_digest: "d".into(),
            socket: "/s".into(),
            hooks: vec![HookInfo { name: "h".into(), state: HookState::Attached, enforces: "e".into() }],
            rules: vec![status_of_a_rule()],
            sessions: 1,
            holds_waiting: 1,
            counters: Counters::default(),
            lost: Lost::default(),
            degraded: vec![],
            warnings: vec![],
        })
    }
}

/// A server in a thread of its own; ends with the test.
struct Server {
    path: PathBuf,
    _stop: oneshot::Sender<()>,
}

impl Server {
    fn start(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("agent-guard-api-{name}-{}", std::process::id()));
        drop(std::fs::remove_file(&path));
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let socket = path.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = UnixListener::bind(socket).unwrap();
                ready.send(()).unwrap();
                serve(listener, Arc::new(Full), MOST, async { drop(stopped.await) }).await.unwrap();
            });
        });
        is_ready.recv().unwrap();
        Self { path, _stop: stop }
    }

    fn client(&self) -> Client {
        Client::new(self.path.clone())
    }

    fn raw(&self, request: &str) -> String {
        let mut stream = Blocking::connect(&self.path).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

fn start_request(profile: &str) -> StartSession {
    StartSession {
        profile: Some(profile.into()),
        task: None,
        name: None,
        command: vec!["x".into()],
        cwd: "/".into(),
        pid: std::process::id(),
        start_time: 1,
    }
}

#[test]
fn requests_reach_the_backend_and_back() {
    let server = Server::start("all");
    let client = server.client();
    let started: SessionStarted = client.post("/v1/sessions", &start_request("p")).unwrap();
    assert_eq!(started.id, Ulid(7));
    let approvals: Approvals = client.get("/v1/approvals?all=true").unwrap();
    assert_eq!(approvals.approvals.len(), 2);
    let path = format!("/v1/approvals/{}/deny", Ulid(8));
    let answered: HoldInfo = client.post(&path, &json!({ "comment": "no" })).unwrap();
    assert_eq!((answered.state, answered.comment.as_deref()), (HoldState::Denied, Some("no")));
    let tree: SessionTree = client.get(&format!("/v1/sessions/{}/tree", Ulid(7))).unwrap();
    assert_eq!(tree.processes[0].process.pid, 2);
    let mut lines = Vec::new();
    let take = |line: &str| {
        lines.push(line.to_owned());
        Ok(true)
    };
    client.lines("/v1/events?follow=false&since=10m&verdict=deny,hold", take).unwrap().unwrap();
    assert_eq!(lines, [r#"{"follow":false,"time":1}"#, "{}"]);
}

#[test]
fn errors_are_problems() {
    let server = Server::start("errors");
    let client = server.client();
    let code = |error: ClientError| match error {
        ClientError::Api(error) => error.code,
        other => panic!("{other}"),
    };
    let nobody = client.get::<Value>(&format!("/v1/sessions/{}", Ulid(9))).unwrap_err();
    assert_eq!(code(nobody), Code::NotFound);
    assert_eq!(code(client.get::<Value>("/v1/nothing").unwrap_err()), Code::NotFound);
    assert_eq!(code(client.get::<Value>("/v1/sessions/x").unwrap_err()), Code::BadRequest);
    assert_eq!(code(client.get::<Value>("/v1/policy/reload").unwrap_err()), Code::BadRequest);
    assert_eq!(code(client.get::<Value>("/v1/events?since=x").unwrap_err()), Code::BadRequest);
    assert_eq!(code(client.get::<Value>("/v1/approvals?al=true").unwrap_err()), Code::BadRequest);
    let unknown = client.post::<Value>("/v1/sessions", &start_request("unknown")).unwrap_err();
    assert_eq!(code(unknown), Code::UnknownProfile);
    let odd = client.post::<Value>("/v1/sessions", &json!({ "profile": "p" })).unwrap_err();
    assert_eq!(code(odd), Code::BadRequest);
    let two = json!({ "profile": "p", "operation": "delete", "path": "/", "connect": "h:1" });
    assert_eq!(code(client.post::<Value>("/v1/policy/explain", &two).unwrap_err()), Code::BadRequest);
    let long = json!({ "comment": "x".repeat(2 << 20) });
    let path = format!("/v1/approvals/{}/deny", Ulid(8));
    match client.post::<Value>(&path, &long).unwrap_err() {
        ClientError::Api(error) => assert_eq!(error.code, Code::BadRequest),
        // The server has closed the connection before all of it was written.
        ClientError::Talk { .. } => {}
        other => panic!("{other}"),
    }
    let answer = server.raw("DELETE /v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    let body: Problem = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((body.status, body.code), (405, Code::BadRequest));
}

#[test]
fn one_user_can_not_take_all_places() {
    let users = Users::default();
    let places: Vec<_> = (0..MOST_PER_USER).map(|_| users.place(1000).unwrap()).collect();
    assert!(users.place(1000).is_none());
    assert!(users.place(1001).is_some());
    drop(places);
    assert!(users.place(1000).is_some());
    assert!(users.0.lock().unwrap().is_empty());
}

fn description() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_description_has_every_route_and_no_other() {
    let described: BTreeSet<(String, String)> = description()["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
        })
        .collect();
    let served: BTreeSet<(String, String)> =
        ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(described, served);
}

/// Every field that is really sent is described, and the other way round.
#[test]
fn the_description_has_every_field_and_no_other() {
    fn compare(description: &Value, name: &str, value: &Value) {
        let schema = &description["components"]["schemas"][name];
        assert!(schema.is_object(), "no schema {name}");
        let described: BTreeSet<&String> = schema["properties"].as_object().unwrap().keys().collect();
        let sent: BTreeSet<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(described, sent, "{name}");
        for (field, property) in schema["properties"].as_object().unwrap() {
            let target = [&property["$ref"], &property["items"]["$ref"], &property["anyOf"][0]["$ref"]]
                .into_iter()
                .find_map(Value::as_str);
            let Some(target) = target.and_then(|target| target.strip_prefix("#/components/schemas/")) else {
                continue;
            };
            let inner = &value[field];
            let inner = if inner.is_array() { &inner[0] } else { inner };
            if inner.is_object() && description["components"]["schemas"][target]["type"] == "object" {
                compare(description, target, inner);
            }
        }
    }
    let server = Server::start("fields");
    let client = server.client();
    let description = description();
    let id = Ulid(7);
    for (name, path) in [
        ("Sessions", "/v1/sessions".to_owned()),
        ("SessionTree", format!("/v1/sessions/{id}/tree")),
        ("Approvals", "/v1/approvals".to_owned()),
        ("PolicyView", "/v1/policy".to_owned()),
        ("Status", "/v1/status".to_owned()),
    ] {
        compare(&description, name, &client.get(&path).unwrap());
    }
    compare(&description, "SessionStarted", &client.post("/v1/sessions", &start_request("p")).unwrap());
    let attach = json!({ "pid": 5, "start_time": 6, "profile": "p" });
    compare(&description, "SessionAttached", &client.post("/v1/sessions/attach", &attach).unwrap());
    compare(&description, "Killed", &client.post(&format!("/v1/sessions/{id}/kill"), &json!({})).unwrap());
    compare(&description, "Reloaded", &client.post("/v1/policy/reload", &json!({})).unwrap());
    let question = json!({ "profile": "p", "connect": "h:1" });
    compare(&description, "ExplanationView", &client.post("/v1/policy/explain", &question).unwrap());
}
