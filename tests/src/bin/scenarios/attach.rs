//! Attaching: a tree that runs already becomes a session, whole, or not at all.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Scenario;
use crate::fixture::guard::{CHANGES, PROGRAM, cli, cli_as_nobody, json, policy, rule};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, WORK, directory, exists};
use crate::fixture::{
    Finished, Guard, PROFILE, Running, SOON, Server, World, attack, contains, list, number, same, text, until,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "attach_tree",
        "every thread, child, grandchild and ring of a running tree is judged from then on",
        attach_tree,
    ),
    Scenario::direct(
        "attach_while_it_forks",
        "nobody slips away whose parents end while the tree is attached",
        attach_while_it_forks,
    )
    .on("6.18"),
    Scenario::direct(
        "attach_descriptors",
        "a tree that has something open which the profile wouldn't let it open isn't attached",
        attach_descriptors,
    ),
    Scenario::direct("attach_refused", "who may be attached, and by whom", attach_refused).on("6.18"),
];

/// Where members look for their orders and say what they got.
const ORDERS: &str = "/srv/work/orders";
const MEMBERS: &[&str] =
    &["leader", "thread", "child", "grandchild", "grandchild-thread", "apart", "sqpoll", "async"];

fn start() -> Result<(World, Guard)> {
    let world = World::new()?;
    Ok((world, Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?))
}

fn attach(pid: u32) -> Result<Finished> {
    cli(&["attach", "--profile", PROFILE, "--pid", &pid.to_string()])
}

/// It must work; what the program says as JSON.
fn attached(pid: u32) -> Result<Value> {
    json(&["attach", "--profile", PROFILE, "--name", "taken", "--pid", &pid.to_string()])
}

/// An attack that runs beside us.
fn beside(words: &[&str]) -> Result<Running> {
    let mut command = Command::new(attack()?);
    command.args(words).current_dir(WORK).stdin(std::process::Stdio::null());
    let running = Running::start(&mut command)?;
    Ok(running)
}

/// Has all members try, and compares what they got.
fn round(world: &World, number: u32, must: &str) -> Result<()> {
    for member in MEMBERS {
        world.file(&format!("{PROD}/{member}-{number}"))?;
    }
    world.file(&format!("{ORDERS}/go-{number}"))?;
    for member in MEMBERS {
        let report = format!("{ORDERS}/{member}-{number}");
        let outcome = until(&format!("{report} is there"), SOON, || {
            Ok(std::fs::read_to_string(&report).ok().filter(|text| text.ends_with('\n')))
        })?;
        same(&format!("what {member} got in round {number}"), outcome.trim(), must)?;
        exists(&format!("{PROD}/{member}-{number}"), must != "ok")?;
    }
    Ok(())
}

fn attach_tree() -> Result<()> {
    let (world, mut guard) = start()?;
    directory(ORDERS)?;
    let mut family = beside(&["family", ORDERS, PROD, "3"])?;
    until("all members are there", SOON, || {
        let ready =
            MEMBERS.iter().all(|member| std::path::Path::new(&format!("{ORDERS}/{member}-ready")).exists());
        Ok(ready.then_some(()))
    })?;
    round(&world, 1, "ok").context("before it is attached")?;
    let mark = guard.events.mark()?;
    let answer = attached(family.pid())?;
    round(&world, 2, "EPERM").context("after it is attached")?;
    let id = text(&answer, "/id").to_owned();
    let pids: BTreeSet<u64> = list(&answer, "/processes")?.iter().filter_map(Value::as_u64).collect();
    same("processes", pids.len(), 4)?;
    ensure!(pids.contains(&u64::from(family.pid())), "{answer}");
    // Four first threads, two more, two rings' users, and what the kernel has made for the rings.
    ensure!(number(&answer, "/threads")? >= 9, "{answer}");
    let begin = guard.events.wait(mark, "the session begins", |event| event.is("session_started"))?;
    same("how it began", begin.field("origin"), "attach".to_owned())?;
    same("whose session", begin.field("session"), id.clone())?;
    let told: BTreeSet<u64> =
        begin.own("attached").as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    same("attached processes in the event", told, pids.clone())?;
    for member in MEMBERS {
        let victim = format!("{PROD}/{member}-2");
        guard.events.wait(mark, member, |event| {
            event.judged("deny") && event.about(&victim) && event.field("session") == id
        })?;
    }
    let shown = json(&["session", "show", "taken"])?;
    same("how show says it began", text(&shown, "/origin"), "attach")?;
    let tree = json(&["session", "tree", &id])?;
    same("how the tree says it began", text(&tree, "/origin"), "attach")?;
    let listed: BTreeSet<u64> =
        list(&tree, "/processes")?.iter().map(|process| number(process, "/pid")).collect::<Result<_>>()?;
    same("the tree's processes", listed, pids)?;
    contains("the tree for people", &cli(&["session", "tree", &id])?.good()?.stdout, "attached")?;
    // Another daemon knows it, too.
    guard.halt()?;
    guard.launch()?;
    round(&world, 3, "EPERM").context("with another daemon")?;
    same("how it began, later", text(&json(&["session", "show", &id])?, "/origin"), "attach")?;
    family.wait(SOON)?;
    until("the session ends", SOON, || {
        Ok((text(&json(&["session", "show", &id])?, "/state") == "ended").then_some(()))
    })?;
    guard.stop()
}

