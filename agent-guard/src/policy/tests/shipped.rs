//! The policies that are shipped, and the one in the documentation.

use super::*;

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
    let connect =
        |addr: &str| explain_connect(&compiled.view(), 0, addr.parse().unwrap(), 443).unwrap().verdict;
    assert_eq!((connect("127.0.0.1"), connect("::1")), ("allow".into(), "allow".into()));
    assert_eq!((connect("192.0.2.1"), connect("2001:db8::1")), ("deny".into(), "deny".into()));
}

#[test]
fn the_demonstration_has_a_policy() {
    let text = include_str!("../../../../dist/demo/policy.toml");
    compiled(text, &FakeFs::new(&["/srv/prod"]));
}

/// The example in the documentation says what is written below it.
#[test]
fn the_example_is_true() {
    let page = include_str!("../../../../docs/policy.md");
    let text =
        page.split("## An example\n\n```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
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
}
