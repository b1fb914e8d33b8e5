//! Tables that are full: what has no room is refused, and somebody hears of it.
//!
//! Of the maps (`ARCHITECTURE.md`, *Maps*) these can be filled from outside: `SESSIONS`, `HOLDS`, `SIDES`, `PLACES` (and with
//! it `OBJECTS` and `NAMES`, which have an entry for each of its paths at most), `DECISIONS`, and `REPORTS`
//! (`events_flood`), `ENROLLED_CGROUPS` (`enroll_full`). These can't, and why:
//!
//! - `TAGS` and `SCRATCH` are task storage: bounded by the kernel's memory alone, which is taken without waiting and, for
//!   what a control group is charged, beyond its limit. It fails when the host has no page left, where nothing else
//!   works either.
//! - `KNOWN` is an array in which a decision takes the place of another.
//! - `RENAMED`, `GENERATION`, `FILTERS`, `GUARD`, `BLANK` and `COUNTS` are arrays with everything in its place.
//! - `SHAPES`, `PROFILES`, `NETWORKS`, `COMMANDS` and `PROGRAMS` are filled by policies, and a policy that has no room is refused before it is
//!   written: unit tests of `policy`.
//! - `ENROLLED_USERS` and `STANDING` have an entry for what a policy enrolls, and one that enrolls more is refused; `SEATS` has one
//!   for each program that the daemon makes a session for, of which there are less at the same time, and without a seat none is
//!   executed.
//! - `NAMED` has an entry for each address that a session has asked for, of which the daemon remembers fewer for a session; `ASKING` one
//!   for each task that is about to send a question, and there are as many as in `ASKERS` as there are ports.
//! - `SOCKETS` is socket storage, as `TAGS`.
//! - `PROCESSES` has an entry for each process of a session, where no LSM programs run; an entry more than there is room for kills who
//!   makes the process: by reading, more processes than that run on no host that tests run on.
//! - `ANSWERS` has as many places as `HOLDS`, and an answer is written only for a call that waits there.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::Scenario;
use crate::fixture::guard::{CHANGES, cli, degraded, json, policy, rule};
use crate::fixture::world::{PROD, WORK, directory, exists};
use crate::fixture::{
    Guard, Hold, PROFILE, Running, SOON, Server, World, attack, contains, list, number, same, text, until,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("full_sessions", "one session more than there is room for isn't started", sessions)
        .on("6.12"),
    Scenario::direct("full_paths", "no session starts whose own paths have no room", paths).on("6.12"),
    Scenario::direct("full_holds", "one hold more than there is room for is a denial, and says so", holds)
        .on("7.2"),
    Scenario::direct(
        "full_decisions",
        "more denials than the ring has room for: all denied, counted and told; a hold among them is found",
        decisions,
    ),
];

/// Slots of `SESSIONS`, but for the one that isn't used.
const SESSIONS: usize = 1023;
/// Places of `HOLDS`.
const HOLDS: usize = 512;

/// Processes with sessions of their own, until this is forgotten.
struct Crowd {
    process: Running,
    /// How many have one.
    started: usize,
    /// What the next was told.
    refusal: String,
}

impl Crowd {
    /// Starts so many sessions, or as many as there is room for; in `DIR/0` and so on where those are there.
    fn new(count: usize, dir: &str) -> Result<Self> {
        let mut command = Command::new(attack()?);
        command.args(["start-sessions", PROFILE, &count.to_string(), dir]).stdin(Stdio::piped());
        let process = Running::start(&mut command)?;
        let said = until("sessions have started, or can't", SOON, || {
            let said = process.stdout_so_far()?;
            anyhow::ensure!(
                !process.ends_within(std::time::Duration::ZERO)?,
                "it has ended: {}",
                process.stderr_so_far()?
            );
            Ok((said.lines().count() == 2).then_some(said))
        })?;
        let mut lines = said.lines();
        let started = lines.next().and_then(|line| line.strip_suffix(" started")?.parse().ok());
        let refusal = lines.next().unwrap_or_default().to_owned();
        Ok(Self { process, started: started.with_context(|| format!("it said {said:?}"))?, refusal })
    }

