//! Names in rules: asking for one opens its addresses, for the session that has asked and for as long as they count.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::Scenario;
use crate::fixture::guard::{degraded, pins};
use crate::fixture::net::lab::{OPEN, SHUT, about_name, list, network};
use crate::fixture::net::{Lab, ONE, TWO, Zone, at};
use crate::fixture::{Server, contains, same, text, until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "network_names",
        "names that are allowed are answered and reached, others aren't",
        names,
    )
    .on("6.12"),
    Scenario::direct("network_names_end", "what a name has opened is shut again", end).thorough(),
    // It waits for minutes.
    Scenario::direct("network_names_time", "an address is shut when its answer counts no more", time)
        .thorough(),
    Scenario::direct("network_rebinding", "names that lead to private and to forbidden addresses", rebinding)
        .thorough(),
];

const NAMES: &[&str] = &[
    "allowed.example.test:4430",
    "cname.example.test:4430/tcp",
    "four.example.test:4430",
    "six.example.test:4430",
    "many.example.test:4430",
    "*.wild.example.test:4430",
];

fn allowing(names: &[&str]) -> String {
    network(&list("allow", names))
}

/// Both of [`ONE`]'s usual addresses, as `resolve` has them.
fn both() -> String {
    format!("{} {}", ONE.v4(1), ONE.v6(1))
}

fn names() -> Result<()> {
    let mut lab = Lab::new(&allowing(NAMES))?;
    lab.outside.expect("resolve allowed.example.test", &both())?;
    lab.outside.expect("resolve other.example.test", &format!("{} {}", TWO.v4(1), TWO.v6(1)))?;
    // Nobody has asked yet.
    lab.denied("connect {one}:{open}")?;
    let mark = lab.guard.events.mark()?;
    lab.inside.expect("resolve allowed.example.test", &both())?;
    lab.guard
        .events
        .wait(mark, "the name is answered", |event| about_name(event, "allowed.example.test", false))?;
    for attempt in ["connect {one}:{open}", "connect {one6}:{open}", "sendto {one}:{open}"] {
        lab.allowed(attempt)?;
    }
    // Another port of the same addresses; and the event knows the name.
    lab.denied("connect {one6}:{shut}")?;
    let event = lab.refused("connect {one}:{shut}", SocketAddr::new(ONE.v4(1).into(), SHUT), "EPERM")?;
    same("the name in the event", text(&event.0, "/dst_endpoint/hostname"), "allowed.example.test")?;
    refused(&mut lab)?;
    others(&mut lab)?;
    detached(&mut lab)?;
    lab.guard.stop()
}

/// Who may do everything takes a program off that brings questions to the daemon: `status` says so, and the next policy has it
/// back.
fn detached(lab: &mut Lab) -> Result<()> {
    let name = "names_sendmsg4";
    let pin = pins()?.into_keys().find(|path| path.ends_with(name)).context("no pin of it")?;
    lab.outside.expect(&format!("bpf-detach {}", pin.display()), "ok")?;
    contains("what status says", &degraded()?, name)?;
    lab.guard.reload(&allowing(NAMES))?;
    same("what status says then", degraded()?.as_str(), "")?;
    lab.inside.expect("resolve allowed.example.test", &both())
}

/// Names that no rule has: answered at once, without asking anybody.
fn refused(lab: &mut Lab) -> Result<()> {
    for name in [
        "other.example.test",
        "shared.example.test",
        "second.example.test",
        "allowed.example.test.example.test",
        "notallowed.example.test",
        "example.test",
        "test",
        "wild.example.test",
        "nobodys-name.example.org",
    ] {
        let (mark, before) = (lab.guard.events.mark()?, lab.names.asked(name)?);
        lab.inside.expect(&format!("resolve {name}"), "unknown")?;
        lab.inside.expect(&format!("connect-name {name} {OPEN}"), "unknown")?;
        lab.guard.events.wait(mark, name, |event| about_name(event, name, true))?;
        same(&format!("how often the name server was asked for {name}"), lab.names.asked(name)?, before)?;
    }
    lab.two.gets_nothing("names that aren't allowed")
}

