//! The guard itself: a session can't signal, trace, slow down, blind, change or unload it, as root and whatever its policy
//! allows.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::Scenario;
use crate::fixture::guard::{ALL, CHANGES, PINS, PROGRAM, cli, pins, policy, rule};
use crate::fixture::world::PROD;
use crate::fixture::{Event, Guard, PROFILE, Server, World, number, same};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("guard_process", "signals, tracing, priorities, limits: the daemon gets none", process),
    Scenario::direct(
        "guard_kernel_side",
        "pins, programs and maps can't be reached, removed or replaced",
        kernel_side,
    ),
    Scenario::direct(
        "guard_files",
        "policy, state, log, program, unit and control group stay as they are",
        files,
    ),
    Scenario::direct(
        "guard_by_root",
        "root outside of sessions keeps its powers, and each use of them is told",
        by_root,
    ),
];

/// A policy that allows a session whatever a policy can allow.
fn free() -> String {
    let table = format!("[profile.{PROFILE}.files]\n");
    let text = policy(&(rule("/", ALL, "allow") + &rule(PROD, CHANGES, "deny")));
    text.replace(&table, &format!("{table}persistence = \"allow\"\n"))
}

/// The daemon lives, judges, and this session was told no by the guard's own rule.
fn well(guard: &mut Guard, inside: &mut Server) -> Result<()> {
    cli(&["status"])?.good()?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    guard.generation().map(drop)
}

fn process() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&free())?;
    let mut inside = Server::inside(&guard)?;
    let mut outside = Server::outside()?;
    let mut other = Server::outside()?;
    let (daemon, other) = (guard.daemon()?.pid(), other.process().pid());
    let signals: Vec<String> =
        [1, 2, 9, 15, 18, 19, 20, 64].iter().map(|signal| format!("kill {signal}")).collect();
    let more = [
        "kill-thread 9",
        "kill-queue 19",
        "kill-pidfd 9",
        "ptrace-attach",
        "ptrace-seize",
        "open-memory",
        "take-fd",
        "setpriority",
        "setaffinity",
        "setscheduler",
        "ioprio",
        "prlimit",
        "read-memory",
        "write-memory",
    ];
    for line in signals.iter().map(String::as_str).chain(more) {
        // To any other process it may.
        if !line.starts_with("kill") || line.ends_with(" 18") {
            let outcome =
                if line.ends_with("-memory") && !line.starts_with("open") { "EFAULT" } else { "ok" };
            inside.expect(&format!("{line} {other}"), outcome).context("towards another process")?;
        }
        let line = format!("{line} {daemon}");
        let mark = guard.events.mark()?;
        let answer = inside.ask(&line)?;
        anyhow::ensure!(["EPERM", "EACCES"].contains(&answer.as_str()), "{line}: {answer}");
        guard.events.wait(mark, &line, |event| event.judged("deny") && event.field("source") == "guard")?;
    }
    inside.expect(&format!("kill 0 {daemon}"), "ok").context("whether it is there")?;
    well(&mut guard, &mut inside)?;
    outside.expect(&format!("kill 18 {daemon}"), "ok")?;
    drop(inside);
    guard.stop()
}

