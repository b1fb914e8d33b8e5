//! Explanations and the summary.

use agent_guard_common::Op;

use super::*;
use crate::policy::{
    Device,
    explain::{Question, ask},
};

const TEXT: &str = r#"version = 1
[[critical]]
path = "/srv"
ops = ["write", "delete"]
verdict = "hold"
reason = "production"
[profile.p]
mode = "report"
[profile.p.files]
scope = ["/tmp"]
outside = { create = "kill" }
[[profile.p.files.rule]]
path = "/tmp/keep"
ops = ["delete"]
verdict = "deny"
[profile.p.network]
connect = "hold"
allow = ["localhost:80", "unix:/run/db/**", "unix:@bus*"]
deny = ["unix:/run/db/admin", "unix:@bus-admin"]
"#;

const NAMES: &str = r#"version = 1
[resolver]
upstream = ["10.0.0.53"]
[[resolver.zone]]
name = "corp.example"
upstream = ["10.1.0.53:5353"]
[profile.p]
[profile.p.network]
allow = ["*.example.org:443", "10.0.0.53:53/udp", "10.0.0.0/8:443", "0.0.0.0/0/icmp"]
deny = ["x.example.org", "10.1.0.0/16"]
listen = ["localhost", "0.0.0.0/0:8000-8100/tcp", "[::]/0:9/udp"]
denied = "ECONNREFUSED"
names = { labels = 3, rate = "10/1h" }
"#;

fn tree() -> FakeFs {
    FakeFs::new(&["/srv/a", "/tmp/keep/x", "/etc", "/run/db/s"])
}

#[test]
fn order_of_decision() {
    let (fs, compiled) = (tree(), compiled(TEXT, &tree()));
    assert_eq!(explained(&compiled, &fs, "write", "/srv/a"), is("hold", "critical", 3));
    assert_eq!(explained(&compiled, &fs, "create", "/srv/a/new/er"), is("report", "outside", 0));
    assert_eq!(explained(&compiled, &fs, "delete", "/srv/a/new"), is("hold", "critical", 3));
    assert_eq!(explained(&compiled, &fs, "delete", "/tmp/keep/x"), is("report", "rule", 13));
    assert_eq!(explained(&compiled, &fs, "write", "/tmp/keep/x"), is("allow", "scope", 0));
    assert_eq!(explained(&compiled, &fs, "read", "/etc"), is("allow", "outside", 0));
    let answer = explanation(&compiled, &fs, NO_SESSION, "create", "/etc/new");
    assert_eq!((answer.verdict.as_str(), answer.policy.as_str()), ("report", "kill"));
    let answer =
        explain_connect(&compiled.view(), 0, "127.0.0.1".parse().unwrap(), Service::tcp(81)).unwrap();
    assert_eq!((answer.policy.as_str(), answer.source.as_str()), ("hold", "network"));
}

/// Of sockets as of files, but for the scope; and by the longest of abstract names.
#[test]
fn unix_sockets() {
    let (fs, compiled) = (tree(), compiled(TEXT, &tree()));
    let ask = |to: &str| {
        let question = Question::connect(to, None).unwrap();
        let mut answers = ask(&compiled.view(), &fs, (0, NO_SESSION), &question).unwrap();
        let (object, answer) = answers.remove(0);
        assert_eq!(object, to);
        (answer.policy, answer.source, answer.rule.map_or(0, |rule| rule.line))
    };
    assert_eq!(ask("unix:/run/db/s"), is("allow", "rule", 18));
    assert_eq!(ask("unix:/run/db/new"), is("allow", "rule", 18));
    assert_eq!(ask("unix:/run/db/admin"), is("deny", "rule", 19));
    assert_eq!(ask("unix:/run/db2"), is("hold", "network", 0));
    assert_eq!(ask("unix:/tmp/x"), is("hold", "network", 0));
    assert_eq!(ask("unix:@bus"), is("allow", "rule", 18));
    assert_eq!(ask("unix:@bus-admin"), is("deny", "rule", 19));
    assert_eq!(ask("unix:@bus-admin2"), is("allow", "rule", 18));
    assert_eq!(ask("unix:@bu"), is("hold", "network", 0));
    let bad = |to: &str| Question::connect(to, None).unwrap_err().to_string();
    assert!(bad("name").contains("unix:PATH"));
    assert!(bad(&format!("unix:@{}", "x".repeat(108))).contains("no name is that long"));
    assert!(explained(&compiled, &fs, "write", "/run/db/s") == is("report", "outside", 0));
}

