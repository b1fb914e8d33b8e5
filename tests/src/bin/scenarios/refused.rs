//! A kernel that refuses: programs, a hook that isn't there, a lock on its memory. No daemon starts then, it says by name
//! what is missing, no session starts, and what an earlier one has put in force stays.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::enrolled::{Agents, CLAUDE, Got, enroll, policy_with, says, tries};
use crate::fixture::guard::{CHANGES, cli, json, pins, policy, rule};
use crate::fixture::world::{PROD, exists};
use crate::fixture::{Guard, Hold, SOON, Server, Skip, World, contains, doctored, list, logs, same, text};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "refused_programs",
        "a program that the verifier refuses, a hook that isn't there: the daemon doesn't start, all stays as it was",
        programs,
    )
    .on("6.1"),
    // In a guest of its own: nothing unlocks a kernel again.
    Scenario::direct(
        "refused_locked_down",
        "a kernel that is locked down: no program is loaded, those that are stay",
        locked_down,
    )
    .with_cmdline("lsm=lockdown,yama,bpf")
    .on("6.12"),
];

/// Programs that can't work here, and what their messages must say.
fn doctored_programs() -> Result<[(PathBuf, &'static str); 3]> {
    Ok([
        // One that every policy needs, and one that this policy needs.
        (doctored::refused("task_alloc")?, "the kernel refused program task_alloc"),
        (doctored::refused("path_unlink")?, "the kernel refused program path_unlink"),
        // A hook without which the guard can't protect itself.
        (
            doctored::renamed("task_movememory", "task_movememorx")?,
            "this kernel has no LSM hook task_movememorx",
        ),
    ])
}

fn programs() -> Result<()> {
    let _world = World::new()?;
    let programs = doctored_programs()?;
    let rules = rule(PROD, CHANGES, "deny") + &rule("/srv/prod/dir", CHANGES, "hold");
    let text = policy(&rules);
    // Where nothing is in force nothing is left behind.
    let own = format!("/sys/fs/bpf/{}", logs::scenario());
    for (program, message) in &programs {
        let mut fresh = Guard::prepare_with(&text, &logs::folder(), &own)?;
        fresh.set_program(program);
        contains("the message", &fresh.refuses()?.code(1)?.stderr, message)?;
        let left = std::fs::read_dir(&own).map_or(0, Iterator::count);
        same("what it has left", left, 0)?;
        fresh.ran(&["touch", "/srv/work/unguarded"])?.code(125)?;
    }
    // Where something is, it stays.
    let mut guard = Guard::start(&text)?;
    let mut inside = Server::inside(&guard)?;
    let mut held = guard.run(&["rm", "-f", "/srv/prod/dir/f"])?;
    let hold = Hold::of(held.pid())?;
    let (pinned, generation) = (pins()?, guard.generation()?);
    guard.halt()?;
    let installed = guard.daemon_command().get_program().to_owned();
    for (program, message) in &programs {
        guard.set_program(program);
        contains("the message", &guard.refuses()?.code(1)?.stderr, message)?;
        same("what is pinned", pins()?, pinned.clone())?;
        inside.expect("unlink /srv/prod/f", "EPERM")?;
        inside.expect("fork-unlink /srv/prod/f", "EPERM")?;
        inside.expect("open-write /srv/work/f", "ok")?;
        guard.ran(&["touch", "/srv/work/unguarded"])?.code(125)?;
        exists("/srv/work/unguarded", false)?;
    }
    guard.set_program(installed.as_ref());
    guard.launch()?;
    same("the generation", guard.generation()?, generation)?;
    same("what is pinned", pins()?, pinned)?;
    let again = Hold::of(held.pid())?;
    same("what is known of the hold", again.details(), hold.details())?;
    again.approve()?;
    held.wait(SOON)?.good()?;
    for (program, _) in &programs {
        doctored::remove(program)?;
    }
    guard.stop()
}

fn locked_down() -> Result<()> {
    const LOCK: &str = "/sys/kernel/security/lockdown";
    const MESSAGE: &str = "this kernel is locked down";
    let state = std::fs::read_to_string(LOCK).unwrap_or_default();
    if !state.contains("[none]") {
        return Err(Skip(format!("needs a kernel that can be locked down, and isn't: {state:?}")).into());
    }
    let (world, _agents) = (World::new()?, Agents::new()?);
    let text = policy_with(&enroll("exe", &[CLAUDE]));
    let mut guard = Guard::start(&text)?;
    let mut inside = Server::inside(&guard)?;
    let (pinned, generation) = (pins()?, guard.generation()?);
    std::fs::write(LOCK, "confidentiality").context("can't lock the kernel down")?;

    // A policy that needs a program which isn't loaded changes nothing.
    let executing = policy(&(rule(PROD, CHANGES, "deny") + &rule(PROD, &["execute"], "deny")));
    guard.write_policy(&executing)?;
    let done = cli(&["policy", "reload"])?;
    anyhow::ensure!(!done.status.success(), "the policy was taken: {}", done.summary());
    contains("the message", &done.stderr, MESSAGE)?;
    same("the generation", guard.generation()?, generation)?;
    same("what is pinned", pins()?, pinned.clone())?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    inside.expect("open-write /srv/work/f", "ok")?;
    // Nor does one that enrolls nobody take anything from those who are enrolled.
    same("an enrolled program", tries(&world, CLAUDE)?, says("EPERM"))?;
    let status = json(&["status"])?;
    let warnings: Vec<&str> = list(&status, "/warnings")?.iter().filter_map(|line| line.as_str()).collect();
    contains("the warnings", &warnings.join("; "), MESSAGE)?;
    same("the hook", hook(&status, "mmap_file")?.as_str(), "idle")?;

    // So does another daemon, with either policy: what is loaded is taken over.
    guard.halt()?;
    same("an enrolled program without a daemon", tries(&world, CLAUDE)?, Got::NotExecuted)?;
    guard.launch()?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    guard.ran(&["touch", "/srv/work/unguarded"])?.code(125)?;
    exists("/srv/work/unguarded", false)?;
    guard.reload(&text)?;
    guard.ran(&["touch", "/srv/work/guarded"])?.good()?;
    exists("/srv/work/guarded", true)?;
    guard.attack(&["unlink", "/srv/prod/f"])?.says("EPERM")?;

    // One that would have to load its own stays away.
    guard.halt()?;
    let other = doctored::upgraded("upgraded")?;
    let mut upgraded = Guard::prepare(&text)?;
    upgraded.set_program(&other);
    contains("the message", &upgraded.refuses()?.code(1)?.stderr, MESSAGE)?;
    same("what is pinned", pins()?, pinned)?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    upgraded.ran(&["touch", "/srv/work/unguarded"])?.code(125)?;
    exists("/srv/work/unguarded", false)?;
    doctored::remove(&other)?;
    guard.launch()?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    guard.stop()
}

fn hook(status: &serde_json::Value, name: &str) -> Result<String> {
    let hook = list(status, "/hooks")?.iter().find(|hook| text(hook, "/name") == name);
    Ok(text(hook.with_context(|| format!("status doesn't name {name}"))?, "/state").to_owned())
}
