//! Networks: each part, and random profiles against the definition.

use std::net::IpAddr;

use agent_guard_common::Protocol;

use super::*;
use crate::policy::{
    case::Random,
    oracle::{self, Answer},
};

/// What is wider with these tables of networks.
fn networks(outer: &str, inner: &str) -> Vec<String> {
    wider(&format!("[profile.p.network]\n{outer}\n[profile.q.network]\n{inner}\n"))
}

#[track_caller]
fn narrow(outer: &str, inner: &str) {
    assert_eq!(networks(outer, inner), Vec::<String>::new(), "{outer}\n{inner}");
}

#[track_caller]
fn wide(outer: &str, inner: &str, part: &str) {
    let found = networks(outer, inner);
    assert!(found.iter().any(|found| found.contains(part)), "{part} in {found:#?}");
}

#[test]
fn protocols() {
    narrow("allow = [\"10.0.0.0/8:443\"]", "allow = [\"10.0.0.0/8:443/tcp\", \"10.1.0.0/16:443/udp\"]");
    wide("allow = [\"10.0.0.0/8:443/tcp\"]", "allow = [\"10.0.0.0/8:443\"]", "10.0.0.0/8:443");
    wide("allow = [\"10.0.0.0/8/tcp\"]", "allow = [\"10.0.0.0/8/udp\"]", "10.0.0.0/8/udp");
    // Every port of what rules name isn't everything.
    let all = ["tcp", "udp", "icmp", "sctp"].map(|protocol| format!("10.0.0.0/8/{protocol}"));
    wide(&format!("allow = {all:?}"), "allow = [\"10.0.0.0/8\"]", "10.0.0.0/8`");
    narrow("allow = [\"10.0.0.0/8:443\", \"10.0.0.0/8/icmp\"]", "allow = [\"10.0.0.0/8/icmp\"]");
}

#[test]
fn listening() {
    narrow("listen = [\"localhost\"]", "listen = [\"127.0.0.1:80\"]");
    narrow("listen = [\"0.0.0.0/0:80-90\"]", "listen = [\"0.0.0.0/0:80-90/tcp\", \"10.0.0.1:85\"]");
    wide("listen = [\"localhost\"]", "listen = [\"0.0.0.0/0:80\"]", "listening: `allow listen 0.0.0.0/0:80`");
    wide(
        "listen = [\"localhost:80\"]",
        "listen = [\"localhost\"]",
        "where `listen` of profile \"p\" says deny",
    );
    // It isn't about connecting.
    wide("connect = \"allow\"", "listen = [\"localhost\"]", "listening");
}

#[test]
fn names() {
    let outer = "allow = [\"*.example.org:443\", \"api.example.com\"]\ndeny = [\"x.example.org\"]";
    for inner in [
        "",
        "allow = [\"a.example.org:443/tcp\"]",
        "allow = [\"*.b.example.org:443\", \"api.example.com:80\"]",
        "hold = [\"*.example.org:443\"]\ndeny = [\"x.example.org:443\"]",
    ] {
        narrow(outer, inner);
    }
    for (inner, part) in [
        ("allow = [\"*.example.org:443\"]", "where `deny connect x.example.org` of profile \"p\""),
        ("allow = [\"a.example.org\"]", "`allow connect a.example.org` of profile \"q\""),
        ("allow = [\"example.org:443\"]", "`connect` of profile \"p\" says deny"),
        ("allow = [\"*:443\"]", "`allow connect *:443`"),
        ("allow = [\"*.api.example.com\"]", "*.api.example.com"),
        ("connect = \"hold\"", "`connect` of profile \"q\" says hold"),
    ] {
        wide(outer, inner, part);
    }
    narrow("connect = \"allow\"", "connect = \"allow\"\ndeny = [\"example.org\"]");
    wide("connect = \"allow\"\ndeny = [\"example.org\"]", "connect = \"allow\"", "deny connect example.org");
}