/// Names in other forms, aliases, long answers; another session, and nobody's.
fn others(lab: &mut Lab) -> Result<()> {
    lab.inside.expect("resolve ALLOWED.Example.test.", &both())?;
    lab.inside.expect("resolve cname.example.test", &both())?;
    lab.inside.expect("resolve six.example.test", &ONE.v6(2).to_string())?;
    lab.inside.expect("resolve a.b.wild.example.test", &ONE.v4(2).to_string())?;
    for name in ["four.example.test", "six.example.test", "b.wild.example.test"] {
        lab.inside.expect(&format!("connect-name {name} {OPEN}"), "ok")?;
        lab.open.gets(name)?;
        let answer = lab.inside.ask(&format!("connect-name {name} {SHUT}"))?;
        same(&format!("another port of {name}"), answer.as_str(), "EPERM")?;
    }
    // More than fits into a datagram, so that TCP is needed.
    let many = lab.inside.ask("resolve many.example.test")?;
    let outside = lab.outside.ask("resolve many.example.test")?;
    ensure!(outside.split(' ').count() == 100, "the control: {outside}");
    ensure!(many.split(' ').count() >= 16, "many addresses: {many}");
    for address in many.split(' ') {
        contains("what others get", &outside, address)?;
    }
    let mut another = Server::inside(&lab.guard)?;
    let line = Lab::line("connect {one}:{open}");
    another.expect(&line, "EPERM")?;
    another.expect("resolve allowed.example.test", &both())?;
    another.expect(&line, "ok")?;
    lab.outside.expect("resolve other.example.test", &format!("{} {}", TWO.v4(1), TWO.v6(1)))?;
    lab.outside.expect(&Lab::line("connect {two}:{open}"), "ok")
}

fn end() -> Result<()> {
    let mut lab = Lab::new(&allowing(&["allowed.example.test:4430", "four.example.test:4430"]))?;
    let usual = Lab::line("connect {one}:{open}");
    let four = SocketAddr::new(ONE.v4(2).into(), OPEN);
    // Asked for once, and then left alone.
    let mut waiting = Server::inside(&lab.guard)?;
    waiting.expect("resolve four.example.test", &four.ip().to_string())?;
    waiting.expect(&format!("connect {four}"), "ok")?;
    lab.open.arrived();

    // The end of a session: who comes next, maybe in its place, has nothing of its.
    let mut short = Server::inside(&lab.guard)?;
    short.expect("resolve allowed.example.test", &both())?;
    short.expect(&usual, "ok")?;
    drop(short);
    for _ in 0..3 {
        let mut next = Server::inside(&lab.guard)?;
        next.expect(&usual, "EPERM")?;
        next.expect(&format!("connect {four}"), "EPERM")?;
    }

    // The policy allows the name no more.
    lab.inside.expect("resolve allowed.example.test", &both())?;
    lab.inside.expect(&Lab::line("connect-keep stream tcp {one}:{open}"), "ok")?;
    lab.allowed_as("use-kept stream write", SocketAddr::new(ONE.v4(1).into(), OPEN))?;
    lab.guard.reload(&allowing(&["four.example.test:4430"]))?;
    lab.open.arrived();
    lab.refused("connect {one}:{open}", SocketAddr::new(ONE.v4(1).into(), OPEN), "EPERM")?;
    for how in ["write", "sendfile", "uring-write"] {
        lab.refused(&format!("use-kept stream {how}"), SocketAddr::new(ONE.v4(1).into(), OPEN), "EPERM")?;
    }
    lab.inside.expect("resolve allowed.example.test", "unknown")?;
    // What it still allows goes on.
    waiting.expect(&format!("connect {four}"), "ok")?;
    // And allowed again, it is to be asked for again at most.
    lab.guard.reload(&allowing(&["allowed.example.test:4430", "four.example.test:4430"]))?;
    lab.inside.expect("resolve allowed.example.test", &both())?;
    lab.allowed("connect {one}:{open}")?;
    lab.guard.stop()
}

/// For how long, at most, an address may stay: an answer counts for a second, addresses for some minutes more.
const LONGEST: Duration = Duration::from_secs(300);

fn time() -> Result<()> {
    let mut lab = Lab::new(&allowing(&["four.example.test:4430"]))?;
    let four = SocketAddr::new(ONE.v4(2).into(), OPEN);
    let connect = format!("connect {four}");
    lab.inside.expect("resolve four.example.test", &four.ip().to_string())?;
    lab.inside.expect(&connect, "ok")?;
    until("the address of an old answer counts no more", LONGEST, || {
        let answer = lab.inside.ask(&connect)?;
        ensure!(["ok", "EPERM"].contains(&answer.as_str()), "{connect}: {answer}");
        std::thread::sleep(Duration::from_secs(2));
        Ok((answer == "EPERM").then_some(()))
    })?;
    lab.inside.expect("resolve four.example.test", &four.ip().to_string())?;
    lab.inside.expect(&connect, "ok")?;
    lab.guard.stop()
}

