//! Random policies and requests about networks: tables and oracle must give the same answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_guard_common::{Protocol, Verdict};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::policy::{
    explain::ExplainError,
    model::NamePattern,
    net::{self, For},
    oracle,
};

fn network() -> impl Strategy<Value = String> {
    let v4 =
        (select(vec!["10.0.0.0", "10.1.0.0", "10.1.2.3", "0.0.0.0"]), 0_u8..=32).prop_map(|(addr, bits)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            let addr = Ipv4Addr::from_bits(addr.parse::<Ipv4Addr>().unwrap().to_bits() & mask);
            if addr.is_unspecified() { "0.0.0.0/0".to_owned() } else { format!("{addr}/{bits}") }
        });
    let addrs = select(vec![
        "fd00::",
        "fd00:1::",
        "::1",
        "::fffe:0:0",
        "2001:db8::",
        "::ffff:10.1.0.0",
        "::ffff:0:10.1.0.0",
        "64:ff9b::10.1.0.0",
        "::10.1.2.3",
        "2002:a01:203::",
    ]);
    let v6 = (addrs, 0_u8..=128).prop_map(|(addr, bits)| {
        let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
        let addr = Ipv6Addr::from_bits(addr.parse::<Ipv6Addr>().unwrap().to_bits() & mask);
        format!("[{addr}]/{bits}")
    });
    prop_oneof![3 => v4, 4 => v6, 1 => Just("localhost".to_owned())]
}

const NAMES: [&str; 7] =
    ["example.org", "a.example.org", "b.a.example.org", "xa.example.org", "org", "example.com", "localhost"];

fn name() -> impl Strategy<Value = String> {
    let some = select(NAMES[..6].to_vec());
    (some, 0..3_u8).prop_map(|(name, form)| match form {
        0 => format!("*.{name}"),
        1 if name == "org" => "*".to_owned(),
        _ => name.to_owned(),
    })
}

/// With ports and a protocol; only what may be written so.
fn entry(host: impl Strategy<Value = String>, what_for: For) -> impl Strategy<Value = String> {
    let ports = prop_oneof![
        Just(String::new()),
        (1_u16..8).prop_map(|port| format!(":{port}")),
        (1_u16..8, 0_u16..8).prop_map(|(low, more)| format!(":{low}-{}", low + more)),
    ];
    let protocol = select(vec!["", "", "/tcp", "/udp", "/icmp"]);
    (host, ports, protocol)
        .prop_map(|(host, ports, protocol)| format!("{host}{ports}{protocol}"))
        .prop_filter("what nobody may write", move |text| net::parse(text, what_for).is_ok())
}

fn address() -> impl Strategy<Value = IpAddr> {
    let named = select(vec![
        "10.0.0.1",
        "10.1.0.1",
        "10.1.2.3",
        "127.0.0.1",
        "0.0.0.0",
        "::",
        "::1",
        "::2",
        "fd00::1",
        "fd00:1::1",
        "2001:db8::1",
        "::ffff:10.1.2.3",
        "::ffff:0:10.1.2.3",
        "::10.1.2.3",
        "64:ff9b::10.1.2.3",
        "2002:a01:203::1",
        "2002:a01:9999:1::",
        "64:ff9b::7f00:1",
        "64:ff9b::",
        "64:ff9b:1::1",
        "::ffff:127.0.0.1",
        "::ffff:0:0",
        "::fffe:0:1",
        "8000::",
    ]);
    prop_oneof![
        4 => named.prop_map(|text| text.parse().unwrap()),
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
    ]
}

/// Those that rules name, and another one. What has no ports is at port 0.
fn service() -> impl Strategy<Value = Service> {
    let protocols = select(vec![Protocol::ICMP, Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol(33)]);
    (protocols, 0_u16..20).prop_map(|(protocol, port)| Service {
        port: if protocol == Protocol::ICMP { 0 } else { port },
        protocol,
    })
}

