//! Connections from before the tag, and those that others hand over.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::enrolled::{Agents, CLAUDE, OTHER, enroll, got, says};
use crate::fixture::guard::{PROGRAM, cli};
use crate::fixture::net::lab::{OPEN, SHUT, list, network};
use crate::fixture::net::{Lab, ONE, at};
use crate::fixture::process::run;
use crate::fixture::world::{WORK, remove};
use crate::fixture::{Finished, PROFILE, Running, SOON, Server, attack, contains, same, until};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "network_before",
    "sockets that were connected or listened before the tag, inherited, received, taken",
    before,
)
.thorough()];

/// Where a process outside hands out connections.
const SOCKET: &str = "/tmp/connections.sock";

fn policy() -> String {
    let places = [at(ONE.v4(1), OPEN), at(ONE.v6(1), OPEN), format!("unix:{SOCKET}")];
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    network(&(list("allow", &places) + &list("listen", &["127.0.0.1:9000"])))
}

fn before() -> Result<()> {
    let _agents = Agents::new()?;
    let mut lab = Lab::new(&policy())?;
    inherited(&mut lab)?;
    listeners(&lab)?;
    attached(&mut lab)?;
    received(&mut lab)?;
    taken(&mut lab)?;
    let enrolling =
        policy().replacen("version = 1\n", &format!("version = 1\n\n{}", enroll("exe", &[CLAUDE])), 1);
    lab.guard.reload(&enrolling)?;
    enrolled(&mut lab)?;
    lab.guard.stop()
}

/// A program that inherits a socket as descriptor `fd`.
fn with(fd: u32, kind: &str, to: &str, words: &[&str]) -> Result<Finished> {
    let fd = fd.to_string();
    run(Command::new(attack()?).args(["with-connection", &fd, kind, to]).args(words).current_dir(WORK))
}

/// `run` closes what the profile wouldn't let the session connect to.
fn inherited(lab: &mut Lab) -> Result<()> {
    let attack = attack()?.display().to_string();
    let session = [PROGRAM, "run", "--profile", PROFILE, "--", attack.as_str()];
    let (open, shut) = (at(ONE.v4(1), OPEN), at(ONE.v4(1), SHUT));
    for kind in ["tcp", "udp"] {
        for how in ["write", "splice"] {
            let using = ["use-inherited", "9", how];
            with(9, kind, &shut, &[&[attack.as_str()], using.as_slice()].concat())?.says("ok")?;
            lab.shut.gets("what is sent outside of a session")?;
            let done = with(9, kind, &shut, &[session.as_slice(), &using].concat())?.says("EBADF")?;
            // A connection has come, and nothing through it.
            contains("what `run` says", &done.stderr, "descriptor 9 (socket:[")?;
            with(9, kind, &open, &[session.as_slice(), &using].concat())?.says("ok")?;
            lab.open.gets("what a session sends where it may")?;
        }
    }
    // A name server that only the session's own resolver may ask.
    let dns = at(ONE.v4(53), 53);
    with(9, "udp", &dns, &[attack.as_str(), "use-inherited", "9", "write"])?.says("ok")?;
    with(9, "udp", &dns, &[session.as_slice(), &["use-inherited", "9", "write"]].concat())?.says("EBADF")?;
    // There is nothing to close.
    for fd in [0, 2] {
        with(fd, "tcp", &shut, &["/bin/true"])?.good()?;
        let run = ["run", "--profile", PROFILE, "--", "touch", "/srv/work/ran"];
        with(fd, "tcp", &shut, &[[PROGRAM].as_slice(), &run].concat())?.code(125)?;
        crate::fixture::world::exists("/srv/work/ran", false)?;
    }
    lab.shut.arrived();
    Ok(())
}

/// The same for those that listen.
fn listeners(lab: &Lab) -> Result<()> {
    let attack = attack()?.display().to_string();
    let command = |place: &str, words: &[&str]| -> Result<Running> {
        let mut command = Command::new(&attack);
        command.args(["with-connection", "9", "listen", place]).args(words).current_dir(WORK);
        Running::start(&mut command)
    };
    let accept = ["accept-fd", "9"];
    let outside = [&[attack.as_str()], accept.as_slice()].concat();
    let inside = [&[PROGRAM, "run", "--profile", PROFILE, "--", attack.as_str()], accept.as_slice()].concat();
    for (port, words, must) in [(9001, &outside, "ok"), (9001, &inside, "EBADF"), (9000, &inside, "ok")] {
        let place: SocketAddr = ([127, 0, 0, 1], port).into();
        let mut running = command(&place.to_string(), words)?;
        // As long as nobody listens there is nobody to connect to.
        let mut caller = None;
        until("somebody comes, or it ends", SOON, || {
            if caller.is_none() {
                caller = TcpStream::connect(place).ok();
            }
            Ok((caller.is_some() || running.ends_within(std::time::Duration::ZERO)?).then_some(()))
        })?;
        running.wait(SOON)?.says(must).with_context(|| format!("listening at {place}"))?;
    }
    anyhow::ensure!(lab.guard.generation()? > 0, "the daemon has gone");
    Ok(())
}

