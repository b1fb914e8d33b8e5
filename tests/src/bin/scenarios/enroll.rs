//! Enrollment: what becomes a session by itself.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::Scenario;
use crate::fixture::guard::{CHANGES, PROGRAM, cli, json, line_of, points_at, policy, rule};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, WORK, directory, exists, mode, remove};
use crate::fixture::{Finished, Guard, SOON, World, attack, contains, list, same, stays, text, until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "enroll_programs",
        "programs become sessions, whatever they are called by, before their first instruction",
        programs,
    ),
    Scenario::direct(
        "enroll_update",
        "a program that takes another's place is never executed unguarded",
        update,
    )
    .on("6.18"),
    Scenario::direct("enroll_inherited", "what an enrolled program inherits is judged", inherited).on("6.1"),
    Scenario::direct("enroll_daemon", "an enrolled program isn't executed without a daemon", without_daemon),
    Scenario::direct("enroll_user", "a user's programs are in one session", user),
    Scenario::direct(
        "enroll_unit",
        "control groups' programs are in one session, as soon as the group is made",
        unit,
    ),
    Scenario::direct("enroll_mistakes", "what can't be enrolled is refused with its place", mistakes)
        .on("7.2"),
];

const AGENTS: &str = "/srv/agents";
/// Enrolled.
const CLAUDE: &str = "/srv/agents/claude";
/// Everything in it is.
const MANY: &str = "/srv/agents/many";
/// It isn't.
const OTHER: &str = "/srv/agents/other";

/// What became of a program.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    NotExecuted,
    Says(String),
}

fn says(text: &str) -> Got {
    Got::Says(text.to_owned())
}

/// Copies of the attack program.
struct Agents;

impl Agents {
    fn new() -> Result<Self> {
        remove(Path::new(AGENTS))?;
        directory(AGENTS)?;
        directory(MANY)?;
        for path in [CLAUDE, OTHER, "/srv/agents/many/one"] {
            copy(path)?;
        }
        Ok(Self)
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        if let Err(error) = remove(Path::new(AGENTS)) {
            eprintln!("{AGENTS} stays: {error:#}");
        }
    }
}

