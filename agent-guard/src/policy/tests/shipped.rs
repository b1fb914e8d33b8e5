//! The policies that are shipped, and the one in the documentation.

use super::*;
use crate::policy::explain::{Question, ask};

const SHIPPED: &str = include_str!("../../../../dist/policy.d/50-default.toml");

#[test]
fn says_what_it_says() {
    let fs = FakeFs::new(&["/etc/passwd", "/usr/bin", "/tmp/x", "/var/tmp", "/home/u/f"]);
    let policy = load(vec![Source { name: "50-default.toml".into(), text: SHIPPED.into() }]);
    let policy = policy.unwrap_or_else(|mistakes| panic!("{}", shown(&mistakes)));
    let compiled = built(&policy, &fs).unwrap();
    let explained = |op: &str, path: &str| {
        let op = agent_guard_common::Op::from_name(op).unwrap();
        let answer = explain_path(&compiled.view(), &fs, (0, NO_SESSION), op, Path::new(path)).unwrap();
        (answer.verdict, answer.source)
    };
    let is = |verdict: &str, source: &str| (verdict.to_owned(), source.to_owned());
    for op in ["write", "create", "delete", "rename", "metadata"] {
        assert_eq!(explained(op, "/etc/passwd"), is("deny", "critical"));
        assert_eq!(explained(op, "/usr/bin/new"), is("deny", "critical"));
        assert_eq!(explained(op, "/home/u/f"), is("deny", "outside"));
        assert_eq!(explained(op, "/tmp/x"), is("allow", "scope"));
        assert_eq!(explained(op, "/home/u/.ssh/authorized_keys"), is("deny", "critical"));
    }
    assert_eq!(explained("read", "/etc/passwd"), is("allow", "outside"));
    assert_eq!(explained("execute", "/usr/bin/true"), is("allow", "outside"));
    assert_eq!(explained("read", "/home/new/.ssh/id_ed25519"), is("deny", "critical"));
    assert_eq!(explained("read", "/root/.ssh"), is("deny", "critical"));
    let connect = |addr: &str| {
        explain_connect(&compiled.view(), 0, addr.parse().unwrap(), Service::tcp(443)).unwrap().verdict
    };
    assert_eq!((connect("127.0.0.1"), connect("::1")), ("allow".into(), "allow".into()));
    assert_eq!((connect("192.0.2.1"), connect("2001:db8::1")), ("deny".into(), "deny".into()));
    let listen = |addr: &str| {
        explain_listen(&compiled.view(), 0, addr.parse().unwrap(), Service::tcp(8080)).unwrap().verdict
    };
    assert_eq!((listen("127.0.0.1"), listen("::1")), ("allow".into(), "allow".into()));
    assert_eq!(
        (listen("0.0.0.0"), listen("::"), listen("10.0.0.1")),
        ("deny".into(), "deny".into(), "deny".into())
    );
    assert!(!compiled.hosts.name(0, "example.org").answer);
}

/// What is written there for whoever wants more is a policy, too.
#[test]
fn suggestions_are_true() {
    let mut lines = SHIPPED.lines().skip_while(|line| !line.starts_with("# allow = ["));
    let mut allow: String =
        lines.by_ref().take_while(|line| !line.contains(']')).map(|line| &line[2..]).collect();
    let last =
        SHIPPED.lines().find(|line| line.starts_with("# ") && line.contains("codeload.github.com")).unwrap();
    allow.push_str(&last[2..]);
    let compiled = compiled(&format!("version = 1\n[profile.p.network]\n{allow}\n"), &FakeFs::new(&[]));
    assert!(
        compiled.hosts.name(0, "static.crates.io").answer && !compiled.hosts.name(0, "example.org").answer
    );
}

#[test]
fn the_demonstration_has_a_policy() {
    let text = include_str!("../../../../dist/demo/policy.toml");
    compiled(text, &FakeFs::new(&["/srv/prod"]));
}

/// The first example below a heading of the documentation.
fn example(heading: &str) -> &'static str {
    let page = include_str!("../../../../docs/policy.md");
    let rest = page.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    rest.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap()
}