/// Names, and what they lead to that no session may have from a name.
fn private() -> Vec<(&'static str, IpAddr)> {
    vec![
        ("private.example.test", ONE.private4().into()),
        ("private6.example.test", ONE.private6().into()),
        ("away.example.test", ONE.private4().into()),
        ("loopback.example.test", [127, 0, 0, 1].into()),
        ("loopback6.example.test", IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)),
        ("unspecified.example.test", [0; 4].into()),
        ("link.example.test", [169, 254, 169, 254].into()),
        ("mapped.example.test", ONE.private4().into()),
    ]
}

fn rebinding() -> Result<()> {
    let zone = Zone::usual();
    let names: Vec<String> = private().iter().map(|(name, _)| format!("{name}:{OPEN}")).collect();
    let more = ["mixed.example.test:4430", "four.example.test:4430", "other.example.test:4430"];
    let all: Vec<&str> = names.iter().map(String::as_str).chain(more).collect();
    let allow = list("allow", &all);
    let deny = list("deny", &["11.22.2.0/24", "[2610:10:2::]/48"]);
    let mut lab = Lab::with_zone(&network(&(allow.clone() + &deny)), &zone)?;
    for (name, address) in private() {
        let control = lab.outside.ask(&format!("resolve {name}"))?;
        ensure!(
            !["unknown", "try-again", "no-address"].contains(&control.as_str()),
            "outside: {name}: {control}"
        );
        for kind in ["A", "AAAA"] {
            let answer = lab.inside.ask(&format!("ask udp {} {name} {kind}", at(ONE.v4(53), 53)))?;
            ensure!(!answer.contains(&address.to_string()), "{name} {kind}: {answer}");
            ensure!(answer.split(' ').count() == 1, "{name} {kind} has an answer: {answer}");
        }
        lab.inside.expect(&format!("connect {}", at(address, OPEN)), "EPERM")?;
    }
    let private = SocketAddr::new(ONE.private4().into(), OPEN);
    lab.denied(&format!("connect {private}"))?;
    // The good one of two.
    lab.inside.expect("resolve mixed.example.test", &ONE.v4(2).to_string())?;
    lab.denied(&format!("connect {private}"))?;
    // An address that a rule denies stays so, whatever name leads there.
    let answer = lab.inside.ask(&format!("connect-name other.example.test {OPEN}"))?;
    ensure!(["EPERM", "unknown", "no-address"].contains(&answer.as_str()), "a forbidden address: {answer}");
    lab.inside.expect(&Lab::line("connect {two}:{open}"), "EPERM")?;
    lab.two.gets_nothing("a name with a forbidden address")?;
    moved(&mut lab, &zone, private)?;
    // An address rule allows it: then it is meant.
    lab.guard.reload(&network(&list("allow", &[all.as_slice(), &[&private.to_string()]].concat())))?;
    lab.inside.expect("resolve private.example.test", &private.ip().to_string())?;
    lab.allowed(&format!("connect {private}"))?;
    lab.guard.stop()
}

/// A name that is good when it is asked for first, and private when it is asked for again.
fn moved(lab: &mut Lab, zone: &Zone, private: SocketAddr) -> Result<()> {
    let good = ONE.v4(2).to_string();
    lab.inside.expect("resolve four.example.test", &good)?;
    lab.allowed_as(
        &format!("connect-name four.example.test {OPEN}"),
        SocketAddr::new(ONE.v4(2).into(), OPEN),
    )?;
    for address in [private.ip().to_string(), "127.0.0.1".to_owned()] {
        lab.names.answer(&zone.clone().moved("four.example.test", &address))?;
        lab.outside.expect("resolve four.example.test", &address)?;
        until("the second answer is asked for", crate::fixture::SOON, || {
            let answer = lab.inside.ask("resolve four.example.test")?;
            ensure!(!answer.contains(&address), "the second answer: {answer}");
            Ok((answer != good).then_some(()))
        })?;
        lab.inside.expect(&format!("connect {private}"), "EPERM")?;
    }
    lab.names.answer(zone)
}