/// What a name stands for could be at an address that only a rule of the outer session closes.
#[test]
fn names_and_addresses() {
    let outer = "allow = [\"*.example.org\"]\ndeny = [\"10.0.0.0/8:22\"]";
    wide(
        outer,
        "allow = [\"a.example.org\"]",
        "where `deny connect 10.0.0.0/8:22` of profile \"p\" says deny",
    );
    narrow(outer, "allow = [\"a.example.org:443\"]");
    narrow(outer, "allow = [\"a.example.org\"]\ndeny = [\"10.0.0.0/8\"]");
    narrow("allow = [\"*.example.org\", \"localhost\"]", "allow = [\"a.example.org\"]");
}

#[test]
fn limits() {
    let with = |limits: &str| format!("allow = [\"*.example.org\"]\nnames = {{ {limits} }}");
    narrow(&with(""), &with(""));
    narrow(&with("length = 200, rate = \"100/1m\""), &with("length = 100, rate = \"100/1h\""));
    for (limits, part) in [
        ("length = 129", "`length` is 129 in profile \"q\", and 128 in profile \"p\""),
        ("labels = 7", "`labels` is 7"),
        ("label = 57", "`label` is 57"),
        ("long = 37", "`long` is 37"),
        ("entropy = 4.3", "`entropy` is 4.3 in profile \"q\", and 4.25 in"),
        ("rate = \"61/1m\"", "`rate` is 61/1m"),
        ("rate = \"60/59s\"", "`rate` is 60/59s"),
        // No more in the long run, but more at once.
        ("rate = \"600/10m\"", "`rate` is 600/10m"),
    ] {
        wide(&with(""), &with(limits), part);
        // Without a `*` they say nothing.
        narrow(&with(""), &format!("allow = [\"a.example.org\"]\nnames = {{ {limits} }}"));
    }
    let every = "allow = [\"*\"]\nnames = { length = 50 }";
    wide(every, "connect = \"allow\"\ndeny = [\"0.0.0.0/0\", \"::/0\"]", "has every name looked up");
}

fn ports(random: &mut Random) -> String {
    let ports = ["", "", ":3", ":2-5", ":5", ":1-9"];
    format!("{}{}", random.pick(&ports, ""), random.pick(&["", "", "", "/tcp", "/udp"], ""))
}

fn entries(random: &mut Random, hosts: &[&str], most: u64) -> Vec<String> {
    (0..random.below(most)).map(|_| format!("{}{}", random.pick(hosts, "localhost"), ports(random))).collect()
}

const NETWORKS: [&str; 8] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "0.0.0.0/0",
    "[::]/0",
    "[fd00::]/8",
    "localhost",
    "[64:ff9b::10.1.0.0]/112",
    "10.1.2.3",
];
const NAMES: [&str; 6] =
    ["*", "*.example.org", "a.example.org", "*.a.example.org", "b.a.example.org", "example.com"];

