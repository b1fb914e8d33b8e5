//! Sessions: how commands end, what is shown of them, and that killing one ends all of it.

use anyhow::{Context, Result};
use rustix::fs::FlockOperation;
use rustix::process::Signal;
use serde_json::Value;

use crate::Scenario;
use crate::fixture::guard::{CHANGES, PROGRAM, cli, cli_as_nobody, json, policy, rule};
use crate::fixture::world::{PROD, mode};
use crate::fixture::{
    Event, Guard, PROFILE, Running, SOON, Server, World, attack, list, number, same, text, until,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("session_exit_codes", "run ends as its command does", exit_codes).on("7.2"),
    Scenario::direct("session_commands", "list, show and tree say what is true", commands).on("6.18"),
    Scenario::direct(
        "session_kill",
        "killing a session ends even what forks faster than it can be listed",
        kill,
    ),
    Scenario::direct("session_rights", "who may see and kill whose sessions", rights).on("6.1"),
];

fn start() -> Result<(World, Guard)> {
    let world = World::new()?;
    Ok((world, Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?))
}

fn exit_codes() -> Result<()> {
    let (world, mut guard) = start()?;
    guard.ran(&["true"])?.code(0)?;
    guard.ran(&["bash", "-c", "exit 7"])?.code(7)?;
    guard.ran(&["bash", "-c", "kill -TERM $$"])?.killed_by(Signal::TERM)?;
    world.file("/srv/work/no-program")?;
    mode("/srv/work/no-program", 0o644)?;
    guard.ran(&["/srv/work/no-program"])?.code(126)?.complains("/srv/work/no-program")?;
    guard.ran(&["/srv/work/nothing"])?.code(127)?.complains("/srv/work/nothing")?;
    guard.ran(&["no-such-program-anywhere"])?.code(127)?;
    // It becomes the command: same process, same streams, same directory, same arguments.
    let mut running = guard.run(&["bash", "-c", "echo $$ $PWD \"$1\"; echo oops >&2", "-", "a  b"])?;
    let pid = running.pid();
    let done = running.wait(SOON)?.good()?.says(&format!("{pid} /srv/work a  b"))?;
    same("stderr", done.stderr.as_str(), "oops\n")?;
    let mark = guard.events.mark()?;
    guard.ran(&["true"])?.good()?;
    let begin = guard.events.wait(mark, "a session begins", |event| event.is("session_started"))?;
    same("class and activity of the beginning", begin.class(), (3002, 1))?;
    // The session before may end only now.
    let ends = |event: &Event| event.is("session_ended") && event.field("session") == begin.field("session");
    let end = guard.events.wait(mark, "the session ends", ends)?;
    same("class and activity of the end", end.class(), (3002, 2))?;
    guard.stop()
}

/// The session of a process that was started by `run`.
fn session_of(pid: u32) -> Result<Value> {
    until(&format!("the session of process {pid} is listed"), SOON, || {
        let sessions = json(&["session", "list"])?;
        let found =
            list(&sessions, "/sessions")?.iter().find(|s| number(s, "/root_pid").ok() == Some(pid.into()));
        Ok(found.cloned())
    })
}

fn commands() -> Result<()> {
    let (_world, guard) = start()?;
    let mut command = std::process::Command::new(PROGRAM);
    command.args(["run", "--profile", PROFILE, "--task", "tidy up", "--name", "tidy", "--"]);
    command.args(["bash", "-c", "sleep 300 & sleep 301 & wait"]).current_dir("/srv/work");
    let running = Running::start(&mut command)?;
    let session = session_of(running.pid())?;
    for (member, must) in [
        ("/name", "tidy"),
        ("/task", "tidy up"),
        ("/profile", PROFILE),
        ("/mode", "enforce"),
        ("/state", "running"),
        ("/cwd", "/srv/work"),
        ("/command/0", "bash"),
    ] {
        same(member, text(&session, member), must)?;
    }
    same("who started it", number(&session, "/started_by/uid")?, 0)?;
    let id = text(&session, "/id");
    let shown = json(&["session", "show", id])?;
    same("what show says", text(&shown, "/id"), id)?;
    same("what show says by name", text(&json(&["session", "show", "tidy"])?, "/id"), id)?;
    let tree = until("the tree has three processes", SOON, || {
        let tree = json(&["session", "tree", id])?;
        Ok((list(&tree, "/processes")?.len() == 3).then_some(tree))
    })?;
    let depths: Vec<u64> =
        list(&tree, "/processes")?.iter().map(|process| number(process, "/depth")).collect::<Result<_>>()?;
    same("the tree's depths", depths, vec![0, 1, 1])?;
    same("its root", number(&tree, "/processes/0/pid")?, running.pid().into())?;
    same("the first child's parent", number(&tree, "/processes/1/parent")?, running.pid().into())?;
    until("three processes are counted", SOON, || {
        Ok((number(&json(&["session", "show", id])?, "/processes")? == 3).then_some(()))
    })?;
    cli(&["session", "show", "no-such-session"])?.code(1)?;
    // For people, too.
    let table = cli(&["session", "list"])?.good()?;
    crate::fixture::contains("the table", &table.stdout, "tidy")?;
    let killed = json(&["session", "kill", id])?;
    same("the killed session", text(&killed, "/session"), id)?;
    until("it has ended", SOON, || {
        let state = text(&json(&["session", "show", id])?, "/state").to_owned();
        Ok((state != "running").then_some(()))
    })?;
    guard.stop()
}

