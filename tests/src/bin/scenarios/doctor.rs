//! `doctor`: what it says of a host must be what the host does.

use std::fs;
use std::process::Command;

use agent_guard_common::Op;
use anyhow::{Context, Result};
use serde_json::Value;

use crate::Scenario;
use crate::fixture::guard::{
    PROGRAM, cli, cli_as_nobody, free_system, json, line_of, pins, points_at, remove_traces, rule,
    strict_policy_of,
};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, WORK};
use crate::fixture::{Guard, PROFILE, Server, Skip, World, contains, list, same, text};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("doctor", "it says that all is enforced where all is, with and without root", good)
        .on("7.2"),
    Scenario::direct(
        "doctor_without_bpf",
        "it says which boot parameter is missing, and how to set it",
        without,
    )
    .with_cmdline("lsm=landlock,lockdown,yama"),
    Scenario::direct(
        "kernel_without_hook",
        "what a hook would be needed for is refused by name, and the rest enforced",
        without_hook,
    )
    .on("6.12"),
];

/// What `doctor` says: its exit code and its JSON.
fn doctor() -> Result<(Option<i32>, Value)> {
    let done = cli(&["doctor", "--json"])?;
    let report =
        serde_json::from_str(&done.stdout).with_context(|| format!("no JSON: {}", done.summary()))?;
    Ok((done.status.code(), report))
}

fn named<'a>(report: &'a Value, lists: &str, key: &str, name: &str) -> Result<&'a Value> {
    let found = list(report, lists)?.iter().find(|one| text(one, key) == name);
    found.with_context(|| format!("no {name} at {lists} in {report}"))
}

fn check<'a>(report: &'a Value, name: &str) -> Result<&'a Value> {
    named(report, "/checks", "/name", name)
}

fn operation<'a>(report: &'a Value, name: &str) -> Result<&'a Value> {
    named(report, "/operations", "/operation", name)
}

/// The steps of a check, one a line.
fn steps(check: &Value) -> Result<String> {
    Ok(list(check, "/advice")?.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n"))
}

fn good() -> Result<()> {
    let before = pins().ok();
    let (code, report) = doctor()?;
    same("its exit code, and what it says", (code, text(&report, "/outcome")), (Some(0), "full"))?;
    for op in Op::all().chain([Op::CAPABILITY]) {
        let operation = operation(&report, op.name())?;
        same(&format!("{} is enforced", op.name()), text(operation, "/enforced"), "full")?;
        anyhow::ensure!(!list(operation, "/hooks")?.is_empty(), "no hooks: {operation}");
    }
    for name in
        ["lsm", "btf", "layout", "hooks", "lsm_program", "ring_buffer", "task_storage", "bpffs", "cgroup2"]
    {
        same(&format!("the state of {name}"), text(check(&report, name)?, "/state"), "ok")?;
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    same("the kernel", text(&report, "/kernel"), release.as_str())?;
    same("what is pinned, which it mustn't change", pins().ok(), before)?;
    let people = cli(&["doctor"])?.good()?;
    contains("what people read", &people.stdout, "enforces every operation in full")?;
    // Who isn't root hears what wasn't looked at, and isn't told that all is well.
    let user = cli_as_nobody(&["doctor"])?.code(1)?;
    contains("what others read", &user.stdout, "not all could be looked at")?;
    contains("what others are told to do", &user.stdout, "sudo agent-guard doctor")?;
    // It is true: all of these hooks are at work while a policy needs them.
    let _world = World::new()?;
    let guard = Guard::start(&strict_policy_of(WORK, &rule(PROD, &["read", "execute"], "deny")))?;
    let status = json(&["status"])?;
    for operation in list(&report, "/operations")? {
        for hook in list(operation, "/hooks")? {
            let name = hook.as_str().unwrap_or_default();
            let state = text(named(&status, "/hooks", "/name", name)?, "/state");
            same(&format!("the state of {name}"), state, "attached")?;
        }
    }
    guard.stop()
}

fn without() -> Result<()> {
    let modules = fs::read_to_string("/sys/kernel/security/lsm").context("can't read the list of modules")?;
    if modules.split(',').any(|module| module.trim() == "bpf") {
        return Err(
            Skip(format!("needs a kernel without bpf among its modules, this one has {modules}")).into()
        );
    }
    let (code, report) = doctor()?;
    same("its exit code, and what it says", (code, text(&report, "/outcome")), (Some(1), "degraded"))?;
    let lsm = check(&report, "lsm")?;
    same("the state of lsm", text(lsm, "/state"), "degraded")?;
    contains("what to boot with", &steps(lsm)?, "boot with lsm=landlock,lockdown,yama,bpf\n")?;
    contains("what to do where nothing tells the boot loader", &steps(lsm)?, "systemd-boot")?;
    same("what is enforced of delete", text(operation(&report, "delete")?, "/enforced"), "none")?;
    same("what is enforced of connect", text(operation(&report, "connect")?, "/enforced"), "part")?;
    // Everything else is as it should be, so that is all there is to change.
    for check in list(&report, "/checks")?.iter().filter(|check| text(check, "/needed_for") == "enforcement")
    {
        let must = if text(check, "/name") == "lsm" { "degraded" } else { "ok" };
        same(&format!("the state of {}", text(check, "/name")), text(check, "/state"), must)?;
    }
    // For GRUB it writes the line out.
    fs::write("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"net.ifnames=0 lsm=yama\"\n").context("grub")?;
    let result = doctor().and_then(|(_, report)| steps(check(&report, "lsm")?));
    fs::remove_file("/etc/default/grub").context("grub")?;
    let line = "GRUB_CMDLINE_LINUX=\"net.ifnames=0 lsm=landlock,lockdown,yama,bpf\"";
    contains("what to write for GRUB", &result?, line)
}

/// A kernel whose description of itself lacks a function. All that loads programs here goes by that description.
struct Without;

const BTF: &str = "/sys/kernel/btf/vmlinux";

impl Without {
    fn hook(name: &str) -> Result<Self> {
        let mut bytes = fs::read(BTF).context("can't read the kernel's types")?;
        let whole = format!("\0bpf_lsm_{name}\0");
        let at = bytes.windows(whole.len()).position(|window| window == whole.as_bytes());
        let at = at.with_context(|| format!("the kernel's types don't have {name}"))?;
        *bytes.get_mut(at + whole.len() - 2).context("the name's end")? = b'X';
        let file = format!("/root/btf-without-{name}");
        fs::write(&file, bytes).with_context(|| format!("can't write {file}"))?;
        run(Command::new("mount").args(["--bind", &file, BTF]))?.good()?;
        Ok(Self)
    }
}

impl Drop for Without {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(BTF)).and_then(crate::fixture::Finished::good) {
            eprintln!("{BTF} stays hidden: {error:#}");
        }
    }
}