/// A question about a connection: each object with verdict and line, and the notes.
fn asked(question: &Question) -> (Vec<(String, String, u32)>, Vec<String>) {
    let compiled = compiled(NAMES, &tree());
    let answers = ask(&compiled.view(), &tree(), (0, NO_SESSION), question).unwrap();
    let answers = answers.into_iter();
    let answers =
        answers.map(|(object, answer)| (object, answer.verdict, answer.rule.map_or(0, |rule| rule.line)));
    (answers.collect(), question.notes(|name| compiled.hosts.name(0, name)))
}

#[test]
fn names_and_protocols() {
    let connect = |to: &str, address: Option<&str>| asked(&Question::connect(to, address).unwrap());
    let one = |object: &str, verdict: &str, line| vec![(object.to_owned(), verdict.to_owned(), line)];
    let (answers, notes) = connect("a.example.org:443", None);
    assert_eq!(answers, one("a.example.org port 443/tcp", "allow", 9));
    assert!(notes[0].contains("--address") && notes[1].contains("10/1h"), "{notes:?}");
    assert_eq!(connect("a.example.org:80", None).0, one("a.example.org port 80/tcp", "deny", 0));
    let (answers, notes) = connect("x.example.org:443", None);
    assert_eq!(answers, one("x.example.org port 443/tcp", "deny", 10));
    assert!(notes[0].contains("isn't looked up"), "{notes:?}");
    for (address, verdict, line) in
        [("192.0.2.1", "allow", 9), ("10.2.0.1", "allow", 9), ("10.1.0.1", "deny", 10)]
    {
        let (answers, notes) = connect("a.example.org:443", Some(address));
        assert_eq!(answers, one(&format!("a.example.org at {address} port 443/tcp"), verdict, line));
        assert!(!notes.iter().any(|note| note.contains("--address")));
    }
    assert_eq!(connect("10.0.0.53:53/udp", None), (one("10.0.0.53 port 53/udp", "allow", 9), vec![]));
    assert_eq!(connect("10.0.0.53:53", None).0, one("10.0.0.53 port 53/tcp", "deny", 0));
    assert_eq!(connect("192.0.2.1/icmp", None).0, one("192.0.2.1 icmp", "allow", 9));
    assert_eq!(connect("[64:ff9b::10.0.0.1]:443", None).0, one("64:ff9b::a00:1 port 443/tcp", "allow", 9));
}

