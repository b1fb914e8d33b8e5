//! Sessions within sessions: they may do less, never more.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;

use crate::Scenario;
use crate::fixture::guard::{
    CHANGES, POLICY, PROGRAM, cli, free_system, json, line_of, policy, policy_of, rule,
};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, exists};
use crate::fixture::{
    Guard, PROFILE, SOON, Server, World, attack, contains, list, number, same, text, until,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("nested_narrows", "a session within a session may do less, and ends with it", narrows),
    Scenario::direct(
        "nested_refused",
        "a session can't have more in one of its own, nor learn or change anything else",
        refused,
    )
    .on("6.1"),
    Scenario::direct(
        "nested_reload",
        "a policy that would give the inner session more gives it the outer one's rules",
        reload,
    )
    .on("7.2"),
    Scenario::direct(
        "nested_reload_busy",
        "no instant in which it has more, while that policy comes and goes",
        busy,
    )
    .on("6.12"),
];

/// A second profile, with this scope.
fn profile(name: &str, scope: &str) -> String {
    let rules = rule(PROD, CHANGES, "deny").replace(PROFILE, name);
    format!("{}[profile.{name}.files]\nscope = [\"{scope}\"]\n\n{rules}", free_system(name))
}

fn both(inner: &str) -> String {
    policy(&(rule(PROD, CHANGES, "deny") + &profile("inner", inner)))
}

/// A server in a session of profile `inner` within one of the usual profile, which lasts as long.
fn nested(guard: &Guard, options: &[&str]) -> Result<Server> {
    let attack = attack()?.to_string_lossy().into_owned();
    let words =
        [&["bash", "-c", "\"$@\"; true", "-", PROGRAM, "run"], options, &["--", &attack, "serve"]].concat();
    Server::start(guard.command(PROFILE, &words), "nested")
}

/// The session of a profile that has another one around it, or none.
fn session(profile: &str, within: bool) -> Result<Value> {
    until(&format!("a session of {profile} is listed"), SOON, || {
        let sessions = json(&["session", "list"])?;
        let found = list(&sessions, "/sessions")?.iter().find(|session| {
            text(session, "/profile") == profile
                && text(session, "/state") == "running"
                && text(session, "/parent").is_empty() != within
        });
        Ok(found.cloned())
    })
}

fn narrows() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&both("/srv/work/dir"))?;
    let mark = guard.events.mark()?;
    let mut inner = nested(&guard, &["--profile", "inner"])?;
    let (mut outer, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    for (line, within, around) in [
        ("creat /srv/work/dir/new", "ok", "ok"),
        ("unlink /srv/work/dir/new", "ok", "ENOENT"),
        ("creat /srv/work/new", "EPERM", "ok"),
        ("unlink /srv/work/new", "EPERM", "ok"),
        ("creat /srv/prod/new", "EPERM", "EPERM"),
        ("unlink /srv/prod/f", "EPERM", "EPERM"),
    ] {
        inner.expect(line, within)?;
        outer.expect(line, around)?;
    }
    outside.expect("creat /srv/prod/new", "ok")?;
    outside.expect("unlink /srv/prod/new", "ok")?;
    let (within, around) = (session("inner", true)?, session(PROFILE, false)?);
    let begin = guard.events.wait(mark, "the inner session begins", |event| {
        event.is("session_started") && event.field("session") == text(&within, "/id")
    })?;
    same("the session that it is in", begin.field("parent"), text(&within, "/parent").to_owned())?;
    anyhow::ensure!(text(&within, "/id") != text(&around, "/id"), "they are one session");
    // It is judged as the inner one, by its profile.
    let denied =
        guard.events.wait(mark, "a denial", |event| event.judged("deny") && event.about("/srv/work/new"))?;
    same("whose it is", denied.field("session"), text(&within, "/id").to_owned())?;
    // Killing the outer one kills both.
    let id = text(&within, "/parent").to_owned();
    let killed = json(&["session", "kill", &id])?;
    anyhow::ensure!(number(&killed, "/processes")? >= 2, "not both sessions were killed: {killed}");
    inner.process().wait(SOON)?.killed_by(Signal::KILL)?;
    guard.events.wait(mark, "the kill of the inner session", |event| {
        event.is("session_killed") && event.field("session") == text(&within, "/id")
    })?;
    until("the inner session has ended", SOON, || {
        let shown = json(&["session", "show", text(&within, "/id")])?;
        Ok((text(&shown, "/state") == "ended").then_some(()))
    })?;
    outer.expect("creat /srv/work/after", "ok").context("another session goes on")?;
    // The same profile, as nothing else is said; and it goes on when the outer one has ended.
    let attack = attack()?.to_string_lossy().into_owned();
    let mut same_profile =
        Server::start(guard.command(PROFILE, &[PROGRAM, "run", "--", &attack, "serve"]), "nested")?;
    same_profile.expect("creat /srv/work/new", "ok")?;
    same_profile.expect("unlink /srv/prod/f", "EPERM")?;
    let lone = session(PROFILE, true)?;
    let around = text(&lone, "/parent").to_owned();
    until("the outer session has ended", SOON, || {
        let shown = json(&["session", "show", &around])?;
        Ok((text(&shown, "/state") == "ended").then_some(()))
    })?;
    same_profile.expect("unlink /srv/work/new", "ok")?;
    same_profile.expect("unlink /srv/prod/f", "EPERM")?;
    exists("/srv/prod/f", true)?;
    guard.stop()
}

