//! The tag stays, whatever a process becomes. Each way tries a denied deletion in the end.

use std::path::Path;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, policy, rule};
use crate::fixture::world::{PROD, WORK, exists, mode};
use crate::fixture::{Guard, PROFILE, SOON, Server, World, attack, logs, same, until};
use crate::runner::another_cgroup;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "tag_survives",
        "fork, vfork, clone3, threads, setsid, new namespaces, exec from memory, io_uring's threads",
        tag_survives,
    )
    .on("6.12 6.18"),
    Scenario::direct(
        "tag_survives_cgroups",
        "clone3 into, and moves to, another cgroup",
        tag_survives_cgroups,
    ),
    Scenario::direct(
        "tag_survives_daemonising",
        "double fork, setsid, the parent gone",
        tag_survives_daemonising,
    ),
    Scenario::direct("tag_survives_users", "set-uid programs, su, runuser, setpriv", tag_survives_users),
];

const VICTIM: &str = "/srv/prod/f";

fn start() -> Result<(World, Guard)> {
    let world = World::new()?;
    // Who moves itself to another cgroup writes to a file of that file system.
    let rules = rule(PROD, CHANGES, "deny") + &rule("/sys/fs/cgroup", &["write"], "allow");
    // One way is a program that no path leads to.
    let rules = rules + &format!("[profile.{PROFILE}.exec]\nanonymous = \"allow\"\n");
    Ok((world, Guard::start(&policy(&rules))?))
}

/// Outside it works, inside it is denied, the file stays, and an event says so.
fn denied_inside(
    world: &World,
    guard: &mut Guard,
    outside: &mut Server,
    inside: &mut Server,
    line: &str,
) -> Result<()> {
    world.fresh()?;
    let control = outside.ask(line)?;
    // Some kernels let nobody make namespaces.
    if line.starts_with("namespaces-unlink ") && control == "EOPNOTSUPP" {
        eprintln!("{line}: this kernel can't do it even outside of sessions: {control}");
        return Ok(());
    }
    same(&format!("outside: {line}"), control.as_str(), "ok")?;
    exists(VICTIM, false)?;
    world.fresh()?;
    let mark = guard.events.mark()?;
    inside.expect(line, "EPERM")?;
    exists(VICTIM, true)?;
    guard.events.wait(mark, line, |event| {
        event.judged("deny") && event.own("operation") == "delete" && event.about(VICTIM)
    })?;
    Ok(())
}

fn tag_survives() -> Result<()> {
    let (world, mut guard) = start()?;
    let (mut outside, mut inside) = (Server::outside()?, Server::inside(&guard)?);
    for how in [
        "unlink",
        "fork-unlink",
        "vfork-exec-unlink",
        "clone3-unlink",
        "thread-unlink",
        "setsid-unlink",
        "namespaces-unlink",
        "memfd-unlink",
        "setuid-unlink 65534",
        "uring plain unlink",
        "uring async unlink",
        "uring sqpoll unlink",
    ] {
        let line = format!("{how} {VICTIM}");
        denied_inside(&world, &mut guard, &mut outside, &mut inside, &line)
            .with_context(|| how.to_owned())?;
    }
    guard.stop()
}

fn tag_survives_cgroups() -> Result<()> {
    let (world, mut guard) = start()?;
    let cgroup = another_cgroup(logs::scenario(), "elsewhere")?;
    let cgroup = cgroup.display();
    let (mut outside, mut inside) = (Server::outside()?, Server::inside(&guard)?);
    for how in ["clone3-cgroup-unlink", "cgroup-move-unlink"] {
        let line = format!("{how} {cgroup} {VICTIM}");
        denied_inside(&world, &mut guard, &mut outside, &mut inside, &line)
            .with_context(|| how.to_owned())?;
    }
    // Moved by somebody who may: the process itself has no part in it.
    let pid = inside.process().pid();
    std::fs::write(format!("{cgroup}/cgroup.procs"), pid.to_string()).context("can't move the process")?;
    let membership =
        std::fs::read_to_string(format!("/proc/{pid}/cgroup")).context("can't read its cgroup")?;
    anyhow::ensure!(membership.contains("elsewhere"), "it wasn't moved: {membership}");
    denied_inside(&world, &mut guard, &mut outside, &mut inside, &format!("unlink {VICTIM}"))?;
    guard.stop()
}

fn tag_survives_daemonising() -> Result<()> {
    let (world, mut guard) = start()?;
    let line = |report: &str| format!("double-fork-unlink {report} {VICTIM}");
    let told = |report: &str| {
        until("the detached process has written its outcome", SOON, || {
            Ok(std::fs::read_to_string(report).ok().filter(|text| text.ends_with('\n')))
        })
    };
    let (mut outside, mut inside) = (Server::outside()?, Server::inside(&guard)?);
    let report = format!("{WORK}/outcome-outside");
    outside.expect(&line(&report), "ok")?;
    same("what the detached process got outside", told(&report)?.trim(), "ok")?;
    exists(VICTIM, false)?;
    world.fresh()?;
    let mark = guard.events.mark()?;
    let report = format!("{WORK}/outcome-inside");
    inside.expect(&line(&report), "ok")?;
    same("what the detached process got inside", told(&report)?.trim(), "EPERM")?;
    exists(VICTIM, true)?;
    guard.events.wait(mark, "the detached process", |event| event.judged("deny") && event.about(VICTIM))?;
    guard.stop()
}

/// Each becomes somebody else, and then deletes.
fn tag_survives_users() -> Result<()> {
    let (world, mut guard) = start()?;
    let plain = attack()?;
    let suid = set_uid_copy(&plain)?;
    let (plain, suid) = (plain.display().to_string(), suid.as_str());
    let as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
    let shell = format!("{plain} unlink {VICTIM}");
    let ways: [Vec<&str>; 4] = [
        [as_nobody.as_slice(), &[suid, "unlink", VICTIM]].concat(),
        [as_nobody.as_slice(), &[&plain, "unlink", VICTIM]].concat(),
        vec!["su", "-s", "/bin/sh", "nobody", "-c", &shell],
        vec!["runuser", "-u", "nobody", "--", &plain, "unlink", VICTIM],
    ];
    for words in ways {
        let what = words.join(" ");
        world.fresh()?;
        let [program, rest @ ..] = words.as_slice() else { continue };
        let mut control = std::process::Command::new(program);
        crate::fixture::process::run(control.args(rest).current_dir(WORK))?
            .says("ok")
            .context(what.clone())?;
        exists(VICTIM, false)?;
        world.fresh()?;
        let mark = guard.events.mark()?;
        guard.ran(&words)?.says("EPERM").context(what.clone())?;
        exists(VICTIM, true)?;
        guard.events.wait(mark, &what, |event| event.judged("deny") && event.about(VICTIM))?;
    }
    guard.stop()
}

/// A copy of the attack program that runs as root whoever starts it.
fn set_uid_copy(from: &Path) -> Result<String> {
    let to = format!("/usr/local/bin/attack-as-root-{}", std::process::id());
    std::fs::copy(from, &to).with_context(|| format!("can't copy to {to}"))?;
    mode(&to, 0o4755)?;
    Ok(to)
}
