//! `events`.

use std::io::{self, Write as _};

use serde_json::Value;

use super::{
    args::EventsArgs,
    client::{Client, escaped},
    exit::{Exit, Failure},
    ids,
    output::{Colour, Out, harmless_json, printable, written},
};
use crate::api::types::Time;

pub(super) fn events(client: &Client, args: &EventsArgs) -> Result<Exit, Failure> {
    let out = Out::new(args.json);
    let mut path = format!("/v1/events?follow={}", args.follow);
    if let Some(text) = &args.session {
        path.push_str(&format!("&session={}", ids::session(client, text)?));
    }
    if !args.verdict.is_empty() {
        path.push_str(&format!("&verdict={}", escaped(&args.verdict.join(","))));
    }
    if let Some(since) = &args.since {
        path.push_str(&format!("&since={}", escaped(since)));
    }
    let mut stdout = io::stdout().lock();
    let result = client.lines(&path, |line| {
        let text = if out.json { harmless_json(line) } else { human(&out, line) };
        writeln!(stdout, "{text}")?;
        stdout.flush()?;
        Ok(true)
    })?;
    written(result)?;
    if args.follow {
        return Err(Failure::new(Exit::Failed, "the daemon has ended the stream of events"));
    }
    Ok(Exit::Done)
}

/// An event in one line.
fn human(out: &Out, line: &str) -> String {
    let Ok(event) = serde_json::from_str::<Value>(line) else {
        return printable(line);
    };
    let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let time = Time(event.get("time").and_then(Value::as_u64).unwrap_or(0)).local();
    let own = |name: &str| event.pointer(&format!("/unmapped/agent_guard/{name}"));
    let own_text = |name: &str| own(name).and_then(Value::as_str).unwrap_or_default();
    let (word, colour) = word(own_text("kind"), own_text("verdict"), own_text("outcome"));
    let mut rest = text("/message").to_owned();
    // The word is there already.
    for prefix in [own_text("verdict"), own_text("outcome"), "held"] {
        if let Some(stripped) = rest.strip_prefix(&format!("{prefix}: ")).filter(|_| !prefix.is_empty()) {
            rest = stripped.to_owned();
            break;
        }
    }
    if own_text("verdict") == "report" && !matches!(own_text("policy_verdict"), "report" | "allow" | "") {
        rest.push_str(&format!(" (would {})", own_text("policy_verdict")));
    }
    let session = [own_text("session_name"), own_text("session")].into_iter().find(|name| !name.is_empty());
    if let Some(session) = session {
        rest.push_str(&format!(" session {session}"));
    }
    let file = own_text("rule_file").rsplit('/').next().unwrap_or_default();
    if let (false, Some(line)) = (file.is_empty(), own("rule_line").and_then(Value::as_u64)) {
        rest.push_str(&format!(" rule {file}:{line}"));
    }
    if let Some(by) = [own_text("answered_by")].into_iter().find(|by| !by.is_empty()) {
        rest.push_str(&format!(" answered by {by}"));
    }
    let fault = own_text("fault");
    if !fault.is_empty() {
        rest.push_str(&format!(" fault: {fault}"));
    }
    format!("{time} {} {}", out.paint(colour, &format!("{word:<5}")), printable(&rest))
}

/// The first word of a line, and its colour.
fn word<'a>(kind: &str, verdict: &'a str, outcome: &'a str) -> (&'a str, Colour) {
    match (kind, verdict) {
        ("answered", "allow") => (outcome, Colour::Green),
        ("answered", _) => (outcome, Colour::Red),
        (_, "deny" | "kill") => (verdict, Colour::Red),
        (_, "hold") => (verdict, Colour::Yellow),
        (_, "allow" | "report") => (verdict, Colour::Dim),
        ("events_lost" | "guard_degraded" | "policy_refused", _) => ("!!", Colour::Red),
        _ => ("--", Colour::Bold),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::ocsf::{line, samples};

    #[test]
    fn lines_for_people() {
        let out = Out::new(true);
        let lines: Vec<String> = samples::all()
            .iter()
            .map(|(_, event)| human(&out, &line(event, &samples::host(), Some(1))))
            .collect();
        let has = |text: &str| lines.iter().any(|line| line.contains(text));
        for text in [
            " deny  delete /srv/prod/db by rm(1234) session fix-config rule 50-default.toml:4",
            " hold  delete /srv/prod/db by rm(1234) session fix-config rule 50-default.toml:4",
            " approved delete /srv/prod/db by rm(1234) session fix-config rule 50-default.toml:4 answered by alice",
            " deny  connect db.example.org (10.20.9.1:5432) by rm(1234)",
            " !!    17 events lost (reports, ring buffer)",
            " --    session started: claude session fix-config",
        ] {
            assert!(has(text), "{text}\n{lines:#?}");
        }
    }

    #[test]
    fn what_is_no_event_is_shown_harmlessly() {
        let out = Out::new(true);
        assert_eq!(human(&out, "\x1b[2J"), "\\u{1b}[2J");
        assert!(human(&out, "{}").contains("--"));
    }
}
