//! Events: complete, in order, as they happen; and what is lost is said.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;

use crate::Scenario;
use crate::fixture::event::Mark;
use crate::fixture::guard::{CHANGES, PROGRAM, json, policy, rule};
use crate::fixture::world::PROD;
use crate::fixture::{Event, Guard, Running, SOON, Server, World, contains, number, same, text, until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("events_follow", "followers see what happens, by session and verdict too", follow)
        .on("7.2"),
    Scenario::direct("events_flood", "a flood loses reports, never denials, and says how many", flood),
    Scenario::direct("events_actor", "an event says who: process, parents, user, session", actor).on("6.18"),
];

fn start() -> Result<(World, Guard)> {
    let world = World::new()?;
    let rules = rule(PROD, CHANGES, "deny") + &rule("/srv/prod/dir", CHANGES, "report");
    Ok((world, Guard::start(&policy(&rules))?))
}

/// A follower, and the events that it has printed.
struct Follower(Running);

impl Follower {
    fn new(more: &[&str]) -> Result<Self> {
        let mut command = std::process::Command::new(PROGRAM);
        Running::start(command.args(["events", "--follow", "--json"]).args(more)).map(Self)
    }

    fn seen(&self) -> Result<Vec<Event>> {
        let text = self.0.stdout_so_far()?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).map(Event).context("no JSON")).collect()
    }

    fn wait(&self, what: &str, test: impl Fn(&Event) -> bool) -> Result<Event> {
        until(&format!("the follower prints {what}"), SOON, || {
            Ok(self.seen()?.into_iter().find(|event| test(event)))
        })
    }
}

fn follow() -> Result<()> {
    let (_world, mut guard) = start()?;
    let mut inside = Server::inside(&guard)?;
    let begin = guard.events.wait(Mark::START, "the session", |event| event.is("session_started"))?;
    let session = begin.field("session");
    let (all, denials, one) = (
        Follower::new(&[])?,
        Follower::new(&["--verdict", "deny"])?,
        Follower::new(&["--session", &session])?,
    );
    // A follower is there when it prints something.
    let mut probe = 0;
    until("all three follow", SOON, || {
        probe += 1;
        inside.ask(&format!("mkdir /srv/prod/probe-{probe}"))?;
        let ready =
            [&all, &denials, &one].into_iter().all(|follower| follower.seen().is_ok_and(|s| !s.is_empty()));
        Ok(ready.then_some(()))
    })?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    inside.expect("unlink /srv/prod/dir/f", "ok")?;
    guard.attack(&["unlink", "/srv/prod/g"])?.says("EPERM")?;
    let denial = |event: &Event| event.judged("deny") && event.about("/srv/prod/f");
    let report = |event: &Event| event.judged("report") && event.about("/srv/prod/dir/f");
    let other = |event: &Event| event.judged("deny") && event.about("/srv/prod/g");
    for test in [&denial as &dyn Fn(&Event) -> bool, &report, &other] {
        all.wait("everything", test)?;
    }
    denials.wait("the denial", denial)?;
    denials.wait("the other session's denial", other)?;
    one.wait("the denial", denial)?;
    one.wait("the report", report)?;
    anyhow::ensure!(
        !denials.seen()?.iter().any(|event| !event.judged("deny")),
        "something else than denials"
    );
    anyhow::ensure!(!one.seen()?.iter().any(|event| event.field("session") != session), "another session");
    // What is followed is what is logged. The log goes on meanwhile, so it is read after the followed.
    let followed = all.seen()?;
    until("what was followed is logged", SOON, || {
        let logged: BTreeSet<String> =
            guard.events.all()?.iter().map(|e| text(&e.0, "/metadata/uid").to_owned()).collect();
        let complete = followed.iter().all(|event| logged.contains(text(&event.0, "/metadata/uid")));
        Ok(complete.then_some(()))
    })?;
    // And can be asked for later.
    let later =
        crate::fixture::guard::cli(&["events", "--json", "--verdict", "deny", "--session", &session])?
            .good()?;
    contains("the past", &later.stdout, "/srv/prod/f")?;
    anyhow::ensure!(guard.events.gapless()? > 5, "too few events");
    guard.stop()
}

