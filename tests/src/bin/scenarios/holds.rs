//! Holds: the call freezes, people answer, and the same call goes on or fails.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::Scenario;
use crate::fixture::guard::{CHANGES, PROGRAM, cli, cli_as_nobody, json, line_of, policy, rule};
use crate::fixture::world::{PROD, Snapshot, WORK, exists};
use crate::fixture::{
    Finished, Guard, Hold, PROFILE, Running, SOON, Server, World, attack, contains, list, same, state, stays,
    text, until,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("hold_approve", "each held call, approved, simply succeeds", approve).everywhere(),
    Scenario::direct("hold_deny", "each held call, denied, fails with EPERM", deny),
    Scenario::direct("hold_connect", "curl waits for an answer", connect),
    Scenario::direct("hold_stray_signals", "SIGCONT by others doesn't let a held call go on", stray_signals),
    Scenario::direct("hold_answers", "who may answer, and that nobody else can", answers).on("6.1"),
    Scenario::direct("hold_several", "two at once, answered in the other order", several).on("6.1"),
    Scenario::direct("hold_threads", "a process with several threads stands still as a whole", threads)
        .on("7.2"),
    Scenario::direct("hold_unholdable", "what can't be held is denied, and says so", unholdable),
    Scenario::direct("hold_withdrawn", "a held process that is killed takes its hold along", withdrawn)
        .on("6.1"),
    Scenario::direct("hold_reload", "what waits is judged anew when the policy changes", reloaded),
    Scenario::direct("hold_answer_covers_one", "an answer is for one call on one object", covers_one)
        .on("7.2"),
];

/// What people type, the operation, and the path it is about.
const CALLS: &[(&str, &str, &str)] = &[
    ("rm -f /srv/prod/f", "delete", "/srv/prod/f"),
    ("rmdir /srv/prod/empty", "delete", "/srv/prod/empty"),
    ("mv /srv/prod/f /srv/prod/new", "rename", "/srv/prod/f"),
    ("mv -f /srv/prod/f /srv/prod/g", "rename", "/srv/prod/f"),
    ("mv /srv/work/f /srv/prod/new", "rename", "/srv/work/f"),
    (": >/srv/prod/f", "write", "/srv/prod/f"),
    ("echo more >>/srv/prod/f", "write", "/srv/prod/f"),
    ("truncate -s 0 /srv/prod/f", "write", "/srv/prod/f"),
    (": >/srv/prod/new", "create", "/srv/prod/new"),
    ("echo new >/srv/prod/new", "create", "/srv/prod/new"),
    ("mkdir /srv/prod/new", "create", "/srv/prod/new"),
    ("mkfifo /srv/prod/new", "create", "/srv/prod/new"),
    ("ln -s f /srv/prod/new", "create", "/srv/prod/new"),
];

fn start() -> Result<(World, Guard, String)> {
    let world = World::new()?;
    let text = policy(&rule(PROD, CHANGES, "hold"));
    let guard = Guard::start(&text)?;
    Ok((world, guard, text))
}

/// Starts a line of shell in a session and waits until it is held.
fn held(guard: &Guard, line: &str) -> Result<(Running, Hold)> {
    let running = guard.run(&["bash", "-c", line])?;
    let hold = Hold::of(running.pid()).with_context(|| line.to_owned())?;
    Ok((running, hold))
}

/// What the list says must be what is true.
fn described(
    hold: &Hold,
    (line, operation, path): (&str, &str, &str),
    rule_line: u64,
    pid: u32,
) -> Result<()> {
    hold.is(operation, path)?;
    same("the held process", hold.pid()?, pid)?;
    same("its profile", text(&hold.0, "/profile"), PROFILE)?;
    same("its state", text(&hold.0, "/state"), "waiting")?;
    same("the rule's verdict", text(&hold.0, "/rule/verdict"), "hold")?;
    same("the rule's line", crate::fixture::number(&hold.0, "/rule/line")?, rule_line)?;
    same("the user", crate::fixture::number(&hold.0, "/process/uid")?, 0)?;
    let tree = json(&["session", "tree", text(&hold.0, "/session")])?;
    let member = list(&tree, "/processes")?
        .iter()
        .find(|p| crate::fixture::number(p, "/pid").ok() == Some(pid.into()));
    let member = member.with_context(|| format!("{line}: the session's tree lacks the process: {tree}"))?;
    same("the hold, in the tree", text(member, "/hold"), hold.id())
}