fn kill() -> Result<()> {
    let (world, mut guard) = start()?;
    world.file("/srv/work/alive")?;
    let attack = attack()?.display().to_string();
    let mut running = guard.run(&[&attack, "comets", "8", "/srv/work/alive"])?;
    until("the comets fly", SOON, || Ok(running.stdout_so_far()?.contains("flying").then_some(())))?;
    let session = session_of(running.pid())?;
    let id = text(&session, "/id").to_owned();
    let other = Server::inside(&guard)?;
    let lock = std::fs::File::open("/srv/work/alive").context("can't open the lock")?;
    let free = || rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    anyhow::ensure!(!free(), "no comet holds the lock");
    let mark = guard.events.mark()?;
    let killed = json(&["session", "kill", &id])?;
    anyhow::ensure!(number(&killed, "/processes")? > 0, "nobody was killed: {killed}");
    until("the last comet has gone", SOON, || Ok(free().then_some(())))?;
    running.wait(SOON)?;
    let event = guard.events.wait(mark, "the kill", |event| event.is("session_killed"))?;
    same("the killed session", event.field("session"), id.clone())?;
    guard.events.wait(mark, "its end", |event| event.is("session_ended") && event.field("session") == id)?;
    // The other session goes on, and so does everybody else.
    alive(other)?;
    guard.ran(&["true"])?.good()?;
    guard.stop()
}

fn alive(mut server: Server) -> Result<()> {
    server.expect("creat /srv/work/after", "ok")
}

fn rights() -> Result<()> {
    let (_world, guard) = start()?;
    let running = guard.run(&["sleep", "300"])?;
    let session = session_of(running.pid())?;
    let id = text(&session, "/id");
    // Somebody else's session is nobody else's business.
    let done = cli_as_nobody(&["session", "kill", id])?;
    anyhow::ensure!(!done.status.success(), "another user killed it: {}", done.summary());
    same("the session's process", crate::fixture::state(running.pid()).is_some(), true)?;
    let seen = cli_as_nobody(&["session", "list", "--json"])?.good()?;
    anyhow::ensure!(!seen.stdout.contains(id), "another user sees it: {}", seen.stdout);
    // Anybody may have their own, and end it.
    let mut command = std::process::Command::new("setpriv");
    command.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--",
        PROGRAM,
        "run",
        "--profile",
        PROFILE,
    ]);
    command.args(["--", "sleep", "300"]).current_dir("/srv/work");
    let mut theirs = Running::start(&mut command)?;
    let session = session_of(theirs.pid())?;
    same("who started it", number(&session, "/started_by/uid")?, 65534)?;
    let id = text(&session, "/id");
    let seen = cli_as_nobody(&["session", "list", "--json"])?.good()?;
    crate::fixture::contains("their list", &seen.stdout, id)?;
    cli_as_nobody(&["session", "kill", id])?.good()?;
    theirs.wait(SOON)?.killed_by(Signal::KILL)?;
    // A session sees itself and nobody else, and kills nobody.
    let seen = guard.ran(&[PROGRAM, "session", "list", "--json"])?.good()?;
    anyhow::ensure!(!seen.stdout.contains(id), "a session sees another one: {}", seen.stdout);
    guard.ran(&[PROGRAM, "session", "show", id])?.code(4)?;
    guard.ran(&[PROGRAM, "session", "kill", id])?.code(4)?;
    guard.stop()
}
