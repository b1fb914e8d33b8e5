//! Bindings, merging, indexes, networks.

use agent_guard_common::{
    NetKey, Op, Verdict,
    net::mapped,
    object::SideKey,
    rules::{MAX_PROFILES, Tables},
};

use super::*;

fn rule(path: &str, ops: &str, verdict: &str) -> String {
    format!("[[profile.p.files.rule]]\npath = {path:?}\nops = [{ops}]\nverdict = {verdict:?}\n")
}

fn text(rules: &[(&str, &str)]) -> String {
    let rules = rules.iter().map(|(path, verdict)| rule(path, "\"delete\"", verdict));
    format!("version = 1\n{}", rules.collect::<String>())
}

fn at(compiled: &Compiled, fs: &FakeFs, path: &str) -> Option<(Verdict, u32)> {
    let place = compiled.object(&fs.key(path))?;
    compiled.side(&SideKey { place, side: 0 }).and_then(|side| side.rules.get(Op::DELETE))
}

#[test]
fn the_strictest_then_the_first() {
    let fs = FakeFs::new(&["/a"]);
    let compiled = compiled(&text(&[("/a", "hold"), ("/a/", "deny"), ("/a", "deny"), ("/a", "allow")]), &fs);
    assert_eq!(at(&compiled, &fs, "/a"), Some((Verdict::DENY, 2)));
    assert_eq!(compiled.rule(2).unwrap().line, 7);
    assert_eq!(compiled.rule(0), None);
}

#[test]
fn a_link_is_what_it_leads_to() {
    let mut fs = FakeFs::new(&["/a/b", "/very/deep/down"]);
    fs.link("/very/deep/down/link", "/a/b");
    let compiled = compiled(&text(&[("/very/deep/down/link", "allow"), ("/a/b", "deny")]), &fs);
    assert_eq!(at(&compiled, &fs, "/a/b"), Some((Verdict::DENY, 2)));
    assert_eq!(explained(&compiled, &fs, "write", "/very/deep/down/link/x").1, "outside");
    assert_eq!(explained(&compiled, &fs, "delete", "/very/deep/down/link/x"), is("deny", "rule", 7));
    assert_eq!(explained(&compiled, &fs, "delete", "/very/deep/down/link"), is("deny", "outside", 0));
}

#[test]
fn file_systems_below_a_path_belong_to_it() {
    let mut fs = FakeFs::new(&["/a/b"]);
    fs.mount(2, "/a/disk");
    fs.mount(3, "/a/disk/more");
    fs.add("/a/disk/more/x");
    let text =
        format!("{}[profile.p.files]\nscope = [\"/\"]\n", text(&[("/a", "hold"), ("/a/disk", "allow")]));
    let compiled = compiled(&text, &fs);
    assert_eq!(at(&compiled, &fs, "/a/disk"), Some((Verdict::ALLOW, 2)));
    assert_eq!(at(&compiled, &fs, "/a/disk/more"), Some((Verdict::ALLOW, 2)));
    assert_eq!(explained(&compiled, &fs, "write", "/a/disk/more/x"), is("allow", "scope", 0));
}

#[test]
fn another_place_makes_nothing_milder() {
    let mut fs = FakeFs::new(&["/etc/x/y", "/tmp", "/srv"]);
    fs.bind("/etc/x", "/tmp/bind");
    fs.bind("/etc/x", "/srv/bind");
    let scope = "version = 1\n[profile.p.files]\nscope = [\"/tmp\"]\noutside = { delete = \"hold\" }\n";
    let plain = compiled(scope, &fs);
    assert_eq!(explained(&plain, &fs, "delete", "/tmp/bind/y"), is("hold", "outside", 0));
    for (verdict, expected) in [
        ("allow", is("hold", "outside", 0)),
        ("report", is("hold", "outside", 0)),
        ("hold", is("hold", "outside", 0)),
        ("deny", is("deny", "rule", 6)),
        ("kill", is("kill", "rule", 6)),
    ] {
        let compiled = compiled(&format!("{scope}{}", rule("/srv", "\"delete\"", verdict)), &fs);
        assert_eq!(explained(&compiled, &fs, "delete", "/etc/x/y"), expected);
    }
    let critical = "[[critical]]\npath = \"/srv\"\nops = [\"delete\"]\nverdict = \"deny\"\nreason = \"x\"\n";
    let compiled = compiled(&format!("{scope}{critical}"), &fs);
    assert_eq!(explained(&compiled, &fs, "delete", "/tmp/bind/y"), is("deny", "critical", 6));
    assert_eq!(explained(&compiled, &fs, "delete", "/etc/x"), is("deny", "critical", 6));
    assert_eq!(explained(&compiled, &fs, "delete", "/etc"), is("hold", "outside", 0));
}