/// How many holds a session has had.
fn asked(session: &str) -> Result<usize> {
    let all = json(&["approvals", "list", "--all"])?;
    Ok(list(&all, "/approvals")?.iter().filter(|hold| text(hold, "/session") == session).count())
}

/// Everything about one held call up to the answer.
fn until_answer(guard: &mut Guard, call: (&str, &str, &str), rule_line: u64) -> Result<(Running, Hold)> {
    let (prod, mark) = (Snapshot::of(PROD)?, guard.events.mark()?);
    let (running, hold) = held(guard, call.0)?;
    described(&hold, call, rule_line, running.pid())?;
    stays("it stands still", Duration::from_millis(100), || Ok(state(running.pid()) == Some('T')))?;
    prod.unchanged(PROD)?;
    let event = guard.events.wait(mark, call.0, |event| event.is("held"))?;
    same("class and activity of the hold", event.class(), (2004, 1))?;
    same("the hold's id in the event", event.field("hold").as_str(), hold.id())?;
    anyhow::ensure!(event.about(call.2), "the event isn't about {}: {}", call.2, event.0);
    Ok((running, hold))
}

fn approve() -> Result<()> {
    let (world, mut guard, policy) = start()?;
    let rule_line = line_of(&policy, "path = \"/srv/prod\"")?;
    for &call in CALLS {
        world.fresh()?;
        let before = Snapshot::of(PROD)?;
        let mark = guard.events.mark()?;
        let (mut running, hold) = until_answer(&mut guard, call, rule_line)?;
        hold.approve()?;
        // One answer is enough for all that belongs to the call.
        let done = running.wait(SOON)?.good().with_context(|| call.0.to_owned())?;
        same(&format!("{}: stderr", call.0), done.stderr.as_str(), "")?;
        before.changed(PROD).with_context(|| call.0.to_owned())?;
        // Who answered is told when the kernel has used the answer.
        let after = until("it is told who answered", SOON, || {
            let now = hold.becomes("approved")?;
            Ok(now.0.pointer("/answered_by/uid").is_some().then_some(now))
        })?;
        same("the comment", text(&after.0, "/comment"), "fine")?;
        same("who answered", crate::fixture::number(&after.0, "/answered_by/uid")?, 0)?;
        same("holds of the session", asked(text(&hold.0, "/session"))?, 1)?;
        let event =
            guard.events.wait(mark, "the answer", |e| e.is("answered") && e.own("hold") == hold.id())?;
        same("the outcome", event.field("outcome").as_str(), "approved")?;
        same("class and activity of the answer", event.class(), (2004, 3))?;
    }
    guard.stop()
}

fn deny() -> Result<()> {
    let (world, mut guard, policy) = start()?;
    let rule_line = line_of(&policy, "path = \"/srv/prod\"")?;
    for &call in CALLS {
        world.fresh()?;
        let before = (Snapshot::of(PROD)?, Snapshot::of(WORK)?);
        let mark = guard.events.mark()?;
        let (mut running, hold) = until_answer(&mut guard, call, rule_line)?;
        hold.deny()?;
        let done = running.wait(SOON)?;
        anyhow::ensure!(done.status.code().is_some_and(|code| code > 0), "it must fail: {}", done.summary());
        contains("its complaint", &done.stderr, "Operation not permitted")?;
        before.0.unchanged(PROD).with_context(|| call.0.to_owned())?;
        before.1.unchanged(WORK).with_context(|| call.0.to_owned())?;
        hold.becomes("denied")?;
        let event =
            guard.events.wait(mark, "the answer", |e| e.is("answered") && e.own("hold") == hold.id())?;
        same("the outcome", event.field("outcome").as_str(), "denied")?;
    }
    guard.stop()
}

