//! Service managers and buses do nothing for a session.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::PROGRAM;
use crate::fixture::process::run;
use crate::fixture::world::{WORK, exists, remove};
use crate::fixture::{Finished, same};
use crate::service::{OWN, Service, UNIT, own_policy, systemctl};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::systemd(
    "helpers_systemd",
    "systemd and D-Bus can't be reached from a session, by root either; programs that ask them go on",
    systemd,
)];

/// What the helper would do.
const PROOF: &str = "/run/proof";

/// A command in a session.
fn inside(words: &[&str]) -> Result<Finished> {
    let mut command = Command::new(PROGRAM);
    run(command.args(["run", "--profile", OWN, "--"]).args(words).current_dir(WORK))
}

fn outside(words: &[&str]) -> Result<Finished> {
    let (program, args) = words.split_first().context("no command")?;
    run(Command::new(program).args(args).current_dir(WORK))
}

fn systemd() -> Result<()> {
    let (_world, service) = Service::new()?;
    let transient = ["systemd-run", "--quiet", "--wait", "--collect", "touch", PROOF];
    let call = [
        "busctl",
        "call",
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
        "GetUnit",
        "s",
        UNIT,
    ];
    remove(Path::new(PROOF))?;
    outside(&transient)?.good()?;
    exists(PROOF, true)?;
    remove(Path::new(PROOF))?;
    for words in [&call[..], &["busctl", "list"], &["systemctl", "show", UNIT]] {
        outside(words)?.good()?;
    }
    for words in [
        &transient[..],
        &call[..],
        &["busctl", "list"],
        &["systemctl", "show", UNIT],
        &["systemctl", "--no-block", "stop", UNIT],
    ] {
        let done = inside(words)?;
        anyhow::ensure!(!done.status.success(), "it must fail: {}", done.summary());
    }
    exists(PROOF, false)?;
    same("the guard's unit", systemctl(&["is-active", UNIT])?.stdout.trim(), "active")?;
    sockets(&service)?;
    ordinary()?;

    // It is the network that stops it.
    let network = format!("[profile.{OWN}.network]\nallow = [\"unix:/run/dbus/system_bus_socket\"]\n");
    service.write(&own_policy(&network))?;
    systemctl(&["reload", UNIT])?.good()?;
    inside(&["busctl", "list"])?.good()?;
    drop(service);
    Ok(())
}

/// Those that are there, one by one.
fn sockets(service: &Service) -> Result<()> {
    let mut session = service.session()?;
    let mut control = crate::fixture::Server::outside()?;
    for path in ["/run/systemd/private", "/run/dbus/system_bus_socket", "/run/systemd/journal/stdout"] {
        let line = format!("connect unix:{path}");
        control.expect(&line, "ok")?;
        session.expect(&line, "EPERM")?;
    }
    let line = "sendto unix:/run/systemd/journal/socket";
    control.expect(line, "ok")?;
    session.expect(line, "EPERM")
}

/// Programs that ask such helpers by the way go on without.
fn ordinary() -> Result<()> {
    for words in [
        &["id"][..],
        &["id", "nobody"],
        &["ls", "-l", "/"],
        &["getent", "passwd", "root"],
        &["getent", "group"],
        &["git", "init", "--quiet", "/srv/work/repository"],
        &["git", "-C", "/srv/work/repository", "status", "--short"],
        &["python3", "-c", "import syslog; syslog.syslog('x'); print('logged')"],
        &["python3", "-c", "import pwd, grp; print(len(pwd.getpwall()) > 1, grp.getgrgid(0).gr_name)"],
    ] {
        let before = outside(words)?.good()?;
        let after = inside(words)?.good()?;
        same(&format!("what {words:?} prints in a session"), after.stdout, before.stdout)?;
    }
    Ok(())
}