/// An outer object gets its stricter rule first, so that a milder one of an inner object doesn't hide it.
#[test]
fn places_within_places() {
    let mut fs = FakeFs::new(&["/etc/x/y/z", "/opt", "/srv"]);
    fs.bind("/etc/x/y", "/opt/bind");
    fs.bind("/etc/x", "/srv/bind");
    let text = format!(
        "{}[profile.p.files]\noutside = {{ delete = \"allow\" }}\n",
        text(&[("/opt", "hold"), ("/srv", "deny")])
    );
    let forth = compiled(&text, &fs);
    assert_eq!(explained(&forth, &fs, "delete", "/etc/x/y/z"), is("deny", "rule", 7));
    let swapped = compiled(&text.replace("/opt", "/?").replace("/srv", "/opt").replace("/?", "/srv"), &fs);
    assert_eq!(explained(&swapped, &fs, "delete", "/etc/x/y/z"), is("deny", "rule", 7));
    assert_eq!(explained(&swapped, &fs, "delete", "/etc/x/q"), is("hold", "rule", 3));
}

/// What is reached through a bind mount is below the directories that it really is below.
#[test]
fn the_real_place_is_seen_through_a_bind_mount() {
    let mut fs = FakeFs::new(&["/etc/x/y", "/tmp"]);
    fs.bind("/etc/x", "/tmp/bind");
    let compiled = compiled(&text(&[("/etc", "kill"), ("/tmp", "allow")]), &fs);
    assert_eq!(explained(&compiled, &fs, "delete", "/tmp/bind/y"), is("kill", "rule", 3));
}

#[test]
fn hidden_and_closed_mounts() {
    let mut fs = FakeFs::new(&["/a"]);
    fs.mount(2, "/a/m");
    fs.mount(3, "/a/m");
    fs.mount(4, "/a/fuse");
    fs.closed.push("/a/fuse".into());
    let compiled = compiled(&text(&[("/a", "kill")]), &fs);
    assert_eq!(at(&compiled, &fs, "/a/m"), Some((Verdict::KILL, 1)));
    assert!(!compiled.objects.keys().any(|key| key.dev == 2));
    assert_eq!(compiled.warnings.len(), 1);
    assert!(compiled.warnings[0].message.contains("/a/fuse"), "{}", compiled.warnings[0]);
}

#[test]
fn indexes_stay() {
    let fs = FakeFs::new(&[]);
    let policy = policy("version = 1\n[profile.a]\n[profile.b]\n[profile.c]\n");
    let assigned = BTreeMap::from([("b".to_owned(), 0), ("gone".to_owned(), 1), ("c".to_owned(), 7)]);
    let compiled = build(&policy, &fs, &assigned, KEY, &[]).unwrap();
    let indexes: Vec<_> = compiled.profiles.iter().map(|(name, index, _)| (name.as_str(), *index)).collect();
    assert_eq!(indexes, [("a", 2), ("b", 0), ("c", 7)]);
    assert_eq!(compiled.profile_index("gone"), None);

    let full: BTreeMap<_, _> = (0..MAX_PROFILES - 3).map(|index| (format!("gone{index}"), index)).collect();
    let found = build(&policy, &fs, &full, KEY, &[]).unwrap_err();
    assert_eq!((found.len(), found[0].line), (1, 4));
    assert!(found[0].message.contains("no room for profile `c`"));

    let twice =
        BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 3), ("c".to_owned(), MAX_PROFILES - 1)]);
    let found = build(&policy, &fs, &twice, KEY, &[]).unwrap_err();
    assert_eq!(found.iter().map(|d| d.line).collect::<Vec<_>>(), [3, 4]);
}