/// A tree isn't attached that is connected where it might not connect.
fn attached(lab: &mut Lab) -> Result<()> {
    let attach = |server: &mut Server| {
        let pid = server.process().pid().to_string();
        cli(&["attach", "--profile", PROFILE, "--pid", &pid])
    };
    let mut server = Server::outside()?;
    let (open, shut) = (at(ONE.v4(1), OPEN), at(ONE.v4(1), SHUT));
    for kind in ["tcp", "udp"] {
        server.expect(&format!("connect-keep theirs {kind} {shut}"), "ok")?;
        attach(&mut server)?.code(1)?.complains("open, socket:[")?;
        server.expect("drop-kept theirs", "ok")?;
    }
    server.expect("listen-keep theirs tcp 127.0.0.1:9001", "ok")?;
    attach(&mut server)?.code(1)?.complains("open, socket:[")?;
    server.expect("drop-kept theirs", "ok")?;
    server.expect(&format!("connect-keep ours tcp {open}"), "ok")?;
    lab.shut.arrived();
    attach(&mut server)?.good()?;
    lab.open.arrived();
    server.expect("use-kept ours write", "ok")?;
    lab.open.gets("what was connected before, where it may be")?;
    server.expect(&format!("connect {shut}"), "EPERM")?;
    lab.shut.gets_nothing("after the attach")
}

/// Over a Unix socket.
fn received(lab: &mut Lab) -> Result<()> {
    remove(Path::new(SOCKET))?;
    let _offer = Running::start(Command::new(attack()?).args(["offer", SOCKET]))?;
    until("connections are offered", SOON, || Ok(Path::new(SOCKET).exists().then_some(())))?;
    for kind in ["tcp", "udp"] {
        for how in ["write", "sendfile", "splice", "uring-write"] {
            let attempt = |to: &str| Lab::line(&format!("receive {SOCKET} both {kind}:{to} {how}"));
            let (shut, open) = (attempt("{one}:{shut}"), attempt("{one6}:{open}"));
            lab.shut.arrived();
            lab.outside.expect(&shut, "ok")?;
            lab.shut.gets(&shut)?;
            // The connection itself, which somebody outside has made.
            lab.shut.settle()?;
            let mark = lab.guard.events.mark()?;
            lab.inside.expect(&shut, "EPERM")?;
            lab.told(mark, &shut, SocketAddr::new(ONE.v4(1).into(), SHUT))?;
            let came = lab.shut.arrived();
            anyhow::ensure!(came <= usize::from(kind == "tcp"), "{shut}: {came} things arrived");
            lab.inside.expect(&open, "ok")?;
            lab.open.gets(&open)?;
        }
    }
    Ok(())
}

/// With pidfd_getfd.
fn taken(lab: &mut Lab) -> Result<()> {
    for kind in ["tcp", "udp"] {
        for (to, must) in [("{one}:{shut}", "EPERM"), ("{one}:{open}", "ok")] {
            let to = Lab::line(to);
            let mut command = Command::new(attack()?);
            command.args(["with-connection", "9", kind, &to, "sleep", "600"]).current_dir(WORK);
            let holder = Running::start(&mut command)?;
            let link = format!("/proc/{}/fd/9", holder.pid());
            until("a process has its connection", SOON, || Ok(Path::new(&link).exists().then_some(())))?;
            let attempt = format!("pidfd-getfd {} 9 write", holder.pid());
            lab.outside.expect(&attempt, "ok")?;
            lab.shut.settle()?;
            lab.open.settle()?;
            lab.inside.expect(&attempt, must)?;
            if must == "ok" {
                lab.open.gets(&attempt)?;
            } else {
                lab.shut.gets_nothing(&attempt)?;
            }
        }
    }
    Ok(())
}

/// A program that is enrolled isn't executed with a connection that its profile wouldn't allow.
fn enrolled(lab: &mut Lab) -> Result<()> {
    let (open, shut) = (at(ONE.v4(1), OPEN), at(ONE.v4(1), SHUT));
    let by = |program: &str, kind: &str, to: &str| {
        got(Command::new(attack()?).args([
            "with-connection",
            "9",
            kind,
            to,
            program,
            "use-inherited",
            "9",
            "write",
        ]))
    };
    for kind in ["tcp", "udp"] {
        same(kind, by(OTHER, kind, &shut)?, says("ok"))?;
        lab.shut.settle()?;
        // What should have become the program says why it couldn't.
        same(kind, by(CLAUDE, kind, &shut)?, says("EPERM"))?;
        let came = lab.shut.arrived();
        anyhow::ensure!(came <= usize::from(kind == "tcp"), "{came} things arrived");
        same(kind, by(CLAUDE, kind, &open)?, says("ok"))?;
    }
    // Writing to it is no use, which is what the program that isn't enrolled finds.
    same("a listening socket", by(OTHER, "listen", "127.0.0.1:9001")?, says("EPIPE"))?;
    same("a listening socket", by(CLAUDE, "listen", "127.0.0.1:9001")?, says("EPERM"))
}
