//! The paths of single sessions.

use agent_guard_common::{Op, object::SideKey, rules::Place};

use super::*;
use crate::policy::session::{SUPPOSED_SESSION, needs_session_paths};

const TEXT: &str = r#"version = 1
[profile.p.files]
scope = ["${cwd}", "${tmp}/*", "/shared"]
[[profile.p.files.rule]]
path = "${cwd}/.git"
ops = ["delete"]
verdict = "hold"
[[profile.p.files.rule]]
path = "${home}/*/keys"
ops = ["read"]
verdict = "kill"
[[profile.p.files.rule]]
path = "/work/a"
ops = ["delete"]
verdict = "report"
[profile.q]
"#;

fn tree() -> FakeFs {
    FakeFs::new(&["/work/a", "/work/b", "/home/u/x", "/tmp", "/shared"])
}

fn session(binding: u32, cwd: &str) -> SessionPaths {
    SessionPaths {
        profile: "p".into(),
        binding,
        cwd: cwd.into(),
        home: Some("/home/u".into()),
        tmp: "/tmp".into(),
    }
}

fn asked(compiled: &Compiled, fs: &FakeFs, binding: u32, op: &str, path: &str) -> String {
    let answer = explanation(compiled, fs, binding, op, path);
    format!("{} {}", answer.verdict, answer.source)
}

#[test]
fn each_has_its_own() {
    let mut fs = tree();
    let policy = policy(TEXT);
    let mut compiled = built(&policy, &fs).unwrap();
    compiled.bind_session(&policy, &fs, &session(1, "/work/a")).unwrap();
    compiled.bind_session(&policy, &fs, &session(2, "/work/b")).unwrap();
    let homeless = SessionPaths { home: None, ..session(3, "/work/new") };
    compiled.bind_session(&policy, &fs, &homeless).unwrap();
    compiled.bind_session(&policy, &fs, &session(SUPPOSED_SESSION, "/work/b")).unwrap();
    for (binding, op, path, expected) in [
        (NO_SESSION, "write", "/work/a/x", "deny outside"),
        (1, "write", "/work/a/x", "allow scope"),
        (1, "write", "/work/b/x", "deny outside"),
        (2, "write", "/work/a/x", "deny outside"),
        (2, "write", "/work/b/x", "allow scope"),
        (SUPPOSED_SESSION, "write", "/work/b/x", "allow scope"),
        (3, "write", "/work/new/x", "allow scope"),
        (3, "write", "/work/a", "deny outside"),
        // The profile's rule for the same object counts for all.
        (1, "delete", "/work/a/x", "report rule"),
        (2, "delete", "/work/a/x", "report rule"),
        (1, "delete", "/work/a/.git", "hold rule"),
        (2, "delete", "/work/a/.git", "report rule"),
        (2, "delete", "/work/b/.git/hooks", "hold rule"),
        (1, "read", "/home/u/x/keys/id", "kill rule"),
        (1, "read", "/home/u/y/keys", "kill rule"),
        (3, "read", "/home/u/x/keys", "allow outside"),
        (1, "write", "/tmp/x", "allow scope"),
        (1, "delete", "/tmp", "deny outside"),
        (NO_SESSION, "write", "/shared/x", "allow scope"),
        (9, "write", "/shared/x", "allow scope"),
    ] {
        assert_eq!(asked(&compiled, &fs, binding, op, path), expected, "{binding} {op} {path}");
    }
    // A directory that is made anew, and one that moves.
    fs.world.rename(Path::new("/work/b"), Path::new("/work/c")).unwrap();
    assert_eq!(asked(&compiled, &fs, 2, "write", "/work/c/x"), "allow scope");
    fs.add("/work/b");
    assert_eq!(asked(&compiled, &fs, 2, "write", "/work/b/x"), "allow scope");
}

#[test]
fn at_once_or_one_by_one() {
    let fs = tree();
    let policy = policy(TEXT);
    let sessions = [
        session(1, "/work/a"),
        session(2, "/work/b"),
        SessionPaths { profile: "gone".into(), ..session(3, "/") },
    ];
    let at_once = build(&policy, &fs, &BTreeMap::new(), KEY, &sessions).unwrap();
    let mut one_by_one = built(&policy, &fs).unwrap();
    for session in &sessions {
        one_by_one.bind_session(&policy, &fs, session).unwrap();
    }
    assert_eq!(at_once, one_by_one);
}