    /// Ends all of them.
    fn end(mut self) -> Result<()> {
        drop(self.process.child().stdin.take());
        self.process.wait(SOON)?;
        until("their sessions have ended", SOON, || {
            let sessions = json(&["session", "list"])?;
            let running = list(&sessions, "/sessions")?.iter().any(|one| text(one, "/state") == "running");
            Ok((!running).then_some(()))
        })
    }
}

fn sessions() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let mut inside = Server::inside(&guard)?;
    // One slot is taken already.
    let crowd = Crowd::new(SESSIONS, WORK)?;
    same("sessions that have started", crowd.started, SESSIONS - 1)?;
    contains("what the next was told", &crowd.refusal, "sessions run, more than that can't be")?;
    let done = guard.ran(&["touch", "/srv/work/unguarded"])?.code(125)?;
    contains("the message", &done.stderr, "sessions run, more than that can't be")?;
    exists("/srv/work/unguarded", false)?;
    // Those that run are judged as before, also by another daemon.
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    guard.kill()?;
    guard.launch()?;
    same("sessions that run", number(&json(&["status"])?, "/sessions")?, SESSIONS as u64)?;
    guard.ran(&["touch", "/srv/work/unguarded"])?.code(125)?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    drop(inside);
    crowd.end()?;
    guard.ran(&["touch", "/srv/work/guarded"])?.good()?;
    exists("/srv/work/guarded", true)?;
    guard.settle()?;
    guard.stop()
}

/// A profile that says something of so many paths of a session's own.
fn own_rules(count: usize) -> String {
    let rules: String =
        (0..count).map(|number| rule(&format!("${{cwd}}/{number}"), &["delete"], "deny")).collect();
    policy(&(rule(PROD, CHANGES, "deny") + &rules))
}

/// Fills tables with what sessions say of paths, in one directory or in one each; answers what was told.
fn fill_paths(guard: &mut Guard, table: &str, dir: &str) -> Result<()> {
    let crowd = Crowd::new(SESSIONS, dir)?;
    anyhow::ensure!(crowd.started > 0, "no session has started: {}", crowd.refusal);
    contains("what the next was told", &crowd.refusal, &format!("map {table}"))?;
    contains("what to do", &crowd.refusal, "agent-guard policy reload")?;
    // Nobody starts half: not where it was refused, and not where its paths are known already.
    for place in [dir.to_owned(), format!("{dir}/0"), format!("{dir}/{}", crowd.started)] {
        if !std::path::Path::new(&place).is_dir() {
            continue;
        }
        let mut command = guard.command(PROFILE, &["touch", "/tmp/unguarded"]);
        crate::fixture::process::run(command.current_dir(&place))?.code(125).with_context(|| place)?;
    }
    exists("/tmp/unguarded", false)?;
    contains("what is degraded", &degraded()?, &format!("map {table}"))?;
    crowd.end()
}

fn paths() -> Result<()> {
    const RULES: usize = 400;
    let _world = World::new()?;
    let text = own_rules(RULES);
    let mut guard = Guard::start(&text)?;
    // All in one directory: the same places, and sides for each session.
    let shared = format!("{WORK}/shared");
    directory(&shared)?;
    fs::write(format!("{shared}/0"), "").context("can't make a file")?;
    fill_paths(&mut guard, "SIDES", &shared)?;
    // As it says, a reload makes room.
    guard.reload(&text)?;
    same("what is degraded", degraded()?.as_str(), "")?;
    let mut command =
        guard.command(PROFILE, &[&attack()?.to_string_lossy(), "unlink", &format!("{shared}/0")]);
    crate::fixture::process::run(command.current_dir(&shared))?.says("EPERM")?;
    // Each in one of its own: places and names for each.
    let apart = format!("{WORK}/apart");
    directory(&apart)?;
    for number in 0..64 {
        directory(&format!("{apart}/{number}"))?;
    }
    fill_paths(&mut guard, "PLACES", &apart)?;
    guard.reload(&text)?;
    guard.settle()?;
    guard.stop()
}

