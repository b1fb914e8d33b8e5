//! The system: what a session does to it, even as root, needs the policy's word.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{ALL, free_system, rule, strict_policy_of};
use crate::fixture::world::WORK;
use crate::fixture::{Event, Guard, Hold, PROFILE, Server, World, attack, same};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("system_denied", "each operation on the system, as root, denied and told", denied),
    Scenario::direct("system_32bit", "the same by 32-bit calls, whose numbers mean something else", compat),
    Scenario::direct(
        "system_capabilities",
        "root may use the capabilities that the policy names",
        capabilities,
    ),
    Scenario::direct("system_others", "processes outside the session: signals, tracing, priorities", others),
    Scenario::direct("system_setuid", "programs that give more rights, by a user who isn't root", setuid),
    Scenario::direct(
        "system_held",
        "what can wait for people waits, and the same call goes on; what can't is denied",
        held,
    ),
    Scenario::direct(
        "system_report",
        "with `report`, and with `mode = \"report\"`, it happens and is told",
        report,
    ),
];

/// Operation, attempt, its outcome outside, and inside where that isn't EPERM.
const ATTEMPTS: &[(&str, &str, &str)] = &[
    ("mount", "mount-tmpfs /srv/work/empty", "ok"),
    ("mount", "mount-new-api /srv/work/empty", "ok"),
    ("mount", "remount /srv/work/disk", "ok"),
    ("mount", "mount-setattr /srv/work/disk", "ok"),
    ("mount", "umount /srv/work/empty", "EINVAL"),
    ("mount", "chroot-same", "ok"),
    ("namespaces", "unshare-user", "ok"),
    ("namespaces", "unshare-mounts", "ok"),
    ("namespaces", "unshare-network", "ok"),
    ("namespaces", "clone-namespace", "ok"),
    ("namespaces", "setns 1", "ok"),
    ("modules", "delete-module", "ENOENT"),
    ("modules", "init-module", "ENOEXEC"),
    ("bpf", "bpf-map", "ok"),
    ("perf", "perf", "ok"),
    ("kexec", "kexec-unload", "ok"),
    ("reboot", "reboot-key", "ok"),
    ("clock", "clock-same", "ok"),
    ("clock", "clock-adjust", "ok"),
    ("swap", "swapoff", "ENOENT"),
    ("hostname", "hostname-same", "ok"),
    ("raw_disk", "open-read /dev/vda", "ok"),
    ("raw_disk", "open-write /dev/vda", "ok"),
    ("raw_disk", "open-read /dev/loop-control", "ok"),
    ("raw_network", "socket-raw", "ok"),
    ("raw_network", "socket-packet", "ok"),
    ("cgroups", "open-write /sys/fs/cgroup/agent-guard-tests/cgroup.procs", "ok"),
    ("keyrings", "add-key", "ok"),
    ("sysctl", "open-write /proc/sys/vm/swappiness", "ok"),
    ("sysctl", "open-write /proc/self/root/proc/sys/kernel/printk", "ok"),
    ("helpers", "open-write /proc/sys/kernel/core_pattern", "ok"),
    ("helpers", "open-write /proc/sys/kernel/modprobe", "ok"),
    ("helpers", "open-write /proc/sys/kernel/poweroff_cmd", "ok"),
    ("capability", "nice-raise", "ok"),
];

/// What everybody may do.
const HARMLESS: &[&str] = &["socket-stream", "socket-netlink", "open-read /proc/sys/vm/swappiness"];

/// Files are free, so that nothing but the system is judged.
fn strict(system: &str) -> String {
    let rules = ["/dev", "/proc", "/sys/fs/cgroup"].map(|path| rule(path, ALL, "allow"));
    strict_policy_of(WORK, &(system.to_owned() + &rules.concat()))
}

fn disk() -> Result<crate::fixture::mounted::Mounted> {
    crate::fixture::mounted::load("loop")?;
    crate::fixture::mounted::Mounted::tmpfs("/srv/work/disk")
}

