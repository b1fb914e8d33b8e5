use std::collections::BTreeMap;

use agent_guard_common::{
    Verdict,
    decide::{self, Command},
};
use proptest::prelude::*;

use super::*;
use crate::policy::{self, Compiled, Source, explain, world::World};

/// A host with some programs: `git` is one of its own, `vi` another name of `vim`, `sh` and `ls` are built into busybox.
fn host() -> World {
    let mut world = World::default();
    for directory in ["/usr", "/usr/bin", "/lib64", "/tmp"] {
        world.mkdir(Path::new(directory)).unwrap();
    }
    for file in ["/usr/bin/git", "/usr/bin/vim", "/usr/bin/busybox", "/usr/bin/kubectl-1.29"] {
        world.file(Path::new(file)).unwrap();
    }
    world.file(Path::new("/lib64/ld-linux-x86-64.so.2")).unwrap();
    for (path, target) in [
        ("/usr/bin/vi", "/usr/bin/vim"),
        ("/usr/bin/ls", "/usr/bin/busybox"),
        ("/usr/bin/kubectl", "/usr/bin/kubectl-1.29"),
    ] {
        world.symlink(Path::new(target), Path::new(path)).unwrap();
    }
    world
}

fn built(rules: &[(&str, &str)]) -> Result<Compiled, String> {
    let rules = rules
        .iter()
        .map(|(argv, verdict)| format!("[[profile.p.exec.rule]]\nargv = {argv}\nverdict = \"{verdict}\"\n"));
    let text = format!("version = 1\n[profile.q]\n[profile.p]\n{}", rules.collect::<String>());
    let shown = |mistakes: Vec<Diagnostic>| mistakes.iter().map(ToString::to_string).collect::<String>();
    let policy = policy::load(vec![Source { name: "a.toml".to_owned(), text }]).map_err(shown)?;
    policy::build(&policy, &host(), &BTreeMap::new(), [1, 2], &[]).map_err(shown)
}

/// What happens to a file that is executed with arguments.
fn judged(compiled: &Compiled, file: &str, arguments: &[&str]) -> Verdict {
    use agent_guard_common::rules::Tables as _;
    let index = compiled.profile_index("p").unwrap();
    let key = host().lookup(Path::new(file), true).map(|object| object.key);
    let program = key.map_or(0, |key| compiled.program(&key));
    let mut command = Command::begin(compiled, index, program).unwrap();
    for byte in arguments.iter().flat_map(|argument| argument.bytes().chain([0])) {
        if command.goes_on() {
            command.read(compiled, byte).unwrap();
        }
    }
    decide::command(compiled, index, command, false).unwrap().verdict
}

const FORCE: &str = r#"["git", "push", "...", "--force", "..."]"#;

