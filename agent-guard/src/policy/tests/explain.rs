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
    let answer = explain_connect(&compiled.view(), 0, "127.0.0.1".parse().unwrap(), 81).unwrap();
    assert_eq!((answer.policy.as_str(), answer.source.as_str()), ("hold", "network"));
}

/// Of sockets as of files, but for the scope; and by the longest of abstract names.
#[test]
fn unix_sockets() {
    let (fs, compiled) = (tree(), compiled(TEXT, &tree()));
    let ask = |to: &str| {
        let question = Question::connect(to).unwrap();
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
    let bad = |to: &str| Question::connect(to).unwrap_err().to_string();
    assert!(bad("name").contains("unix:PATH"));
    assert!(bad(&format!("unix:@{}", "x".repeat(108))).contains("no name is that long"));
    assert!(explained(&compiled, &fs, "write", "/run/db/s") == is("report", "outside", 0));
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
    assert!(explain_connect(&compiled.view(), 9, "::1".parse().unwrap(), 1).is_err());
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