fn told(event: &Event, operation: &str) -> bool {
    event.judged("deny") && event.field("operation") == operation && event.field("source") == "system"
}

fn denied() -> Result<()> {
    let _world = World::new()?;
    let disk = disk()?;
    let mut guard = Guard::start(&strict(""))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    for (operation, line, outcome) in ATTEMPTS {
        outside.expect(line, outcome)?;
        let mark = guard.events.mark()?;
        // Perf for who is capable only, and priorities, have an errno of their own.
        let answer = inside.ask(line)?;
        let refused = answer == "EPERM" || (["perf", "capability"].contains(operation) && answer == "EACCES");
        anyhow::ensure!(refused, "inside: {line}: {answer}");
        guard.events.wait(mark, line, |event| told(event, operation)).with_context(|| (*line).to_owned())?;
    }
    HARMLESS.iter().try_for_each(|line| inside.expect(line, "ok"))?;
    guard.reload(&strict(&free_system(PROFILE)))?;
    for (_, line, outcome) in ATTEMPTS {
        inside.expect(line, outcome).context("where the policy allows everything")?;
    }
    // And each by itself: nothing but that operation.
    for attempts in ATTEMPTS.chunk_by(|one, next| one.0 == next.0) {
        let Some((operation, ..)) = attempts.first().filter(|first| first.0 != "capability") else {
            continue;
        };
        guard.reload(&strict(&format!("[profile.{PROFILE}.system]\n{operation} = \"allow\"\n")))?;
        for (_, line, outcome) in attempts {
            inside.expect(line, outcome).with_context(|| format!("where {operation} is allowed"))?;
        }
    }
    drop((inside, disk));
    guard.stop()
}

/// `mount` and `swapoff` of 32-bit programs, and what the number of the one means to 64-bit programs.
fn compat() -> Result<()> {
    let _world = World::new()?;
    let attempts =
        [("mount", "32bit umount2 /srv/work/empty", "EINVAL"), ("swap", "32bit swapoff /no/such", "ENOENT")];
    let mut guard = Guard::start(&strict(""))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    for (_, line, outcome) in attempts {
        outside.expect(line, outcome)?;
        let mark = guard.events.mark()?;
        inside.expect(line, "EPERM")?;
        guard
            .events
            .wait(mark, line, |event| event.judged("deny") && event.field("what") == "CAP_SYS_ADMIN")?;
    }
    // The capability alone is not enough: the call may be any of those that need it.
    guard.reload(&strict(&format!("[profile.{PROFILE}.system]\ncapabilities = [\"sys_admin\"]\n")))?;
    attempts.iter().try_for_each(|(_, line, _)| inside.expect(line, "EPERM"))?;
    guard.reload(&strict(&free_system(PROFILE)))?;
    attempts.iter().try_for_each(|(_, line, outcome)| inside.expect(line, outcome))?;
    drop(inside);
    guard.stop()
}

fn capabilities() -> Result<()> {
    let world = World::new()?;
    let file = "/srv/work/f";
    std::os::unix::fs::chown(file, Some(1000), Some(1000)).context("can't give a file away")?;
    crate::fixture::world::mode(file, 0o600)?;
    let with = |names: &str| strict(&format!("[profile.{PROFILE}.system]\ncapabilities = [{names}]\n"));
    let mut guard = Guard::start(&with(""))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    // Somebody else's file is somebody else's to root, too.
    for (line, outcome, capability) in [
        ("open-write /srv/work/f", "EACCES", "CAP_DAC_OVERRIDE"),
        ("chmod /srv/work/f", "EPERM", "CAP_FOWNER"),
        ("nice-raise", "EACCES", "CAP_SYS_NICE"),
    ] {
        outside.expect(line, "ok")?;
        crate::fixture::world::mode(file, 0o600)?;
        let mark = guard.events.mark()?;
        inside.expect(line, outcome)?;
        guard.events.wait(mark, line, |event| event.judged("deny") && event.field("what") == capability)?;
        let name = capability.trim_start_matches("CAP_").to_lowercase();
        guard.reload(&with(&format!("\"{name}\"")))?;
        inside.expect(line, "ok").with_context(|| format!("with {name}"))?;
        guard.reload(&with("\"CAP_CHOWN\""))?;
        inside.expect(line, outcome).context("with another one")?;
        crate::fixture::world::mode(file, 0o600)?;
    }
    drop((inside, world));
    guard.stop()
}