fn connect() -> Result<()> {
    let _world = World::new()?;
    let port = crate::network::web_server()?;
    let network = format!("[profile.{PROFILE}.network]\nconnect = \"hold\"\n");
    let guard = Guard::start(&policy(&network))?;
    let url = format!("http://127.0.0.1:{port}/");
    let curl = ["curl", "--silent", "--show-error", &url];
    let asked = |guard: &Guard| -> Result<(Running, Hold)> {
        let running = guard.run(&curl)?;
        let hold = Hold::of(running.pid())?;
        same("the operation", text(&hold.0, "/operation"), "connect")?;
        same("the address", text(&hold.0, "/address"), "127.0.0.1")?;
        same("the port", crate::fixture::number(&hold.0, "/port")?, u64::from(port))?;
        Ok((running, hold))
    };
    let (mut running, hold) = asked(&guard)?;
    hold.approve()?;
    let done = running.wait(SOON)?.good()?.says("hello")?;
    same("stderr", done.stderr.as_str(), "")?;
    let (mut running, hold) = asked(&guard)?;
    hold.deny()?;
    running.wait(SOON)?.code(7)?;
    guard.stop()
}

fn stray_signals() -> Result<()> {
    let (_world, guard, _) = start()?;
    let (mut running, hold) = held(&guard, "rm -f /srv/prod/f")?;
    let pid = running.pid();
    let still_held = || -> Result<()> {
        hold.frozen()?;
        exists("/srv/prod/f", true)?;
        let now = Hold::count(1)?;
        same("the hold", now.first().map(Hold::details), Some(hold.details()))
    };
    for _ in 0..5 {
        running.signal(Signal::CONT)?;
        still_held()?;
    }
    let mut inside = Server::inside(&guard)?;
    for _ in 0..5 {
        // Whether a session may signal another is not this scenario's question; what comes of it is.
        inside.ask(&format!("signal {pid} 18"))?;
        still_held()?;
    }
    // Many at once, so that one falls into every moment of being held again.
    for _ in 0..200 {
        running.signal(Signal::CONT)?;
    }
    still_held()?;
    same("holds of the session", asked(text(&hold.0, "/session"))?, 1)?;
    hold.approve()?;
    running.wait(SOON)?.good()?;
    exists("/srv/prod/f", false)?;
    guard.stop()
}

fn answers() -> Result<()> {
    let (_world, guard, _) = start()?;
    let (mut running, hold) = held(&guard, "rm -f /srv/prod/f")?;
    let still = || -> Result<()> {
        exists("/srv/prod/f", true)?;
        same("state of the hold", text(&Hold::show(hold.id())?.0, "/state"), "waiting")
    };
    // From inside: by the program, as root or not, and by the socket itself, whatever its name.
    for verb in ["approve", "deny"] {
        guard.ran(&[PROGRAM, "approvals", verb, hold.id()])?.code(4)?;
        let nobody =
            ["setpriv", "--reuid", "65534", "--clear-groups", "--", PROGRAM, "approvals", verb, hold.id()];
        guard.ran(&nobody)?.code(4)?;
    }
    guard.ran(&[PROGRAM, "approvals", "list"])?.code(4)?;
    guard.ran(&[PROGRAM, "policy", "reload"])?.code(4)?;
    std::os::unix::fs::symlink("/run/agent-guard/control.sock", "/srv/work/link")
        .context("can't make a link")?;
    for path in
        ["/run/agent-guard/control.sock", "/srv/work/link", "/proc/self/root/run/agent-guard/control.sock"]
    {
        let script = format!("import socket\nsocket.socket(socket.AF_UNIX).connect({path:?})");
        guard.ran(&["python3", "-c", &script])?.code(1)?.complains("PermissionError")?;
        let mut control = std::process::Command::new("python3");
        crate::fixture::process::run(control.args(["-c", &script]))?.good()?;
    }
    still()?;
    // From outside, but without the right.
    for verb in ["approve", "deny"] {
        cli_as_nobody(&["approvals", verb, hold.id()])?.code(4)?;
    }
    cli_as_nobody(&["policy", "reload"])?.code(4)?;
    still()?;
    hold.frozen()?;
    hold.approve()?;
    running.wait(SOON)?.good()?;
    // Once answered it is answered.
    hold.becomes("approved")?;
    cli(&["approvals", "deny", hold.id()])?.code(1)?;
    cli(&["approvals", "approve", "00000000000000000000000000"])?.code(1)?;
    guard.stop()
}