#[test]
fn arguments_count() {
    let compiled = built(&[
        (FORCE, "deny"),
        (r#"["git", "push", "..."]"#, "report"),
        (r#"["aws", "*", "delete-*", "..."]"#, "hold"),
        (r#"["git", "*", "--version"]"#, "kill"),
    ])
    .unwrap();
    let is = |arguments: &[&str]| judged(&compiled, "/usr/bin/git", arguments);
    assert_eq!(is(&["git", "push"]), Verdict::REPORT);
    assert_eq!(is(&["git", "push", "--force"]), Verdict::DENY);
    assert_eq!(is(&["git", "push", "origin", "main", "--force", "-v"]), Verdict::DENY);
    assert_eq!(is(&["git", "push", "--force-with-lease"]), Verdict::REPORT);
    assert_eq!(is(&["git", "pushx", "--force"]), Verdict::ALLOW);
    assert_eq!(is(&["git", "status"]), Verdict::ALLOW);
    assert_eq!(is(&["git", "", "--version"]), Verdict::KILL);
    let aws = |arguments: &[&str]| judged(&compiled, "/tmp", arguments);
    assert_eq!(aws(&["aws", "s3", "delete-bucket", "x"]), Verdict::HOLD);
    assert_eq!(aws(&["aws", "delete-bucket"]), Verdict::ALLOW);
    assert_eq!(aws(&["/opt/x/aws", "s3", "delete-"]), Verdict::HOLD);
}

#[test]
fn what_a_program_is_called_and_what_it_is() {
    let compiled = built(&[
        (FORCE, "deny"),
        (r#"["vi", "..."]"#, "deny"),
        (r#"["ls", "-R", "..."]"#, "hold"),
        (r#"["kubectl", "delete", "..."]"#, "deny"),
        (r#"["/usr/bin/vim", "x"]"#, "kill"),
    ])
    .unwrap();
    let force = ["push", "--force"];
    let is = |file, first: &[&str], rest: &[&str]| judged(&compiled, file, &[first, rest].concat());
    // By its name, whatever it is; by what it is, whatever its name.
    assert_eq!(is("/tmp", &["git"], &force), Verdict::DENY);
    assert_eq!(is("/tmp", &["/anywhere/git"], &force), Verdict::DENY);
    assert_eq!(is("/usr/bin/git", &["harmless"], &force), Verdict::DENY);
    assert_eq!(is("/tmp", &["harmless"], &force), Verdict::ALLOW);
    assert_eq!(is("/usr/bin/kubectl", &["x"], &["delete", "pod"]), Verdict::DENY);
    // A link of another name counts by that name, or vim would be vi, too.
    assert_eq!(is("/usr/bin/vim", &["vi"], &["y"]), Verdict::DENY);
    assert_eq!(is("/usr/bin/vim", &["vim"], &["y"]), Verdict::ALLOW);
    assert_eq!(is("/usr/bin/vim", &["foo"], &["x"]), Verdict::KILL);
    // What others execute.
    assert_eq!(is("/usr/bin/busybox", &["busybox", "ls"], &["-R"]), Verdict::HOLD);
    assert_eq!(is("/usr/bin/busybox", &["foo", "ls"], &["-R", "/"]), Verdict::HOLD);
    assert_eq!(is("/tmp", &["/tmp/busybox", "ls"], &["-R", "/"]), Verdict::HOLD);
    assert_eq!(is("/usr/bin/busybox", &["busybox", "cat"], &["-R", "/"]), Verdict::ALLOW);
    for loader in ["/lib64/ld-linux-x86-64.so.2", "/tmp"] {
        let first = ["/lib64/ld-linux-x86-64.so.2", "--argv0", "x", "/usr/bin/git"];
        assert_eq!(is(loader, &first, &force), Verdict::DENY);
    }
    assert_eq!(is("/lib64/ld-linux-x86-64.so.2", &["x", "/usr/bin/git"], &force), Verdict::DENY);
}

#[test]
fn only_profiles_with_rules_read() {
    let compiled = built(&[(FORCE, "deny")]).unwrap();
    let profile = |name: &str| compiled.profiles.iter().find(|(other, ..)| other == name).unwrap().2;
    assert_eq!(profile("q").commands, 0);
    assert_ne!(profile("p").commands, 0);
    assert!(built(&[]).unwrap().commands.is_empty());
}

#[test]
fn what_there_is_no_room_for() {
    // Each may begin anywhere before the next: the automaton has to remember which of them it has seen.
    let words: String = (0..24).map(|at| format!("\"...\", \"a{at}\", ")).collect();
    let rules: Vec<String> =
        (0..24).map(|at| format!("[\"x\", \"...\", \"a{at}*{at}\", {words}\"...\"]")).collect();
    let rules: Vec<_> = rules.iter().map(|rule| (rule.as_str(), "deny")).collect();
    let error = built(&rules).unwrap_err();
    assert!(error.contains("no room for the rules about commands of profile `p`"), "{error}");
    assert!(error.contains("a.toml:3:"), "{error}");
}

#[test]
fn explained() {
    let compiled = built(&[(FORCE, "deny")]).unwrap();
    let index = compiled.index_of("p").unwrap();
    let command = ["git", "push", "-v", "--force"].map(str::to_owned);
    let answers = explain::explain_command(&compiled.view(), &host(), (index, 0), &command).unwrap();
    let (objects, verdicts): (Vec<_>, Vec<_>) = answers
        .into_iter()
        .map(|(object, answer)| (object, (answer.verdict, answer.rule.map(|rule| rule.line))))
        .unzip();
    assert_eq!(objects, ["/usr/bin/git", "git push -v --force"]);
    assert_eq!(verdicts, [("allow".to_owned(), None), ("deny".to_owned(), Some(5))]);
}

/// What the definition says, word by word.
fn is_about(words: &[Word], arguments: &[String]) -> bool {
    match words.split_first() {
        None => arguments.is_empty(),
        Some((Word::Any, rest)) => (0..=arguments.len()).any(|skip| is_about(rest, &arguments[skip..])),
        Some((Word::One(text), rest)) => arguments
            .split_first()
            .is_some_and(|(first, others)| fits(&text.0, first) && is_about(rest, others)),
    }
}

fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| fits(after, &rest[at..]))
        }),
    }
}

fn words() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(proptest::sample::select(vec!["a", "b", "*", "a*", "*b", "...", "", "é"]), 0..5)
        .prop_map(|words| words.into_iter().map(str::to_owned).collect())
}

fn arguments() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(proptest::sample::select(vec!["a", "b", "ab", "", "x", "é"]), 0..6)
        .prop_map(|words| words.into_iter().map(str::to_owned).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_strictest_rule_that_fits(rules in proptest::collection::vec((words(), 1..6_u8), 1..5), given in arguments()) {
        let texts: Vec<_> = rules
            .iter()
            .map(|(words, verdict)| {
                let argv: Vec<_> = std::iter::once("prog".to_owned()).chain(words.clone()).collect();
                (format!("{argv:?}"), Verdict(*verdict).name())
            })
            .collect();
        let texts: Vec<_> = texts.iter().map(|(argv, verdict)| (argv.as_str(), *verdict)).collect();
        let compiled = built(&texts).unwrap();
        let expected = rules.iter().filter(|(words, _)| {
            let words: Vec<_> = words
                .iter()
                .map(|word| if word == "..." { Word::Any } else { Word::One(Glob(word.clone())) })
                .collect();
            is_about(&words, &given)
        });
        let expected = expected.map(|(_, verdict)| Verdict(*verdict)).max().unwrap_or(Verdict::ALLOW);
        let called: Vec<&str> = std::iter::once("prog").chain(given.iter().map(String::as_str)).collect();
        prop_assert_eq!(judged(&compiled, "/tmp", &called), expected);
    }
}