/// What is done to a process, by its number.
const TO_OTHERS: &[(&str, &str)] = &[
    ("signal", "kill 18"),
    ("signal", "kill-thread 18"),
    ("signal", "kill-queue 18"),
    ("signal", "kill-pidfd 18"),
    ("ptrace", "ptrace-attach"),
    ("ptrace", "ptrace-seize"),
    ("ptrace", "open-memory"),
    ("ptrace", "take-fd"),
    ("priority", "setpriority"),
    ("priority", "setaffinity"),
    ("priority", "setscheduler"),
    ("priority", "ioprio"),
    ("priority", "prlimit"),
];

fn others() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&strict(""))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    let mut victim = Server::outside()?;
    let mut neighbour = Server::inside(&guard)?;
    let other = victim.process().pid();
    let own = inside.process().pid();
    for target in [other, neighbour.process().pid()] {
        for (operation, line) in TO_OTHERS {
            let line = format!("{line} {target}");
            outside.expect(&line, "ok")?;
            let mark = guard.events.mark()?;
            let answer = inside.ask(&line)?;
            anyhow::ensure!(["EPERM", "EACCES"].contains(&answer.as_str()), "{line}: {answer}");
            let event = guard.events.wait(mark, &line, |event| told(event, operation))?;
            same("whom it is done to", event.field("target_pid"), target.to_string())?;
        }
        inside.expect(&format!("kill 0 {target}"), "ok").context("asking whether it is there")?;
        for line in ["read-memory", "write-memory"] {
            let line = format!("{line} {target}");
            outside.expect(&line, "EFAULT")?;
            inside.expect(&line, "EPERM")?;
        }
    }
    for line in ["kill 18", "setpriority", "setaffinity", "ioprio", "prlimit"] {
        inside.expect(&format!("{line} {own}"), "ok").context("its own process")?;
    }
    guard.reload(&strict(&format!("[profile.{PROFILE}.system]\nsignal = \"allow\"\n")))?;
    inside.expect(&format!("kill 18 {other}"), "ok").context("where signals are allowed")?;
    inside.expect(&format!("ptrace-attach {other}"), "EPERM")?;
    drop((inside, neighbour));
    guard.stop()
}

/// A session of a user, who has `mount` at hand, a set-uid program.
fn setuid() -> Result<()> {
    const USER: u32 = 1234;
    let _world = World::new()?;
    let program = "/srv/work/rights";
    std::fs::copy(attack()?, program).context("can't copy a program")?;
    crate::fixture::world::mode(program, 0o4755)?;
    crate::fixture::world::mode(WORK, 0o777)?;
    let mut guard = Guard::start(&strict(""))?;
    let as_user = |guard: &Guard| -> Result<Server> {
        let me = attack()?.to_string_lossy().into_owned();
        let mut command = guard.command(PROFILE, &[&me, "serve"]);
        command.uid(USER).gid(USER);
        Server::start(command, "inside, a user")
    };
    let mut outside = {
        let mut command = std::process::Command::new(attack()?);
        command.arg("serve").uid(USER).gid(USER);
        Server::start(command, "outside, a user")?
    };
    let mut inside = as_user(&guard)?;
    let line = format!("exec {program}");
    outside.expect(&line, "ok")?;
    let mark = guard.events.mark()?;
    inside.expect(&line, "EPERM")?;
    let event = guard.events.wait(mark, &line, |event| told(event, "setuid"))?;
    anyhow::ensure!(event.about(program), "the event is about {}", event.brief());
    // Without the bit it is a program like others.
    crate::fixture::world::mode(program, 0o755)?;
    inside.expect(&line, "ok")?;
    crate::fixture::world::mode(program, 0o4755)?;
    guard.reload(&strict(&format!("[profile.{PROFILE}.system]\nsetuid = \"hold\"\n")))?;
    inside.send(&line)?;
    let hold = Hold::count(1)?.remove(0);
    hold.is("setuid", program)?;
    hold.approve()?;
    same("the program, approved", inside.answer()?.as_str(), "ok")?;
    inside.send(&line)?;
    Hold::count(1)?.remove(0).deny()?;
    same("the program, denied", inside.answer()?.as_str(), "EPERM")?;
    drop(inside);
    guard.stop()
}

