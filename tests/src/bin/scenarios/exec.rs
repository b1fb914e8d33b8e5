//! Executing programs: rules about what they are executed with, and about those that no path leads to.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::Scenario;
use crate::fixture::guard::{ALL, cli, json, line_of, policy, rule};
use crate::fixture::process::run;
use crate::fixture::world::{WORK, exists, mode};
use crate::fixture::{Event, Guard, Hold, PROFILE, SOON, Server, World, list, same, stays, text, until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("exec_arguments", "what a program is executed with, however it is called", arguments)
        .on("6.1 7.2"),
    Scenario::direct("exec_hold", "a program is held before it runs, and goes on or doesn't", hold),
    Scenario::direct("exec_races", "arguments that change while they are looked at", races).on("6.12"),
    Scenario::direct("exec_anonymous", "programs that no path leads to", anonymous),
];

/// A program that leaves something behind when it runs: another name for `touch`.
const TOOL: &str = "/usr/local/bin/deployctl";
/// What it makes.
const MADE: &str = "/srv/work/made";

/// The program, and what else is used to call it.
struct Tool {
    _world: World,
}

impl Tool {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let copy = |to: &str| fs::copy("/usr/bin/touch", to).with_context(|| format!("can't make {to}"));
        for to in [TOOL, "/srv/work/deployctl"] {
            copy(to)?;
            mode(to, 0o755)?;
        }
        fs::create_dir_all("/srv/work/bin").context("can't make a directory")?;
        fs::hard_link(TOOL, "/usr/local/bin/harmless").context("can't make a link")?;
        std::os::unix::fs::symlink(TOOL, "/srv/work/bin/link").context("can't make a link")?;
        fs::write("/srv/work/script", format!("#!{TOOL} destroy\n")).context("can't write a script")?;
        mode("/srv/work/script", 0o755)?;
        Ok(Self { _world: world })
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        for path in [TOOL, "/usr/local/bin/harmless"] {
            // What isn't there needs no removing.
            let _gone = fs::remove_file(path);
        }
    }
}

fn command_rule(argv: &[&str], verdict: &str) -> String {
    format!("[[profile.{PROFILE}.exec.rule]]\nargv = {argv:?}\nverdict = {verdict:?}\n\n")
}

/// Ways to call it, in a shell.
const CALLS: &[&str] = &[
    "deployctl destroy /srv/work/made",
    "/usr/local/bin/deployctl destroy /srv/work/made",
    "/proc/self/root/usr/local/bin/deployctl destroy /srv/work/made",
    "exec -a something-else deployctl destroy /srv/work/made",
    "exec -a '' deployctl destroy /srv/work/made",
    "/srv/work/deployctl destroy /srv/work/made",
    "exec -a deployctl /usr/bin/touch destroy /srv/work/made",
    "harmless destroy /srv/work/made",
    "/srv/work/bin/link destroy /srv/work/made",
    "/lib64/ld-linux-x86-64.so.2 /usr/local/bin/deployctl destroy /srv/work/made",
    "exec -a x /lib64/ld-linux-x86-64.so.2 --argv0 y /usr/local/bin/deployctl destroy /srv/work/made",
    "/srv/work/script /srv/work/made",
    "env deployctl destroy /srv/work/made",
    "echo destroy /srv/work/made | xargs deployctl",
    "find /srv/work/f -exec deployctl destroy /srv/work/made ';'",
    "setsid --wait deployctl destroy /srv/work/made",
];

/// What is no such call.
const HARMLESS: &[&str] = &[
    "deployctl plan /srv/work/made",
    "deployctl /srv/work/made destroy",
    "/usr/bin/touch destroy /srv/work/made",
    "deployctl destroyer /srv/work/made",
];

fn shell(line: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", line]).current_dir(WORK);
    command
}

fn made(is: bool) -> Result<()> {
    exists(MADE, is)?;
    if is {
        fs::remove_file(MADE).context("can't remove what was made")?;
    }
    Ok(())
}

fn denied(event: &Event) -> bool {
    event.judged("deny") && event.field("operation") == "exec" && event.class() == (1007, 1)
}

