//! Random policies and requests: tables and oracle must give the same answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_guard_common::{Op, Verdict};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::policy::oracle;

/// Few names, so that rules and requests meet.
fn path() -> impl Strategy<Value = String> {
    vec(select(vec!["a", "b", "c", "link"]), 0..5).prop_map(|names| format!("/{}", names.join("/")))
}

#[derive(Clone, Debug)]
struct Rule {
    path: String,
    ops: Vec<&'static str>,
    verdict: &'static str,
}

fn rule(verdicts: Vec<&'static str>) -> impl Strategy<Value = Rule> {
    let ops = proptest::sample::subsequence(vec!["write", "create", "delete", "rename"], 1..=4);
    (path(), ops, select(verdicts)).prop_map(|(path, ops, verdict)| Rule { path, ops, verdict })
}

/// A tree with some of the paths, some links, some disks.
fn tree() -> impl Strategy<Value = FakeFs> {
    (vec(path(), 1..12), vec((path(), path()), 0..3), vec(path(), 0..3)).prop_map(|(paths, links, mounts)| {
        let mut fs = FakeFs::new(&["/a/b/c", "/b/a", "/c"]);
        for (dev, point) in (2..).zip(mounts.iter().filter(|point| *point != "/")) {
            fs.mount(dev, point);
        }
        for path in paths {
            fs.add(&path);
        }
        for (above, target) in links {
            // A link that leads below itself would be followed for ever.
            if !target.contains("link") && above != "/" && fs.lookup(Path::new(&above), true).is_ok() {
                drop(fs.world.symlink(Path::new(&target), Path::new(&format!("{above}/link"))));
            }
        }
        fs
    })
}

#[derive(Clone, Debug)]
struct Written {
    critical: Vec<Rule>,
    scope: Vec<String>,
    rules: Vec<Rule>,
    outside: &'static str,
    report: bool,
}

fn written() -> impl Strategy<Value = Written> {
    let all = || Verdict::ALL.map(Verdict::name).to_vec();
    (
        vec(rule(vec!["hold", "deny", "kill"]), 0..4),
        vec(path(), 0..3),
        vec(rule(all()), 0..8),
        select(all()),
        any::<bool>(),
    )
        .prop_map(|(critical, scope, rules, outside, report)| Written {
            critical,
            scope,
            rules,
            outside,
            report,
        })
}

impl Written {
    /// As TOML; of the paths only those that exist.
    fn text(&self, fs: &FakeFs) -> String {
        let exists = |path: &str| fs.lookup(Path::new(path), true).is_ok();
        let rules = |header: &str, rules: &[Rule]| -> String {
            let rules = rules.iter().filter(|rule| exists(&rule.path));
            rules
                .map(|Rule { path, ops, verdict }| {
                    format!(
                        "[[{header}]]\npath = {path:?}\nops = {ops:?}\nverdict = {verdict:?}\nreason = 'r'\n"
                    )
                })
                .collect()
        };
        let scope: Vec<_> = self.scope.iter().filter(|path| exists(path)).collect();
        format!(
            "version = 1\n{}[profile.other]\n[profile.p]\nmode = {:?}\n[profile.p.files]\nscope = {scope:?}\n\
             outside = {{ delete = {:?}, write = {:?} }}\n{}",
            rules("critical", &self.critical),
            if self.report { "report" } else { "enforce" },
            self.outside,
            self.outside,
            rules("profile.p.files.rule", &self.rules),
        )
    }
}