/// What waits: operation, attempt, and how many questions it has. Each attempt takes back what it has done.
const HOLDABLE: &[(&str, &str, usize)] = &[
    ("mount", "mount-tmpfs /srv/work/empty", 2),
    ("namespaces", "unshare-user", 1),
    ("bpf", "bpf-map", 1),
    ("perf", "perf", 1),
    ("raw_network", "socket-packet", 1),
    ("raw_disk", "open-read /dev/vda", 1),
    ("sysctl", "open-write /proc/sys/vm/swappiness", 1),
];

/// What can't: its hook doesn't reach the system call.
const UNHOLDABLE: &[(&str, &str)] =
    &[("reboot", "reboot-key"), ("hostname", "hostname-same"), ("namespaces", "unshare-mounts")];

fn held() -> Result<()> {
    let _world = World::new()?;
    let text = strict(&free_system(PROFILE).replace("\"allow\"", "\"hold\""));
    let mut guard = Guard::start(&text)?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    for (operation, line, questions) in HOLDABLE {
        outside.expect(line, "ok")?;
        inside.send(line)?;
        for _ in 0..*questions {
            let hold = Hold::count(1).with_context(|| (*line).to_owned())?.remove(0);
            hold.frozen()?;
            same("what is held", crate::fixture::text(&hold.0, "/operation"), *operation)?;
            hold.approve()?;
            hold.becomes("approved")?;
        }
        same(&format!("{line}, approved"), inside.answer()?.as_str(), "ok")?;
        inside.send(line)?;
        Hold::count(1).with_context(|| (*line).to_owned())?.remove(0).deny()?;
        let answer = inside.answer()?;
        anyhow::ensure!(["EPERM", "EACCES"].contains(&answer.as_str()), "{line}, denied: {answer}");
    }
    for (operation, line) in UNHOLDABLE {
        let mark = guard.events.mark()?;
        inside.expect(line, "EPERM")?;
        guard.events.wait(mark, line, |event| {
            event.judged("deny") && event.field("operation") == *operation && !event.field("fault").is_empty()
        })?;
    }
    drop((inside, outside));
    guard.stop()
}

fn report() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&strict(&free_system(PROFILE).replace("\"allow\"", "\"report\"")))?;
    let disk = disk()?;
    let mut inside = Server::inside(&guard)?;
    for (operation, line, outcome) in ATTEMPTS.iter().filter(|attempt| attempt.0 != "capability") {
        let mark = guard.events.mark()?;
        inside.expect(line, outcome)?;
        guard
            .events
            .wait(mark, line, |event| event.judged("report") && event.field("operation") == *operation)?;
    }
    let text = strict("").replace(
        &format!("[profile.{PROFILE}.files]"),
        &format!("[profile.{PROFILE}]\nmode = \"report\"\n[profile.{PROFILE}.files]"),
    );
    guard.reload(&text)?;
    for (operation, line, outcome) in ATTEMPTS {
        let mark = guard.events.mark()?;
        inside.expect(line, outcome)?;
        let would = |event: &Event| event.judged("report") && event.field("policy_verdict") == "deny";
        guard.events.wait(mark, line, |event| would(event) && event.field("operation") == *operation)?;
    }
    drop((inside, disk));
    guard.stop()
}
