//! Enrollment: programs that become sessions by what they are.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::Scenario;
use crate::fixture::enrolled::{
    Agents, CLAUDE, Got, OTHER, copy, enroll, got, policy_with, says, sessions, tries,
};
use crate::fixture::guard::{CHANGES, PROGRAM, line_of, points_at, policy, rule};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, WORK, directory, exists, mode};
use crate::fixture::{Finished, Guard, SOON, World, contains, same, stays, until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "enroll_programs",
        "programs become sessions, whatever they are called by, before their first instruction",
        programs,
    )
    .on("6.1 7.2"),
    Scenario::direct(
        "enroll_update",
        "a program that takes another's place is never executed unguarded",
        update,
    )
    .on("6.18"),
    Scenario::direct("enroll_inherited", "what an enrolled program inherits is judged", inherited).on("6.1"),
    Scenario::direct("enroll_daemon", "an enrolled program isn't executed without a daemon", without_daemon),
    Scenario::direct("enroll_mistakes", "what can't be enrolled is refused with its place", mistakes)
        .on("7.2"),
];

fn programs() -> Result<()> {
    let (world, _agents) = (World::new()?, Agents::new()?);
    let text = policy_with(&enroll("exe", &[CLAUDE, "/srv/agents/many/*"]));
    let mut guard = Guard::start(&text)?;
    same("what isn't enrolled", tries(&world, OTHER)?, says("ok"))?;
    let mark = guard.events.mark()?;
    same("what is", tries(&world, CLAUDE)?, says("EPERM"))?;
    let begin = guard.events.wait(mark, "a session begins", |event| event.is("session_started"))?;
    same("how it began", begin.field("origin"), "enroll".to_owned())?;
    let session = begin.field("session");
    guard.events.wait(mark, "the denial", |event| {
        event.judged("deny") && event.about(&format!("{PROD}/victim")) && event.field("session") == session
    })?;
    guard.events.wait(mark, "the session ends", |event| {
        event.is("session_ended") && event.field("session") == session
    })?;
    same("in a directory", tries(&world, "/srv/agents/many/one")?, says("EPERM"))?;
    directory("/srv/agents/many/deep")?;
    for later in ["/srv/agents/many/two", "/srv/agents/many/deep/three"] {
        copy(later)?;
        never_free(&world, later)?;
    }
    other_names(&world)?;
    let victim = format!("{PROD}/victim");
    world.file(&victim)?;
    let ours = guard.ran(&[CLAUDE, "unlink", &victim])?;
    ours.says("EPERM")?;
    let mark = guard.events.mark()?;
    guard.settle()?;
    let began = guard.events.since(mark)?.iter().filter(|event| event.is("session_started")).count();
    same("sessions of a session that executes it", began, 1)?;
    // The policy says no more of it.
    guard.reload(&policy(&rule(PROD, CHANGES, "deny")))?;
    same("later", tries(&world, CLAUDE)?, says("ok"))?;
    guard.stop()
}

/// Links, scripts, shells.
fn other_names(world: &World) -> Result<()> {
    let (link, hard) = ("/srv/work/symbolic", "/srv/agents/hard");
    symlink(CLAUDE, link).context("a link")?;
    fs::hard_link(CLAUDE, hard).context("a hard link")?;
    for path in [link, hard, "/srv/work/../agents/claude", "/proc/self/root/srv/agents/claude"] {
        same(path, tries(world, path)?, says("EPERM"))?;
    }
    for program in [OTHER, CLAUDE] {
        let script = format!("{PROD}/script");
        fs::write(&script, format!("#!{program} unlink\n"))?;
        mode(&script, 0o755)?;
        let must = if program == CLAUDE { "EPERM" } else { "ok" };
        same(&format!("a script for {program}"), got(&mut Command::new(&script))?, says(must))?;
        exists(&script, program == CLAUDE)?;
        let victim = format!("{PROD}/victim");
        world.file(&victim)?;
        let line = format!("{program} unlink {victim}; echo then");
        let must = format!("{must}\nthen");
        same("of a shell", got(Command::new("/bin/sh").args(["-c", &line]))?, Got::Says(must))?;
    }
    // The shell itself is in no session.
    until("all sessions have ended", SOON, || Ok(sessions()?.is_empty().then_some(())))
}