fn allow(entries: &str) -> String {
    format!("version = 1\n[profile.p.network]\nallow = [\n{entries}\n]\n")
}

fn connect(compiled: &Compiled, addr: &str, port: u16) -> (String, u32) {
    let answer = explain_connect(&compiled.view(), 0, addr.parse().unwrap(), Service::tcp(port)).unwrap();
    (answer.verdict, answer.rule.map_or(0, |rule| rule.line))
}

#[test]
fn the_longest_prefix_has_the_rules_around_it() {
    let compiled = compiled(
        &allow(
            "\"10.0.0.0/8:1-1000\",\n\"10.1.0.0/16:80\",\n\"10.1.0.0/16:1-100\",\n\"10.1.2.3\",\n\"localhost\",",
        ),
        &FakeFs::new(&[]),
    );
    for (addr, port, expected) in [
        ("10.1.0.1", 80, ("allow", 5)),
        ("10.1.0.1", 81, ("allow", 6)),
        ("10.1.0.1", 101, ("allow", 4)),
        ("10.1.0.1", 1001, ("deny", 0)),
        ("10.1.2.3", 80, ("allow", 7)),
        ("::ffff:10.1.2.3", 80, ("allow", 7)),
        ("10.2.0.1", 80, ("allow", 4)),
        ("11.0.0.1", 80, ("deny", 0)),
        ("0.0.0.0", 80, ("allow", 8)),
        ("::", 80, ("allow", 8)),
        ("::1", 80, ("allow", 8)),
        ("127.9.9.9", 80, ("allow", 8)),
        ("::1:0:2", 80, ("deny", 0)),
    ] {
        assert_eq!(connect(&compiled, addr, port), (expected.0.to_owned(), expected.1), "{addr}:{port}");
    }
    // What is shadowed is left out: for the single host nothing but its own rule is left.
    let key = NetKey::new(0, mapped([10, 1, 2, 3]));
    let entry = compiled.networks[&(160, key)];
    assert_eq!(entry.ports.iter().filter(|port| port.verdict != 0).count(), 1);
}

#[test]
fn ipv6_prefixes_say_nothing_of_ipv4() {
    for prefix in ["::/0", "::/80", "[::]/1:80"] {
        let compiled = compiled(&allow(&format!("{prefix:?}")), &FakeFs::new(&[]));
        assert_eq!(connect(&compiled, "10.0.0.1", 80), ("deny".into(), 0));
        assert_eq!(connect(&compiled, "::1:0:2", 80), ("allow".into(), 4));
        assert!(compiled.networks.contains_key(&(128, NetKey::new(0, mapped([0; 4])))));
    }
    let compiled = compiled(&allow("\"::/0\",\n\"0.0.0.0/0:443\""), &FakeFs::new(&[]));
    assert_eq!(connect(&compiled, "10.0.0.1", 80), ("deny".into(), 0));
    assert_eq!(connect(&compiled, "10.0.0.1", 443), ("allow".into(), 5));
    let compiled = super::compiled(&allow("\"8000::/1\""), &FakeFs::new(&[]));
    assert_eq!(compiled.networks.len(), 1);
}

#[test]
fn too_many_ports() {
    let ports =
        |count: u16| (0..count).map(|at| format!("\"10.0.0.0/8:{}\",\n", 100 + 2 * at)).collect::<String>();
    compiled(&allow(&ports(16)), &FakeFs::new(&[]));
    let text = allow(&format!("{}\"10.1.0.0/16:1\"", ports(16)));
    let found = built(&policy(&text), &FakeFs::new(&[])).unwrap_err();
    assert_eq!((found.len(), found[0].line, found[0].column), (1, 20, 1));
    for part in ["17 port rules for 10.1.0.0/16", "`10.0.0.0/8:100` (line 4)", "`10.1.0.0/16:1` (line 20)"] {
        assert!(found[0].message.contains(part), "{}", found[0]);
    }
}
