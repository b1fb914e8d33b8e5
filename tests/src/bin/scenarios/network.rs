//! The network: an address and a port each are allowed, nothing else is, whichever call asks.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::event::Mark;
use crate::fixture::guard::{CHANGES, line_of, policy, rule};
use crate::fixture::world::PROD;
use crate::fixture::{Guard, Hold, PROFILE, SOON, Server, World, same, stays, until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "network_calls",
        "every call that names a destination, to a port that isn't allowed",
        calls,
    ),
    Scenario::direct(
        "network_addresses",
        "mapped and unspecified addresses are what the kernel makes of them",
        addresses,
    ),
    Scenario::direct("network_default", "without a word about the network nothing may connect", default_deny)
        .on("6.1"),
    Scenario::direct("network_curl", "curl reaches what is allowed, and nothing else", curl).on("7.2"),
];

/// Somebody who listens on all of the loopback's addresses, on one port.
pub(crate) struct Target {
    pub(crate) port: u16,
    streams: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
}

impl Target {
    pub(crate) fn new() -> Result<Self> {
        let first = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("can't listen")?;
        let port = first.local_addr()?.port();
        let (any, six): (IpAddr, IpAddr) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into());
        let second = TcpListener::bind((six, port)).context("can't listen on ::1")?;
        let streams = vec![first, second];
        let datagrams = [any, six]
            .into_iter()
            .map(|at| UdpSocket::bind((at, port)).with_context(|| format!("can't listen on {at} by UDP")))
            .collect::<Result<Vec<_>>>()?;
        for stream in &streams {
            stream.set_nonblocking(true)?;
        }
        for datagram in &datagrams {
            datagram.set_nonblocking(true)?;
        }
        Ok(Self { port, streams, datagrams })
    }

    /// Takes whatever has arrived; says whether anything had.
    fn arrived(&self) -> bool {
        let mut buffer = [0; 64];
        let mut any = false;
        for stream in &self.streams {
            while stream.accept().is_ok() {
                any = true;
            }
        }
        for datagram in &self.datagrams {
            while datagram.recv(&mut buffer).is_ok() {
                any = true;
            }
        }
        any
    }
}

/// A policy that allows one port of 127.0.0.1 and of ::1.
fn allowing(port: u16) -> String {
    let network = format!(
        "[profile.{PROFILE}.network]\nconnect = \"deny\"\nallow = [\n  \"127.0.0.1:{port}\",\n  \"[::1]:{port}\",\n]\n"
    );
    policy(&(rule(PROD, CHANGES, "deny") + &network))
}

struct Net {
    guard: Guard,
    open: Target,
    shut: Target,
    outside: Server,
    inside: Server,
    _world: World,
}

impl Net {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let (open, shut) = (Target::new()?, Target::new()?);
        let guard = Guard::start(&allowing(open.port))?;
        let (outside, inside) = (Server::outside()?, Server::inside(&guard)?);
        Ok(Self { guard, open, shut, outside, inside, _world: world })
    }

    /// `{open}` and `{shut}` stand for ports.
    fn line(&self, attempt: &str) -> String {
        attempt.replace("{open}", &self.open.port.to_string()).replace("{shut}", &self.shut.port.to_string())
    }

    /// It works outside and arrives; inside it fails, nothing arrives, and an event says so.
    fn denied(&mut self, attempt: &str, port: u16) -> Result<()> {
        let line = self.line(attempt);
        self.shut.arrived();
        let control = self.outside.ask(&line)?;
        // Not every kernel is built with it.
        if line.starts_with("connect-mptcp ") && control.starts_with("? ") {
            eprintln!("{line}: not possible on this machine: {control}");
            return Ok(());
        }
        same(&format!("outside: {line}"), control.as_str(), "ok")?;
        // Once, and last: what goes to both ports goes to the open one first.
        until(&format!("{line} from outside arrives"), SOON, || Ok(self.shut.arrived().then_some(())))?;
        let mark = self.guard.events.mark()?;
        self.inside.expect(&line, "EPERM")?;
        stays(&format!("{line}: nothing arrives"), Duration::from_millis(100), || Ok(!self.shut.arrived()))?;
        self.told(mark, &line, port)
    }

    fn told(&mut self, mark: Mark, line: &str, port: u16) -> Result<()> {
        let event = self.guard.events.wait(mark, line, |event| event.judged("deny"))?;
        same(&format!("{line}: operation"), event.field("operation").as_str(), "connect")?;
        same(&format!("{line}: class and activity"), event.class(), (4001, 1))?;
        let to = crate::fixture::number(&event.0, "/dst_endpoint/port")?;
        same(&format!("{line}: port"), to, u64::from(port))?;
        let hook = event.field("hook");
        anyhow::ensure!(["socket_connect", "socket_sendmsg"].contains(&hook.as_str()), "{line}: hook {hook}");
        Ok(())
    }
}

