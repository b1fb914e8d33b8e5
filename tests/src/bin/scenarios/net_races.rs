//! Destinations changed in memory while they are judged.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Scenario;
use crate::fixture::net::lab::{OPEN, SHUT, usual};
use crate::fixture::net::{Lab, ONE, TWO, at};
use crate::fixture::{Server, number, same, stays};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "network_races",
    "no other host is reached by changing addresses and messages meanwhile",
    races,
)
.thorough()];

const REPORT: &str = "/tmp/race-net.json";
/// Ways, and whether they count by themselves where they got.
const RACES: &[(&str, bool)] = &[
    ("connect", true),
    ("connect-tcp", true),
    ("sendto", false),
    ("sendmsg", false),
    ("sendmsg-pointer", false),
];
/// Tries outside, which show that the race is one; more until it has been won. Fewer streams: what has come waits in a queue.
const CONTROL: u32 = 2_000;
const CONTROL_STREAMS: u32 = 50;
/// Tries of each that the daemon tells of, and without it, where they cost a fraction: more than 100,000 in all.
const TOLD: u32 = 50;
const UNTOLD: u32 = 21_000;

/// Runs a race; answers its counts.
fn counts(server: &mut Server, line: &str) -> Result<Value> {
    server.expect(line, "ok")?;
    let text = fs::read_to_string(REPORT).with_context(|| format!("can't read {REPORT}"))?;
    fs::remove_file(REPORT).with_context(|| format!("can't remove {REPORT}"))?;
    eprintln!("{line}: {}", text.trim());
    serde_json::from_str(&text).with_context(|| format!("no JSON in {REPORT}: {text}"))
}

/// Between an allowed address and a forbidden one. A stream goes where it is allowed, and nobody listens there.
fn line(how: &str, tries: u32) -> String {
    let allowed = if how == "connect-tcp" { at(TWO.v4(1), SHUT) } else { at(ONE.v4(1), OPEN) };
    format!("race-destination {REPORT} {tries} {how} {allowed} {}", at(ONE.v4(1), SHUT))
}

fn races() -> Result<()> {
    let policy = usual().replacen("allow = [\n", &format!("allow = [\n  \"{}\",\n", at(TWO.v4(1), SHUT)), 1);
    let mut lab = Lab::new(&policy)?;
    for (how, counts_itself) in RACES {
        let mut won = false;
        for _ in 0..20 {
            lab.shut.arrived();
            let tries = if *how == "connect-tcp" { CONTROL_STREAMS } else { CONTROL };
            let counts = counts(&mut lab.outside, &line(how, tries))?;
            same("denied outside", number(&counts, "/denied")?, 0)?;
            won = if *counts_itself { number(&counts, "/protected")? > 0 } else { lab.shut.arrived() > 0 };
            if won {
                break;
            }
        }
        ensure!(won, "{how}: outside nobody got where it is forbidden");
    }
    stays("what is under way arrives", Duration::from_millis(300), || {
        lab.shut.arrived();
        Ok(true)
    })?;
    for (how, _) in RACES {
        race(&mut lab, how, TOLD)?;
    }
    lab.guard.settle()?;
    // Who has nobody to tell tries faster.
    lab.guard.halt()?;
    for (how, _) in RACES {
        let denied = race(&mut lab, how, UNTOLD)?;
        ensure!(denied > 0, "{how}: not once was anything denied, so it was no race");
    }
    lab.guard.launch()?;
    lab.guard.halt()
}

/// Not once may it get where it is forbidden; answers how often it was denied.
fn race(lab: &mut Lab, how: &str, tries: u32) -> Result<u64> {
    let counts = counts(&mut lab.inside, &line(how, tries))?;
    same(&format!("{how}: how often it got where it is forbidden"), number(&counts, "/protected")?, 0)?;
    lab.shut.gets_nothing(how)?;
    number(&counts, "/denied")
}