/// Whoever writes what `bind_session` says has the same tables, and nobody sees anything milder on the way.
#[test]
fn changes_are_all_there_is() {
    let fs = tree();
    let policy = policy(TEXT);
    let mut compiled = build(&policy, &fs, &BTreeMap::new(), KEY, &[session(1, "/work/a")]).unwrap();
    for (binding, cwd) in [(2, "/work/b"), (3, "/work/a"), (4, "/work"), (5, "/home/u")] {
        let before = compiled.clone();
        let changes = compiled.bind_session(&policy, &fs, &session(binding, cwd)).unwrap();
        let mut after = before.clone();
        for step in 0..6 {
            match step {
                0 => after.sides.extend(changes.sides.iter().copied()),
                1 => after.places.extend(changes.places.iter().copied()),
                2 => after.filter.extend(changes.filter.iter().copied()),
                3 => after.shapes.extend(changes.shapes.iter().copied()),
                4 => after.objects.extend(changes.objects.iter().copied()),
                _ => after.names.extend(changes.names.iter().copied()),
            }
            for other in [NO_SESSION, 1] {
                for path in [
                    "/work/a/.git",
                    "/work/a",
                    "/work/b",
                    "/work",
                    "/home/u/x/keys",
                    "/tmp/x",
                    "/tmp",
                    "/shared",
                ] {
                    for op in Op::FILE {
                        let ask = |tables: &Compiled| asked(tables, &fs, other, op.name(), path);
                        assert_eq!(
                            ask(&after),
                            ask(&before),
                            "{step} {binding} {other} {} {path}",
                            op.name()
                        );
                    }
                }
            }
        }
        after.own.clone_from(&compiled.own);
        assert_eq!(after, compiled);
        // Bits and shapes are only added, places only get a place below.
        for (word, bits) in &before.filter {
            assert_eq!(compiled.filter[word] & bits, *bits);
        }
        for (number, place) in &before.places {
            let now = Place { below: place.below, ..compiled.places[number] };
            assert_eq!(now, *place);
        }
    }
    // A second session in the same places needs no new ones.
    let places = compiled.places.len();
    let changes = compiled.bind_session(&policy, &fs, &session(6, "/work/a")).unwrap();
    assert_eq!((compiled.places.len(), changes.objects.len(), changes.names.len()), (places, 0, 0));
    let gone = compiled.release_session(6);
    assert_eq!(gone.len(), changes.sides.len());
    assert!(gone.iter().all(|key| key.side == SideKey::session(6) && !compiled.sides.contains_key(key)));
}

#[test]
fn what_a_session_cannot_have() {
    let fs = tree();
    let policy = policy(TEXT);
    let mut compiled = built(&policy, &fs).unwrap();
    let before = compiled.clone();
    let found = compiled.bind_session(&policy, &fs, &session(1, "/")).unwrap_err();
    assert_eq!((found.len(), found[0].line, found[0].column), (1, 3, 10));
    assert!(found[0].to_string().contains("help: start the session in the directory"), "{}", found[0]);
    let found = compiled.bind_session(&policy, &fs, &session(1, "work")).unwrap_err();
    assert_eq!(found.len(), 2);
    assert!(found[0].message.contains("not an absolute path"), "{}", found[0]);
    assert_eq!(compiled, before);
}

/// Who has been there before can't have chosen what is in the scope now.
#[test]
fn links_are_not_followed() {
    let mut fs = tree();
    fs.add("/etc");
    fs.link("/work/a/build", "/etc");
    fs.link("/link", "/work/b");
    let text = "version = 1\n[profile.p.files]\nscope = [\"${cwd}/build\", \"${home}\"]\n";
    let policy = policy(text);
    let mut compiled = built(&policy, &fs).unwrap();
    let session = SessionPaths { home: Some("/link".into()), ..session(1, "/work/a") };
    compiled.bind_session(&policy, &fs, &session).unwrap();
    assert_eq!(asked(&compiled, &fs, 1, "write", "/etc/x"), "deny outside");
    assert_eq!(asked(&compiled, &fs, 1, "delete", "/work/a/build"), "allow scope");
    // The variable itself is: a home directory may be elsewhere.
    assert_eq!(asked(&compiled, &fs, 1, "write", "/work/b/x"), "allow scope");
}