/// A request over a socket of the guard's, in Python; prints the status.
fn asks(socket: &str, line: &str) -> String {
    format!(
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('/run/agent-guard/{socket}')\n\
         s.sendall(b'{line} HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n')\n\
         print(s.recv(64).split()[1].decode())"
    )
}

fn refused() -> Result<()> {
    let _world = World::new()?;
    let text_of_policy = both("/srv/work") + &profile("wide", "/srv");
    let guard = Guard::start(&text_of_policy)?;
    let touch = ["touch", "/srv/work/ran"];
    // A profile that may do more: nothing runs, and the place that says so is named.
    let wide = [&[PROGRAM, "run", "--profile", "wide", "--"], touch.as_slice()].concat();
    let place = format!("{POLICY}:{}:", line_of(&text_of_policy, "scope = [\"/srv\"]")?);
    let done = guard.ran(&wide)?.code(125)?.complains("is in the scope of profile \"wide\"")?;
    contains("the refusal", &done.stderr, &place)?;
    exists("/srv/work/ran", false)?;
    // One that there isn't.
    guard.ran(&[PROGRAM, "run", "--profile", "no-such", "--", "touch", "/srv/work/ran"])?.code(125)?;
    exists("/srv/work/ran", false)?;
    // Outside of a session, and one that may do no more.
    run(&mut guard.command("wide", &touch))?.good()?;
    exists("/srv/work/ran", true)?;
    guard
        .ran(&[&[PROGRAM, "run", "--profile", "inner", "--"], ["rm", "/srv/work/ran"].as_slice()].concat())?
        .good()?;
    exists("/srv/work/ran", false)?;
    // It reads itself.
    let own = guard
        .ran(&["bash", "-c", &format!("echo $AGENT_GUARD_SESSION; {PROGRAM} session list --json")])?
        .good()?;
    let (id, rest) = own.stdout.split_once('\n').context("no list")?;
    let sessions: Value = serde_json::from_str(rest).context("no JSON")?;
    let sessions = list(&sessions, "/sessions")?;
    same("how many sessions it sees", sessions.len(), 1)?;
    same("which", text(sessions.first().context("none")?, "/id"), id)?;
    let other = Server::inside(&guard)?;
    let others = session(PROFILE, false)?;
    let others = text(&others, "/id");
    for words in [
        ["session", "show", others].as_slice(),
        &["session", "tree", others],
        &["session", "kill", others],
        &["approvals", "list"],
        &["policy", "show"],
        &["policy", "reload"],
        &["events"],
        &["status"],
    ] {
        guard.ran(&[&[PROGRAM], words].concat())?.code(4).with_context(|| format!("{words:?}"))?;
        cli(words)?.good().with_context(|| format!("{words:?} from outside"))?;
    }
    drop(other);
    // Whoever speaks to its socket without the program gets no more, and the control socket is out of reach.
    for line in [
        "GET /v1/approvals?all=true",
        "GET /v1/policy",
        "GET /v1/events?since=10m",
        "GET /v1/status",
        "POST /v1/policy/reload",
        "POST /v1/sessions/attach",
    ] {
        let script = asks("session.sock", line);
        let answer = guard.ran(&["python3", "-c", &script])?.good()?;
        anyhow::ensure!(["400", "403"].contains(&answer.stdout.trim()), "{line}: {}", answer.summary());
    }
    let (inside, control) =
        (asks("session.sock", "GET /v1/sessions"), asks("control.sock", "GET /v1/sessions"));
    guard.ran(&["python3", "-c", &inside])?.good()?.says("200")?;
    guard.ran(&["python3", "-c", &control])?.code(1)?.complains("PermissionError")?;
    run(std::process::Command::new("python3").args(["-c", &control]))?.good()?.says("200")?;
    run(std::process::Command::new("python3").args(["-c", &inside]))?.good()?.says("403")?;
    guard.stop()
}

