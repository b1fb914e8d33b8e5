//! Random policies and requests about files; those about networks are in [`super::network`].

use agent_guard_common::{Op, Verdict};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

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
    fn no_panic_on_any_text(text in "[\\[\\]={}\"'.,#a-c/*:\n 0-9é-]{0,60}") {
        drop(load(vec![source(&text)]));
        let text = format!(
            "version = 1\n[profile.p.network]\nallow = [{text:?}]\nlisten = [{text:?}]\nnames.rate = {text:?}\n\
             [profile.p.files]\nscope = [{text:?}]\n[resolver]\nupstream = [{text:?}]\ntimeout = {text:?}\n\
             [[resolver.zone]]\nname = {text:?}\nupstream = [{text:?}]"
        );
        drop(load(vec![source(&text)]));
    }
}
