//! Rules that name a protocol, and families of sockets that rules know nothing of.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use socket2::{Protocol, Type};

use crate::Scenario;
use crate::fixture::guard::{ALL, rule, strict_policy_of};
use crate::fixture::mounted::load;
use crate::fixture::net::lab::{OPEN, SHUT, list, network};
use crate::fixture::net::{Lab, ONE, at};
use crate::fixture::world::WORK;
use crate::fixture::{Guard, PROFILE, Server, World, text};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("network_protocols", "a rule for one protocol is none for another", protocols)
        .thorough(),
    Scenario::direct(
        "network_families",
        "other families of sockets need the policy's word, each its own",
        families,
    )
    .on("6.12"),
];

/// Loads what this kernel has of them.
fn modules(names: &[&str]) {
    for name in names {
        if let Err(error) = load(name) {
            eprintln!("{name} isn't there: {error:#}");
        }
    }
}

fn protocols() -> Result<()> {
    modules(&["sctp", "dccp_ipv4"]);
    // Everybody may send echo requests without a raw socket, as distributions have it.
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
    let (open, shut) = (at(ONE.v4(1), OPEN), at(ONE.v4(1), SHUT));
    let mut lab = Lab::new(&network(&list(
        "allow",
        &[
            &format!("{open}/tcp"),
            &format!("{shut}/udp"),
            &format!("{shut}/sctp"),
            &format!("{}/icmp", ONE.v4(2)),
            &format!("[{}]/128/icmp", ONE.v6(2)),
        ],
    )))?;
    for port in [OPEN, SHUT] {
        let peer = if port == OPEN { &mut lab.open } else { &mut lab.shut };
        peer.also(ONE, port, Type::STREAM, Protocol::SCTP)?;
        peer.also(ONE, port, Type::DGRAM, Protocol::from(136))?;
    }
    // What is named here is tried where the kernel has it.
    for (denied, allowed) in [
        ("connect {one}:{shut}", "connect {one}:{open}"),
        ("?connect-mptcp {one}:{shut}", "connect-mptcp {one}:{open}"),
        ("uring async connect {one}:{shut}", "uring async connect {one}:{open}"),
        ("connect-udp {one}:{open}", "connect-udp {one}:{shut}"),
        ("sendto {one}:{open}", "sendto {one}:{shut}"),
        ("?connect-udplite {one}:{open}", "connect-udplite {one}:{shut}"),
        ("?sendto-udplite {one}:{open}", "sendto-udplite {one}:{shut}"),
        ("?connect-sctp {one}:{open}", "connect-sctp {one}:{shut}"),
        ("?sendto-sctp {one}:{open}", "sendto-sctp {one}:{shut}"),
        ("?connectx-sctp {one}:{open}", "connectx-sctp {one}:{shut}"),
        // Several addresses of one peer, one of which isn't allowed.
        ("?connectx-sctp 11.22.1.2:{shut} {one}:{shut}", "connectx-sctp {one}:{shut}"),
    ] {
        let two = denied.starts_with("?connectx-sctp 11.22.1.2");
        let to = if two { ONE.v4(2) } else { ONE.v4(1) };
        let port = if denied.ends_with("{open}") { OPEN } else { SHUT };
        if lab.denied_as(denied, SocketAddr::new(to.into(), port)).with_context(|| denied.to_owned())? {
            lab.allowed(allowed)?;
        }
    }
    pings(&mut lab)?;
    dccp(&mut lab)?;
    lab.guard.stop()
}

/// Nobody listens by it: who is refused got there. No rule can name it, and those for other protocols aren't about it.
fn dccp(lab: &mut Lab) -> Result<()> {
    for port in [OPEN, SHUT] {
        let attempt = format!("connect-dccp {}", at(ONE.v4(1), port));
        let control = lab.outside.ask(&attempt)?;
        if control.starts_with("? ") {
            eprintln!("{attempt}: not possible on this machine: {control}");
            continue;
        }
        ensure!(control == "ECONNREFUSED", "outside: {attempt}: {control}");
        lab.refused(&attempt, SocketAddr::new(ONE.v4(1).into(), port), "EPERM")?;
    }
    Ok(())
}

/// Echo requests have no ports.
fn pings(lab: &mut Lab) -> Result<()> {
    let at = |ip: IpAddr| if ip.is_ipv6() { format!("[{ip}]:0") } else { format!("{ip}:0") };
    for call in ["ping", "ping-connected"] {
        for (shut, open) in [(ONE.v4(1).into(), ONE.v4(2).into()), (ONE.v6(1).into(), ONE.v6(2).into())] {
            let (denied, allowed) = (format!("{call} {}", at(shut)), format!("{call} {}", at(open)));
            lab.outside.expect(&denied, "ok")?;
            let mark = lab.guard.events.mark()?;
            lab.inside.expect(&denied, "EPERM")?;
            lab.guard.events.wait(mark, &denied, |event| {
                event.judged("deny")
                    && event.field("operation") == "connect"
                    && text(&event.0, "/dst_endpoint/ip") == shut.to_string()
            })?;
            lab.inside.expect(&allowed, "ok")?;
        }
    }
    Ok(())
}