/// The example in the documentation says what is written below it.
#[test]
fn the_example_is_true() {
    let text = example("An example");
    let fs = FakeFs::new(&["/work/a/.git", "/srv/prod", "/home/u/.ssh", "/tmp", "/etc"]);
    let policy = policy(text);
    let (home, tmp) = (Some("/home/u".into()), "/tmp".into());
    let session =
        SessionPaths { profile: "coding-agent".into(), binding: 1, cwd: "/work/a".into(), home, tmp };
    let compiled = build(&policy, &fs, &BTreeMap::new(), KEY, &[session]).unwrap();
    for (op, path, expected) in [
        ("create", "/work/a/x", "allow scope"),
        ("write", "/tmp/x", "allow scope"),
        ("write", "/work/b/x", "deny outside"),
        ("delete", "/work/a/.git/HEAD", "hold rule"),
        ("rename", "/tmp/new/.git", "hold rule"),
        ("metadata", "/srv/prod/db", "hold critical"),
        ("write", "/work/a/terraform.tfstate", "deny rule"),
        ("read", "/home/new/.ssh/id", "deny critical"),
        ("read", "/etc/passwd", "allow outside"),
        ("execute", "/etc/x", "allow outside"),
        ("metadata", "/etc/passwd", "deny persistence"),
        ("metadata", "/etc/hosts", "deny outside"),
        ("create", "/work/a/.git/hooks/pre-commit", "deny persistence"),
        ("create", "/work/a/.git/hooks/pre-commit.sample", "allow scope"),
    ] {
        let op = agent_guard_common::Op::from_name(op).unwrap();
        let answer = explain_path(&compiled.view(), &fs, (0, 1), op, Path::new(path)).unwrap();
        assert_eq!(format!("{} {}", answer.verdict, answer.source), expected, "{} {path}", op.name());
    }
    let view = compiled.view();
    for (to, expected) in [
        ("localhost:80", "allow"),
        ("api.anthropic.com:443", "allow"),
        ("static.crates.io:443", "allow"),
        ("crates.io:443", "deny"),
        ("example.org:443", "deny"),
        ("10.20.1.1:5432", "allow"),
        ("[fd00::1]:443", "allow"),
        ("10.20.1.1:443", "deny"),
    ] {
        let question = Question::connect(to, None).unwrap();
        let answers = ask(&view, &fs, (0, 1), &question).unwrap();
        assert!(answers.iter().all(|(_, answer)| answer.verdict == expected), "{to}: {answers:?}");
    }
    for (at, expected) in [("127.0.0.1:9", "allow"), ("0.0.0.0:8050", "allow"), ("10.0.0.1:9", "deny")] {
        let question = Question::listen(at).unwrap();
        assert_eq!(ask(&view, &fs, (0, 1), &question).unwrap()[0].1.verdict, expected, "{at}");
    }
}

/// The table below the example about names.
#[test]
fn the_example_about_names_is_true() {
    let compiled = compiled(&format!("version = 1\n{}", example("Names")), &FakeFs::new(&[]));
    for (to, address, verdict, target) in [
        ("static.crates.io:443", None, "allow", "*.crates.io:443"),
        ("crates.io:443", None, "deny", ""),
        ("static.crates.io:22", None, "deny", ""),
        ("wiki.corp.example:443", None, "hold", "*.corp.example:443"),
        ("secrets.corp.example:443", None, "deny", "secrets.corp.example"),
        ("static.crates.io:443", Some("169.254.169.254"), "deny", "169.254.0.0/16"),
        ("10.20.0.1:5432", None, "allow", "10.20.0.0/16:5432"),
    ] {
        let question = Question::connect(to, address).unwrap();
        let (_, answer) =
            ask(&compiled.view(), &FakeFs::new(&[]), (0, NO_SESSION), &question).unwrap().remove(0);
        let found = answer.rule.map_or_else(String::new, |rule| rule.target);
        assert_eq!((answer.verdict.as_str(), found.as_str()), (verdict, target), "{to} {address:?}");
    }
}