/// Once it is executed, it is guarded; until then it isn't executed.
fn never_free(world: &World, program: &str) -> Result<()> {
    let limit = Instant::now() + SOON;
    loop {
        match tries(world, program)? {
            Got::Says(text) => return same(program, text.as_str(), "EPERM"),
            Got::NotExecuted if Instant::now() > limit => bail!("{program} is never executed"),
            Got::NotExecuted => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn update() -> Result<()> {
    let (world, _agents) = (World::new()?, Agents::new()?);
    // By a link, as agents that update themselves have it.
    let (versions, link) = ("/srv/agents/versions", "/srv/agents/agent");
    directory(versions)?;
    copy("/srv/agents/versions/1")?;
    symlink("versions/1", link)?;
    let guard = Guard::start(&policy_with(&enroll(
        "exe",
        &[CLAUDE, link, "/srv/agents/versions/*", "/srv/agents/not-yet"],
    )))?;
    same("before", tries(&world, CLAUDE)?, says("EPERM"))?;
    same("by the link", tries(&world, link)?, says("EPERM"))?;
    for _ in 0..5 {
        copy("/srv/agents/new")?;
        fs::rename("/srv/agents/new", CLAUDE)?;
        never_free(&world, CLAUDE)?;
    }
    for version in 2..5 {
        copy(&format!("{versions}/{version}"))?;
        symlink(format!("versions/{version}"), "/srv/agents/agent-new")?;
        fs::rename("/srv/agents/agent-new", link)?;
        never_free(&world, link)?;
    }
    copy("/srv/agents/not-yet")?;
    never_free(&world, "/srv/agents/not-yet")?;
    // Where it was moved to it is the same program.
    fs::rename(CLAUDE, "/srv/agents/moved")?;
    never_free(&world, "/srv/agents/moved")?;
    same("another one", tries(&world, OTHER)?, says("ok"))?;
    guard.stop()
}

fn inherited() -> Result<()> {
    let (world, _agents) = (World::new()?, Agents::new()?);
    let mut guard = Guard::start(&policy_with(&enroll("exe", &[CLAUDE])))?;
    let victim = format!("{PROD}/victim");
    let kept = format!("{PROD}/kept");
    world.file(&kept)?;
    let with = |redirect: &str, program: &str| {
        world.file(&victim)?;
        let line = format!("exec {redirect}; exec {program} unlink {victim}");
        got(Command::new("/bin/sh").args(["-c", &line]))
    };
    for (redirect, must) in [
        ("7</etc/passwd", says("EPERM")),
        ("7>/dev/null", says("EPERM")),
        ("7>>/srv/work/log", says("EPERM")),
        (&format!("7>>{kept}"), Got::NotExecuted),
        (&format!("7<>{kept}"), Got::NotExecuted),
    ] {
        let mark = guard.events.mark()?;
        same(&format!("with {redirect}"), with(redirect, CLAUDE)?, must)?;
        if redirect.contains(&kept) {
            let told =
                guard.events.wait(mark, "it is told", |event| event.judged("deny") && event.about(CLAUDE))?;
            same("what was tried", told.field("operation"), "enroll".to_owned())?;
        }
        same(&format!("the other one with {redirect}"), with(redirect, OTHER)?, says("ok"))?;
    }
    guard.stop()
}

fn without_daemon() -> Result<()> {
    let (world, _agents) = (World::new()?, Agents::new()?);
    let mut guard = Guard::start(&policy_with(&enroll("exe", &[CLAUDE])))?;
    same("with the daemon", tries(&world, CLAUDE)?, says("EPERM"))?;
    guard.freeze()?;
    let victim = format!("{PROD}/waits");
    world.file(&victim)?;
    let mut waiting = Command::new(CLAUDE);
    waiting.args(["unlink", &victim]).current_dir(WORK).stdin(Stdio::null());
    // Starting a process waits until it has executed its program.
    let started = std::thread::spawn(move || got(&mut waiting));
    stays("the program waits", Duration::from_secs(1), || Ok(!started.is_finished()))?;
    same("others", tries(&world, OTHER)?, says("ok"))?;
    guard.daemon()?.signal(Signal::CONT)?;
    let done = started.join().map_err(|_panic| anyhow::anyhow!("it panicked"))?;
    same("then", done?, says("EPERM"))?;
    let mark = guard.events.mark()?;
    guard.kill()?;
    same("without", tries(&world, CLAUDE)?, Got::NotExecuted)?;
    same("others without", tries(&world, OTHER)?, says("ok"))?;
    guard.launch()?;
    guard.events.wait(mark, "it is told", |event| event.judged("deny") && event.about(CLAUDE))?;
    same("with another one", tries(&world, CLAUDE)?, says("EPERM"))?;
    guard.stop()
}
fn mistakes() -> Result<()> {
    let _world = World::new()?;
    let guard = Guard::start(&policy_with(""))?;
    for (by, who, part) in [
        ("user", "nobody-of-that-name", "there is no such user"),
        ("user", "0", "root can't be enrolled"),
        ("exe", PROGRAM, "the guard's own program"),
        ("exe", "/usr/bin/*", "the guard's own program"),
    ] {
        let text = policy_with(&enroll(by, &[who]));
        guard.write_policy(&text)?;
        let refused: Finished = run(Command::new(PROGRAM).args(["policy", "reload"]))?.code(3)?;
        contains(who, &refused.stderr, part)?;
        points_at(&refused.stderr, line_of(&text, who)?)?;
    }
    guard.stop()
}