fn several() -> Result<()> {
    let (_world, guard, _) = start()?;
    let (mut first, first_hold) = held(&guard, "rm -f /srv/prod/f")?;
    let (mut second, second_hold) = held(&guard, "rm -f /srv/prod/g")?;
    let all = Hold::count(2)?;
    let ids: Vec<&str> = all.iter().map(Hold::id).collect();
    same("the list, oldest first", ids, vec![first_hold.id(), second_hold.id()])?;
    second_hold.approve()?;
    second.wait(SOON)?.good()?;
    exists("/srv/prod/g", false)?;
    exists("/srv/prod/f", true)?;
    first_hold.frozen()?;
    first_hold.deny()?;
    first.wait(SOON)?.code(1)?;
    exists("/srv/prod/f", true)?;
    Hold::count(0)?;
    // Two of one session: a pipeline.
    let mut both = guard.run(&["bash", "-c", "rm -f /srv/prod/f & rm -rf /srv/prod/dir/deep/f & wait"])?;
    for hold in Hold::count(2)? {
        hold.approve()?;
    }
    both.wait(SOON)?.good()?;
    exists("/srv/prod/f", false)?;
    exists("/srv/prod/dir/deep/f", false)?;
    guard.stop()
}

fn threads() -> Result<()> {
    let (_world, guard, _) = start()?;
    let attack = attack()?.display().to_string();
    let count = "/srv/work/turns";
    let mut running = guard.run(&[&attack, "held-thread", "/srv/prod/f", count])?;
    let hold = Hold::of(running.pid())?;
    hold.is("delete", "/srv/prod/f")?;
    let turns = || std::fs::read_to_string(count).unwrap_or_default();
    let before = turns();
    stays("all of its threads stand still", Duration::from_millis(200), || Ok(turns() == before))?;
    hold.approve()?;
    running.wait(SOON)?.good()?.says("ok")?;
    exists("/srv/prod/f", false)?;
    guard.stop()
}

fn unholdable() -> Result<()> {
    let (_world, mut guard, _) = start()?;
    let mut inside = Server::inside(&guard)?;
    let before = Snapshot::of(PROD)?;
    for line in [
        "uring plain unlink /srv/prod/f",
        "uring async unlink /srv/prod/f",
        "uring sqpoll unlink /srv/prod/f",
        "uring async rename /srv/prod/f /srv/prod/g",
        "uring plain open-trunc /srv/prod/f",
        "uring async mkdir /srv/prod/new",
    ] {
        let mark = guard.events.mark()?;
        inside.expect(line, "EPERM")?;
        let event = guard.events.wait(mark, line, |event| event.judged("deny"))?;
        same(&format!("{line}: what the policy says"), event.field("policy_verdict").as_str(), "hold")?;
        contains(&format!("{line}: why"), &event.field("fault"), "can't be held")?;
        anyhow::ensure!(Hold::all()?.is_empty(), "{line}: there is a hold");
    }
    before.unchanged(PROD)?;
    // The same process can be held in an ordinary call.
    inside.send("unlink /srv/prod/f")?;
    let hold = Hold::of(inside.process().pid())?;
    hold.approve()?;
    same("the answer", inside.answer()?.as_str(), "ok")?;
    guard.stop()
}

