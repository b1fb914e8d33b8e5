//! Each part by itself.

mod network;
mod random;

use std::{collections::BTreeMap, path::Path};

use agent_guard_common::{Op, Verdict};

use super::*;
use crate::policy::{Source, build, case::KEY, explain_path, load, session::NO_SESSION, world::World};

fn policy_of(texts: &[&str]) -> Policy {
    let source = |(at, text): (usize, &&str)| Source { name: format!("{at}.toml"), text: (*text).to_owned() };
    load(texts.iter().enumerate().map(source).collect()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn session(profile: &str, binding: u32, cwd: &str) -> SessionPaths {
    SessionPaths {
        profile: profile.to_owned(),
        binding,
        cwd: cwd.into(),
        home: Some("/home/u".into()),
        tmp: "/tmp".into(),
    }
}

fn world(paths: &[&str]) -> World {
    let mut world = World::default();
    for path in paths {
        let mut above: Vec<_> = Path::new(path).ancestors().collect();
        above.reverse();
        above.into_iter().for_each(|path| drop(world.mkdir(path)));
    }
    world
}

fn rules_of<'a>(paths: &'a SessionPaths) -> Rules<'a> {
    Rules { profile: &paths.profile, binding: paths.binding, paths: Some(paths) }
}

/// What is wider in profile `q` than in profile `p`, which both are after the first line of a policy.
fn wider_in(world: &World, text: &str, outer: &str, inner: &str) -> Vec<String> {
    let mut policy = policy_of(&[&format!("version = 1\n{text}")]);
    policy.persist(&[]);
    let sessions = [session("p", 1, outer), session("q", 2, inner)];
    let compiled = build(&policy, world, &BTreeMap::new(), KEY, &sessions).unwrap();
    let [outer, inner] = &sessions;
    let found = narrower(&policy, &compiled, world, rules_of(outer), rules_of(inner));
    found.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn wider(text: &str) -> Vec<String> {
    wider_in(&world(&["/work/a/sub", "/srv", "/tmp", "/home/u"]), text, "/work/a", "/work/a")
}

/// The one thing that is found.
fn only(text: &str, parts: &[&str]) {
    let found = wider(text);
    assert!(found.len() == 1 && parts.iter().all(|part| found[0].contains(part)), "{parts:?} in {found:#?}");
}

#[test]
fn the_same_and_less() {
    assert!(wider("[profile.p]\n[profile.q]\n").is_empty());
    let full = "[profile.p]\nmode = \"report\"\n[profile.p.files]\nscope = [\"${cwd}\", \"/srv\"]\n\
                [profile.p.network]\nconnect = \"allow\"\n[profile.p.system]\nmount = \"hold\"\ncapabilities = [\"chown\"]\n";
    assert!(wider(&format!("{full}{}", full.replace("profile.p", "profile.q"))).is_empty());
    assert!(wider(&format!("{full}[profile.q]\n")).is_empty());
    let gone = wider(&full.replace("profile.p", "profile.q"));
    assert!(gone.len() == 1 && gone[0].contains("has no profile \"p\" any more"), "{gone:?}");
    assert!(wider(full).is_empty(), "a profile that is gone may do nothing");
}

#[test]
fn a_mode_that_only_reports() {
    let found = wider("[profile.p]\n[profile.q]\nmode = \"report\"\n");
    for part in [
        "write outside of the scope: profile \"q\" says report, profile \"p\" says deny",
        "mount: ",
        "capabilities",
    ] {
        assert!(found.iter().any(|found| found.contains(part)), "{part} in {found:#?}");
    }
    assert!(wider("[profile.p]\nmode = \"report\"\n[profile.q]\n").is_empty());
}

#[test]
fn the_system() {
    only(
        "[profile.p]\n[profile.q.system]\nmount = \"hold\"",
        &["0.toml:4:", "mount", "\"q\" says hold", "\"p\" says deny"],
    );
    only(
        "[profile.p.system]\ncapabilities = [\"kill\"]\n[profile.q.system]\ncapabilities = [\"kill\", \"chown\"]",
        &["chown"],
    );
    only("[profile.p]\n[profile.q.exec]\nanonymous = \"report\"", &["anonymous programs"]);
    assert!(wider("[profile.p.system]\nmount = \"hold\"\n[profile.q]").is_empty());
}

const HOLD: &str = "argv = [\"git\", \"push\", \"...\"]\nverdict = \"hold\"\n";

#[test]
fn commands() {
    let outer = format!("[profile.p]\n[[profile.p.exec.rule]]\n{HOLD}");
    only(&format!("{outer}[profile.q]\n"), &["0.toml:4:", "milder about some commands", "git push ..."]);
    for rules in [
        format!("[[profile.q.exec.rule]]\n{HOLD}"),
        "[[profile.q.exec.rule]]\nargv = [\"git\", \"...\"]\nverdict = \"deny\"\n".to_owned(),
        // Of several the strictest decides.
        format!(
            "[[profile.q.exec.rule]]\n{HOLD}[[profile.q.exec.rule]]\nargv = [\"git\", \"...\"]\nverdict = \"allow\"\n"
        ),
        "[[profile.q.exec.rule]]\nargv = [\"*\", \"p*\", \"...\"]\nverdict = \"kill\"\n".to_owned(),
    ] {
        assert_eq!(wider(&format!("{outer}[profile.q]\n{rules}")), Vec::<String>::new(), "{rules}");
    }
    for rules in [
        "argv = [\"git\", \"push\"]\nverdict = \"deny\"\n",
        "argv = [\"git\", \"push\", \"...\"]\nverdict = \"report\"\n",
    ] {
        only(&format!("{outer}[profile.q]\n[[profile.q.exec.rule]]\n{rules}"), &["git push"]);
    }
}

#[test]
fn connections() {
    let outer = "[profile.p.network]\nallow = [\"10.0.0.0/8:443\", \"localhost\"]\n";
    let found = |inner: &str| wider(&format!("{outer}[profile.q.network]\n{inner}\n"));
    assert!(found("allow = [\"10.1.0.0/16:443\", \"127.0.0.1:80\"]").is_empty());
    assert!(found("").is_empty());
    for (inner, part) in [
        ("connect = \"report\"", "`connect` of profile \"q\" says report"),
        ("allow = [\"10.0.0.0/8\"]", "10.0.0.0/8"),
        ("allow = [\"10.0.0.0/7:443\"]", "10.0.0.0/7:443"),
        ("allow = [\"10.0.0.0/8:442-443\"]", "10.0.0.0/8:442-443"),
        ("allow = [\"[fd00::]/8:443\"]", "fd00::"),
    ] {
        let found = found(inner);
        assert!(
            found.iter().any(|found| found.contains(part) && found.contains("connections")),
            "{inner}: {found:?}"
        );
    }
}

const RULE: &str = "ops = [\"delete\"]\nverdict = \"hold\"\n";

#[test]
fn rules_about_files() {
    let files = |inner: &str| {
        format!(
            "[profile.p.files]\nscope = [\"${{cwd}}\"]\n[[profile.p.files.rule]]\npath = \"${{cwd}}/.git\"\n{RULE}\
             [profile.q.files]\nscope = [\"${{cwd}}\"]\n{inner}"
        )
    };
    only(
        &files(""),
        &[
            "0.toml:5:8",
            "no rule that is as strict as",
            "hold delete ${cwd}/.git",
            "\"p\"",
            "at the same path: delete",
        ],
    );
    let with = |path: &str, verdict: &str| {
        files(&format!(
            "[[profile.q.files.rule]]\npath = \"{path}\"\nops = [\"delete\"]\nverdict = \"{verdict}\"\n"
        ))
    };
    for (path, verdict) in [("${cwd}/.git", "hold"), ("${cwd}/.git", "kill"), ("/work/a/.git", "deny")] {
        assert_eq!(wider(&with(path, verdict)), Vec::<String>::new(), "{path} {verdict}");
    }
    only(&with("${cwd}/.git", "report"), &["0.toml:5:8"]);
    // Another rule may decide where this one does.
    let found = wider(&files(&format!(
        "[[profile.q.files.rule]]\npath = \"${{cwd}}/.git\"\n{RULE}[[profile.q.files.rule]]\npath = \"${{cwd}}/.git/x\"\n\
         ops = [\"delete\"]\nverdict = \"allow\"\n"
    )));
    assert!(
        found.len() == 1 && found[0].contains("0.toml:15:8") && found[0].contains("might decide where"),
        "{found:?}"
    );
    assert!(wider(&files(&format!(
        "[[profile.q.files.rule]]\npath = \"${{cwd}}/.git\"\n{RULE}[[profile.q.files.rule]]\npath = \"**/x\"\n\
         ops = [\"delete\"]\nverdict = \"deny\"\n"
    ))).is_empty());
}

#[test]
fn scopes() {
    let text = |outer: &str, inner: &str| {
        format!("[profile.p.files]\nscope = [{outer}]\n[profile.q.files]\nscope = [{inner}]\n")
    };
    for (outer, inner) in [
        ("\"${cwd}\"", "\"${cwd}/sub\""),
        ("\"${cwd}\"", "\"/work/a/sub\", \"/work/a/new/*\""),
        ("\"/work\"", "\"${cwd}\", \"${cwd}/*\""),
        ("\"/work/*\"", "\"/work/*\", \"${cwd}\""),
        ("\"${tmp}/*\"", "\"${tmp}/*\", \"${tmp}/x\""),
        ("\"/\"", "\"/srv\""),
    ] {
        assert_eq!(wider(&text(outer, inner)), Vec::<String>::new(), "{outer} {inner}");
    }
    for (outer, inner) in [
        ("\"${cwd}/sub\"", "\"${cwd}\""),
        ("\"${cwd}\"", "\"/work\""),
        ("\"${tmp}/*\"", "\"${tmp}\""),
        ("\"/work/*/sub\"", "\"${cwd}\""),
        ("", "\"/srv\""),
    ] {
        only(
            &text(outer, inner),
            &["0.toml:5:10", "is in the scope of profile \"q\", and isn't in that of profile \"p\""],
        );
    }
}

#[test]
fn scopes_of_other_directories() {
    let text = "[profile.p.files]\nscope = [\"${cwd}\"]\n[profile.q.files]\nscope = [\"${cwd}\"]\n";
    let mut world = world(&["/work/a/sub", "/work/b", "/srv/prod", "/tmp", "/home/u"]);
    assert!(wider_in(&world, text, "/work/a", "/work/a/sub").is_empty());
    assert_eq!(wider_in(&world, text, "/work/a", "/work/b").len(), 1);
    assert_eq!(wider_in(&world, text, "/work/a/sub", "/work/a").len(), 1);
    // What is only reached over a mount point is nobody's scope.
    world.mkdir(Path::new("/work/a/mnt")).unwrap();
    world.bind(Path::new("/srv/prod"), Path::new("/work/a/mnt")).unwrap();
    assert_eq!(wider_in(&world, text, "/work/a", "/work/a/mnt").len(), 1);
    // A path that is written otherwise and leads to what the outer session may not change.
    let text = "[profile.p.files]\nscope = [\"/work\"]\n[profile.q.files]\nscope = [\"/work/link\"]\n";
    world.symlink(Path::new("/srv/prod"), Path::new("/work/link")).unwrap();
    assert_eq!(wider_in(&world, text, "/work/a", "/work/a").len(), 1);
}

/// What was mounted after the outer session began isn't in its scope, and would be in that of the inner one.
#[test]
fn what_is_mounted_in_between() {
    let text =
        "version = 1\n[profile.p.files]\nscope = [\"${cwd}\"]\n[profile.q.files]\nscope = [\"${cwd}\"]\n";
    let policy = policy_of(&[text]);
    let mut world = world(&["/work/a/mnt", "/tmp", "/home/u"]);
    let (outer, inner) = (session("p", 1, "/work/a"), session("q", 2, "/work/a"));
    let mut compiled = build(&policy, &world, &BTreeMap::new(), KEY, std::slice::from_ref(&outer)).unwrap();
    let mut before = compiled.clone();
    before.bind_session(&policy, &world, &inner).unwrap();
    assert_eq!(narrower(&policy, &before, &world, rules_of(&outer), rules_of(&inner)), Ok(()));
    world.mount(5, Path::new("/work/a/mnt")).unwrap();
    compiled.bind_session(&policy, &world, &inner).unwrap();
    let found = narrower(&policy, &compiled, &world, rules_of(&outer), rules_of(&inner)).unwrap_err();
    assert!(found[0].to_string().contains("what is mounted below it isn't in that"), "{found:?}");
}

/// Something is moved, and what is made in its place is something else: the inner session's rule is about both.
#[test]
fn rules_follow_what_was_moved() {
    let rule = "ops = [\"delete\"]\nverdict = \"deny\"\n";
    let text = format!(
        "version = 1\n[profile.p.files]\nscope = [\"${{cwd}}\"]\n[[profile.p.files.rule]]\npath = \"${{cwd}}/x\"\n{rule}\
         [profile.q.files]\nscope = [\"${{cwd}}\"]\n[[profile.q.files.rule]]\npath = \"${{cwd}}/x\"\n{rule}\
         [profile.q.network]\nconnect = \"deny\"\n"
    );
    let policy = policy_of(&[&text]);
    let mut world = world(&["/work/a/x", "/tmp", "/home/u"]);
    let (outer, inner) = (session("p", 1, "/work/a"), session("q", 2, "/work/a"));
    let mut compiled = build(&policy, &world, &BTreeMap::new(), KEY, std::slice::from_ref(&outer)).unwrap();
    world.rename(Path::new("/work/a/x"), Path::new("/work/a/y")).unwrap();
    world.mkdir(Path::new("/work/a/x")).unwrap();
    let mut changes = compiled.bind_session(&policy, &world, &inner).unwrap();
    let (outer, inner) = (rules_of(&outer), rules_of(&inner));
    assert!(narrower(&policy, &compiled, &world, outer, inner).is_err());
    let before = compiled.clone();
    compiled.follow(outer, inner, &mut changes);
    assert_eq!(narrower(&policy, &compiled, &world, outer, inner), Ok(()));
    let index = compiled.profile_index("q").unwrap();
    for path in ["/work/a/x/f", "/work/a/y/f"] {
        let answer = explain_path(&compiled.view(), &world, (index, 2), Op::DELETE, Path::new(path)).unwrap();
        assert_eq!((answer.verdict.as_str(), answer.rule.unwrap().line), ("deny", 11), "{path}");
    }
    // What has to be written is all that has changed.
    let changed = compiled.sides.iter().filter(|(key, side)| before.sides.get(key) != Some(side));
    assert!(
        changed.clone().count() > 0
            && changed.clone().all(|(key, side)| changes.sides.contains(&(*key, *side)))
    );
}