fn arguments() -> Result<()> {
    let _tool = Tool::new()?;
    let all = CALLS.iter().chain(HARMLESS);
    for line in all {
        run(&mut shell(line))?.good().with_context(|| format!("outside: {line}"))?;
        made(true).with_context(|| format!("outside: {line}"))?;
    }
    let written = policy(&command_rule(&["deployctl", "destroy", "..."], "deny"));
    let line_number = line_of(&written, "argv")?;
    let mut guard = Guard::start(&written)?;
    for line in CALLS {
        let mark = guard.events.mark()?;
        let done = guard.ran(&["bash", "-c", line])?;
        // `find` finds nothing wrong with a program that it can't execute.
        let fails = !line.starts_with("find ");
        anyhow::ensure!(!fails || !done.status.success(), "it says it worked: {}", done.summary());
        made(false).with_context(|| format!("inside: {line}"))?;
        let event = guard.events.wait(mark, line, denied)?;
        same("the rule's line", event.field("rule_line").as_str(), &line_number.to_string())?;
        let told = event.field("command_line");
        anyhow::ensure!(told.contains("destroy"), "{line}: the event says {told:?}");
    }
    for line in HARMLESS {
        guard.ran(&["bash", "-c", line])?.good().with_context(|| format!("inside: {line}"))?;
        made(true).with_context(|| format!("inside: {line}"))?;
    }
    // Where there are many arguments, the last one counts, too.
    let pattern = ["deployctl", "...", "/srv/work/made"];
    guard.reload(&policy(&command_rule(&pattern, "deny")))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    for (count, last, outcome) in [("40000", "/srv/work/made", "EPERM"), ("40000", "/srv/work/other", "ok")] {
        let attempt = format!("exec-long {count} {TOOL} {last}");
        outside.expect(&attempt, "ok")?;
        inside.expect(&attempt, outcome)?;
    }
    made(true)?;
    // What explain says is what happens.
    for (last, verdict) in [(MADE, "deny"), ("x", "allow")] {
        let asked = ["policy", "explain", "--profile", PROFILE, "--json", "--exec", "deployctl", "-a", last];
        let done = cli(&asked)?.good()?;
        let answer: serde_json::Value = serde_json::from_str(&done.stdout).context("no JSON")?;
        same("explained", text(&answer, "/verdict"), verdict)?;
    }
    // With `mode = "report"` it runs and is told.
    let reporting = policy(&command_rule(&["deployctl", "destroy", "..."], "deny"))
        .replace("[profile.agent.files]", "[profile.agent]\nmode = \"report\"\n[profile.agent.files]");
    guard.reload(&reporting)?;
    let mark = guard.events.mark()?;
    guard.ran(&["bash", "-c", "deployctl destroy /srv/work/made"])?.good()?;
    made(true)?;
    guard.events.wait(mark, "the report", |event| {
        event.judged("report")
            && event.field("operation") == "exec"
            && event.field("policy_verdict") == "deny"
    })?;
    drop((inside, outside));
    guard.stop()
}

fn hold() -> Result<()> {
    let _tool = Tool::new()?;
    let written = policy(&command_rule(&["deployctl", "destroy", "..."], "hold"));
    let mut guard = Guard::start(&written)?;
    let line = "cd /srv/work && exec deployctl destroy /srv/work/made";
    for approve in [true, false] {
        let mark = guard.events.mark()?;
        let mut running = guard.run(&["bash", "-c", line])?;
        let hold = Hold::of(running.pid())?;
        hold.is("exec", TOOL)?;
        same("the command", text(&hold.0, "/command_line"), "deployctl destroy /srv/work/made")?;
        guard.events.wait(mark, "the hold", |event| event.is("held"))?;
        // Who lets it go on without an answer doesn't.
        for _ in 0..3 {
            running.signal(Signal::CONT)?;
            stays("nothing runs", Duration::from_millis(100), || Ok(!std::path::Path::new(MADE).exists()))?;
        }
        hold.frozen()?;
        same("still one question", Hold::count(1)?.len(), 1)?;
        if approve {
            hold.approve()?;
            running.wait(SOON)?.good()?;
        } else {
            hold.deny()?;
            let done = running.wait(SOON)?;
            anyhow::ensure!(!done.status.success(), "it says it worked: {}", done.summary());
        }
        made(approve)?;
        hold.becomes(if approve { "approved" } else { "denied" })?;
    }
    // Allowed meanwhile, it goes on, and nobody is asked any more, although it runs still.
    guard.reload(&policy(&command_rule(&["sleep", "..."], "hold")))?;
    let mut waiting = guard.run(&["bash", "-c", "exec sleep 600"])?;
    let hold = Hold::of(waiting.pid())?;
    guard.reload(&policy(""))?;
    hold.becomes("withdrawn")?;
    anyhow::ensure!(!waiting.ends_within(Duration::ZERO)?, "the program has ended");
    waiting.signal(Signal::KILL)?;
    let _killed = waiting.wait(SOON)?;
    // One call, two questions: whether the file may be executed, and with what.
    let both = written + &rule(TOOL, &["execute"], "hold");
    guard.reload(&both)?;
    let mut running = guard.run(&["bash", "-c", line])?;
    let mut operations = Vec::new();
    for _ in 0..2 {
        let hold = Hold::of(running.pid())?;
        operations.push(text(&hold.0, "/operation").to_owned());
        hold.approve()?;
        hold.becomes("approved")?;
    }
    same("the questions", operations.join(" ").as_str(), "execute exec")?;
    running.wait(SOON)?.good()?;
    made(true)?;
    // And none of the answers is for the next call.
    let mut running = guard.run(&["bash", "-c", line])?;
    let hold = Hold::of(running.pid())?;
    hold.is("execute", TOOL)?;
    hold.deny()?;
    let _ended = running.wait(SOON)?;
    made(false)?;
    guard.stop()
}

