//! Connections that wait for people, and a daemon that isn't there.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::Scenario;
use crate::fixture::net::lab::{OPEN, SHUT, list, network};
use crate::fixture::net::{Lab, ONE, TWO, at};
use crate::fixture::{Hold, contains, same, text};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("network_holds", "connections to addresses and names wait for people", holds).thorough(),
    Scenario::direct(
        "network_daemon_death",
        "without a daemon no name is answered, and nothing opens",
        death,
    )
    .thorough(),
];

fn holds() -> Result<()> {
    let places = [at(ONE.v4(1), SHUT), at(ONE.v6(1), SHUT), format!("other.example.test:{OPEN}")];
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let allowed = at(ONE.v4(1), OPEN);
    let mut lab = Lab::new(&network(&(list("allow", &[&allowed]) + &list("hold", &places))))?;
    let pid = lab.inside.process().pid();
    for attempt in
        ["connect {one}:{shut}", "connect {one6}:{shut}", "sendto {one}:{shut}", "fastopen {one}:{shut}"]
    {
        let line = Lab::line(attempt);
        for approved in [true, false] {
            lab.shut.arrived();
            lab.inside.send(&line)?;
            let hold = Hold::of(pid)?;
            same("the held operation", text(&hold.0, "/operation"), "connect")?;
            let address =
                if attempt.contains("one6") { ONE.v6(1).to_string() } else { ONE.v4(1).to_string() };
            contains("the hold", &hold.0.to_string(), &address)?;
            lab.shut.gets_nothing(&format!("{line}, held"))?;
            if approved {
                hold.approve()?;
                same(&format!("{line}, approved"), lab.inside.answer()?.as_str(), "ok")?;
                lab.shut.gets(&line)?;
            } else {
                hold.deny()?;
                same(&format!("{line}, denied"), lab.inside.answer()?.as_str(), "EPERM")?;
                lab.shut.gets_nothing(&line)?;
            }
        }
    }
    // By its name: it is answered, and going there waits.
    let line = format!("connect-name other.example.test {OPEN}");
    for approved in [true, false] {
        lab.inside.send(&line)?;
        let mut rounds = 0;
        // One address after another is tried where the first is denied.
        let outcome = loop {
            let hold = Hold::of(pid)?;
            lab.two.gets_nothing(&format!("{line}, held"))?;
            if approved {
                hold.approve()?;
                break "ok";
            }
            hold.deny()?;
            hold.becomes("denied")?;
            rounds += 1;
            if rounds == 2 {
                break "EPERM";
            }
        };
        same(&line, lab.inside.answer()?.as_str(), outcome)?;
        ensure!((lab.two.arrived() > 0) == approved, "{line}: what arrived isn't what was approved");
    }
    // What can't wait is denied.
    let to = SocketAddr::new(ONE.v4(1).into(), SHUT);
    for attempt in ["uring plain connect {one}:{shut}", "uring async sendmsg {one}:{shut}"] {
        lab.denied_as(attempt, to)?;
    }
    Hold::count(0)?;
    lab.guard.stop()
}

fn death() -> Result<()> {
    let places =
        [at(ONE.v4(1), OPEN), "four.example.test:4430".to_owned(), "six.example.test:4430".to_owned()];
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let mut lab = Lab::new(&network(&list("allow", &places)))?;
    let six = at(ONE.v6(2), OPEN);
    lab.inside.expect("resolve four.example.test", &ONE.v4(2).to_string())?;
    lab.outside.expect("resolve six.example.test", &ONE.v6(2).to_string())?;
    let without = |lab: &mut Lab| -> Result<()> {
        lab.allowed("connect {one}:{open}")?;
        lab.inside.expect(&Lab::line("connect {one}:{shut}"), "EPERM")?;
        for name in ["six.example.test", "other.example.test"] {
            let answer = lab.inside.ask(&format!("resolve {name}"))?;
            ensure!(["unknown", "try-again"].contains(&answer.as_str()), "{name} without a daemon: {answer}");
        }
        lab.inside.expect(&format!("connect {six}"), "EPERM")?;
        lab.inside.expect(&Lab::line("connect {two}:{open}"), "EPERM")?;
        lab.two.gets_nothing("without a daemon")
    };
    lab.guard.kill()?;
    without(&mut lab)?;
    lab.guard.launch()?;
    // The next one answers the sessions that there are.
    lab.inside.expect("resolve six.example.test", &ONE.v6(2).to_string())?;
    lab.inside.expect(&format!("connect {six}"), "ok")?;
    lab.inside.expect("resolve other.example.test", "unknown")?;
    lab.inside.expect(&format!("connect {}", at(TWO.v6(1), OPEN)), "EPERM")?;
    // One whose name server is gone says so, and opens nothing.
    lab.names.stop();
    let answer = lab.inside.ask(&format!("ask udp {} four.example.test AAAA", at(ONE.v4(53), 53)))?;
    ensure!(["ServFail", "NoError"].contains(&answer.as_str()), "without a name server: {answer}");
    lab.guard.stop()
}
