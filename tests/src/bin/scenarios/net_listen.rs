//! Being reached: addresses of the host's that sessions may bind to, listen at, and take connections at.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};

use crate::Scenario;
use crate::fixture::event::Mark;
use crate::fixture::mounted::load;
use crate::fixture::net::lab::{list, network};
use crate::fixture::net::{Lan, ONE, TWO};
use crate::fixture::{Event, Guard, PROFILE, Server, World, number, same};

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::direct("network_listen", "binding, listening and accepting where it isn't allowed", listen)
        .on("6.12")];

/// What may be listened at: `{here}` is an address of this host's in another's network.
const LISTEN: &[&str] = &["127.0.0.1:9000", "[::1]:9000/udp", "{here}:8000-8010/tcp", "{here6}:8000-8010"];

/// Not allowed, and its port; 0 for one that the kernel chooses. Those with a `?` not every kernel knows.
const DENIED: &[(&str, u16)] = &[
    ("bind tcp 127.0.0.1:9001", 9001),
    ("bind tcp [::1]:9001", 9001),
    ("bind udp 127.0.0.1:9001", 9001),
    ("bind udp {here6}:9001", 9001),
    // The address is allowed by the other protocol, the port at the other address.
    ("bind tcp [::1]:9000", 9000),
    ("bind udp {here}:8000", 8000),
    ("bind tcp 127.0.0.2:9000", 9000),
    ("bind tcp {there}:8000", 8000),
    // All addresses are more than those that are allowed.
    ("bind tcp 0.0.0.0:9000", 9000),
    ("bind tcp [::]:9000", 9000),
    ("bind udp [::]:9000", 9000),
    ("bind tcp [::ffff:127.0.0.1]:9001", 9001),
    ("listen tcp {here}:8011", 8011),
    ("listen tcp {here6}:7999", 7999),
    ("listen tcp [::ffff:{here}]:8011", 8011),
    // The kernel chooses: that it does is what clients want, listening there isn't.
    ("listen tcp 127.0.0.1:0", 0),
    ("listen tcp [::]:0", 0),
    ("listen-unbound 4", 0),
    ("listen-unbound 6", 0),
    ("listen-twice tcp 127.0.0.1:9001", 9001),
    ("?listen mptcp 127.0.0.1:9001", 9001),
    ("?listen mptcp 127.0.0.1:0", 0),
    ("?listen sctp {here}:9001", 9001),
    ("?bind udplite 127.0.0.1:9001", 9001),
    ("?uring plain bind 127.0.0.1:9001", 9001),
    ("?uring async listen 127.0.0.1:0", 0),
];

const ALLOWED: &[&str] = &[
    "bind tcp 127.0.0.1:0",
    "bind tcp 0.0.0.0:0",
    "bind udp [::]:0",
    "bind udp 127.0.0.1:9000",
    "bind udp [::1]:9000",
    "listen tcp 127.0.0.1:9000",
    "listen tcp [::ffff:127.0.0.1]:9000",
    "listen tcp {here}:8000",
    "listen tcp {here6}:8010",
    "listen-twice tcp {here}:8005",
];

const LACKING: &[&str] =
    &["EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EAFNOSUPPORT", "ENOPROTOOPT", "EOPNOTSUPP", "ENOSYS", "EINVAL"];

fn fill(text: &str) -> String {
    text.replace("[::ffff:{here}]", &format!("[{}]", ONE.v4(254).to_ipv6_mapped()))
        .replace("{here}", &ONE.v4(254).to_string())
        .replace("{here6}", &format!("[{}]", ONE.v6(254)))
        .replace("{there}", &TWO.v4(254).to_string())
}

fn policy(entries: &[&str]) -> String {
    let entries: Vec<String> = entries.iter().map(|entry| fill(entry)).collect();
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    network(&format!("connect = \"allow\"\n{}", list("listen", &entries)))
}

/// The denial of listening, with the port that it is about.
fn told(guard: &mut Guard, mark: Mark, line: &str, port: u16) -> Result<Event> {
    let event = guard.events.wait(mark, line, |event| event.judged("deny"))?;
    same(&format!("{line}: operation"), event.field("operation").as_str(), "listen")?;
    same(&format!("{line}: class"), event.class().0, 4001)?;
    same(&format!("{line}: profile"), event.field("profile").as_str(), PROFILE)?;
    // It is this host's side.
    let told = ["/src_endpoint/port", "/dst_endpoint/port"].iter().find_map(|at| number(&event.0, at).ok());
    let told = told.with_context(|| format!("{line}: no port: {}", event.0))?;
    ensure!(told == u64::from(port) || (port == 0 && told >= 1024), "{line}: port {told}: {}", event.0);
    Ok(event)
}

fn listen() -> Result<()> {
    let _world = World::new()?;
    let _lan = Lan::new()?;
    drop(load("sctp"));
    let mut guard = Guard::start(&policy(LISTEN))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    let mut tried = 0;
    for (attempt, port) in DENIED {
        let line = fill(attempt.trim_start_matches('?'));
        let control = outside.ask(&line)?;
        if attempt.starts_with('?') && (control.starts_with("? ") || LACKING.contains(&control.as_str())) {
            eprintln!("{line}: not possible on this machine: {control}");
            continue;
        }
        same(&format!("outside: {line}"), control.as_str(), "ok")?;
        let mark = guard.events.mark()?;
        inside.expect(&line, "EPERM")?;
        told(&mut guard, mark, &line, *port)?;
        tried += 1;
    }
    ensure!(tried >= 19, "this machine can do hardly any of it: {tried}");
    guard.settle()?;
    let mark = guard.events.mark()?;
    for attempt in ALLOWED {
        inside.expect(&fill(attempt), "ok")?;
    }
    guard.settle()?;
    guard.events.none(mark, "allowed, but an event", |event| event.own("operation") == "listen")?;
    accept(&mut guard, &mut inside, &mut outside)?;
    // Without a word about it nothing is listened at.
    guard.reload(&network("connect = \"allow\"\n"))?;
    inside.expect("listen tcp 127.0.0.1:9000", "EPERM")?;
    inside.expect("bind udp [::1]:0", "ok")?;
    guard.stop()
}

/// Connections are taken as long as the policy allows listening there.
fn accept(guard: &mut Guard, inside: &mut Server, outside: &mut Server) -> Result<()> {
    let place: SocketAddr = ([127, 0, 0, 1], 9000).into();
    let come = || TcpStream::connect(place).with_context(|| format!("nobody listens at {place}"));
    inside.expect(&format!("listen-keep server tcp {place}"), "ok")?;
    let caller = come()?;
    inside.expect("accept-kept server", "ok")?;
    drop(caller);
    guard.reload(&policy(&["127.0.0.1:9002"]))?;
    let (caller, mark) = (come()?, guard.events.mark()?);
    inside.expect("accept-kept server", "EPERM")?;
    told(guard, mark, "accept", place.port())?;
    drop(caller);
    // The control.
    outside.expect("listen-keep server tcp 127.0.0.1:9003", "ok")?;
    let caller = TcpStream::connect("127.0.0.1:9003").context("nobody listens outside")?;
    outside.expect("accept-kept server", "ok")?;
    drop(caller);
    Ok(())
}
