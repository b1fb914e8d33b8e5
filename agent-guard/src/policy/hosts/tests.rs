//! Names, one by one; random ones are in the tests of the whole policy.

use std::fmt::Write;

use agent_guard_common::Protocol;

use super::*;
use crate::policy::{Compiled, Source, build, case::KEY, load, world::World};

fn compiled(network: &str) -> Result<Compiled, String> {
    let text = format!("version = 1\n[profile.p.network]\n{network}\n");
    let shown = |mistakes: Vec<Diagnostic>| mistakes.iter().map(ToString::to_string).collect::<String>();
    let policy = load(vec![Source { name: "a.toml".to_owned(), text }]).map_err(shown)?;
    build(&policy, &World::default(), &BTreeMap::new(), KEY, &[]).map_err(shown)
}

/// What happens on a port of TCP, and by which line.
fn on(compiled: &Compiled, name: &str, port: u16) -> Option<(Verdict, u32)> {
    let ruling = compiled.hosts.name(0, name);
    let rule = ports::first(&ruling.rules, port, Protocol::TCP)?;
    Some((Verdict(rule.verdict), compiled.rule(rule.rule).unwrap().line))
}

const LISTS: &str = "allow = [\n\"example.org:443\",\n\"*.example.org:443\",\n\"*.b.example.org\",\n\"*:80\",\n]\n\
                     deny = [\n\"c.example.org\",\n\"example.org:22\",\n]\nhold = [\"*.example.org:443/tcp\"]";

#[test]
fn the_most_specific_decides() {
    let compiled = compiled(LISTS).unwrap();
    let allow = |line| Some((Verdict::ALLOW, line));
    for (name, port, expected) in [
        ("example.org", 443, allow(4)),
        ("example.org", 22, Some((Verdict::DENY, 11))),
        ("example.org", 80, allow(7)),
        ("example.org", 81, None),
        ("a.example.org", 443, Some((Verdict::HOLD, 13))),
        ("a.example.org", 80, allow(7)),
        ("b.example.org", 22, None),
        ("a.b.example.org", 22, allow(6)),
        ("x.a.b.example.org", 443, allow(6)),
        ("c.example.org", 80, Some((Verdict::DENY, 10))),
        ("ab.example.com", 443, None),
        ("notexample.org", 443, None),
        ("org", 80, allow(7)),
    ] {
        assert_eq!(on(&compiled, name, port), expected, "{name}:{port}");
    }
}

#[test]
fn what_is_looked_up() {
    let compiled = compiled(LISTS).unwrap();
    let of = |name: &str| {
        let NameRuling { answer, wildcard, rule, .. } = compiled.hosts.name(0, name);
        (answer, wildcard.map(|wildcard| wildcard.base), compiled.rule(rule).map_or(0, |rule| rule.line))
    };
    assert_eq!(of("example.org"), (true, None, 4));
    assert_eq!(of("a.example.org"), (true, Some(2), 13));
    assert_eq!(of("a.b.example.org"), (true, Some(3), 6));
    assert_eq!(of("c.example.org"), (false, None, 10));
    assert_eq!(of("example.com"), (true, Some(0), 7));
    assert_eq!(of("localhost"), (true, None, 0));
    assert_eq!((of("C.Example.ORG."), of("LocalHost.")), ((false, None, 10), (true, None, 0)));
    assert_eq!(of(""), (false, None, 0));
    assert_eq!(compiled.hosts.name(9, "example.org"), NameRuling::default());
    assert_eq!(compiled.hosts.name(9, "localhost"), NameRuling::default());
}

/// A name of which one port is denied is still one to connect to elsewhere, if anything is.
#[test]
fn denied_in_part() {
    for (connect, answer) in [("deny", false), ("hold", true), ("allow", true), ("kill", false)] {
        let compiled =
            compiled(&format!("connect = {connect:?}\ndeny = [\"a.example:22\", \"b.example\"]")).unwrap();
        let answers = ["a.example", "b.example", "c.example"].map(|name| compiled.hosts.name(0, name).answer);
        assert_eq!(answers, [answer, false, answer], "{connect}");
        assert_eq!(compiled.hosts.name(0, "a.example").wildcard, None);
    }
}

#[test]
fn addresses_need_no_name() {
    let warnings = |network: &str| {
        compiled(network).unwrap().warnings.iter().map(ToString::to_string).collect::<String>()
    };
    assert_eq!(warnings("deny = [\"a.example\"]\nhold = [\"b.example\"]"), "");
    assert_eq!(warnings("connect = \"allow\"\nallow = [\"a.example\"]\ndeny = [\"10.0.0.1\"]"), "");
    for connect in ["allow", "report", "hold"] {
        let said =
            warnings(&format!("connect = {connect:?}\nallow = [\"b.example\"]\ndeny = [\"a.example\"]"));
        assert!(said.contains("a.toml:5:9: warning: `a.example`") && said.contains(connect), "{said}");
    }
}

#[test]
fn limits_come_with_it() {
    let compiled =
        compiled("allow = [\"*.a.example\"]\nnames = { length = 99, entropy = 4, rate = \"300/1h\" }")
            .unwrap();
    let rate = model::Rate { count: 300, per: std::time::Duration::from_hours(1) };
    let limits = NameLimits { length: 99, entropy: 4000, rate, ..NameLimits::default() };
    assert_eq!(compiled.hosts.name(0, "x.a.example").wildcard, Some(Wildcard { base: 2, limits }));
    assert_eq!((compiled.hosts.limits(0), compiled.hosts.limits(1)), (Some(limits), None));
}

#[test]
fn too_many_ports() {
    let ports = |host: &str, numbers: std::ops::Range<u16>| -> String {
        numbers.map(|port| format!("\"{host}:{}\",\n", port * 2)).collect()
    };
    compiled(&format!("allow = [\n{}]", ports("*.example", 1..9))).unwrap();
    let text = format!("allow = [\n{}{}]", ports("*.example", 1..9), ports("a.example", 100..101));
    let found = compiled(&text).unwrap_err();
    for part in [
        "a.toml:12:1: ",
        "9 port rules for `a.example`",
        "`*.example:2` (line 4)",
        "`a.example:200` (line 12)",
    ] {
        assert!(found.contains(part), "{part} in {found}");
    }
    let found = compiled(&format!("allow = [\n{}]", ports("*", 1..10))).unwrap_err();
    assert!(found.contains("9 port rules for `*`"), "{found}");
}

#[test]
fn a_hundred_thousand_names() {
    let mut text = "allow = [\n".to_owned();
    for number in 0..100_000 {
        let wildcard = if number % 3 == 0 { "*." } else { "" };
        writeln!(text, "\"{wildcard}n{number}.d{}.example:443\",", number % 1000).unwrap();
    }
    let compiled = compiled(&format!("{text}]")).unwrap();
    for number in (0..100_000).step_by(7) {
        let name = format!("n{number}.d{}.example", number % 1000);
        let (itself, below) = (on(&compiled, &name, 443), on(&compiled, &format!("x.{name}"), 443));
        let rule = Some((Verdict::ALLOW, number + 4));
        assert_eq!((itself, below), if number % 3 == 0 { (None, rule) } else { (rule, None) }, "{name}");
    }
}