fn calls() -> Result<()> {
    let mut net = Net::new()?;
    let shut = net.shut.port;
    for attempt in [
        "connect 127.0.0.1:{shut}",
        "connect [::1]:{shut}",
        "connect-udp 127.0.0.1:{shut}",
        "connect-udp [::1]:{shut}",
        "connect-mptcp 127.0.0.1:{shut}",
        "connect-unspec-again 127.0.0.1:{open} 127.0.0.1:{shut}",
        "connect-again-udp 127.0.0.1:{open} 127.0.0.1:{shut}",
        "fastopen 127.0.0.1:{shut}",
        "fastopen [::1]:{shut}",
        "sendto 127.0.0.1:{shut}",
        "sendto [::1]:{shut}",
        "sendto-connected 127.0.0.1:{open} 127.0.0.1:{shut}",
        "sendto-unspec 127.0.0.1:{shut}",
        "sendmsg 127.0.0.1:{shut}",
        "sendmsg [::1]:{shut}",
        "sendmmsg 127.0.0.1:{open} 127.0.0.1:{shut}",
        "sendmmsg [::1]:{open} [::1]:{shut}",
        "uring plain connect 127.0.0.1:{shut}",
        "uring async connect [::1]:{shut}",
        "uring sqpoll connect 127.0.0.1:{shut}",
        "uring plain sendmsg 127.0.0.1:{shut}",
        "uring async sendmsg [::1]:{shut}",
        "uring sqpoll sendmsg 127.0.0.1:{shut}",
    ] {
        net.denied(attempt, shut)?;
    }
    // Some attempts are denied twice, and only the first event was waited for.
    net.guard.settle()?;
    let mark = net.guard.events.mark()?;
    for attempt in [
        "connect 127.0.0.1:{open}",
        "connect [::1]:{open}",
        "connect-udp 127.0.0.1:{open}",
        "fastopen 127.0.0.1:{open}",
        "sendto 127.0.0.1:{open}",
        "sendmsg [::1]:{open}",
        "sendmmsg 127.0.0.1:{open} 127.0.0.1:{open}",
        "uring async connect 127.0.0.1:{open}",
        "uring plain sendmsg [::1]:{open}",
    ] {
        let line = net.line(attempt);
        net.open.arrived();
        net.inside.expect(&line, "ok")?;
        until(&format!("{line} arrives"), SOON, || Ok(net.open.arrived().then_some(())))?;
    }
    net.guard.settle()?;
    net.guard.events.none(mark, "allowed, but an event", |event| event.own("operation") == "connect")?;
    net.guard.stop()
}

fn addresses() -> Result<()> {
    let mut net = Net::new()?;
    let (open, shut) = (net.open.port, net.shut.port);
    for attempt in [
        "connect 0.0.0.0:{shut}",
        "connect [::]:{shut}",
        "connect [::ffff:127.0.0.1]:{shut}",
        "connect-udp [::ffff:127.0.0.1]:{shut}",
        "sendto 0.0.0.0:{shut}",
        "sendto [::ffff:127.0.0.1]:{shut}",
    ] {
        net.denied(attempt, shut)?;
    }
    // The port is allowed, the address isn't.
    for attempt in
        ["connect 127.0.0.2:{open}", "connect [::ffff:127.0.0.2]:{open}", "sendto 127.0.0.2:{open}"]
    {
        let line = net.line(attempt);
        net.outside.expect(&line, "ok")?;
        let mark = net.guard.events.mark()?;
        net.inside.expect(&line, "EPERM")?;
        net.told(mark, &line, open)?;
    }
    for attempt in [
        "connect 0.0.0.0:{open}",
        "connect [::]:{open}",
        "connect [::ffff:127.0.0.1]:{open}",
        "connect-udp [::ffff:127.0.0.1]:{open}",
        "sendto [::ffff:127.0.0.1]:{open}",
    ] {
        let line = net.line(attempt);
        net.inside.expect(&line, "ok")?;
    }
    lists(&mut net)?;
    net.guard.stop()
}

