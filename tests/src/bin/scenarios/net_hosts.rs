//! Other hosts: whatever call names them, by IPv4 and IPv6, and whatever form their addresses are written in.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::Scenario;
use crate::fixture::net::lab::{OPEN, SHUT, list, network, usual};
use crate::fixture::net::{Lab, ONE, Peer, TWO, at};
use crate::fixture::world::remove;
use crate::fixture::{Running, SOON, attack, until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("network_hosts", "hosts that aren't allowed aren't reached, by the usual calls", hosts)
        .everywhere(),
    Scenario::direct("network_ways", "by any other call, and by io_uring", ways).on("6.12"),
    Scenario::direct("network_forms", "the forms that an address has, and other name spaces", forms)
        .thorough(),
];

const USUAL: &[&str] = &[
    "connect {one}:{shut}",
    "connect {one6}:{shut}",
    "connect {two}:{open}",
    "connect {two6}:{open}",
    "connect-udp {one}:{shut}",
    "connect-udp {two6}:{open}",
    "sendto {one}:{shut}",
    "sendto {two6}:{open}",
    "sendmsg {one6}:{shut}",
    "sendmmsg {one}:{open} {one}:{shut}",
];

const ALLOWED: &[&str] = &[
    "connect {one}:{open}",
    "connect {one6}:{open}",
    "connect-udp {one6}:{open}",
    "sendto {one}:{open}",
    "sendmsg {one6}:{open}",
    "sendmmsg {one}:{open} {one}:{open}",
];

fn hosts() -> Result<()> {
    let mut lab = Lab::new(&usual())?;
    for attempt in USUAL {
        lab.denied(attempt)?;
    }
    lab.guard.settle()?;
    let mark = lab.guard.events.mark()?;
    for attempt in ALLOWED {
        lab.allowed(attempt)?;
    }
    lab.guard.settle()?;
    lab.guard.events.none(mark, "allowed, but an event", |event| event.own("operation") == "connect")?;
    // Another error, which programs take for a host that is there and refuses.
    let text = list("allow", &[&at(ONE.v4(1), OPEN)]) + "denied = \"ECONNREFUSED\"\n";
    lab.guard.reload(&network(&text))?;
    for attempt in ["connect {one}:{shut}", "connect {one6}:{open}", "sendto {two}:{open}"] {
        let to = Lab::line(attempt);
        let to: SocketAddr = to.rsplit(' ').next().unwrap_or_default().parse()?;
        lab.refused(attempt, to, "ECONNREFUSED")?;
    }
    lab.allowed("connect {one}:{open}")?;
    lab.guard.stop()
}

const WAYS: &[&str] = &[
    "connect-nonblocking {one}:{shut}",
    "fastopen {one}:{shut}",
    "fastopen {two6}:{open}",
    "fastopen-connect {one6}:{shut}",
    "fastopen-connect {two}:{open}",
    "connect-unspec-again {one}:{open} {one}:{shut}",
    "connect-again-udp {one6}:{open} {one6}:{shut}",
    "sendto-connected {one}:{open} {two}:{open}",
    "sendto-connected {one6}:{open} {two6}:{open}",
    "sendto-unspec {one}:{shut}",
    "sendmsg-source 11.22.1.254 {one}:{shut}",
    "sendmmsg {one6}:{open} {two6}:{open}",
    "?connect-mptcp {one}:{shut}",
    "?connect-mptcp {two6}:{open}",
    "uring plain connect {one}:{shut}",
    "uring async connect {two6}:{open}",
    "uring sqpoll connect {two}:{open}",
    "?uring async socket-connect {one6}:{shut}",
    "uring sqpoll sendmsg {one6}:{shut}",
    "?uring plain sendto {one}:{shut}",
    "?uring async sendto {two6}:{open}",
    "?uring plain sendto-zc {one}:{shut}",
    "?uring async sendmsg-zc {two}:{open}",
];

fn ways() -> Result<()> {
    // Clients send data with the first packet, and servers take it.
    std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3")?;
    let mut lab = Lab::new(&usual())?;
    let mut tried = 0;
    for attempt in WAYS {
        tried += usize::from(lab.denied(attempt)?);
    }
    ensure!(tried >= 16, "this machine can do hardly any of it: {tried}");
    for attempt in [
        "fastopen {one}:{open}",
        "fastopen-connect {one6}:{open}",
        "uring async connect {one}:{open}",
        "uring plain sendmsg {one6}:{open}",
    ] {
        lab.allowed(attempt)?;
    }
    kept(&mut lab)?;
    helper(&mut lab)?;
    lab.guard.stop()
}