/// Everything that a profile says of networks.
#[derive(Clone)]
struct Profile {
    connect: &'static str,
    lists: [(&'static str, Vec<String>); 4],
    listen: Vec<String>,
}

impl Profile {
    fn random(random: &mut Random) -> Self {
        let mut list = |name, networks, names| {
            let mut list = entries(random, &NETWORKS, networks);
            list.extend(entries(random, &NAMES, names));
            (name, list)
        };
        let lists = [list("allow", 3, 3), list("report", 1, 2), list("hold", 2, 2), list("deny", 2, 2)];
        let connect = random.pick(&["deny", "deny", "deny", "allow", "hold", "report"], "deny");
        Self { connect, lists, listen: entries(random, &NETWORKS, 3) }
    }

    /// Mostly stricter.
    fn changed(&self, random: &mut Random) -> Self {
        let mut changed = self.clone();
        for (at, (_, list)) in self.lists.iter().enumerate() {
            for entry in list {
                if random.below(4) > 0 {
                    continue;
                }
                let stricter = usize::try_from(random.below(4)).unwrap().max(at);
                changed.lists[at].1.retain(|other| other != entry);
                changed.lists[stricter].1.push(entry.clone());
            }
            if random.below(8) == 0 {
                changed.lists[at].1.pop();
            }
        }
        if random.below(3) == 0 {
            changed.lists[3].1.extend(entries(random, &NAMES, 2));
        }
        if random.below(3) == 0 {
            changed.connect = random.pick(&["deny", "hold"], "deny");
        }
        changed.listen.pop();
        changed
    }

    fn text(&self, name: &str) -> String {
        let lists = self.lists.iter().map(|(name, list)| format!("{name} = {list:?}\n"));
        let lists: String = lists.collect();
        let Self { connect, listen, .. } = self;
        format!("[profile.{name}.network]\nconnect = {connect:?}\n{lists}listen = {listen:?}\n")
    }
}

const ADDRESSES: [&str; 10] = [
    "10.0.0.1",
    "10.1.2.3",
    "10.1.9.9",
    "127.0.0.1",
    "::1",
    "::",
    "fd00::1",
    "8000::",
    "11.0.0.1",
    "64:ff9b::10.1.0.1",
];
const ASKED: [&str; 5] = ["a.example.org", "b.a.example.org", "c.example.org", "example.com", "example.org"];

/// Whatever the inner session does, the outer one can do something that is as mild: with the same names, some of them, or none.
fn check(policy: &Policy, text: &str) {
    let services = [0, 2, 3, 4, 5, 6, 10]
        .into_iter()
        .flat_map(|port| [Protocol::TCP, Protocol::UDP, Protocol(33)].map(|of| (port, of)));
    let services: Vec<_> = services.chain([(0, Protocol::ICMP)]).collect();
    for addr in ADDRESSES {
        let addr: IpAddr = addr.parse().unwrap();
        for &(port, protocol) in &services {
            let of = |answer: Option<Answer>| answer.unwrap().verdict;
            let [bound, mine] =
                ["p", "q"].map(|profile| of(oracle::listen(policy, profile, addr, port, protocol)));
            assert!(mine >= bound, "listening: {addr} {port} {protocol:?}: {mine:?}, but {bound:?}\n{text}");
            let connect = |profile: &str, names: &[&str]| {
                of(oracle::connect(policy, profile, names, addr, port, protocol))
            };
            for (at, one) in ASKED.into_iter().enumerate() {
                for other in ASKED.into_iter().skip(at) {
                    let mine = connect("q", &[one, other]);
                    let bound = [connect("p", &[]), connect("p", &[one]), connect("p", &[other])];
                    let bound = bound.into_iter().min().unwrap();
                    assert!(
                        mine >= bound && connect("q", &[one]) >= connect("p", &[]).min(connect("p", &[one])),
                        "{one} {other} {addr} {port} {protocol:?}: {mine:?}, but {bound:?}\n{text}"
                    );
                }
            }
            assert!(connect("q", &[]) >= connect("p", &[]), "{addr} {port} {protocol:?}\n{text}");
        }
    }
    for name in ASKED {
        let [bound, mine] = ["p", "q"].map(|profile| oracle::looked_up(policy, profile, name).unwrap());
        assert!(bound || !mine, "{name} is looked up\n{text}");
    }
}

#[test]
fn connections_as_defined() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..700 {
        let mut random = Random::new(seed);
        let outer = Profile::random(&mut random);
        let inner =
            if random.below(5) == 0 { Profile::random(&mut random) } else { outer.changed(&mut random) };
        let text = format!("version = 1\n{}{}", outer.text("p"), inner.text("q"));
        let policy = policy_of(&[&text]);
        let Ok(compiled) = build(&policy, &World::default(), &BTreeMap::new(), KEY, &[]) else { continue };
        let rules = |profile| Rules { profile, binding: NO_SESSION, paths: None };
        if narrower(&policy, &compiled, &World::default(), rules("p"), rules("q")).is_err() {
            refused += 1;
            continue;
        }
        accepted += 1;
        check(&policy, &text);
    }
    assert!(accepted * 10 > refused && refused * 10 > accepted, "{accepted} accepted, {refused} refused");
}
