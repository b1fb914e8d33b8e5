use std::collections::BTreeMap;

use agent_guard_common::enroll::PROFILE;

use super::super::{TRIAL_KEY, build, explain_enrollment, load, source::Source, world::World};
use super::*;

const PROFILES: &str = "[profile.p]\n[profile.p.files]\nscope = [\"/srv/work\"]\n\
                        [profile.cwd.files]\nscope = [\"${cwd}\"]\n\
                        [profile.home.files]\nscope = [\"${home}/work\"]\n";

fn read(text: &str) -> Result<Policy, Vec<String>> {
    let text = format!("version = 1\n{text}\n{PROFILES}");
    load(vec![Source { name: "a.toml".to_owned(), text }])
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

fn entry_of(what: &str) -> String {
    format!("[[enroll]]\nprofile = \"p\"\n{what}")
}

fn compiled(text: &str, world: &World) -> Compiled {
    let policy = read(text).unwrap();
    build(&policy, world, &BTreeMap::new(), TRIAL_KEY, &[]).unwrap()
}

#[test]
fn what_is_read() {
    let text = [
        entry_of("exe = [\"/opt/a\", \"/opt/kiro/*\"]"),
        entry_of("user = [\"ci\", \"1001\"]\ncwd = \"/srv\""),
        entry_of("unit = [\"runner@*.service\"]"),
        entry_of("cgroup = [\"/kubepods/*\"]"),
    ]
    .join("\n");
    let policy = read(&text).unwrap();
    let keys: Vec<_> = policy.enrolled().map(|(entry, target)| entry.key(target)).collect();
    let all = [
        "exe /opt/a",
        "exe /opt/kiro/*",
        "user ci",
        "user 1001",
        "unit runner@*.service",
        "cgroup /kubepods/*",
    ];
    assert_eq!(keys, all);
    let numbers: Vec<_> = policy.enrolled().map(|(_, target)| target.number).collect();
    assert_eq!(numbers, [0, 0, 1, 2, 3, 4]);
    assert_eq!(policy.enroll.get(1).and_then(|entry| entry.cwd.clone()), Some(PathBuf::from("/srv")));
    assert!(policy.enrolls_programs());
}

#[test]
fn numbers_are_kept() {
    let mut policy = read(&entry_of("user = [\"a\", \"b\", \"c\"]")).unwrap();
    let had = BTreeMap::from([("user b".to_owned(), 1), ("user gone".to_owned(), 2)]);
    policy.number_standing(&had).unwrap();
    let numbers: Vec<_> = policy.enrolled().map(|(_, target)| target.number).collect();
    assert_eq!(numbers, [3, 1, 4]);
    let many = (1..MAX_STANDING).map(|number| (format!("user x{number}"), number)).collect();
    let full = policy.number_standing(&many).unwrap_err().to_string();
    assert!(full.contains("no room to enroll `user a`"), "{full}");
}

#[test]
fn every_mistake_with_its_place() {
    for (text, part) in [
        ("[[enroll]]\nexe = [\"/a\"]", "a.toml:2:1: error: `profile` is missing"),
        ("[[enroll]]\nprofile = \"p\"", "neither `exe` nor"),
        ("[[enroll]]\nprofile = \"q\"\nexe = [\"/a\"]", "there is no profile `q`"),
        (&entry_of("exe = []"), "4:7: error: `exe` is empty"),
        (&entry_of("exe = [\"a\"]"), "not absolute"),
        (&entry_of("exe = [\"/\"]"), "everything would be enrolled"),
        (&entry_of("exe = [\"**/claude\"]"), "it may be anywhere"),
        (&entry_of("exe = [\"${home}/bin/claude\"]"), "variables are what sessions have"),
        (&entry_of("exe = [\"/a\"]\nuser = [\"b\"]"), "goes by `exe` already"),
        (&entry_of("exe = [\"/a\"]\ncwd = \"/srv\""), "`cwd` is for standing sessions"),
        (&entry_of("user = [\"root\"]"), "4:9: error: \"root\": root can't be enrolled"),
        (&entry_of("user = [\"a b\"]"), "no user has such a name"),
        (&entry_of("user = [\"a\"]\ncwd = \"srv/..\""), "`cwd` must be an absolute path"),
        (&entry_of("unit = [\"runner\"]"), "not the name of a unit"),
        (&entry_of("unit = [\"-.slice\"]"), "not the name of a unit"),
        (&entry_of("cgroup = [\"kubepods\"]"), "not the path of a control group"),
        (&entry_of("cgroup = [\"/\"]"), "not the path of a control group"),
        (&entry_of("user = [\"a\", \"a\"]"), "`user a` is enrolled already at a.toml:4:9"),
        (&entry_of("what = 1\nuser = [\"a\"]"), "unknown key `what` in `enroll`"),
        ("[[enroll]]\nprofile = \"cwd\"\nunit = [\"a.service\"]", "uses `${cwd}`"),
        ("[[enroll]]\nprofile = \"home\"\ncgroup = [\"/a\"]\ncwd = \"/srv\"", "uses `${home}`"),
    ] {
        let mistakes = read(text).expect_err(text);
        assert!(mistakes.iter().any(|mistake| mistake.contains(part)), "{text}: {mistakes:?}");
    }
    read("[[enroll]]\nprofile = \"cwd\"\nunit = [\"a.service\"]\ncwd = \"/srv\"").unwrap();
    read("[[enroll]]\nprofile = \"home\"\nuser = [\"a\"]").unwrap();
}

#[test]
fn programs_by_object_and_name() {
    let mut world = World::default();
    for directory in ["/opt", "/opt/kiro", "/opt/kiro/bin", "/opt/kiro/bin/deep", "/srv", "/srv/work"] {
        world.mkdir(Path::new(directory)).unwrap();
    }
    for file in ["/opt/claude", "/opt/kiro/bin/one", "/opt/kiro/bin/deep/two", "/opt/kiro/other"] {
        world.file(Path::new(file)).unwrap();
    }
    let compiled =
        compiled(&entry_of("exe = [\"/opt/claude\", \"/opt/kiro/bin/*\", \"/opt/later\"]"), &world);
    let rule = |path: &str| {
        let rule = explain_enrollment(&compiled.view(), &world, Path::new(path)).unwrap();
        rule.map(|rule| (rule.target, rule.profile))
    };
    let some = |target: &str| Some((target.to_owned(), Some("p".to_owned())));
    assert_eq!(rule("/opt/claude"), some("exe /opt/claude"));
    assert_eq!(rule("/opt/kiro/bin/one"), some("exe /opt/kiro/bin/*"));
    assert_eq!(rule("/opt/kiro/bin/deep/two"), some("exe /opt/kiro/bin/*"));
    assert_eq!(rule("/opt/kiro/bin/new"), some("exe /opt/kiro/bin/*"));
    assert_eq!(rule("/opt/later"), some("exe /opt/later"));
    for free in ["/opt/kiro/other", "/opt/kiro/bin", "/opt/claude2", "/srv/work"] {
        assert_eq!(rule(free), None, "{free}");
    }
    let entry = compiled.profile(PROFILE).unwrap();
    assert_eq!(entry.judged, Op::ENROLL.mask() | Op::CONNECT.mask());
}

#[test]
fn control_groups_and_all_below() {
    let text = [
        entry_of("unit = [\"runner@*.service\", \"a.slice\"]"),
        entry_of("cgroup = [\"/kubepods/*/x\", \"/system.slice/b.c\"]"),
    ]
    .join("\n");
    let compiled = compiled(&text, &World::default());
    for (path, number) in [
        ("/runner@1.service", Some(1)),
        ("/system.slice/system-runner.slice/runner@build.service", Some(1)),
        ("/system.slice/runner@1.service/inner/deep", Some(1)),
        ("/a.slice", Some(2)),
        ("/a.slice/b", Some(2)),
        ("/kubepods/any/x", Some(3)),
        ("/kubepods/any/x/y", Some(3)),
        ("/system.slice/b.c", Some(4)),
        ("/", None),
        ("", None),
        ("/runner@1.service2", None),
        ("/xrunner@1.service", None),
        ("/runner@1/2.service", None),
        ("/kubepods/any", None),
        ("/kubepods/any/more/x", None),
        ("/system.slice/bxc", None),
        ("/other/system.slice/b.c", None),
    ] {
        assert_eq!(compiled.standing_of(path), number, "{path}");
    }
    assert_eq!(compiled.profile(PROFILE).unwrap().judged, Op::ENROLL.mask());
}

#[test]
fn nobody() {
    let compiled = compiled("", &World::default());
    assert_eq!((compiled.standing_of("/a.slice"), compiled.commands.len()), (None, 0));
    assert_eq!(compiled.profile(PROFILE).unwrap().judged, 0);
    assert_eq!(compiled.profile_index(""), None);
}
