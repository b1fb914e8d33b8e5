//! One event of each kind, for tests and for `docs/events.md`.

use agent_guard_common::{Fault, Op, Source, Verdict, event::Hook};
use ulid::Ulid;

use super::Host;
use crate::{
    api::types::{Mode, Origin, ProcessInfo, Time, Who},
    events::activity::{
        Activity, Actor, AddressRef, Answered, CommandRef, Decided, Event, EventsLost, FileRef,
        GuardDegraded, GuardStarted, GuardStopped, Held, Judged, NameRef, Object, Outcome, PolicyRef,
        PolicyRefused, PolicyReloaded, QueryOutcome, RuleRef, SessionEnded, SessionKilled, SessionRef,
        SessionStarted, SocketRef, SystemRef,
    },
    policy::RuleKind,
};

const NOW: Time = Time(1_764_590_584_123);

pub(crate) fn host() -> Host {
    Host {
        hostname: "build-7".to_owned(),
        machine_id: Some("6e6b2a0f4c1d4a5e9b1f0a7c3d2e1f00".to_owned()),
        os_name: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        kernel: "6.1.0-28-amd64".to_owned(),
    }
}

fn event(activity: Activity) -> Event {
    Event { time: NOW, uid: Ulid(0x019a_d9c2_6a3b_0000_0000_0000_0000_0001), activity }
}

fn session_id() -> Ulid {
    Ulid(0x019a_d9c0_0000_0000_0000_0000_0000_0002)
}

fn hold_id() -> Ulid {
    Ulid(0x019a_d9c2_0000_0000_0000_0000_0000_0003)
}

fn process(pid: u32, exe: &str, cmd_line: &str) -> ProcessInfo {
    ProcessInfo {
        pid,
        started: Time(NOW.0 - 60_000),
        exe: exe.to_owned(),
        cmd_line: cmd_line.to_owned(),
        uid: 1000,
        user: Some("bob".to_owned()),
    }
}

fn bob() -> Who {
    Who { uid: 1000, user: Some("bob".to_owned()), login_uid: Some(1000), tty: Some("pts/3".to_owned()) }
}

fn alice() -> Who {
    Who { uid: 1001, user: Some("alice".to_owned()), login_uid: Some(1001), tty: None }
}

pub(crate) fn actor() -> Actor {
    Actor {
        process: process(1234, "/usr/bin/rm", "rm -rf /srv/prod/db"),
        parents: vec![
            process(1200, "/usr/bin/bash", "bash -c cleanup"),
            process(1100, "/usr/local/bin/claude", "claude"),
        ],
        session: Some(SessionRef {
            id: session_id(),
            name: Some("fix-config".to_owned()),
            profile: "coding-agent".to_owned(),
            mode: Mode::Enforce,
            task: Some("fix the config".to_owned()),
            started: Time(NOW.0 - 600_000),
            started_by: bob(),
        }),
    }
}

fn root_actor() -> Actor {
    Actor { process: process(1100, "/usr/local/bin/claude", "claude"), parents: Vec::new(), ..actor() }
}

fn policy(generation: u32) -> PolicyRef {
    PolicyRef { generation, digest: format!("sha256:{generation:08x}") }
}

pub(crate) fn file(path: &str, mode: u32) -> FileRef {
    FileRef { path: path.to_owned(), cut: false, dev: "254:1".to_owned(), ino: 131_074, mode }
}

pub(crate) fn decided(operation: Op, object: Object, verdict: Verdict) -> Decided {
    Decided {
        policy: policy(3),
        operation,
        object,
        policy_verdict: verdict,
        source: Source::CRITICAL,
        rule: Some(RuleRef {
            number: 1,
            kind: RuleKind::Critical,
            text: "hold delete below /srv/prod".to_owned(),
            reason: Some("production data".to_owned()),
            file: "/etc/agent-guard/policy.d/50-default.toml".to_owned(),
            line: 4,
        }),
        fault: Fault::NONE,
        hook: Hook::PATH_UNLINK,
        errno: if verdict.goes_on() { 0 } else { -1 },
    }
}

pub(crate) fn judged(decision: Decided, verdict: Verdict) -> Event {
    event(Activity::Judged(Judged { actor: actor(), decision, verdict, hold: None }))
}