fn copy(path: &str) -> Result<()> {
    fs::copy(attack()?, path).with_context(|| format!("can't make {path}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn enroll(by: &str, who: &[&str]) -> String {
    format!("[[enroll]]\n{by} = {who:?}\nprofile = \"agent\"\n\n")
}

fn policy_with(enrolled: &str) -> String {
    // A profile's tables come last.
    let text = policy(&rule(PROD, CHANGES, "deny"));
    text.replacen("version = 1\n", &format!("version = 1\n\n{enrolled}"), 1)
}

/// Runs a command with nothing open but pipes; what it said.
fn got(command: &mut Command) -> Result<Got> {
    command.current_dir(WORK).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.raw_os_error() == Some(1) => return Ok(Got::NotExecuted),
        Err(error) => return Err(error).with_context(|| format!("{command:?}")),
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        return Ok(Got::Says(out.trim().to_owned()));
    }
    ensure!(err.contains("ot permitted"), "{command:?}: {}: {out:?} {err:?}", output.status);
    Ok(Got::NotExecuted)
}

/// Has a program try to delete something protected.
fn tries(world: &World, program: &str) -> Result<Got> {
    let victim = format!("{PROD}/victim");
    world.file(&victim)?;
    let got = got(Command::new(program).args(["unlink", &victim]))?;
    exists(&victim, got != says("ok"))?;
    Ok(got)
}

/// Starts a daemon whose policy has standing sessions: those don't end.
fn standing(policy: &str) -> Result<Guard> {
    Guard::start(&crate::fixture::guard::policy(""))?.stop()?;
    let mut guard = Guard::prepare(policy)?;
    guard.launch()?;
    Ok(guard)
}

fn sessions() -> Result<Vec<Value>> {
    let all = json(&["session", "list"])?;
    Ok(list(&all, "/sessions")?.iter().filter(|one| text(one, "/state") == "running").cloned().collect())
}

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

/// A program as another user; in a control group, if one is given.
fn as_user(uid: u32, words: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    command
        .args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--clear-groups", "--"])
        .args(words);
    command
}

const USER: u32 = 4242;
const STRANGER: u32 = 4343;

fn user() -> Result<()> {
    let (world, _agents) = (World::new()?, Agents::new()?);
    mode(PROD, 0o777)?;
    let victim = format!("{PROD}/victim");
    let tried = |uid| {
        world.file(&victim)?;
        got(&mut as_user(uid, &[OTHER, "unlink", &victim]))
    };
    let enrolled = policy_with(&enroll("user", &["4242"]));
    let mut guard = standing(&enrolled)?;
    same("a stranger", tried(STRANGER)?, says("ok"))?;
    let mark = guard.events.mark()?;
    same("the user", tried(USER)?, says("EPERM"))?;
    same("once more", tried(USER)?, says("EPERM"))?;
    guard.events.none(mark, "a session", |event| event.is("session_started"))?;
    let all = sessions()?;
    same("sessions", all.len(), 1)?;
    let one = all.first().context("no session")?;
    same("its name", text(one, "/name"), "user 4242")?;
    same("how it began", text(one, "/origin"), "enroll")?;
    let id = text(one, "/id").to_owned();
    guard.events.wait(mark, "the denial", |event| event.judged("deny") && event.field("session") == id)?;
    // A file is open that nobody has judged.
    let mark = guard.events.mark()?;
    let with_file = |uid: u32| {
        world.file(&victim)?;
        let user = format!("setpriv --reuid {uid} --regid {uid} --clear-groups -- {OTHER} unlink {victim}");
        got(Command::new("/bin/sh").args(["-c", &format!("exec 7>>/srv/work/log; exec {user}")]))
    };
    same("a stranger with a file", with_file(STRANGER)?, says("ok"))?;
    same("the user with a file", with_file(USER)?, Got::NotExecuted)?;
    let told = guard.events.wait(mark, "it is told", |event| event.judged("deny") && event.about(OTHER))?;
    contains("why", &told.field("fault"), "descriptor")?;
    // The daemon's end changes nothing.
    guard.kill()?;
    same("without a daemon", tried(USER)?, says("EPERM"))?;
    same("a stranger without", tried(STRANGER)?, says("ok"))?;
    guard.launch()?;
    same("with another daemon", tried(USER)?, says("EPERM"))?;
    same("the same session", text(sessions()?.first().context("no session")?, "/id"), id.as_str())?;
    cli(&["session", "kill", &id])?.good()?;
    until("there is another session", SOON, || {
        let all = sessions()?;
        Ok((all.len() == 1 && all.iter().all(|one| text(one, "/id") != id)).then_some(()))
    })?;
    same("in that one", tried(USER)?, says("EPERM"))?;
    guard.reload(&policy(&rule(PROD, CHANGES, "deny")))?;
    same("no more", tried(USER)?, says("ok"))?;
    guard.reload(&enrolled)?;
    same("again", tried(USER)?, says("EPERM"))?;
    guard.stop()
}

/// A control group that is removed at the end.
struct Group(String);

impl Group {
    fn new(path: &str) -> Result<Self> {
        let path = format!("/sys/fs/cgroup{path}");
        fs::create_dir(&path).with_context(|| format!("can't make {path}"))?;
        Ok(Self(path))
    }

    /// Has somebody in it try to delete something protected.
    fn tries(&self, world: &World) -> Result<Got> {
        let victim = format!("{PROD}/victim");
        world.file(&victim)?;
        let line = format!("echo $$ > {}/cgroup.procs && exec {OTHER} unlink {victim}", self.0);
        got(Command::new("/bin/sh").args(["-c", &line]))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{} stays: {error}", self.0);
        }
    }
}

fn unit() -> Result<()> {
    let (world, _agents) = (World::new()?, Agents::new()?);
    let early = Group::new("/runner@early.service")?;
    let other = Group::new("/other.service")?;
    same("before", early.tries(&world)?, says("ok"))?;
    let text = policy_with(&(enroll("unit", &["runner@*.service"]) + &enroll("cgroup", &["/pods/*/x"])));
    let mut guard = standing(&text)?;
    same("one that was there", early.tries(&world)?, says("EPERM"))?;
    same("another one", other.tries(&world)?, says("ok"))?;
    let slice = Group::new("/deep.slice")?;
    let later = Group::new("/deep.slice/runner@later.service")?;
    let below = Group::new("/deep.slice/runner@later.service/inner")?;
    let pods = Group::new("/pods")?;
    let pod = Group::new("/pods/a")?;
    let container = Group::new("/pods/a/x")?;
    for (group, must) in [
        (&slice, "ok"),
        (&later, "EPERM"),
        (&pods, "ok"),
        (&pod, "ok"),
        (&container, "EPERM"),
        (&below, "EPERM"),
    ] {
        same(&group.0, group.tries(&world)?, says(must))?;
    }
    let names: Vec<_> = sessions()?.iter().map(text_of).collect();
    same("sessions", names.len(), 2)?;
    ensure!(names.contains(&"unit runner@*.service".to_owned()), "{names:?}");
    guard.kill()?;
    let unseen = Group::new("/runner@unseen.service")?;
    same("made without a daemon", unseen.tries(&world)?, says("EPERM"))?;
    same("another one without", other.tries(&world)?, says("ok"))?;
    guard.launch()?;
    same("with another daemon", unseen.tries(&world)?, says("EPERM"))?;
    guard.reload(&policy(&rule(PROD, CHANGES, "deny")))?;
    same("no more", later.tries(&world)?, says("ok"))?;
    drop((below, later, container, pod, pods));
    guard.stop()
}

fn text_of(session: &Value) -> String {
    text(session, "/name").to_owned()
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
