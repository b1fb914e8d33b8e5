//! Runs scenarios one after another, each in a process and a cgroup of its own: one that hangs, panics or
//! leaves processes behind doesn't spoil the next.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::fixture::{Finished, Running, SOON, Skip, guard, until};
use crate::{Boot, Options, Scenario, scenarios};

/// A scenario that takes longer hangs. Less than the host's limit, so that it costs no guest.
const PATIENCE: Duration = Duration::from_secs(860);
/// How often the host hears of a scenario that goes on: it ends guests that are silent for minutes.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);
/// Parent of the scenarios' cgroups.
const CGROUP: &str = "/sys/fs/cgroup/agent-guard-tests";

/// Runs what is wanted. False if something failed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let mut good = true;
    for scenario in scenarios().filter(|scenario| options.wants(scenario)) {
        tell(&json!({"event": "start", "scenario": scenario.name}))?;
        let begin = Instant::now();
        let (outcome, why) = match attempt(scenario) {
            Ok(answer) => answer,
            Err(error) => ("failed".to_owned(), format!("{error:#}")),
        };
        let (outcome, why) = match clean(scenario, outcome == "failed") {
            Err(error) if outcome != "failed" => ("failed".to_owned(), format!("{error:#}")),
            _ => (outcome, why),
        };
        good &= outcome != "failed";
        let seconds = (begin.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let why = why.replace('\n', " | ");
        tell(&json!({
            "event": "end", "scenario": scenario.name, "outcome": outcome, "seconds": seconds, "why": why,
        }))?;
    }
    Ok(good)
}

fn tell(line: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("can't write to stdout")
}

/// Runs a scenario in a process of its own; answers outcome and reason.
fn attempt(scenario: &Scenario) -> Result<(String, String)> {
    let cgroup = cgroup(scenario);
    fs::create_dir_all(&cgroup).with_context(|| format!("can't create {}", cgroup.display()))?;
    let me = std::env::current_exe().context("can't find this program")?;
    let mut command = Command::new(me);
    command.args(["one", scenario.name]).stdin(Stdio::null());
    let mut process = Running::start_loud(&mut command)?;
    let done = finished(&mut process, scenario)?;
    let line = done.stdout.lines().next_back().unwrap_or_default();
    let Some((outcome, why)) = line.split_once('\t') else {
        bail!("it ended without saying how: {}", done.summary());
    };
    Ok((outcome.to_owned(), why.replace('\t', "\n")))
}

/// Waits for a scenario's process, and says meanwhile that the guest is alive.
fn finished(process: &mut Running, scenario: &Scenario) -> Result<Finished> {
    let begin = Instant::now();
    while !process.ends_within(SIGN_OF_LIFE)? {
        let seconds = begin.elapsed().as_secs();
        anyhow::ensure!(seconds < PATIENCE.as_secs(), "it hasn't ended after {seconds} s");
        eprintln!("{} has run for {seconds} s", scenario.name);
    }
    process.wait(Duration::ZERO)
}

/// The child's side of [`attempt`]: joins its cgroup, runs, says how it went.
pub(crate) fn one(name: &str) -> Result<bool> {
    let scenario = scenarios().find(|s| s.name == name).with_context(|| format!("there is no {name}"))?;
    // One of its own: a guard lets no session change the one that it is in.
    let procs = another_cgroup(name, "main")?.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("can't join {}", procs.display()))?;
    crate::fixture::logs::begin(scenario.name)?;
    let result = std::panic::catch_unwind(scenario.run);
    let (outcome, why) = match result {
        Ok(Ok(())) => ("passed", String::new()),
        Ok(Err(error)) if error.is::<Skip>() => ("skipped", format!("{error:#}")),
        Ok(Err(error)) => ("failed", format!("{error:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of an unknown kind");
            ("failed", format!("a panic: {text}"))
        }
    };
    println!("{outcome}\t{}", why.replace('\n', "\t"));
    Ok(outcome != "failed")
}

fn cgroup(scenario: &Scenario) -> PathBuf {
    Path::new(CGROUP).join(scenario.name)
}

/// Ends what a scenario has left. What its daemon has left in the kernel goes on to the next one's, unless it failed.
fn clean(scenario: &Scenario, failed: bool) -> Result<()> {
    let cgroup = cgroup(scenario);
    let kill = cgroup.join("cgroup.kill");
    fs::write(&kill, "1").with_context(|| format!("can't write to {}", kill.display()))?;
    until("the scenario's last process ends", SOON, || {
        let events = fs::read_to_string(cgroup.join("cgroup.events")).context("can't read cgroup.events")?;
        Ok(events.contains("populated 0").then_some(()))
    })?;
    remove_cgroups(&cgroup)?;
    if failed && scenario.boot == Boot::Direct { guard::remove_traces() } else { Ok(()) }
}

/// Removes a cgroup and those below it; their files go with them.
fn remove_cgroups(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("can't read {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroups(&entry.path())?;
        }
    }
    fs::remove_dir(dir).with_context(|| format!("can't remove {}", dir.display()))
}

/// A cgroup below the scenario's own, for processes that move.
pub(crate) fn another_cgroup(scenario: &str, name: &str) -> Result<PathBuf> {
    let dir = Path::new(CGROUP).join(scenario).join(name);
    fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
    Ok(dir)
}