fn net_entry() -> impl Strategy<Value = String> {
    let v4 =
        (select(vec!["10.0.0.0", "10.1.0.0", "10.1.2.3", "0.0.0.0"]), 0_u8..=32).prop_map(|(addr, bits)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            let addr = Ipv4Addr::from_bits(addr.parse::<Ipv4Addr>().unwrap().to_bits() & mask);
            if addr.is_unspecified() { "0.0.0.0/0".to_owned() } else { format!("{addr}/{bits}") }
        });
    let addrs = select(vec!["fd00::", "fd00:1::", "::1", "::ffff:10.1.0.0", "::fffe:0:0"]);
    let v6 = (addrs, 0_u8..=128).prop_map(|(addr, bits)| {
        let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
        let addr = Ipv6Addr::from_bits(addr.parse::<Ipv6Addr>().unwrap().to_bits() & mask);
        if bits == 128 && addr.is_unspecified() { "[::]/0".to_owned() } else { format!("[{addr}]/{bits}") }
    });
    let ports = prop_oneof![
        Just(String::new()),
        (1_u16..8).prop_map(|port| format!(":{port}")),
        (1_u16..8, 0_u16..8).prop_map(|(low, more)| format!(":{low}-{}", low + more)),
    ];
    (prop_oneof![3 => v4, 3 => v6, 1 => Just("localhost".to_owned())], ports)
        .prop_map(|(addr, ports)| format!("{addr}{ports}"))
        .prop_filter("the unspecified address", |text| !text.starts_with("[::ffff:0.0.0.0]/128"))
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
        "::ffff:10.1.2.3",
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is mounted somewhere else too: what could not be done to an object can't be done now.
    #[test]
    fn binds_make_nothing_milder(
        fs in tree(),
        written in written(),
        binds in vec((path(), path()), 1..4),
        requests in vec((path(), select(Op::FILE.to_vec())), 1..20),
    ) {
        let policy = policy(&written.text(&fs));
        let plain = built(&policy, &fs).unwrap();
        let mut bound = fs.clone();
        for (root, point) in binds {
            let Ok(root) = fs.lookup(Path::new(&root), true) else { continue };
            let above = Path::new(&point).parent().is_some_and(|above| fs.lookup(above, true).is_ok());
            if above && root.directory && fs.lookup(Path::new(&point), false).is_err() {
                drop(bound.world.mkdir(Path::new(&point)).and_then(|()| bound.world.bind(&root.path, Path::new(&point))));
            }
        }
        let Ok(again) = built(&policy, &bound) else { return Ok(()) };
        for (path, op) in requests {
            let (Ok(before), Ok(after)) = (fs.lookup(Path::new(&path), true), bound.lookup(Path::new(&path), true))
            else { continue };
            if before.key != after.key || policy.critical.iter().any(|rule| rule.ops.contains(&op)) {
                continue;
            }
            let who = (plain.index_of("p").unwrap(), NO_SESSION);
            let old = explain_path(&plain.view(), &fs, who, op, &before.path).unwrap();
            let new = explain_path(&again.view(), &bound, who, op, &after.path).unwrap();
            prop_assert!(
                Verdict::from_name(&new.policy) >= Verdict::from_name(&old.policy),
                "{} {}: {:?}, then {:?}\n{}", op.name(), path, old, new, written.text(&fs)
            );
        }
    }

    #[test]
    fn networks(
        entries in vec((net_entry(), 0..4), 0..10),
        connect in select(Verdict::ALL.map(Verdict::name).to_vec()),
        requests in vec((address(), 0_u16..20), 1..20),
    ) {
        let lists: String = (0..).zip(["allow", "report", "hold", "deny"]).map(|(at, list)| {
            let entries = entries.iter().filter(|(_, to)| *to == at);
            let lines: String = entries.map(|(entry, _)| format!("{entry:?},\n")).collect();
            format!("{list} = [\n{lines}]\n")
        }).collect();
        let text = format!("version = 1\n[profile.other]\n[profile.p.network]\nconnect = {connect:?}\n{lists}");
        let policy = policy(&text);
        let compiled = built(&policy, &FakeFs::new(&[])).unwrap();
        for (addr, port) in requests {
            let tables = explain_connect(&compiled.view(), compiled.index_of("p").unwrap(), addr, port).unwrap();
            let oracle = oracle::connect(&policy, "p", addr, port).unwrap();
            prop_assert_eq!(
                (tables.verdict.as_str(), tables.source.as_str(), tables.rule.map(|rule| rule.line)),
                (oracle.verdict.name(), oracle.source.name(), oracle.line), "{} {}\n{}", addr, port, text
            );
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

    #[test]
    fn no_panic_on_any_text(text in "[\\[\\]={}\"'.,#a-c/*:\n 0-9é-]{0,60}") {
        drop(load(vec![source(&text)]));
        let text = format!("version = 1\n[profile.p.network]\nallow = [{text:?}]\n[profile.p.files]\nscope = [{text:?}]");
        drop(load(vec![source(&text)]));
    }
}
