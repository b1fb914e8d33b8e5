//! Asking for names by packets of one's own: whoever is asked, the session's own resolver answers.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::Scenario;
use crate::fixture::net::lab::{OPEN, about_name, list, network};
use crate::fixture::net::{Lab, ONE, Peer, TWO, at};
use crate::fixture::process::run;
use crate::fixture::{PROFILE, same};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("network_dns", "other name servers, transports, types and forms of questions", dns)
        .thorough(),
    Scenario::direct("network_tunnel", "names that carry something to whoever owns the domain", tunnel)
        .thorough(),
];

const TRANSPORTS: &[&str] = &["udp", "udp-connected", "tcp"];

fn policy(more: &[&str]) -> String {
    let names = ["allowed.example.test:4430", "cname.example.test:4430", "*.wild.example.test:4430"];
    network(&list("allow", &[names.as_slice(), more].concat()))
}

/// Name servers: the host's own by both versions, somebody who is none, nobody, this host.
fn servers() -> Vec<IpAddr> {
    vec![
        ONE.v4(53).into(),
        ONE.v6(53).into(),
        TWO.v4(1).into(),
        TWO.v6(9).into(),
        [127, 0, 0, 1].into(),
        // Where there is no route at all.
        [198, 18, 99, 53].into(),
    ]
}

fn dns() -> Result<()> {
    let mut lab = Lab::new(&policy(&[]))?;
    let control = ONE.v4(53);
    for transport in TRANSPORTS {
        for ip in [control.into(), IpAddr::from(ONE.v6(53))] {
            let line = format!("ask {transport} {} other.example.test A", at(ip, 53));
            lab.outside.expect(&line, &format!("NoError {}", TWO.v4(1)))?;
        }
    }
    everybody(&mut lab)?;
    types(&mut lab)?;
    oddly(&mut lab)?;
    elsewhere(&mut lab)?;
    itself(&mut lab)?;
    // A rule that allows the name server's address makes it no other.
    lab.guard.reload(&policy(&["11.22.1.53:53", "127.0.0.1"]))?;
    for transport in TRANSPORTS {
        let line = format!("ask {transport} {} other.example.test A", at(control, 53));
        lab.inside.expect(&line, "NXDomain")?;
    }
    itself(&mut lab)?;
    lab.guard.stop()
}

/// Whoever is asked, and however: the answer comes from there, and is the policy's.
fn everybody(lab: &mut Lab) -> Result<()> {
    let (before, mark) = (lab.names.asked("other.example.test")?, lab.guard.events.mark()?);
    for ip in servers() {
        for transport in TRANSPORTS {
            let ask = |name: &str| format!("ask {transport} {} {name} A", at(ip, 53));
            lab.inside.expect(&ask("allowed.example.test"), &format!("NoError {}", ONE.v4(1)))?;
            lab.inside.expect(&ask("other.example.test"), "NXDomain")?;
        }
    }
    same("how often the name server was asked", lab.names.asked("other.example.test")?, before)?;
    lab.guard
        .events
        .wait(mark, "the refusal", |event| about_name(event, "other.example.test", true))
        .map(|_event| ())
}

fn types(lab: &mut Lab) -> Result<()> {
    let server = at(ONE.v4(53), 53);
    let asked = lab.names.asked("other.example.test")?;
    for kind in ["TXT", "MX", "NS", "SOA", "CAA", "SRV", "HTTPS", "SVCB", "CNAME", "NULL"] {
        lab.inside.expect(&format!("ask udp {server} other.example.test {kind}"), "NXDomain")?;
    }
    lab.outside.expect(&format!("ask udp {server} allowed.example.test TXT"), "NoError TXT:a text")?;
    lab.inside.expect(&format!("ask udp {server} allowed.example.test TXT"), "NoError TXT:a text")?;
    // Addresses that nobody has admitted.
    let answer = lab.inside.ask(&format!("ask udp {server} allowed.example.test HTTPS"))?;
    same("HTTPS", answer.as_str(), "NoError")?;
    for (transport, kind) in [("udp", "ANY"), ("tcp", "ANY"), ("tcp", "AXFR"), ("udp", "IXFR")] {
        for name in ["allowed.example.test", "other.example.test", "example.test"] {
            let line = format!("ask {transport} {server} {name} {kind}");
            let answer = lab.inside.ask(&line)?;
            ensure!(["Refused", "NotImp", "NXDomain"].contains(&answer.as_str()), "{line}: {answer}");
        }
    }
    same("how often the name server was asked", lab.names.asked("other.example.test")?, asked)
}

