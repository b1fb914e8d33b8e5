//! Enrollment: users and control groups, whose programs have a session that is there all the time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_guard_common::{ABI, enroll::MAX_CGROUPS};
use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use serde_json::Value;

use crate::Scenario;
use crate::fixture::enrolled::{Agents, Got, OTHER, enroll, got, policy_with, says, sessions, standing};
use crate::fixture::guard::{CHANGES, PINS, cli, degraded, policy, rule};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, mode};
use crate::fixture::{SOON, World, attack, contains, same, text, until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("enroll_user", "a user's programs are in one session", user).on("6.12 7.2"),
    Scenario::direct(
        "enroll_unit",
        "control groups' programs are in one session, as soon as the group is made",
        unit,
    ).on("6.1 6.18"),
    Scenario::direct(
        "enroll_full",
        "control groups that can't be noted execute nothing until they can; those that are removed take no room",
        full,
    )
    .on("6.12"),
];

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

/// Control groups that the kernel side knows.
fn noted() -> Result<usize> {
    let map = MapData::from_pin(noted_in()).context("can't open the map")?;
    let map = HashMap::<_, u64, u32>::try_from(Map::HashMap(map)).context("it is no such map")?;
    Ok(map.keys().count())
}

fn noted_in() -> PathBuf {
    Path::new(PINS).join(format!("abi-{ABI}/maps/ENROLLED_CGROUPS"))
}

/// Has no room left for control groups.
fn fill() -> Result<()> {
    let pin = noted_in().display().to_string();
    let all = format!("{}", MAX_CGROUPS + 1);
    run(Command::new(attack()?).args(["bpf-fill", &pin, &all]))?.says("errno 7").map(drop)
}

fn full() -> Result<()> {
    let (world, _agents) = (World::new()?, Agents::new()?);
    let mut guard = standing(&policy_with(&enroll("unit", &["runner@*.service"])))?;
    let before = noted()?;
    let first = Group::new("/runner@first.service")?;
    same("known", noted()?, before + 1)?;
    drop(first);
    same("known when it is removed", noted()?, before)?;

    let other = Group::new("/other.service")?;
    guard.kill()?;
    fill()?;
    let late = Group::new("/runner@late.service")?;
    let stranger = Group::new("/stranger.service")?;
    same("one without room", late.tries(&world)?, Got::NotExecuted)?;
    // Nobody can tell which of those made since are enrolled.
    same("another one made since", stranger.tries(&world)?, Got::NotExecuted)?;
    same("one made before", other.tries(&world)?, says("ok"))?;
    guard.launch()?;
    same("with a daemon", late.tries(&world)?, says("EPERM"))?;
    same("another one with a daemon", stranger.tries(&world)?, says("ok"))?;

    // The daemon makes room where there is some.
    fill()?;
    let later = Group::new("/runner@later.service")?;
    until("it is looked after", SOON, || Ok((later.tries(&world)? == says("EPERM")).then_some(())))?;
    until("all is well", SOON, || Ok(degraded()?.is_empty().then_some(())))?;
    drop((late, later, stranger, other));
    guard.stop()
}