#[test]
fn file_systems_in_a_session() {
    let mut fs = tree();
    fs.mount(2, "/work/a/disk");
    fs.mount(3, "/data");
    fs.add("/data/x");
    fs.bind("/data/x", "/work/a/data");
    let text = format!(
        "{TEXT}[[profile.p.files.rule]]\npath = \"${{cwd}}/data\"\nops = [\"write\"]\nverdict = \"kill\"\n"
    );
    let text = text.replace("[profile.q]\n", "");
    let policy = policy(&text);
    let mut compiled = built(&policy, &fs).unwrap();
    compiled.bind_session(&policy, &fs, &session(1, "/work/a")).unwrap();
    assert_eq!(asked(&compiled, &fs, 1, "write", "/work/a/disk/x"), "allow scope");
    assert_eq!(asked(&compiled, &fs, 1, "write", "/data/x/y"), "kill rule");
    assert_eq!(asked(&compiled, &fs, NO_SESSION, "write", "/data/x/y"), "deny outside");
    // Bound into the scope: not opened by that.
    assert_eq!(asked(&compiled, &fs, 1, "create", "/work/a/data/y"), "deny outside");
}

#[test]
fn who_needs_them() {
    let policy = policy(TEXT);
    assert!(needs_session_paths(policy.profile("p").unwrap()));
    assert!(!needs_session_paths(policy.profile("q").unwrap()));
}

#[test]
fn what_is_judged() {
    let text = "version = 1\n[profile.p.files]\noutside = { write = \"allow\", create = \"allow\", delete = \"allow\", \
                rename = \"report\", metadata = \"allow\" }\npersistence = \"allow\"\n\
                [[profile.p.files.rule]]\npath = \"${cwd}\"\nops = [\"read\"]\nverdict = \"deny\"\n\
                [[profile.p.files.rule]]\npath = \"/x\"\nops = [\"write\"]\nverdict = \"allow\"\n[profile.q]\n";
    let critical = "[[critical]]\npath = \"**/x\"\nops = [\"execute\"]\nverdict = \"deny\"\nreason = \"x\"\n";
    let judged = |text: &str, profile: &str| {
        let compiled = compiled(text, &tree());
        let (.., entry) = compiled.profiles.iter().find(|(name, ..)| name == profile).unwrap();
        Op::FILE.into_iter().filter(|&op| entry.judges(op)).map(Op::name).collect::<Vec<_>>()
    };
    assert_eq!(judged(text, "p"), ["read", "rename"]);
    assert_eq!(judged(text, "q"), ["write", "create", "delete", "rename", "metadata"]);
    let text = format!("{text}{critical}");
    assert_eq!(judged(&text, "p"), ["read", "execute", "rename"]);
    assert_eq!(judged(&text, "q").len(), 6);
}

/// Sockets in a session's own directories, too.
#[test]
fn unix_sockets() {
    let text =
        "version = 1\n[profile.p.network]\nallow = [\"unix:${home}/s/**\"]\ndeny = [\"unix:${home}/s/x\"]\n";
    let (fs, policy) = (tree(), policy(text));
    assert!(needs_session_paths(policy.profile("p").unwrap()));
    let mut compiled = built(&policy, &fs).unwrap();
    compiled.bind_session(&policy, &fs, &session(1, "/work/a")).unwrap();
    for (binding, path, expected) in [
        (1, "/home/u/s/a", "allow rule"),
        (1, "/home/u/s/x", "deny rule"),
        (1, "/home/u/x", "deny network"),
        (2, "/home/u/s/a", "deny network"),
    ] {
        let answer = explain_socket(&compiled.view(), &fs, (0, binding), Path::new(path)).unwrap();
        assert_eq!(format!("{} {}", answer.verdict, answer.source), expected, "{binding} {path}");
    }
}