fn clock(verdict: &str) -> String {
    strict_policy_of(WORK, &format!("[profile.{PROFILE}.system]\nclock = \"{verdict}\"\n"))
}

fn without_hook() -> Result<()> {
    remove_traces()?;
    let _world = World::new()?;
    let kernel = Without::hook("settime")?;
    let (code, report) = doctor()?;
    same("its exit code, and what it says", (code, text(&report, "/outcome")), (Some(1), "degraded"))?;
    contains("what is missing", text(check(&report, "hooks")?, "/found"), "settime")?;
    same("what is enforced of clock", text(operation(&report, "clock")?, "/enforced"), "part")?;
    same("what is enforced of delete", text(operation(&report, "delete")?, "/enforced"), "full")?;

    // Where the policy says it, and where it only doesn't say otherwise.
    let said = clock("deny");
    for (policy, place) in [(&said, "clock = "), (&strict_policy_of(WORK, ""), "[profile.")] {
        let done = Guard::prepare(policy)?.refuses()?.code(3)?;
        points_at(&done.stderr, line_of(policy, place)?)?;
        contains("what is refused", &done.stderr, "`deny clock`")?;
        contains("why", &done.stderr, "no LSM hook settime")?;
        anyhow::ensure!(pins().map_or(true, |pins| pins.is_empty()), "it has left {:?}", pins());
        remove_traces()?;
    }

    // Files may be meant for another host, so for those it is a warning.
    let checked = json(&["policy", "check", "/etc/agent-guard/policy.d"])?;
    contains("what is said of files", &part(&checked, "/warnings"), "no LSM hook settime")?;

    let guard = Guard::start(&clock("allow"))?;
    let mut inside = Server::inside(&guard)?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    let generation = guard.generation()?;
    guard.write_policy(&said)?;
    cli(&["policy", "reload"])?.code(3)?.complains("settime")?;
    same("the generation", guard.generation()?, generation)?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;

    // Who only wants to hear of it is told that not all will be heard.
    let reports = said.replace(
        &format!("[profile.{PROFILE}.files]"),
        &format!("[profile.{PROFILE}]\nmode = \"report\"\n[profile.{PROFILE}.files]"),
    );
    let reloaded = guard.reload(&reports)?;
    contains("the warnings", &part(&reloaded, "/warnings"), "settime")?;
    let status = json(&["status"])?;
    let rule = named(&status, "/rules", "/text", "deny clock")?;
    same("how that is told", (text(rule, "/mode"), text(rule, "/enforced")), ("report", "part"))?;
    drop(inside);
    guard.stop()?;
    remove_traces()?;

    // What keeps the guard itself from sessions is needed whatever the policy says.
    drop(kernel);
    let kernel = Without::hook("path_mkdir")?;
    let create = format!("[profile.{PROFILE}.files.outside]\ncreate = \"allow\"\n\n");
    let done = Guard::prepare(&strict_policy_of(WORK, &create))?.refuses()?.code(3)?;
    contains("what is refused", &done.stderr, "the guard can't protect itself")?;
    remove_traces()?;
    drop(kernel);
    let _kernel = Without::hook("task_kill")?;
    let done = Guard::prepare(&strict_policy_of(WORK, &free_system(PROFILE)))?.refuses()?;
    contains("what is missing", &done.stderr, "no LSM hook task_kill, without which no policy")?;
    // Where there is no guard, nothing runs.
    run(Command::new(PROGRAM).args(["run", "--profile", PROFILE, "--", "true"]))?.code(125)?;
    remove_traces()
}

/// A part of an answer, as text.
fn part(answer: &Value, pointer: &str) -> String {
    answer.pointer(pointer).map(ToString::to_string).unwrap_or_default()
}