/// The lists of a profile.
fn lists(entries: &[(String, u8)]) -> String {
    let lists = (0..).zip(["allow", "report", "hold", "deny"]);
    lists
        .map(|(at, list)| {
            let entries = entries.iter().filter(|(_, to)| *to == at);
            let lines: String = entries.map(|(entry, _)| format!("{entry:?},\n")).collect();
            format!("{list} = [\n{lines}]\n")
        })
        .collect()
}

fn text(mode: &str, connect: &str, entries: &[(String, u8)], listen: &[String]) -> String {
    format!(
        "version = 1\n[profile.other.network]\nallow = [\"a.example.org\"]\n[profile.p]\nmode = {mode:?}\n\
         [profile.p.network]\nconnect = {connect:?}\n{}listen = [\n{}]\n",
        lists(entries),
        listen.iter().map(|entry| format!("{entry:?},\n")).collect::<String>()
    )
}

fn verdicts() -> impl Strategy<Value = &'static str> {
    select(Verdict::ALL.map(Verdict::name).to_vec())
}

fn said(answer: &Explanation) -> (&str, &str, Option<u32>) {
    (&answer.verdict, &answer.source, answer.rule.as_ref().map(|rule| rule.line))
}

fn defined(answer: &oracle::Answer) -> (&'static str, &'static str, Option<u32>) {
    (answer.verdict.name(), answer.source.name(), answer.line)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn connections(
        networks in vec((entry(network(), For::Connecting), 0_u8..4), 0..9),
        names in vec((entry(name(), For::Connecting), 0_u8..4), 0..9),
        mode in select(vec!["enforce", "enforce", "report"]),
        connect in verdicts(),
        requests in vec((vec(select(NAMES.to_vec()), 0..3), address(), service()), 1..20),
    ) {
        let text = text(mode, connect, &[networks, names].concat(), &[]);
        let policy = policy(&text);
        // More rules about one name than there is room for.
        let Ok(compiled) = built(&policy, &FakeFs::new(&[])) else { return Ok(()) };
        let (view, index) = (compiled.view(), compiled.index_of("p").unwrap());
        for (asked, addr, service) in requests {
            let tables = match asked.as_slice() {
                [] => explain_connect(&view, index, addr, service),
                asked => explain_names(&view, index, asked, Some(addr), service),
            };
            let tables = match tables {
                Err(ExplainError::Names(_)) => continue,
                tables => tables.unwrap(),
            };
            // The name of this host is no name.
            let asked: Vec<&str> = asked.into_iter().filter(|name| *name != "localhost").collect();
            let oracle =
                oracle::connect(&policy, "p", &asked, addr, service.port, service.protocol).unwrap();
            prop_assert_eq!(said(&tables), defined(&oracle), "{:?} {} {}\n{}", asked, addr, service, text);
        }
    }

    /// Which names are looked up, and which of them only because of a `*`.
    #[test]
    fn names(
        entries in vec((entry(name(), For::Connecting), 0_u8..4), 0..9),
        mode in select(vec!["enforce", "enforce", "report"]),
        connect in verdicts(),
        services in vec(service(), 1..10),
    ) {
        let text = text(mode, connect, &entries, &[]);
        let policy = policy(&text);
        let Ok(compiled) = built(&policy, &FakeFs::new(&[])) else { return Ok(()) };
        let (profile, index) = (policy.profile("p").unwrap(), compiled.index_of("p").unwrap());
        for name in NAMES {
            let ruling = compiled.hosts.name(index, name);
            if name == "localhost" {
                prop_assert_eq!(ruling, NameRuling { answer: true, ..NameRuling::default() });
                continue;
            }
            let looked_up = oracle::looked_up(&policy, "p", name).unwrap();
            prop_assert_eq!(ruling.answer, looked_up || mode == "report", "{}\n{}", name, text);
            prop_assert_eq!(ruling.only_reported, ruling.answer && !looked_up);
            let ports = (0..20).chain([u16::MAX]);
            let all = ports.flat_map(|port| Protocol::ALL.into_iter().chain([Protocol(33)]).map(move |of| (port, of)));
            let all: Vec<_> = all.map(|(port, of)| oracle::by_name(profile, name, port, of)).collect();
            let lets_through = |verdict: Verdict| verdict < Verdict::DENY;
            let allowed = all.iter().flatten().filter(|rule| lets_through(rule.verdict));
            let exact = allowed.clone().any(|rule| matches!(rule.pattern, NamePattern::Exact(_)));
            let elsewhere = all.iter().any(Option::is_none) && lets_through(profile.connect);
            let base = allowed.map(|rule| match &rule.pattern {
                NamePattern::Below(base) => base.split('.').count(),
                NamePattern::Exact(_) | NamePattern::Every => 0,
            });
            let base = base.max().filter(|_| !exact && !elsewhere);
            prop_assert_eq!(ruling.wildcard.map(|wildcard| wildcard.base), base, "{}\n{}", name, text);
            for Service { port, protocol } in &services {
                let found = ports::first(&ruling.rules, *port, *protocol).map(|rule| compiled.rule(rule.rule).unwrap().line);
                let rule = oracle::by_name(profile, name, *port, *protocol);
                prop_assert_eq!(found, rule.map(|rule| rule.origin.line), "{} {} {:?}\n{}", name, port, protocol, text);
            }
        }
    }

    #[test]
    fn listening(
        listen in vec(entry(network(), For::Listening), 0..10),
        mode in select(vec!["enforce", "enforce", "report"]),
        requests in vec((address(), service()), 1..20),
    ) {
        let text = text(mode, "allow", &[], &listen);
        let policy = policy(&text);
        let compiled = built(&policy, &FakeFs::new(&[])).unwrap();
        for (addr, service) in requests {
            let tables = explain_listen(&compiled.view(), compiled.index_of("p").unwrap(), addr, service).unwrap();
            let oracle = oracle::listen(&policy, "p", addr, service.port, service.protocol).unwrap();
            prop_assert_eq!(said(&tables), defined(&oracle), "{} {}\n{}", addr, service, text);
        }
    }

    /// Names have any bytes, zeroes, too.
    #[test]
    fn abstract_names(
        entries in vec(("[ab/é]{0,4}", any::<bool>(), 0_usize..4), 0..10),
        connect in select(Verdict::ALL.map(Verdict::name).to_vec()),
        requests in vec(vec(select(vec![b'a', b'b', b'/', 0, 0xc3, 0xa9]), 0..6), 1..20),
    ) {
        let lists = ["allow", "report", "hold", "deny"];
        let lists: String = (0..).zip(lists).map(|(at, list)| {
            let entries = entries.iter().filter(|(name, begins, to)| *to == at && (*begins || !name.is_empty()));
            let entries: String = entries
                .map(|(name, begins, _)| format!("\"unix:@{name}{}\",\n", if *begins { "*" } else { "" }))
                .collect();
            format!("{list} = [\n{entries}]\n")
        }).collect();
        let text = format!("version = 1\n[profile.other]\n[profile.p.network]\nconnect = {connect:?}\n{lists}");
        let policy = policy(&text);
        let compiled = built(&policy, &FakeFs::new(&[])).unwrap();
        for name in requests {
            let tables = explain_abstract(&compiled.view(), compiled.index_of("p").unwrap(), &name).unwrap();
            let oracle = oracle::abstract_name(&policy, "p", &name).unwrap();
            prop_assert_eq!(
                (tables.verdict.as_str(), tables.source.as_str(), tables.rule.map(|rule| rule.line)),
                (oracle.verdict.name(), oracle.source.name(), oracle.line), "{:?}\n{}", name, text
            );
        }
    }
}