fn kernel_side() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&free())?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    let before = pins()?;
    let map =
        before.keys().find(|path| path.ends_with("SESSIONS")).context("there is no pin of the sessions")?;
    let link =
        before.keys().find(|path| path.ends_with("path_unlink")).context("there is no pin of a hook")?;
    let (map, link) = (map.display().to_string(), link.display().to_string());
    for line in [
        format!("bpf-get {map}"),
        format!("bpf-get {link}"),
        "bpf-program-by-id 1".into(),
        "bpf-map-by-id 1".into(),
    ] {
        let mark = guard.events.mark()?;
        inside.expect(&line, "EPERM")?;
        guard.events.wait(mark, &line, |event| event.judged("deny") && event.field("source") == "guard")?;
    }
    outside.expect(&format!("bpf-get {map}"), "ok")?;
    inside.expect("bpf-map", "ok").context("bpf by itself is allowed here")?;
    for line in [
        format!("unlink {link}"),
        format!("unlink {map}"),
        format!("rename {PINS} {PINS}-away"),
        format!("rename {link} {link}-away"),
        format!("mkdir {PINS}/new"),
        format!("chmod {map}"),
    ] {
        let mark = guard.events.mark()?;
        inside.expect(&line, "EPERM")?;
        guard.events.wait(mark, &line, |event| {
            event.judged("deny") && event.field("rule_reason") == "the guard's own"
        })?;
    }
    same("what is pinned", pins()?, before)?;
    well(&mut guard, &mut inside)?;
    drop(inside);
    guard.stop()
}

fn files() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&free())?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    let policy = guard.policy_file().to_owned();
    let directory = policy.parent().context("the policy is nowhere")?.to_owned();
    let log = guard.events.path().to_owned();
    let group = own_cgroup()?;
    let mut lines = Vec::new();
    for path in [policy.as_path(), log.as_path(), Path::new(PROGRAM)] {
        let running = path == Path::new(PROGRAM);
        let path = path.display();
        if !running {
            // Of a program that runs nobody writes to.
            lines.extend([format!("open-write {path}"), format!("truncate {path}")]);
        }
        lines.extend([
            format!("unlink {path}"),
            format!("rename {path} {path}.old"),
            format!("chmod {path}"),
        ]);
    }
    lines.extend([
        format!("creat {}/99-mine.toml", directory.display()),
        format!("rename {0} {0}.old", directory.display()),
        "creat /run/agent-guard/mine".to_owned(),
        "unlink /run/agent-guard/control.sock".to_owned(),
        "unlink /run/agent-guard/lock".to_owned(),
        "mkdir /etc/systemd/system/agent-guard.service.d".to_owned(),
        "creat /run/systemd/system/agent-guard.service".to_owned(),
        format!("open-write {group}/cgroup.procs"),
        format!("open-write {group}/cgroup.freeze"),
        format!("open-write {group}/cgroup.kill"),
    ]);
    std::fs::create_dir_all("/run/systemd/system").context("can't make a directory of units")?;
    for line in &lines {
        let mark = guard.events.mark()?;
        inside.expect(line, "EPERM")?;
        guard.events.wait(mark, line, |event| {
            event.judged("deny") && event.field("rule_reason") == "the guard's own"
        })?;
    }
    inside.expect("creat /etc/systemd/system/other.service", "ok").context("beside it")?;
    outside.expect("unlink /etc/systemd/system/other.service", "ok")?;
    outside.expect(&format!("open-write {}", policy.display()), "ok")?;
    outside.expect(&format!("open-write {group}/cgroup.freeze"), "ok")?;
    well(&mut guard, &mut inside)?;
    drop(inside);
    guard.stop()
}

/// The control group that a scenario's processes are in.
fn own_cgroup() -> Result<String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").context("can't read the control group")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).context("no control group")?;
    Ok(format!("/sys/fs/cgroup{path}"))
}