/// What is no question of the usual kind carries nothing to anybody.
fn oddly(lab: &mut Lab) -> Result<()> {
    let server = at(ONE.v4(53), 53);
    for transport in ["udp", "tcp"] {
        for how in ["chaos", "two", "none", "update", "notify"] {
            for name in ["allowed.example.test", "odd.example.test"] {
                let line = format!("ask-oddly {transport} {server} {name} {how}");
                let answer = lab.inside.ask(&line)?;
                let words = ["Refused", "NotImp", "FormErr", "NXDomain", "silence"];
                ensure!(words.contains(&answer.as_str()), "{line}: {answer}");
            }
        }
    }
    same("how often the name server was asked", lab.names.asked("odd.example.test")?, 0)
}

/// Names asked for in other ways are connections like others: DNS over TLS, over HTTPS, at another port.
fn elsewhere(lab: &mut Lab) -> Result<()> {
    for port in [853, 443, 5353, 8053] {
        let mut server = Peer::on(ONE, port)?;
        for attempt in
            [format!("connect {}", at(ONE.v4(53), port)), format!("sendto {}", at(ONE.v6(53), port))]
        {
            lab.outside.expect(&attempt, "ok")?;
            server.gets(&attempt)?;
            let mark = lab.guard.events.mark()?;
            lab.inside.expect(&attempt, "EPERM")?;
            server.gets_nothing(&attempt)?;
            lab.guard.events.wait(mark, &attempt, |event| event.judged("deny"))?;
        }
    }
    Ok(())
}

/// Where the daemon's resolver listens, by UDP. What it asks others with isn't bound to the loopback.
fn resolvers(lab: &Lab) -> Result<Vec<SocketAddr>> {
    let own = format!("pid={},", lab.guard.daemon()?.pid());
    let done = run(Command::new("ss").args(["-H", "-n", "-p", "-l", "-u"]))?.good()?;
    let places = done.stdout.lines().filter(|line| line.contains(&own)).filter_map(|line| {
        line.split_whitespace()
            .filter_map(|word| word.parse::<SocketAddr>().ok())
            .find(|place| place.ip().is_loopback())
    });
    let places: Vec<SocketAddr> = places.collect();
    ensure!(!places.is_empty(), "the daemon listens nowhere: {}", done.stdout);
    Ok(places)
}

/// The resolver itself, by its port. Who isn't a session's gets nothing; a session gets no more than otherwise.
fn itself(lab: &mut Lab) -> Result<()> {
    let before = lab.names.asked("other.example.test")?;
    for place in resolvers(lab)? {
        for name in ["allowed.example.test", "other.example.test"] {
            let line = format!("ask udp {place} {name} A");
            lab.outside.expect(&line, "Refused").context("nobody's question")?;
        }
        for transport in TRANSPORTS {
            let line = format!("ask {transport} {place} other.example.test A");
            let answer = lab.inside.ask(&line)?;
            let words = ["EPERM", "NXDomain", "Refused", "silence", "ECONNREFUSED"];
            ensure!(words.contains(&answer.as_str()), "{line}: {answer}");
        }
    }
    same("how often the name server was asked", lab.names.asked("other.example.test")?, before)
}

fn tunnel() -> Result<()> {
    let limits = "length = 100\nlabels = 3\nlabel = 40\nrate = \"20/1m\"\n";
    let text = policy(&[]) + &format!("[profile.{PROFILE}.network.names]\n{limits}");
    let mut lab = Lab::new(&text)?;
    let server = at(ONE.v4(53), 53);
    let deep = "a.b.c.d.wild.example.test";
    // Count, letters before the domain, how many may be answered at most.
    for (count, length, most) in [(3, 200, 0), (3, 63, 0), (3, 41, 0), (300, 16, 120)] {
        let line = format!("ask-many {server} {count} {length} wild.example.test");
        lab.outside.expect(&line, &format!("{count} 0"))?;
        let before = lab.names.asked(".wild.example.test")?;
        let answer = lab.inside.ask(&line)?;
        let (answered, refused) = answer.split_once(' ').context("no numbers")?;
        let (answered, refused): (usize, usize) = (answered.parse()?, refused.parse()?);
        ensure!(answered <= most && answered + refused == count, "{line}: {answer}");
        // What isn't answered wasn't asked for.
        let asked = lab.names.asked(".wild.example.test")? - before;
        ensure!(asked <= answered, "{line}: {answer}, and the name server was asked {asked} times");
    }
    lab.outside.expect(&format!("resolve {deep}"), &ONE.v4(2).to_string())?;
    let before = lab.names.asked(deep)?;
    let answer = lab.inside.ask(&format!("ask udp {server} {deep} A"))?;
    ensure!(!answer.starts_with("NoError"), "a deep name: {answer}");
    same("how often the name server was asked", lab.names.asked(deep)?, before)?;
    // Names that rules have in full are answered all the same.
    lab.inside.expect(&format!("connect-name allowed.example.test {OPEN}"), "ok")?;
    lab.guard.stop()
}