#[test]
fn listening() {
    let listen = |at: &str| {
        let (answers, _) = asked(&Question::listen(at).unwrap());
        let answers = answers.iter().map(|(_, verdict, line)| format!("{verdict} {line}"));
        answers.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(listen("localhost:5"), "allow 11, allow 11");
    assert_eq!(listen("0.0.0.0:8000"), "allow 11");
    assert_eq!(listen("192.0.2.1:8100"), "allow 11");
    assert_eq!(listen("0.0.0.0:8000/udp"), "deny 0");
    assert_eq!(listen("[fd00::2]:9/udp"), "allow 11");
    // That listens at IPv4, too.
    assert_eq!(listen("[::]:9/udp"), "deny 0");
    assert_eq!(listen("[::]:8000"), "deny 0");
}

#[test]
fn flags() {
    use agent_guard_common::rules::Profile;
    let flags = |network: &str| {
        let text = format!("version = 1\n[profile.p.network]\n{network}\n");
        compiled(&text, &tree()).profiles[0].2.flags & (Profile::NAMES | Profile::REFUSED)
    };
    assert_eq!(flags(""), Profile::NAMES);
    assert_eq!(flags("connect = \"report\""), Profile::NAMES);
    assert_eq!(flags("connect = \"allow\""), 0);
    assert_eq!(flags("connect = \"allow\"\nallow = [\"10.0.0.1\", \"unix:@a\"]"), 0);
    assert_eq!(flags("connect = \"allow\"\nallow = [\"example.org\"]"), Profile::NAMES);
    assert_eq!(flags("connect = \"allow\"\ndenied = \"ECONNREFUSED\""), Profile::REFUSED);
}

#[test]
fn the_summary_names_networks() {
    let policy = policy(NAMES);
    let summary = PolicySummary::new(&policy);
    let profile = &summary.profiles[0];
    let texts = |rules: &[RuleInfo]| rules.iter().map(|rule| (rule.number, rule.text())).collect::<Vec<_>>();
    assert_eq!(texts(&profile.network)[0], (1, "allow connect 10.0.0.53:53/udp".to_owned()));
    assert_eq!(
        texts(&profile.names),
        [(5, "allow connect *.example.org:443".to_owned()), (6, "deny connect x.example.org".to_owned())]
    );
    assert_eq!(texts(&profile.listen)[1], (8, "allow listen 0.0.0.0/0:8000-8100/tcp".to_owned()));
    assert_eq!(profile.denied.as_str(), "ECONNREFUSED");
    assert_eq!((profile.limits.labels, profile.limits.rate.as_str()), (3, "10/1h"));
    assert_eq!(summary.resolver.upstream, ["10.0.0.53:53"]);
    assert_eq!(
        (summary.resolver.zones[0].name.as_str(), summary.resolver.timeout_ms),
        ("corp.example", 5000)
    );
    let rules = compiled(NAMES, &tree()).rules;
    assert!(rules.iter().zip(1..).all(|(rule, number)| rule.number == number));
    assert_eq!((rules[4].kind, rules[6].kind), (RuleKind::Name, RuleKind::Listen));
    assert_eq!(rules[6].operations(), [Op::LISTEN]);
}

#[test]
fn what_cannot_be_explained() {
    let (fs, compiled) = (tree(), compiled(TEXT, &tree()));
    let explain = |op, path| {
        explain_path(&compiled.view(), &fs, (0, NO_SESSION), op, Path::new(path)).unwrap_err().to_string()
    };
    assert!(compiled.index_of("q").unwrap_err().to_string().contains("no profile \"q\""));
    assert!(explain(Op::CONNECT, "/").contains("no operation on files"));
    assert!(explain(Op::WRITE, "a").contains("not an absolute path"));
    assert!(explain(Op::WRITE, "/a/../b").contains("not an absolute path"));
    let loopback = "::1".parse().unwrap();
    assert!(explain_connect(&compiled.view(), 9, loopback, Service::tcp(1)).is_err());
    assert!(explain_listen(&compiled.view(), 9, loopback, Service::tcp(1)).is_err());
    assert!(explain_names(&compiled.view(), 9, &["example.org"], None, Service::tcp(1)).is_err());
}

#[test]
fn devices_that_need_no_rule() {
    let mut fs = FakeFs::new(&["/dev/null", "/dev/sda", "/tmp/sda"]);
    fs.devices.insert("/dev/null".into(), Device::Character(agent_guard_common::ObjectKey::dev(1, 3)));
    fs.devices.insert("/dev/sda".into(), Device::Block);
    fs.devices.insert("/tmp/sda".into(), Device::Block);
    let text = "version = 1\n[profile.p]\nfiles.scope = [\"/tmp\"]\n";
    let compiled = compiled(text, &fs);
    assert_eq!(explained(&compiled, &fs, "delete", "/tmp/sda"), is("allow", "scope", 0));
    assert_eq!(explained(&compiled, &fs, "write", "/tmp/sda"), is("deny", "outside", 0));
    assert_eq!(explained(&compiled, &fs, "write", "/dev/null"), is("allow", "builtin", 0));
    assert_eq!(explained(&compiled, &fs, "read", "/dev/null"), is("allow", "builtin", 0));
    assert_eq!(explained(&compiled, &fs, "metadata", "/dev/null"), is("deny", "outside", 0));
    assert_eq!(explained(&compiled, &fs, "delete", "/dev/null"), is("deny", "outside", 0));
    assert_eq!(explained(&compiled, &fs, "write", "/dev/sda"), is("deny", "outside", 0));
}

/// A file system that was mounted after the policy was loaded is seen through its mount point.
#[test]
fn mounted_later() {
    let compiled = compiled(TEXT, &tree());
    let mut fs = tree();
    fs.mount(2, "/srv/new");
    fs.mount(3, "/tmp/new");
    fs.add("/srv/new/x");
    fs.add("/tmp/new/x");
    assert_eq!(explained(&compiled, &fs, "delete", "/srv/new/x"), is("hold", "critical", 3));
    assert_eq!(explained(&compiled, &fs, "delete", "/tmp/new/x"), is("report", "outside", 0));
}

#[test]
fn the_summary_names_everything() {
    let policy = policy(TEXT);
    let summary = PolicySummary::new(&policy);
    assert_eq!(summary.critical[0].number, 1);
    let profile = &summary.profiles[0];
    assert_eq!((profile.rules[0].number, profile.rules[0].line, profile.network[0].number), (2, 13, 3));
    assert_eq!((profile.scope[0].path.as_str(), profile.scope[0].origin.line), ("/tmp", 10));
    assert_eq!(profile.outside[3], summary::OutsideSummary { op: "create".into(), verdict: "kill".into() });
    let targets: Vec<_> = profile.network.iter().map(|rule| (rule.number, rule.text())).collect();
    let said = [
        "allow connect localhost:80",
        "allow connect unix:/run/db",
        "deny connect unix:/run/db/admin",
        "allow connect unix:@bus*",
        "deny connect unix:@bus-admin",
    ];
    assert_eq!(targets, (3..).zip(said.map(str::to_owned)).collect::<Vec<_>>());
    let json = serde_json::to_string(&summary).unwrap();
    assert_eq!(serde_json::from_str::<PolicySummary>(&json).unwrap(), summary);
    assert_eq!(summary.profiles[0].rules, compiled(TEXT, &tree()).rules[1..2]);
}