pub(crate) fn denied() -> Event {
    let object = Object::File(file("/srv/prod/db", 0o100_644), None);
    judged(decided(Op::DELETE, object, Verdict::DENY), Verdict::DENY)
}

fn renamed() -> Event {
    let target = FileRef { ino: 0, dev: String::new(), mode: 0, ..file("/home/bob/repo/new", 0) };
    let object = Object::File(file("/home/bob/repo/old", 0o040_755), Some(target));
    let decision = Decided {
        source: Source::SCOPE,
        rule: None,
        hook: Hook::PATH_RENAME,
        ..decided(Op::RENAME, object, Verdict::REPORT)
    };
    judged(decision, Verdict::REPORT)
}

pub(crate) fn address() -> Object {
    Object::Address(AddressRef {
        ip: [10, 20, 9, 1].into(),
        port: 5432,
        protocol: 6,
        names: vec!["db.example.org".to_owned()],
        local: false,
    })
}

fn connected() -> Event {
    let decision = Decided {
        source: Source::NETWORK,
        rule: None,
        hook: Hook::SOCKET_CONNECT,
        ..decided(Op::CONNECT, address(), Verdict::DENY)
    };
    judged(decision, Verdict::DENY)
}

fn listened() -> Event {
    let object = Object::Address(AddressRef {
        ip: [0, 0, 0, 0].into(),
        port: 8080,
        protocol: 6,
        names: Vec::new(),
        local: true,
    });
    let decision = Decided {
        source: Source::NETWORK,
        rule: None,
        hook: Hook::SOCKET_BIND,
        ..decided(Op::LISTEN, object, Verdict::DENY)
    };
    judged(decision, Verdict::DENY)
}

fn looked_up() -> Event {
    let object = Object::Name(NameRef {
        name: "pastebin.example.org".to_owned(),
        record: Some("AAAA".to_owned()),
        addresses: Vec::new(),
        withheld: Vec::new(),
        outcome: QueryOutcome::Refused,
        detail: None,
        from: ([127, 0, 0, 1], 40_112).into(),
    });
    let decision = Decided {
        source: Source::NETWORK,
        rule: None,
        hook: Hook::NONE,
        errno: 0,
        ..decided(Op::CONNECT, object, Verdict::DENY)
    };
    judged(decision, Verdict::DENY)
}

fn connected_to_a_socket() -> Event {
    let object = Object::Socket(SocketRef::File(file("/run/docker.sock", 0o140_660)));
    let decision = Decided {
        source: Source::NETWORK,
        rule: None,
        hook: Hook::UNIX_STREAM_CONNECT,
        ..decided(Op::CONNECT, object, Verdict::DENY)
    };
    judged(decision, Verdict::DENY)
}

fn sent_to_a_name() -> Event {
    let object = Object::Socket(SocketRef::Abstract("/tmp/.X11-unix/X0".to_owned()));
    let decision = Decided {
        source: Source::NETWORK,
        rule: None,
        hook: Hook::UNIX_MAY_SEND,
        ..decided(Op::CONNECT, object, Verdict::DENY)
    };
    judged(decision, Verdict::DENY)
}

fn executed() -> Event {
    let arguments = ["terraform", "destroy", "-auto-approve"].map(str::to_owned).to_vec();
    let object = Object::Command(CommandRef {
        file: file("/usr/local/bin/terraform", 0o100_755),
        arguments,
        cut: false,
    });
    let decision = Decided {
        source: Source::RULE,
        hook: Hook::BPRM_CHECK_SECURITY,
        rule: Some(RuleRef {
            number: 2,
            kind: RuleKind::Exec,
            text: "deny exec terraform destroy ...".to_owned(),
            reason: None,
            file: "/etc/agent-guard/policy.d/50-default.toml".to_owned(),
            line: 30,
        }),
        ..decided(Op::EXEC, object, Verdict::DENY)
    };
    judged(decision, Verdict::DENY)
}

fn system() -> Event {
    let object = Object::System(SystemRef { what: "CAP_SYS_MODULE".to_owned(), target: None });
    let decision = Decided {
        source: Source::SYSTEM,
        rule: None,
        hook: Hook::CAPABLE,
        ..decided(Op::MODULES, object, Verdict::DENY)
    };
    judged(decision, Verdict::DENY)
}