/// Operations, of which one is named by the event, and attempts. Those with a `?` not every kernel knows.
const FAMILIES: &[(&str, &str)] = &[
    ("raw_network", "socket raw"),
    ("raw_network", "socket raw-own-header"),
    ("raw_network", "socket raw6"),
    ("raw_network", "socket packet"),
    ("raw_network", "socket packet-dgram"),
    ("raw_network", "socket packet-old"),
    ("vsock", "socket vsock"),
    ("vsock", "?socket vsock-dgram"),
    ("vsock", "uring plain socket vsock"),
    ("netlink", "socket netlink-audit"),
    ("netlink", "socket netlink-connector"),
    ("netlink", "?socket netlink-sock-diag"),
    ("netlink", "socket netlink-generic"),
    ("netlink", "?socket netlink-netfilter"),
    ("netlink", "socket netlink-uevent"),
    ("crypto", "?socket alg"),
    ("bluetooth", "?socket bluetooth"),
    ("tun", "?open-tun"),
    ("sockets|raw_network", "?socket xdp"),
    ("sockets", "?socket smc"),
    ("sockets", "?socket smc6"),
    ("sockets", "?socket smc-inet"),
    ("sockets", "?socket rds"),
    ("sockets", "?socket tipc"),
    ("sockets", "?socketpair tipc"),
    ("sockets", "?uring async socket tipc"),
    ("sockets", "?socket kcm"),
    ("sockets", "?socket dccp"),
    ("sockets", "?socket l2tp"),
];

/// What needs nobody's word.
const HARMLESS: &[&str] = &[
    "socket tcp",
    "socket udp6",
    "socket unix",
    "socketpair unix",
    "socket netlink-route",
    "socket-netlink",
];

/// Errors of a kernel that doesn't have it.
const LACKING: &[&str] =
    &["EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "ENODEV", "ENOENT", "EINVAL"];

fn strict(allowed: &str) -> String {
    // Making a network device takes a capability besides.
    let mut system = format!("[profile.{PROFILE}.system]\ncapabilities = [\"net_admin\"]\n");
    if !allowed.is_empty() {
        system.push_str(&format!("{allowed} = \"allow\"\n"));
    }
    system.push('\n');
    strict_policy_of(WORK, &(system + &rule("/dev", ALL, "allow")))
}

fn families() -> Result<()> {
    let _world = World::new()?;
    modules(&[
        "vsock",
        "vsock_loopback",
        "netlink_diag",
        "inet_diag",
        "af_alg",
        "tun",
        "smc",
        "rds",
        "tipc",
        "kcm",
        "dccp_ipv4",
        "l2tp_ip",
        "nfnetlink",
        "sctp",
    ]);
    let mut guard = Guard::start(&strict(""))?;
    let (mut inside, mut outside) = (Server::inside(&guard)?, Server::outside()?);
    let mut there = Vec::new();
    for (operation, attempt) in FAMILIES {
        let line = attempt.trim_start_matches('?');
        let control = outside.ask(line)?;
        if attempt.starts_with('?') && LACKING.contains(&control.as_str()) {
            eprintln!("{line}: not possible on this machine: {control}");
            continue;
        }
        ensure!(control == "ok", "outside: {line}: {control}");
        there.push((*operation, line));
        let mark = guard.events.mark()?;
        inside.expect(line, "EPERM")?;
        let event = guard.events.wait(mark, line, |event| event.judged("deny"))?;
        let named = event.field("operation");
        ensure!(operation.split('|').any(|one| one == named), "{line}: operation {named:?}: {}", event.0);
    }
    ensure!(there.len() >= 16, "this machine knows hardly any of them: {there:?}");
    for line in HARMLESS {
        inside.expect(line, "ok")?;
    }
    each(&guard, &mut inside, &there)?;
    guard.stop()
}

/// Each operation by itself allows its own attempts, and no others.
fn each(guard: &Guard, inside: &mut Server, there: &[(&str, &str)]) -> Result<()> {
    for allowed in ["raw_network", "vsock", "netlink", "crypto", "tun", "sockets"] {
        guard.reload(&strict(allowed))?;
        for (operation, line) in there {
            if operation.contains('|') {
                continue;
            }
            inside
                .expect(line, if *operation == allowed { "ok" } else { "EPERM" })
                .with_context(|| format!("where the policy allows {allowed}"))?;
        }
    }
    Ok(())
}