/// As [`both`] with `/srv/work/dir` for the inner profile, but the outer one has less.
fn less() -> String {
    policy_of("/srv/work/empty", &(rule(PROD, CHANGES, "deny") + &profile("inner", "/srv/work/dir")))
}

fn reload() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&both("/srv/work/dir"))?;
    let (mut inner, mut outside) = (nested(&guard, &["--profile", "inner"])?, Server::outside()?);
    let id = text(&session("inner", true)?, "/id").to_owned();
    let own = |inner: &mut Server| -> Result<()> {
        inner.expect("creat /srv/work/dir/new", "ok")?;
        inner.expect("creat /srv/work/empty/new", "EPERM")?;
        inner.expect("unlink /srv/work/dir/new", "ok")
    };
    let outer = |inner: &mut Server| -> Result<()> {
        inner.expect("creat /srv/work/dir/new", "EPERM")?;
        inner.expect("creat /srv/work/empty/new", "ok")?;
        inner.expect("unlink /srv/work/empty/new", "ok")?;
        inner.expect("unlink /srv/prod/f", "EPERM")
    };
    own(&mut inner)?;
    let reloaded = guard.reload(&less())?;
    let warnings =
        list(&reloaded, "/warnings")?.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n");
    contains("the warnings", &warnings, &format!("session {id} could do more"))?;
    outer(&mut inner)?;
    outside.expect("creat /srv/work/dir/new", "ok")?;
    outside.expect("unlink /srv/work/dir/new", "ok")?;
    // The next daemon knows.
    guard.halt()?;
    outer(&mut inner)?;
    guard.launch()?;
    outer(&mut inner)?;
    // A refused policy changes nothing.
    guard.write_policy("nonsense")?;
    cli(&["policy", "reload"])?.code(3)?;
    outer(&mut inner)?;
    let reloaded = guard.reload(&both("/srv/work/dir"))?;
    same("warnings", list(&reloaded, "/warnings")?.iter().any(|text| text.to_string().contains(&id)), false)?;
    own(&mut inner)?;
    // A daemon that starts with another policy than the one before.
    guard.halt()?;
    guard.write_policy(&less())?;
    guard.launch()?;
    outer(&mut inner)?;
    drop(inner);
    guard.stop()
}

fn busy() -> Result<()> {
    let _world = World::new()?;
    let forbidden = "/srv/work/other";
    crate::fixture::world::directory(forbidden)?;
    let text =
        |inner: &str| policy_of("/srv/work/dir", &(rule(PROD, CHANGES, "deny") + &profile("inner", inner)));
    let guard = Guard::start(&text("/srv/work/dir/deep"))?;
    let script = format!(
        "while :; do : >/srv/work/dir/deep/f || :; if : >{forbidden}/new; then echo WIDER; fi; done 2>/dev/null"
    );
    let words = [
        "bash",
        "-c",
        "\"$@\"; true",
        "-",
        PROGRAM,
        "run",
        "--profile",
        "inner",
        "--",
        "bash",
        "-c",
        &script,
    ];
    let running = guard.run(&words)?;
    session("inner", true)?;
    for _ in 0..6 {
        guard.reload(&text(forbidden))?;
        guard.reload(&text("/srv/work/dir/deep"))?;
    }
    same("what it could", running.stdout_so_far()?.as_str(), "")?;
    exists(&format!("{forbidden}/new"), false)?;
    // The same profile in a session that is in no other one can.
    guard.reload(&text(forbidden))?;
    run(&mut guard.command("inner", &["touch", &format!("{forbidden}/new")]))?.good()?;
    anyhow::ensure!(Path::new(forbidden).join("new").exists(), "nobody can");
    drop(running);
    guard.stop()
}