/// Who isn't in a session does all of it: stops the daemon, and starts it again.
fn by_root() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&free())?;
    let mut outside = Server::outside()?;
    let daemon = guard.daemon()?.pid();
    for line in ["ptrace-attach", "setpriority", "take-fd", "open-memory", "kill 1", "kill 18"] {
        let mark = guard.events.mark()?;
        outside.expect(&format!("{line} {daemon}"), "ok")?;
        let told = guard.events.wait(mark, line, |event| event.field("source") == "guard")?;
        ensure!(told.judged("report") && told.field("session").is_empty(), "{}", told.brief());
    }
    // Who looks at others, and signals others, is nobody's business.
    let mark = guard.events.mark()?;
    outside.expect(&format!("kill 0 {daemon}"), "ok")?;
    let mut other = Server::outside()?;
    outside.expect(&format!("kill 18 {}", other.process().pid()), "ok")?;
    guard.events.none(mark, "an event", |event| event.field("source") == "guard")?;
    by_root_on_maps(&mut guard, &mut outside)?;
    by_root_on_files(&mut guard, &mut outside)?;
    let link = pins()?.into_keys().find(|path| path.ends_with("path_unlink")).context("no pin of a hook")?;
    let mark = guard.events.mark()?;
    outside.expect(&format!("unlink {}", link.display()), "ok")?;
    guard.events.wait(mark, "the pin", |event| witnessed(event, "delete", &link.display().to_string()))?;
    outside.expect(&format!("kill 15 {daemon}"), "ok")?;
    guard.halt()?;
    let mark = guard.events.mark()?;
    guard.launch()?;
    anyhow::ensure!(link.exists(), "the hook is not attached again");
    guard.settle()?;
    guard.events.none(mark, "an event of what the daemon itself does", |event| {
        event.field("source") == "guard" && event.field("operation") == "bpf"
    })?;
    guard.stop()
}

/// Whether somebody was seen to do this to one of the guard's files.
fn witnessed(event: &Event, operation: &str, path: &str) -> bool {
    event.judged("report")
        && event.field("source") == "guard"
        && event.field("operation") == operation
        && event.field("path") == path
}

/// Maps are changed by commands of `bpf(2)`; a map of somebody else's is their business.
fn by_root_on_maps(guard: &mut Guard, outside: &mut Server) -> Result<()> {
    let all = pins()?;
    let pin = |name: &str| {
        let found = all.keys().find(|path| path.ends_with(name)).map(|path| path.display().to_string());
        found.with_context(|| format!("there is no pin of {name}"))
    };
    for line in [format!("bpf-delete {}", pin("HOLDS")?), format!("bpf-delete-inner {}", pin("OBJECTS")?)] {
        let mark = guard.events.mark()?;
        outside.expect(&line, "ENOENT")?;
        let told = guard.events.wait(mark, &line, |event| event.field("operation") == "bpf")?;
        ensure!(told.judged("report") && told.field("source") == "guard", "{}", told.brief());
        same("the command", told.field("what").as_str(), "BPF_MAP_DELETE_ELEM")?;
        same("who", number(&told.0, "/actor/process/pid")?, u64::from(outside.process().pid()))?;
    }
    let mark = guard.events.mark()?;
    outside.expect(&format!("bpf-get {}", pin("HOLDS")?), "ok").context("reading isn't changing")?;
    outside.expect("bpf-map", "ok")?;
    guard.events.none(mark, "an event", |event| event.field("operation") == "bpf")
}

/// Policy, state, log, and control group, from where a session could be freed or the daemon stopped.
fn by_root_on_files(guard: &mut Guard, outside: &mut Server) -> Result<()> {
    let policy = guard.policy_file().display().to_string();
    let beside = policy.replace(".toml", "-more.toml");
    // The guard looks once a second for what is there.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    for (line, operation, path) in [
        (format!("creat {beside}"), "create", &beside),
        (format!("chmod {policy}"), "metadata", &policy),
        (format!("truncate {beside}"), "write", &beside),
        (format!("unlink {beside}"), "delete", &beside),
    ] {
        let mark = guard.events.mark()?;
        outside.expect(&line, "ok")?;
        let told = guard.events.wait(mark, &line, |event| witnessed(event, operation, path))?;
        ensure!(told.field("session").is_empty(), "{}", told.brief());
        same("who", number(&told.0, "/actor/process/pid")?, u64::from(outside.process().pid()))?;
    }
    let group = format!("{}/cgroup.freeze", own_cgroup()?);
    let mark = guard.events.mark()?;
    std::fs::write(&group, "0").context("can't thaw the control group")?;
    guard.events.wait(mark, &group, |event| witnessed(event, "write", &group)).map(drop)
}