/// What an orphan got: when it last had its parent, and the outcome.
fn outcomes(dir: &str) -> Result<Vec<(u64, u64, String)>> {
    let path = format!("{dir}/outcomes");
    let lines = std::fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let mut time = || words.next()?.parse().ok();
        Some((time()?, time()?, words.next()?.to_owned()))
    };
    lines.lines().map(|line| parse(line).with_context(|| format!("an odd line: {line:?}"))).collect()
}

/// Now, nanoseconds since boot.
fn now() -> u64 {
    agent_guard::session::proc::boot_clock()
}

fn attach_while_it_forks() -> Result<()> {
    let (world, mut guard) = start()?;
    let control = "/srv/work/control";
    directory(control)?;
    world.file(&format!("{control}/go"))?;
    run(Command::new(attack()?).args(["forking", control, PROD, "50"]).current_dir(WORK))?
        .says("forking\nok")?;
    until("all outcomes of the control are there", SOON, || {
        Ok((outcomes(control)?.len() == 50).then_some(()))
    })?;
    ensure!(outcomes(control)?.iter().all(|(_, _, outcome)| outcome == "ok"), "the control failed");
    for turn in 0..2 {
        world.fresh()?;
        let dir = format!("/srv/work/turn-{turn}");
        directory(&dir)?;
        let mut forking = beside(&["forking", &dir, PROD, "1500"])?;
        until("it forks", SOON, || Ok(forking.stdout_so_far()?.contains("forking").then_some(())))?;
        let answer = json(&["attach", "--profile", PROFILE, "--pid", &forking.pid().to_string()])?;
        let (since, returned) = (number(&answer, "/since_ns")?, now());
        world.file(&format!("{dir}/go"))?;
        forking.wait(SOON)?.says("forking\nok")?;
        let id = text(&answer, "/id");
        until("all orphans have ended", SOON, || {
            Ok((text(&json(&["session", "show", id])?, "/state") == "ended").then_some(()))
        })?;
        let all = outcomes(&dir)?;
        let members: Vec<_> = all.iter().filter(|(last, _, _)| *last > since).collect();
        let escaped: Vec<_> = members.iter().filter(|(_, _, outcome)| outcome != "EPERM").collect();
        ensure!(escaped.is_empty(), "since {since}, of {} orphans: {escaped:?}", members.len());
        ensure!(members.len() >= 1500, "only {} of {} orphans count", members.len(), all.len());
        let meanwhile = members.iter().filter(|(last, _, _)| *last < returned).count();
        ensure!(meanwhile > 0, "nobody's parent ended while the tree was attached");
        eprintln!(
            "turn {turn}: {} orphans, {} of them members, {meanwhile} meanwhile",
            all.len(),
            members.len()
        );
    }
    guard.settle()?;
    guard.stop()
}

/// Something open, what, and whether the profile would let it be opened.
const OPEN: &[(&str, &str, bool)] = &[
    ("write", "/srv/prod/f", false),
    ("map", "/srv/prod/f", false),
    ("map-read", "/srv/prod/f", false),
    ("ring-file", "/srv/prod/f", false),
    ("read", "/srv/prod/f", true),
    ("map-private", "/srv/prod/f", true),
    ("write", "/srv/work/f", true),
    ("map", "/srv/work/f", true),
    ("ring", "/dev/null", true),
    ("write", "/dev/null", true),
];