/// Turns of the race. Each is a program, which under emulation takes some milliseconds.
const TURNS: &str = "600";

fn races() -> Result<()> {
    let _tool = Tool::new()?;
    // The changing word is the second: `bad` or `fine`, or something between.
    let mut outside = Server::outside()?;
    let attempt = |server: &mut Server| -> Result<()> {
        let answer = server.ask(&format!("exec-race {TURNS} {TOOL} /srv/work/made"))?;
        let (worked, _) = answer.split_once(" of ").with_context(|| format!("it says {answer:?}"))?;
        anyhow::ensure!(worked != "0", "nothing was executed: {answer}");
        same("the race's end", server.answer()?.as_str(), "ok")
    };
    let remove = || -> Result<bool> {
        let there = std::path::Path::new("/srv/work/bad").exists();
        for name in ["bad", "fine", "made"] {
            let _gone = fs::remove_file(format!("{WORK}/{name}"));
        }
        Ok(there)
    };
    attempt(&mut outside)?;
    anyhow::ensure!(remove()?, "outside of a session `bad` was never an argument: the race isn't one");
    let guard = Guard::start(&policy(&command_rule(&["deployctl", "bad", "..."], "deny")))?;
    let mut inside = Server::inside(&guard)?;
    attempt(&mut inside)?;
    anyhow::ensure!(!remove()?, "a program was executed with the forbidden argument");
    drop((inside, outside));
    guard.stop()
}

fn anonymous() -> Result<()> {
    let _world = World::new()?;
    let attempts =
        ["exec-memfd /bin/true", "exec-deleted /bin/true /srv/work", "exec-tmpfile /bin/true /srv/work"];
    let mut guard = Guard::start(&policy(""))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    for line in attempts {
        outside.expect(line, "ok")?;
        let mark = guard.events.mark()?;
        inside.expect(line, "EPERM")?;
        let event = guard.events.wait(mark, line, denied)?;
        same("the source", event.field("source").as_str(), "exec")?;
    }
    let with = |verdict: &str| {
        let paths = ["/dev", "/proc"].map(|path| rule(path, ALL, "allow")).concat();
        policy(&format!("{paths}[profile.{PROFILE}.exec]\nanonymous = {verdict:?}\n"))
    };
    for verdict in ["allow", "report"] {
        guard.reload(&with(verdict))?;
        for line in attempts {
            let mark = guard.events.mark()?;
            inside.expect(line, "ok")?;
            if verdict == "report" {
                guard
                    .events
                    .wait(mark, line, |event| event.judged("report") && event.field("operation") == "exec")?;
            }
        }
    }
    guard.reload(&with("hold"))?;
    inside.send(attempts[0])?;
    let waiting = until("it is held", SOON, || Ok(Hold::all()?.pop()))?;
    same("what is held", text(&waiting.0, "/operation"), "exec")?;
    waiting.approve()?;
    same("its outcome", inside.answer()?.as_str(), "ok")?;
    same("nothing else waits", list(&json(&["approvals", "list"])?, "/approvals")?.len(), 0)?;
    drop((inside, outside));
    guard.stop()
}