fn holds() -> Result<()> {
    let _world = World::new()?;
    let mut guard =
        Guard::start(&policy(&(rule(PROD, CHANGES, "deny") + &rule("/srv/prod/dir", CHANGES, "hold"))))?;
    for number in 0..=HOLDS {
        fs::write(format!("/srv/prod/dir/{number}"), "").context("can't make a file")?;
    }
    let attack = attack()?.display().to_string();
    let mark = guard.events.mark()?;
    let mut inside = guard.run(&[&attack, "unlink-each", "/srv/prod/dir", &(HOLDS + 1).to_string()])?;
    let said = until("one call is answered", SOON, || {
        let said = inside.stdout_so_far()?;
        Ok((!said.is_empty()).then_some(said))
    })?;
    let (denied, outcome) = said.trim().split_once(' ').context("a number and an outcome")?;
    same("what became of the one without a place", outcome, "EPERM")?;
    exists(&format!("/srv/prod/dir/{denied}"), true)?;
    let event = guard.events.wait(mark, "the denial", |event| event.judged("deny"))?;
    anyhow::ensure!(event.about(&format!("/srv/prod/dir/{denied}")), "it is about {}", event.0);
    same("why", event.field("fault").as_str(), "the table of holds is full")?;
    let all = Hold::count(HOLDS)?;
    same("calls that wait", number(&json(&["status"])?, "/holds_waiting")?, HOLDS as u64)?;
    // A daemon that starts finds them all.
    guard.kill()?;
    guard.launch()?;
    Hold::count(HOLDS)?;
    // When one is answered, there is room for one.
    let first = all.first().context("no hold")?;
    let path = text(&first.0, "/path").to_owned();
    first.approve()?;
    exists(&path, false)?;
    let mut late = Server::inside(&guard)?;
    late.send(&format!("unlink /srv/prod/dir/{denied}"))?;
    let hold = Hold::of(late.process().pid())?;
    hold.deny()?;
    same("the late one", late.answer()?.as_str(), "EPERM")?;
    let session = text(&first.0, "/session").to_owned();
    cli(&["session", "kill", &session])?.good()?;
    inside.wait(SOON)?;
    Hold::count(0)?;
    let left = fs::read_dir("/srv/prod/dir").context("can't read the directory")?.count();
    same("what is left", left, HOLDS + 1 - 1 + 2)?;
    drop(late);
    guard.stop()
}

fn decisions() -> Result<()> {
    const TIMES: u64 = 3000;
    let _world = World::new()?;
    let mut guard =
        Guard::start(&policy(&(rule(PROD, CHANGES, "deny") + &rule("/srv/prod/dir", CHANGES, "hold"))))?;
    let mut inside = Server::inside(&guard)?;
    let mut other = Server::inside(&guard)?;
    let mark = guard.events.mark()?;
    let lost = || number(&json(&["status"])?, "/lost/decisions");
    let before = lost()?;
    guard.freeze()?;
    inside.expect(&format!("unlink-times /srv/prod/f {TIMES}"), "EPERM")?;
    exists("/srv/prod/f", true)?;
    // There is no room for its record any more.
    other.send("unlink /srv/prod/dir/f")?;
    let pid = other.process().pid();
    until("it is held", SOON, || Ok((crate::fixture::state(pid) == Some('T')).then_some(())))?;
    guard.daemon()?.signal(Signal::CONT)?;
    let hold = Hold::of(pid)?;
    hold.is("delete", "/srv/prod/dir/f")?;
    let loss = guard.events.wait(mark, "the loss", |event| event.is("events_lost"))?;
    same("what was lost", loss.field("lost").as_str(), "decisions")?;
    guard.settle()?;
    let (told, count) = until("events and status count the same loss", SOON, || {
        let events = guard.events.since(mark)?;
        let told = events.iter().filter(|event| event.judged("deny") && event.about("/srv/prod/f")).count();
        let counts = events.iter().filter(|event| event.is("events_lost"));
        let count: u64 = counts.filter_map(|event| event.own("count").as_u64()).sum();
        Ok((count == lost()? - before).then_some((told as u64, count)))
    })?;
    anyhow::ensure!(told > 0, "no denial was told");
    // The hold's record is the one more.
    same("denials that were told, and what was lost", told + count, TIMES + 1)?;
    guard.events.wait(mark, "the hold", |event| event.is("held") && event.own("hold") == hold.id())?;
    hold.deny()?;
    same("the held call", other.answer()?.as_str(), "EPERM")?;
    guard.stop()
}