fn attach_descriptors() -> Result<()> {
    let (world, guard) = start()?;
    for (how, path, may) in OPEN {
        world.fresh()?;
        let running = beside(&["hold-open", how, path])?;
        until("it is open", SOON, || Ok(running.stdout_so_far()?.contains("open").then_some(())))?;
        let what = format!("{how} {path}");
        if *may {
            attach(running.pid())?.good().context(what)?;
            continue;
        }
        let done = attach(running.pid())?.code(1).context(what.clone())?;
        contains(&what, &done.stderr, &format!("process {}", running.pid()))?;
        contains(&what, &done.stderr, if *how == "ring-file" { "io_uring" } else { path })?;
    }
    // In a child of what is attached; and what was refused has no tag.
    let mut server = Server::outside()?;
    let script = format!("exec {} hold-open write /srv/prod/f", attack()?.display());
    let mut parent = Command::new("bash");
    parent.args(["-c", &format!("({script}) & wait")]).current_dir(WORK);
    let parent = Running::start(&mut parent)?;
    until("it is open", SOON, || Ok(parent.stdout_so_far()?.contains("open").then_some(())))?;
    attach(parent.pid())?.code(1)?.complains("/srv/prod/f")?;
    let pid = server.process().pid();
    server.expect("keep 70 write /srv/prod/f", "ok")?;
    attach(pid)?.code(1)?.complains("descriptor 70")?.complains("/srv/prod/f")?;
    world.file("/srv/prod/untagged")?;
    server.expect("unlink /srv/prod/untagged", "ok")?;
    server.expect("keep 70 write /srv/work/f", "ok")?;
    attach(pid)?.good()?;
    world.file("/srv/prod/tagged")?;
    server.expect("unlink /srv/prod/tagged", "EPERM")?;
    guard.stop()
}

fn attach_refused() -> Result<()> {
    let (_world, guard) = start()?;
    let daemon = guard.daemon()?.pid();
    attach(1)?.code(4)?.complains("process 1")?;
    attach(daemon)?.code(4)?.complains("own session")?;
    // This process has started the daemon.
    attach(std::process::id())?.code(4)?.complains("own session")?;
    // The kernel's own.
    attach(2)?.code(1)?.complains("kernel's own")?;
    attach(4_000_000)?.code(1)?;
    // Others' processes, for who isn't root.
    let sleeper = |uid: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", uid, "--regid", uid, "--clear-groups", "--", "sleep", "300"]);
        Running::start(command.current_dir("/"))
    };
    let (roots, theirs) = (sleeper("0")?, sleeper("65534")?);
    until("both have become `sleep`", SOON, || {
        let is = |pid: u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
        };
        Ok((is(roots.pid()) && is(theirs.pid())).then_some(()))
    })?;
    let as_nobody = |pid: u32| cli_as_nobody(&["attach", "--profile", PROFILE, "--pid", &pid.to_string()]);
    as_nobody(roots.pid())?.code(4)?.complains("another user")?;
    as_nobody(theirs.pid())?.good()?;
    attach(theirs.pid())?.code(1)?.complains("belongs to session")?;
    attach(roots.pid())?.good()?;
    // In a tree that is partly tagged, and inside of a session.
    let script = format!("{PROGRAM} run --profile {PROFILE} -- sleep 300 & wait");
    let mut parent = Command::new("bash");
    parent.args(["-c", &script]).current_dir(WORK);
    let parent = Running::start(&mut parent)?;
    until("its child is a session", SOON, || {
        let sessions = json(&["session", "list"])?;
        let mut all = list(&sessions, "/sessions")?.iter();
        Ok(all.any(|one| text(one, "/origin") == "run" && text(one, "/state") == "running").then_some(()))
    })?;
    attach(parent.pid())?.code(1)?.complains("belongs to session")?;
    let other = sleeper("0")?;
    guard.ran(&[PROGRAM, "attach", "--profile", PROFILE, "--pid", &other.pid().to_string()])?.code(4)?;
    cli(&["attach", "--profile", "nobodys", "--pid", &other.pid().to_string()])?
        .code(1)?
        .complains("nobodys")?;
    guard.stop()
}