/// Calls on a connection name nothing. What is sent goes where the connection leads; once the policy doesn't allow that any more,
/// nothing is sent.
fn kept(lab: &mut Lab) -> Result<()> {
    let to = SocketAddr::new(ONE.v4(1).into(), OPEN);
    let ways = ["write", "sendfile", "splice", "uring-write"];
    for (name, kind) in [("stream", "tcp"), ("datagram", "udp")] {
        for server in [&mut lab.inside, &mut lab.outside] {
            server.expect(&Lab::line(&format!("connect-keep {name} {kind} {{one}}:{{open}}")), "ok")?;
        }
        for how in ways {
            lab.allowed_as(&format!("use-kept {name} {how}"), to)?;
        }
    }
    lab.denied("aim-kept datagram {two}:{open}")?;
    lab.guard.reload(&network(&list("allow", &[&at(ONE.v6(1), OPEN)])))?;
    for name in ["stream", "datagram"] {
        // Before 6.5 no hook sees what is sent out of a file (docs/bypasses.md, 14c).
        let from_files = sends_by_messages()?;
        for how in ways.into_iter().filter(|how| from_files || !["sendfile", "splice"].contains(how)) {
            lab.denied_as(&format!("use-kept {name} {how}"), to)?;
        }
    }
    lab.guard.reload(&usual())?;
    lab.allowed_as("use-kept stream write", to)
}

/// Whether this kernel sends what comes out of files and pipes as it sends messages.
fn sends_by_messages() -> Result<bool> {
    let release =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("can't read the kernel's release")?;
    Ok(agent_guard::kernel::support::series(&release) >= (6, 5))
}

/// Somebody outside who hands out connections at a Unix socket that no rule allows.
fn helper(lab: &mut Lab) -> Result<()> {
    const SOCKET: &str = "/srv/work/helper.sock";
    remove(Path::new(SOCKET))?;
    let _helper = Running::start(Command::new(attack()?).args(["offer", SOCKET]))?;
    until("the helper is there", SOON, || Ok(Path::new(SOCKET).exists().then_some(())))?;
    let attempt = Lab::line(&format!("receive {SOCKET} both tcp:{{one}}:{{shut}} write"));
    lab.outside.expect(&attempt, "ok")?;
    lab.shut.gets("what the helper's connection carries")?;
    let mark = lab.guard.events.mark()?;
    let answer = lab.inside.ask(&attempt)?;
    ensure!(
        answer.contains("can't connect") && answer.contains("not permitted"),
        "inside: {attempt}: {answer}"
    );
    lab.shut.gets_nothing(&attempt)?;
    lab.guard.events.wait(mark, "the helper", |event| event.judged("deny"))?;
    Ok(())
}

fn forms() -> Result<()> {
    let mut lab =
        Lab::new(&network(&list("allow", &[&at(ONE.v4(1), OPEN), &format!("[fe80::]/64:{OPEN}")])))?;
    let four = |port| SocketAddr::new(ONE.v4(1).into(), port);
    let mapped = ONE.v4(1).to_ipv6_mapped();
    for form in ONE.forms().into_iter().chain([mapped]) {
        for call in ["connect", "connect-udp", "sendto"] {
            lab.denied_as(&format!("{call} {}", at(form, SHUT)), four(SHUT))?;
        }
        // It is the IPv4 address that is allowed.
        lab.allowed_as(&format!("connect {}", at(form, OPEN)), four(OPEN))?;
    }
    // The same address of another host's is another one.
    for form in TWO.forms() {
        lab.denied_as(&format!("connect {}", at(form, OPEN)), SocketAddr::new(TWO.v4(1).into(), OPEN))?;
    }
    let scoped = |port| format!("[{}%{}]:{port}", ONE.link(1), ONE.device().unwrap_or_default());
    lab.denied_as(&format!("connect {}", scoped(SHUT)), SocketAddr::new(ONE.link(1).into(), SHUT))?;
    lab.denied_as(&format!("sendto {}", scoped(SHUT)), SocketAddr::new(ONE.link(1).into(), SHUT))?;
    lab.allowed_as(&format!("connect {}", scoped(OPEN)), SocketAddr::new(ONE.link(1).into(), OPEN))?;
    itself(&mut lab)?;
    // In another name space it is judged by the same addresses.
    let attempt = format!("connect-in-namespace one {}", at([127, 0, 0, 1], SHUT));
    lab.denied_as(&attempt, ([127, 0, 0, 1], SHUT).into())?;
    lab.guard.stop()
}

/// The unspecified addresses, and the guest's own in others' networks.
fn itself(lab: &mut Lab) -> Result<()> {
    let mut here = Peer::here(SHUT)?;
    std::mem::swap(&mut here, &mut lab.shut);
    for (address, judged) in [
        ("0.0.0.0".to_owned(), "127.0.0.1".to_owned()),
        ("[::]".to_owned(), "[::1]".to_owned()),
        ("[::ffff:0.0.0.0]".to_owned(), "127.0.0.1".to_owned()),
        (ONE.v4(254).to_string(), ONE.v4(254).to_string()),
        (format!("[{}]", TWO.v6(254)), format!("[{}]", TWO.v6(254))),
    ] {
        for call in ["connect", "sendto"] {
            lab.denied_as(&format!("{call} {address}:{{shut}}"), format!("{judged}:{SHUT}").parse()?)?;
        }
    }
    std::mem::swap(&mut here, &mut lab.shut);
    Ok(())
}
