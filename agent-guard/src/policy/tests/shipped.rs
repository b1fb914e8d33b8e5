//! The policy that is shipped.

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
    for op in ["write", "create", "delete", "rename"] {
        assert_eq!(explained(op, "/etc/passwd"), is("deny", "critical"));
        assert_eq!(explained(op, "/usr/bin/new"), is("deny", "critical"));
        assert_eq!(explained(op, "/home/u/f"), is("deny", "outside"));
        assert_eq!(explained(op, "/tmp/x"), is("allow", "scope"));
    }
    assert_eq!(explained("read", "/etc/passwd"), is("allow", "outside"));
    let connect =
        |addr: &str| explain_connect(&compiled.view(), 0, addr.parse().unwrap(), 443).unwrap().verdict;
    assert_eq!((connect("127.0.0.1"), connect("::1")), ("allow".into(), "allow".into()));
    assert_eq!((connect("192.0.2.1"), connect("2001:db8::1")), ("deny".into(), "deny".into()));
}