fn withdrawn() -> Result<()> {
    let (_world, mut guard, _) = start()?;
    let (mut running, hold) = held(&guard, "rm -f /srv/prod/f")?;
    let mark = guard.events.mark()?;
    running.signal(Signal::KILL)?;
    running.wait(SOON)?.killed_by(Signal::KILL)?;
    hold.becomes("withdrawn")?;
    exists("/srv/prod/f", true)?;
    let event =
        guard.events.wait(mark, "the withdrawal", |e| e.is("answered") && e.own("hold") == hold.id())?;
    same("the outcome", event.field("outcome").as_str(), "withdrawn")?;
    cli(&["approvals", "approve", hold.id()])?.code(1)?;
    Hold::count(0)?;
    guard.stop()
}

/// Nobody has to answer what the policy in force has an answer for.
fn reloaded() -> Result<()> {
    let (world, guard, asks) = start()?;
    let rules = |verdict| policy(&rule(PROD, CHANGES, verdict));
    let (mut running, hold) = held(&guard, "rm -f /srv/prod/f")?;
    guard.reload(&asks)?;
    // The reload wakes it to be judged anew.
    hold.frozen()?;
    stays("it waits under a policy that asks too", Duration::from_secs(1), || {
        Ok(state(running.pid()) == Some('T'))
    })?;
    same("still the same", Hold::show(hold.id())?.details(), hold.details())?;
    guard.reload(&rules("allow"))?;
    running.wait(SOON)?.good()?;
    exists("/srv/prod/f", false)?;
    hold.becomes("withdrawn")?;

    world.file("/srv/prod/f")?;
    guard.reload(&asks)?;
    let (mut running, hold) = held(&guard, "rm -f /srv/prod/f")?;
    guard.reload(&rules("deny"))?;
    running.wait(SOON)?.code(1)?.complains("Operation not permitted")?;
    exists("/srv/prod/f", true)?;
    hold.becomes("withdrawn")?;
    guard.stop()
}

/// After an approval the next call asks anew, and so does the same call on something else of the same name.
fn covers_one() -> Result<()> {
    let (world, guard, _) = start()?;
    let mut inside = Server::inside(&guard)?;
    let pid = inside.process().pid();
    let mut ask = |line: &str, approve: bool| -> Result<String> {
        inside.send(line)?;
        let hold = Hold::of(pid)?;
        let done: Finished = if approve { hold.approve()? } else { hold.deny()? };
        drop(done);
        inside.answer()
    };
    same("the first", ask("unlink /srv/prod/f", true)?.as_str(), "ok")?;
    world.file("/srv/prod/f")?;
    same("the same name again", ask("unlink /srv/prod/f", false)?.as_str(), "EPERM")?;
    same("another name", ask("unlink /srv/prod/g", true)?.as_str(), "ok")?;
    exists("/srv/prod/f", true)?;
    // An open that truncates has two hooks and needs one answer; the next truncation is another question.
    same("open and truncate", ask("open-trunc /srv/prod/f", true)?.as_str(), "ok")?;
    same("truncate again", ask("truncate /srv/prod/f", false)?.as_str(), "EPERM")?;
    // The object is exchanged for another while people think: their answer isn't for that one.
    inside.send("unlink /srv/prod/f")?;
    let hold = Hold::of(pid)?;
    world.file("/srv/prod/other")?;
    std::fs::rename("/srv/prod/other", "/srv/prod/f").context("can't exchange the file")?;
    hold.approve()?;
    let next = until("the exchanged file is asked for anew", SOON, || {
        Ok(Hold::all()?.into_iter().find(|now| now.id() != hold.id()))
    })?;
    exists("/srv/prod/f", true)?;
    next.deny()?;
    same("the exchanged file", inside.answer()?.as_str(), "EPERM")?;
    exists("/srv/prod/f", true)?;
    guard.stop()
}