/// The most specific of all lists decides.
fn lists(net: &mut Net) -> Result<()> {
    let (open, shut) = (net.open.port, net.shut.port);
    let network = format!(
        "[profile.{PROFILE}.network]\nallow = [\"127.0.0.0/8\"]\nreport = [\"127.0.0.1:{open}\"]\n\
         hold = [\"127.0.0.0/16\"]\ndeny = [\n  \"127.0.0.1:{shut}\",\n]\n"
    );
    let text = policy(&(rule(PROD, CHANGES, "deny") + &network));
    net.guard.reload(&text)?;
    let mark = net.guard.events.mark()?;
    for attempt in ["connect 127.1.0.1:{shut}", "connect 127.0.0.1:{open}"] {
        let line = net.line(attempt);
        net.inside.expect(&line, "ok")?;
    }
    net.guard.events.wait(mark, "the report", |event| event.judged("report"))?;
    net.denied("connect 127.0.0.1:{shut}", shut)?;
    let event = net.guard.events.wait(mark, "the denial", |event| event.judged("deny"))?;
    let line = crate::fixture::number(&event.0, "/unmapped/agent_guard/rule_line")?;
    same("the rule's line", line, line_of(&text, &format!("127.0.0.1:{shut}"))?)?;
    let pid = net.inside.process().pid();
    net.inside.send(&net.line("connect 127.0.0.2:{shut}"))?;
    Hold::of(pid)?.approve()?;
    same("an approved connection", net.inside.answer()?.as_str(), "ok")
}

fn default_deny() -> Result<()> {
    let _world = World::new()?;
    let target = Target::new()?;
    let mut guard = Guard::start(&policy(""))?;
    let (mut outside, mut inside) = (Server::outside()?, Server::inside(&guard)?);
    let line = format!("connect 127.0.0.1:{}", target.port);
    outside.expect(&line, "ok")?;
    let mark = guard.events.mark()?;
    inside.expect(&line, "EPERM")?;
    guard
        .events
        .wait(mark, "the denial", |event| event.judged("deny") && event.own("source") == "network")?;
    // Sockets of the session's own are none of the network's business.
    let pair = "import socket; a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1).decode())";
    guard.ran(&["python3", "-c", pair])?.good()?.says("x")?;
    guard.stop()
}

/// A web server for as long as the process lives; answers its port.
pub(crate) fn web_server() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("can't listen")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            let answer = b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
            if stream.read(&mut request).and_then(|_| stream.write_all(answer)).is_err() {
                eprintln!("the web server's caller has gone");
            }
        }
    });
    Ok(port)
}

fn curl() -> Result<()> {
    let _world = World::new()?;
    let (open, shut) = (web_server()?, web_server()?);
    let text = allowing(open);
    let mut guard = Guard::start(&text)?;
    let url = |port: u16| format!("http://{}/", SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let (open_url, shut_url) = (url(open), url(shut));
    let curl = ["curl", "--silent", "--show-error", "--max-time", "15"];
    let mut control = std::process::Command::new("curl");
    control.args(["--silent", "--max-time", "15", &shut_url]);
    crate::fixture::process::run(&mut control)?.good()?.says("hello")?;
    guard.ran(&[&curl, [open_url.as_str()].as_slice()].concat())?.good()?.says("hello")?;
    let mark = guard.events.mark()?;
    // 7: can't connect.
    guard.ran(&[&curl, [shut_url.as_str()].as_slice()].concat())?.code(7)?;
    let event = guard.events.wait(mark, "curl", |event| event.judged("deny"))?;
    same("the address", crate::fixture::text(&event.0, "/dst_endpoint/ip"), "127.0.0.1")?;
    // The rule that allows has a place too.
    let asked = crate::fixture::guard::json(&[
        "policy",
        "explain",
        "--profile",
        PROFILE,
        "--connect",
        &format!("127.0.0.1:{open}"),
    ])?;
    same("what explain says", crate::fixture::text(&asked, "/verdict"), "allow")?;
    let line = crate::fixture::number(&asked, "/objects/0/rule/line")?;
    same("the rule's line", line, line_of(&text, &format!("127.0.0.1:{open}"))?)?;
    guard.stop()
}