fn signalled() -> Event {
    let target = Some(actor().process);
    let object = Object::System(SystemRef { what: "SIGKILL".to_owned(), target });
    let decision = Decided {
        source: Source::SYSTEM,
        rule: None,
        hook: Hook::TASK_KILL,
        ..decided(Op::SIGNAL, object, Verdict::DENY)
    };
    judged(decision, Verdict::DENY)
}

fn held() -> Event {
    let object = Object::File(file("/srv/prod/db", 0o100_644), None);
    let decision = decided(Op::DELETE, object, Verdict::HOLD);
    event(Activity::Held(Held { hold: hold_id(), actor: actor(), decision }))
}

pub(crate) fn answered(outcome: Outcome) -> Event {
    let object = Object::File(file("/srv/prod/db", 0o100_644), None);
    event(Activity::Answered(Answered {
        hold: hold_id(),
        asked: Time(NOW.0 - 42_000),
        actor: actor(),
        decision: decided(Op::DELETE, object, Verdict::HOLD),
        outcome,
        by: (outcome != Outcome::Withdrawn).then(alice),
        comment: (outcome != Outcome::Withdrawn).then(|| "agreed with the team".to_owned()),
        held_ms: 42_000,
    }))
}

pub(crate) fn session_started() -> Event {
    event(Activity::SessionStarted(SessionStarted {
        actor: root_actor(),
        policy: policy(3),
        command: vec!["claude".to_owned()],
        cwd: "/home/bob/repo".to_owned(),
        origin: Origin::Run,
        parent: None,
        attached: vec![],
    }))
}

/// One of each, with its heading in the documentation.
pub(crate) fn all() -> Vec<(&'static str, Event)> {
    let guard_started = GuardStarted {
        kernel: host().kernel,
        hooks: vec!["path_unlink".to_owned(), "socket_connect".to_owned()],
        absent: vec![],
        policy: policy(3),
        adopted: true,
        degraded: vec![],
    };
    let degraded = GuardDegraded { degraded: vec!["events don't reach the file: disk full".to_owned()] };
    let ended = SessionEnded { actor: root_actor(), duration_ms: 600_000, killed: false };
    let killed = SessionKilled { actor: root_actor(), by: alice(), through: None, processes: 4 };
    let reloaded =
        PolicyReloaded { by: Some(alice()), before: policy(3), policy: policy(4), profiles: 2, rules: 9 };
    let refused = PolicyRefused {
        by: Some(alice()),
        policy: policy(3),
        errors: vec!["/etc/agent-guard/policy.d/50-default.toml:7:1: unknown key `moed`".to_owned()],
    };
    let lost = EventsLost {
        kind: "reports".to_owned(),
        place: "ring buffer".to_owned(),
        count: 17,
        from: Time(NOW.0 - 1000),
        to: NOW,
    };
    vec![
        ("The guard has started", event(Activity::GuardStarted(guard_started))),
        (
            "The guard has stopped",
            event(Activity::GuardStopped(GuardStopped { reason: "SIGTERM".to_owned() })),
        ),
        ("The guard is degraded", event(Activity::GuardDegraded(degraded))),
        ("A session has started", session_started()),
        ("A session has ended", event(Activity::SessionEnded(ended))),
        ("A session was killed", event(Activity::SessionKilled(killed))),
        ("A file action was denied", denied()),
        ("A rename was reported", renamed()),
        ("A connection was denied", connected()),
        ("Listening was denied", listened()),
        ("A name was refused", looked_up()),
        ("A connection to a Unix socket was denied", connected_to_a_socket()),
        ("A message to an abstract name was denied", sent_to_a_name()),
        ("A program was not executed", executed()),
        ("An operation on the system was denied", system()),
        ("A signal was denied", signalled()),
        ("An action is held", held()),
        ("A hold was approved", answered(Outcome::Approved)),
        ("A hold was denied", answered(Outcome::Denied)),
        ("A hold was withdrawn", answered(Outcome::Withdrawn)),
        ("A policy is in force", event(Activity::PolicyReloaded(reloaded))),
        ("A policy was refused", event(Activity::PolicyRefused(refused))),
        ("Events were lost", event(Activity::EventsLost(lost))),
    ]
}