/// While the daemon stands still the kernel's buffers fill up.
fn flood() -> Result<()> {
    const TIMES: u64 = 6000;
    const DENIALS: u64 = 60;
    let (_world, mut guard) = start()?;
    let mut inside = Server::inside(&guard)?;
    let mark = guard.events.mark()?;
    // The kernel counts on over all daemons.
    let so_far = |kind: &str| number(&json(&["status"])?, &format!("/lost/{kind}"));
    let before = (so_far("decisions")?, so_far("reports")?);
    guard.freeze()?;
    for number in 0..DENIALS / 2 {
        inside.expect(&format!("mkdir /srv/prod/early-{number}"), "EPERM")?;
    }
    inside.expect(&format!("open-write-times /srv/prod/dir/f {TIMES}"), "ok")?;
    for number in 0..DENIALS / 2 {
        inside.expect(&format!("mkdir /srv/prod/late-{number}"), "EPERM")?;
    }
    guard.daemon()?.signal(Signal::CONT)?;
    let last = format!("/srv/prod/late-{}", DENIALS / 2 - 1);
    guard.events.wait(mark, "the last denial", |event| event.judged("deny") && event.about(&last))?;
    let lost = guard.events.wait(mark, "the loss", |event| event.is("events_lost"))?;
    same("class and activity of the loss", lost.class(), (6008, 1))?;
    same("what was lost", lost.field("lost").as_str(), "reports")?;
    // Whatever of the flood isn't lost is told before what happens now.
    guard.settle()?;
    let events = guard.events.since(mark)?;
    let is_marker = |event: &Event| event.field("path").contains("/marker-");
    let denied = events.iter().filter(|event| event.judged("deny") && !is_marker(event)).count();
    same("denials that were told", u64::try_from(denied)?, DENIALS)?;
    let reports = events.iter().filter(|event| event.judged("report")).count();
    let lost = until("events and status count the same loss", SOON, || {
        let told: u64 = guard
            .events
            .since(mark)?
            .iter()
            .filter(|event| event.is("events_lost"))
            .filter_map(|event| event.own("count").as_u64())
            .sum();
        Ok((told == so_far("reports")? - before.1).then_some(told))
    })?;
    same("lost decisions", so_far("decisions")?, before.0)?;
    anyhow::ensure!(
        u64::try_from(reports)? + lost >= TIMES,
        "{reports} reports were told and {lost} lost, of {TIMES}"
    );
    guard.stop()
}

fn actor() -> Result<()> {
    let (_world, mut guard) = start()?;
    let mark = guard.events.mark()?;
    let mut command = std::process::Command::new(PROGRAM);
    command.args(["run", "--profile", "agent", "--task", "clean", "--name", "cleaner", "--"]);
    command.args(["bash", "-c", "bash -c 'rm -f /srv/prod/f; true'; true"]).current_dir("/srv/work");
    crate::fixture::process::run(&mut command)?.good()?;
    let event = guard.events.wait(mark, "the denial", |event| event.judged("deny"))?;
    let begin = guard.events.wait(mark, "the beginning", |event| event.is("session_started"))?;
    let program = text(&event.0, "/actor/process/file/path");
    anyhow::ensure!(program.ends_with("/rm"), "the program is {program:?}: {}", event.0);
    contains("its command line", text(&event.0, "/actor/process/cmd_line"), "/srv/prod/f")?;
    contains("its parent's command line", text(&event.0, "/actor/process/parent_process/cmd_line"), "rm -f")?;
    same("the session", text(&event.0, "/actor/session/uid"), begin.field("session").as_str())?;
    for (field, must) in
        [("session_name", "cleaner"), ("task", "clean"), ("profile", "agent"), ("mode", "enforce")]
    {
        same(field, event.field(field).as_str(), must)?;
    }
    same("who started it", event.field("started_by_uid").as_str(), "0")?;
    same("the OCSF version", text(&event.0, "/metadata/version"), "1.8.0")?;
    same("action: denied", number(&event.0, "/action_id")?, 2)?;
    same("disposition: blocked", number(&event.0, "/disposition_id")?, 2)?;
    same("class and activity: a file is deleted", event.class(), (1001, 4))?;
    same("the file", text(&event.0, "/file/path"), "/srv/prod/f")?;
    anyhow::ensure!(event.0.get("time").and_then(Value::as_u64).is_some(), "no time");
    guard.stop()
}
