use std::collections::BTreeSet;

use super::{
    super::{load, source::Source},
    *,
};

fn profile(files: &str) -> Profile {
    let text = format!("version = 1\n[profile.p.files]\n{files}");
    let policy = load(vec![Source { name: "a.toml".to_owned(), text }]);
    let policy = policy.unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    policy.profile("p").unwrap().clone()
}

/// What is said of a path of the set, an operation each.
fn said(profile: &Profile, path: &str) -> Vec<(&'static str, &'static str)> {
    let rules = profile.persistence.rules.iter().filter(|rule| rule.path.to_string() == path);
    rules.flat_map(|rule| rule.ops.iter().map(|op| (op.name(), rule.verdict.name()))).collect()
}

/// The same verdict for all operations.
fn verdict(profile: &Profile, path: &str) -> &'static str {
    let said = said(profile, path);
    let verdicts: BTreeSet<_> = said.iter().map(|(_, verdict)| *verdict).collect();
    let ops: BTreeSet<_> = said.iter().map(|(op, _)| *op).collect();
    assert_eq!((said.len(), ops.len(), verdicts.len()), (OPS.len(), OPS.len(), 1), "{path}: {said:?}");
    verdicts.into_iter().next().unwrap()
}

#[test]
fn each_path_is_one_and_stands_there_once() {
    let mut seen = BTreeSet::new();
    for group in GROUPS {
        assert!(!group.reason.is_empty());
        assert!(group.home.len() + group.host.len() + group.anywhere.len() > 0, "{}", group.reason);
        for text in group.host {
            assert!(matches!(paths::parse(text).unwrap().form, Form::Below(Base::Root, _)), "{text}");
        }
        for text in group.anywhere {
            assert!(matches!(paths::parse(text).unwrap().form, Form::Anywhere(_)), "{text}");
        }
        let home = group.home.iter().map(|name| format!("${{home}}/{name}"));
        for text in group.host.iter().chain(group.anywhere).map(|&text| text.to_owned()).chain(home) {
            let path = paths::parse(&text).unwrap_or_else(|why| panic!("{text}: {why:?}"));
            assert_eq!(path.to_string(), text);
            assert!(seen.insert(text.clone()), "{text} stands there twice");
        }
    }
    let home: usize = GROUPS.iter().map(|group| group.home.len()).sum();
    let others: usize = GROUPS.iter().map(|group| group.host.len() + group.anywhere.len()).sum();
    // /home, /root and ${home}; and one more.
    assert_eq!(set_for(&[]).len(), 3 * home + others);
    assert_eq!(set_for(&["/srv/ci".into()]).len(), 4 * home + others);
}

/// The documentation lists the set.
#[test]
fn the_page_is_true() {
    let page = include_str!("../../../../docs/policy.md");
    let rows = page
        .split("### What makes something run later")
        .nth(1)
        .and_then(|rest| rest.split("\n\n").nth(2))
        .unwrap();
    for (group, row) in GROUPS.iter().zip(rows.lines().skip(2)) {
        let list = |of: &[&str]| of.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(" ");
        let elsewhere = list(&[group.host, group.anywhere].concat());
        assert_eq!(row, format!("| {} | {} | {elsewhere} |", group.reason, list(group.home)));
    }
    assert_eq!(rows.lines().count(), GROUPS.len() + 2);
}

#[test]
fn denied_unless_said() {
    let silent = profile("");
    assert_eq!(verdict(&silent, "/home/*/.bashrc"), "deny");
    assert_eq!(silent.persistence.origin, Origin { file: BUILT_IN.to_owned(), line: 0, column: 0 });
    for path in ["/root/.ssh", "${home}/.config/autostart", "/etc/cron.d", "**/.git/hooks/pre-commit"] {
        assert_eq!(verdict(&silent, path), "deny");
    }
    let said = profile("scope = [\"/home\"]\n  persistence = \"hold\"\n");
    assert_eq!(verdict(&said, "/home/*/.bashrc"), "hold");
    let origin = &said.persistence.rules.first().unwrap().origin;
    assert_eq!((origin.file.as_str(), origin.line, origin.column), ("a.toml", 4, 17));
    assert!(profile("persistence = \"allow\"").persistence.rules.is_empty());
}

#[test]
fn mistakes() {
    for (value, part) in [
        ("\"kill\"", "can be `deny`, `hold`, `report`, `allow`"),
        ("\"dney\"", "did you mean"),
        ("true", "string"),
    ] {
        let text = format!("version = 1\n[profile.p.files]\npersistence = {value}\n");
        let mistakes = load(vec![Source { name: "a.toml".to_owned(), text }]).unwrap_err();
        let shown = mistakes.iter().map(ToString::to_string).collect::<String>();
        assert!(shown.contains(part) && shown.contains("a.toml:3:15"), "{shown}");
    }
}

/// What is denied without the set isn't opened by a milder verdict.
#[test]
fn nothing_becomes_milder() {
    // Outside of the scope for certain, or perhaps not.
    let report = profile(
        "scope = [\"${cwd}\", \"/tmp\", \"/home/ci\", \"/etc/cron.d/mine\"]\npersistence = \"report\"",
    );
    for (path, expected) in [
        ("/etc/sudoers", "deny"),
        ("/root/.bashrc", "report"),
        ("/home/*/.bashrc", "report"),
        ("/etc/cron.d", "report"),
        ("/etc/cron.daily", "deny"),
        ("**/.git/hooks/update", "report"),
    ] {
        assert_eq!(verdict(&report, path), expected, "{path}");
    }
    let report = profile("scope = [\"/srv\"]\npersistence = \"report\"");
    assert_eq!(verdict(&report, "/home/*/.bashrc"), "deny");
    assert_eq!(verdict(&report, "${home}/.bashrc"), "report");
    let open = profile(
        "persistence = \"report\"\noutside = { write = \"allow\", create = \"kill\", metadata = \"report\" }",
    );
    let mut all = said(&open, "/etc/sudoers");
    all.sort_unstable();
    let expected = [
        ("create", "kill"),
        ("delete", "deny"),
        ("metadata", "report"),
        ("rename", "deny"),
        ("write", "report"),
    ];
    assert_eq!(all, expected);
}

#[test]
fn rules_above_it_count() {
    let rule = |path: &str, verdict: &str| {
        format!(
            "[[profile.p.files.rule]]\npath = {path:?}\nops = [\"write\", \"create\", \"delete\", \"rename\", \"metadata\"]\nverdict = {verdict:?}\n"
        )
    };
    let rules = [
        ("/etc", "kill"),
        ("/etc/systemd", "allow"),
        ("/usr", "deny"),
        ("/usr/lib", "allow"),
        ("/*/spool", "kill"),
    ];
    let rules: String = rules.iter().map(|(path, verdict)| rule(path, verdict)).collect();
    let all = profile(&format!(
        "scope = [\"/\"]\npersistence = \"hold\"\n{rules}{}{}",
        rule("**/.git", "deny"),
        rule("**/*.cargo", "kill")
    ));
    for (path, expected) in [
        ("/etc/cron.d", "kill"),
        ("/etc/systemd", "hold"),
        ("/usr/lib/systemd", "hold"),
        ("/usr/bin", "deny"),
        ("/var/spool/at", "kill"),
        ("/lib", "hold"),
        ("**/.git/hooks/pre-push", "deny"),
        ("/root/.ssh", "hold"),
        ("/root/.cargo/bin", "kill"),
        ("/root/.cargo/env", "kill"),
        ("/root/bin", "hold"),
    ] {
        assert_eq!(verdict(&all, path), expected, "{path}");
    }
}

#[test]
fn homes_elsewhere() {
    let text = "version = 1\n[profile.p]\n".to_owned();
    let mut policy = load(vec![Source { name: "a.toml".to_owned(), text }]).unwrap();
    let homes = ["/srv/ci", "/home/u", "/root", "/srv/*", "/home/a/b"].map(PathBuf::from);
    assert_eq!(policy.persist(&homes), [PathBuf::from("/srv/*")]);
    let profile = policy.profile("p").unwrap();
    assert_eq!(verdict(profile, "/srv/ci/.bashrc"), "deny");
    assert_eq!(verdict(profile, "/home/a/b/.bashrc"), "deny");
    assert!(said(profile, "/home/u/.bashrc").is_empty());
    for (home, known) in
        [("/srv/ci", true), ("/home/x", true), ("/root", true), ("/home", false), ("/srv/x", false)]
    {
        assert_eq!(policy.knows_home(Path::new(home)), known, "{home}");
    }
}

#[test]
fn a_report_that_opens_something_is_told() {
    let warned = |files: &str| {
        let text = format!("version = 1\n[profile.p.files]\n{files}");
        let policy = load(vec![Source { name: "a.toml".to_owned(), text }]).unwrap();
        warnings(&policy).map(|warning| warning.line).collect::<Vec<_>>()
    };
    assert_eq!(warned("scope = [\"/srv\"]\npersistence = \"report\""), [4]);
    assert!(warned("persistence = \"report\"").is_empty());
    assert!(warned("scope = [\"/srv\"]\npersistence = \"hold\"").is_empty());
    assert!(warned("scope = [\"/srv\"]\n").is_empty());
}
