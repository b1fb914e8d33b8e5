//! Every kind of mistake, and where it is said to be.

use super::*;

/// Asserts the mistakes of a text: line, column, and a part of the message with its help.
fn mistakes(text: &str, expected: &[(u32, u32, &str)]) {
    let found = load(vec![source(text)]).expect_err("no mistake found");
    let positions: Vec<_> = found.iter().map(|d| (d.line, d.column)).collect();
    let wanted: Vec<_> = expected.iter().map(|&(line, column, _)| (line, column)).collect();
    assert_eq!(positions, wanted, "in\n{text}\n{}", shown(&found));
    for (diagnostic, (.., part)) in found.iter().zip(expected) {
        assert!(diagnostic.to_string().contains(part), "{diagnostic}\nhas no {part:?}");
    }
}

/// A profile with one more line in one of its tables, at line 3 or 4.
fn in_profile(line: &str, column: u32, part: &str) {
    mistakes(&format!("version = 1\n[profile.p]\n{line}\n"), &[(3, column, part)]);
}

fn in_files(line: &str, column: u32, part: &str) {
    mistakes(&format!("version = 1\n[profile.p.files]\n{line}\n"), &[(3, column, part)]);
}

fn in_network(line: &str, column: u32, part: &str) {
    mistakes(&format!("version = 1\n[profile.p.network]\n{line}\n"), &[(3, column, part)]);
}

fn in_rule(lines: &str, expected: &[(u32, u32, &str)]) {
    mistakes(&format!("version = 1\n[[profile.p.files.rule]]\n{lines}\n"), expected);
}

#[test]
fn how_a_mistake_is_shown() {
    let found = load(vec![source("version = 1\nprofil = 1")]).unwrap_err();
    assert_eq!(
        found[0].to_string(),
        "test.toml:2:1: error: unknown key `profil` in the policy\n  help: did you mean `profile`?"
    );
}

#[test]
fn columns_count_characters() {
    mistakes("version = 1\n[profile.p]\n\"é\" = 1", &[(3, 1, "unknown key")]);
    mistakes(
        "version = 1\nprofile = { p = { \"é\" = 1, x = 2 } }",
        &[(2, 19, "unknown key"), (2, 28, "unknown key")],
    );
}

#[test]
fn no_toml() {
    mistakes("version = \n", &[(1, 11, "")]);
    mistakes("version = 1\nversion = 1\n", &[(2, 1, "duplicate key")]);
    mistakes("version = 1\na = \nb = 2\nc = \"x\n", &[(2, 5, ""), (4, 7, "")]);
    assert!(load(vec![source(&"[".repeat(100_000))]).is_err());
    assert!(load(vec![source(&format!("version = 1\na = {}", "[".repeat(100_000)))]).is_err());
}

#[test]
fn version() {
    mistakes("", &[(1, 1, "`version` is missing")]);
    mistakes("\nversion = 2", &[(2, 11, "version 2")]);
    mistakes("version = \"1\"", &[(1, 11, "must be an integer, not string")]);
    mistakes("version = 1.0", &[(1, 11, "must be an integer, not float")]);
}

#[test]
fn unknown_keys() {
    mistakes("version = 1\n[profile.p]\nmod = \"report\"", &[(3, 1, "did you mean `mode`?")]);
    mistakes("version = 1\n[[crtical]]", &[(2, 3, "did you mean `critical`?")]);
    in_profile("networks = {}", 1, "did you mean `network`?");
    in_profile("zebra = 1", 1, "known are `mode`, `degraded`, `files`, `exec`, `network`");
    in_profile("limits = 1", 1, "did you mean `limit`?");
    in_files("rules = []", 1, "did you mean `rule`?");
    in_files("outside = { writes = \"deny\" }", 13, "did you mean `write`?");
    in_network("alow = []", 1, "did you mean `allow`?");
    in_rule("path = \"/\"\nops = [\"write\"]\nverdict = \"deny\"\nreasons = \"x\"", &[(6, 1, "`reason`")]);
    in_profile(&format!("{} = 1", "x".repeat(10_000)), 1, "unknown key");
}

#[test]
fn not_enforced_yet() {
    let later = "is not enforced yet by this version of agent-guard";
    for key in ["ttl", "limit", "approval", "backup"] {
        in_profile(&format!("{key} = 1"), 1, &format!("`{key}` in a profile {later}"));
    }
}

#[test]
fn forms_of_paths() {
    for (path, part) in [
        ("/a/**", "`**` can only stand at the beginning"),
        ("/a*b", "`*` stands for a whole component"),
        ("**/*a/b", "`*` stands for a whole component"),
        ("**/a/*", "ends in `*` below `**`"),
        ("/a/*/*", "more than one `*`"),
        ("${x}", "there are `${cwd}`, `${home}` and `${tmp}`"),
        ("a/*", "write `/srv/prod`; `*` for one whole component"),
    ] {
        in_files(&format!("scope = [ {path:?} ]"), 11, part);
        in_rule(&format!("path = {path:?}\nops = [\"read\"]\nverdict = \"deny\""), &[(3, 8, part)]);
    }
    for path in ["**/a", "**/*.x"] {
        in_files(&format!("scope = [ {path:?} ]"), 11, "can't be in the scope");
    }
    let critical = |path: &str| {
        format!(
            "version = 1\n[[critical]]\npath = {path:?}\nops = [\"read\"]\nverdict = \"deny\"\nreason = \"x\"\n"
        )
    };
    mistakes(&critical("${cwd}/a"), &[(3, 8, "each session has another one")]);
    for path in ["**/a", "**/*.x", "/a/*/b", "/a/*"] {
        policy(&critical(path));
    }
    policy("version = 1\n[profile.p.files]\nscope = [\"/a/*\", \"/*/b\", \"${cwd}\", \"${home}/x/*\"]");
}

#[test]
fn types() {
    mistakes("version = 1\ncritical = 1", &[(2, 12, "must be an array, not integer")]);
    mistakes("version = 1\ncritical = [1]", &[(2, 13, "must be a table, not integer")]);
    mistakes("version = 1\n[critical]\n", &[(2, 1, "write two brackets: [[critical]]")]);
    mistakes("version = 1\nprofile = 1", &[(2, 11, "`profile` must be a table")]);
    mistakes("version = 1\nprofile = { p = 1 }", &[(2, 17, "a profile must be a table")]);
    in_profile("mode = 1", 8, "`mode` must be a string, not integer");
    in_profile("files = []", 9, "`files` must be a table, not array");
    in_profile("network = true", 11, "`network` must be a table, not boolean");
    in_files("scope = \"/tmp\"", 9, "`scope` must be an array, not string");
    in_files("scope = [1]", 10, "must be a string");
    in_files("outside = \"deny\"", 11, "must be a table");
    in_files("rule = {}", 8, "write two brackets: [[profile.p.files.rule]]");
    in_network("connect = 1", 11, "a verdict must be a string");
    in_network("allow = [1]", 10, "must be a string");
    in_network("hold = [1]", 9, "an entry of `hold` must be a string");
}

#[test]
fn values() {
    in_profile("mode = \"reprot\"", 8, "did you mean `report`?");
    in_profile("mode = \"x\"", 8, "`mode` is `enforce` or `report`");
    in_network("connect = \"dney\"", 11, "did you mean `deny`?");
    in_network("connect = \"never ever\"", 11, "verdicts are `allow`, ");
    in_files("outside = { write = \"none\" }", 21, "unknown verdict");
    in_network("allow = [\"10.1.0.0/8\"]", 10, "write `10.0.0.0/8`");
    in_network("allow = [\"0.0.0.0:80\"]", 10, "127.0.0.1");
    in_network("allow = [\"10.0.0.1:99999\"]", 10, "is not a port");
    for (entry, part) in [
        ("unix:relative", "path \"relative\" is not absolute"),
        ("unix:relative", "write `unix:/run/docker.sock`"),
        ("unix:", "names no socket"),
        ("unix:@", "every abstract name is `unix:@*`"),
        ("unix:/a//b", "empty component"),
        ("unix:@a*b", "only stand at the end"),
        ("unix:${x}/y", "unknown variable"),
    ] {
        in_network(&format!("deny = [\"::1\", {entry:?}]"), 16, part);
    }
    for path in ["tmp", "~/x", "/a/../b", "/a//b", "/./a", ""] {
        in_files(&format!("scope = [{path:?}]"), 10, "path");
    }
    in_files("scope = [\"/a\\u0000\"]", 10, "NUL");
}

#[test]
fn networks() {
    in_profile("degraded = \"allow\"", 12, "`degraded`");
    in_network("denied = \"EPREM\"", 10, "did you mean `EPERM`?");
    in_network("denied = \"econnrefused\"", 10, "did you mean `ECONNREFUSED`?");
    in_network("denied = \"EIO\"", 10, "errors are `EPERM`, `ECONNREFUSED`");
    in_network("listen = \"localhost\"", 10, "must be an array");
    for (entry, part) in [
        ("10.0.0.1:443/tpc", "did you mean `tcp`?"),
        ("[::1]:7/icmp", "icmp has no ports"),
        ("bücher.example", "begins with `xn--`"),
        ("https://example.org/", "write `example.org:443`"),
        ("a.*.example", "every name below that one"),
        ("example.1", "looks like an address"),
        ("fd00::/8:443/tcp", "write `[fd00::]/8:443`"),
        ("[64:ff9b::]/96", "write the IPv4 network that is meant"),
        ("[2002:a01:203:1::]/64", "write `10.1.2.3/32`"),
        ("[::]/100", "write `::1` for this host"),
    ] {
        in_network(&format!("allow = [\"::1\", {entry:?}]"), 17, part);
        in_network(&format!("listen = [\"::1\", {entry:?}]"), 18, part);
    }
    for (entry, part) in [
        ("unix:/run/x", "rules on files about `create`"),
        ("example.org:80", "what is bound is an address"),
        ("*", "`0.0.0.0/0` and `::/0` for every one"),
        ("0.0.0.0:80", "write `0.0.0.0/0` for every address"),
        ("10.0.0.1:0", "is not a port"),
    ] {
        in_network(&format!("listen = [{entry:?}]"), 11, part);
    }
    in_network("listen = [1]", 11, "an entry of `listen` must be a string");
}

#[test]
fn limits_of_names() {
    in_network("names = 1", 9, "`network.names` must be a table");
    for (limit, column, part) in [
        ("lenght = 1", 11, "did you mean `length`?"),
        ("length = 254", 20, "a number from 1 to 253"),
        ("length = 0", 20, "a number from 1 to 253"),
        ("length = -1", 20, "a number from 1 to 253"),
        ("labels = 128", 20, "a number from 1 to 127"),
        ("label = \"9\"", 19, "a number from 1 to 63"),
        ("long = 64", 18, "a number from 1 to 63"),
        ("entropy = 8.1", 21, "as 4.25"),
        ("entropy = 0", 21, "as 4.25"),
        ("entropy = nan", 21, "as 4.25"),
        ("entropy = inf", 21, "as 4.25"),
        ("entropy = \"4\"", 21, "as 4.25"),
        ("rate = 60", 18, "must be a string"),
        ("rate = \"60\"", 18, "as `300/1m`"),
        ("rate = \"0/1m\"", 18, "as `300/1m`"),
        ("rate = \"60/0s\"", 18, "as `300/1m`"),
        ("rate = \"60/2d\"", 18, "as `300/1m`"),
        ("rate = \"60/1500ms\"", 18, "as `300/1m`"),
        ("rate = \"-1/1m\"", 18, "as `300/1m`"),
    ] {
        in_network(&format!("names = {{ {limit} }}"), column, part);
    }
    let text = "version = 1\n[profile.p.network.names]\nlength = 0x50\nentropy = 4.1239\nrate = \"5/90s\"\n";
    let limits = policy(text).profile("p").unwrap().limits;
    assert_eq!((limits.length, limits.entropy, limits.rate.to_string().as_str()), (80, 4124, "5/90s"));
}

#[test]
fn resolver() {
    let in_resolver = |lines: &str, expected: &[(u32, u32, &str)]| {
        mistakes(&format!("version = 1\n[resolver]\n{lines}\n"), expected);
    };
    mistakes("version = 1\nresolver = 1\n", &[(2, 12, "`resolver` must be a table")]);
    in_resolver("upstreams = []", &[(3, 1, "did you mean `upstream`?")]);
    in_resolver("upstream = []", &[(3, 12, "leave out the whole key")]);
    in_resolver("upstream = \"10.0.0.53\"", &[(3, 12, "must be an array")]);
    in_resolver(
        "upstream = [\"dns.example\", 1, \"10.0.0.53\", \"10.0.0.53:53\"]\ntimeout = \"5\"",
        &[
            (3, 13, "\"10.0.0.53:5353\""),
            (3, 28, "must be a string"),
            (3, 44, "10.0.0.53:53 is named twice"),
            (4, 11, "from `100ms` to `1m`"),
        ],
    );
    in_resolver("timeout = \"2m\"", &[(3, 11, "no time-out")]);
    in_resolver("[resolver.zone]", &[(3, 1, "write two brackets: [[resolver.zone]]")]);
    in_resolver("[[resolver.zone]]", &[(3, 1, "`name` is missing"), (3, 1, "`upstream` is missing")]);
    let zone = |name: &str| format!("[[resolver.zone]]\nname = {name:?}\nupstream = [\"10.1.0.53\"]\n");
    in_resolver(&zone("*.corp.example"), &[(4, 8, "a zone is its name and all below")]);
    in_resolver(&zone("10.0.0.1"), &[(4, 8, "as `corp.example`")]);
    let twice = zone("corp.example") + &zone("Corp.Example.");
    in_resolver(&twice, &[(7, 8, "zone `corp.example` is already defined at test.toml:4:8")]);
    let file =
        |name: &str| Source { name: name.into(), text: "version = 1\n[resolver]\ntimeout = \"1s\"".into() };
    let found = load(vec![file("a.toml"), file("b.toml")]).unwrap_err();
    assert!(
        shown(&found).starts_with("b.toml:2:1: error: `resolver` is already defined at a.toml:2:1"),
        "{found:?}"
    );
    let read = policy(&format!(
        "version = 1\n[resolver]\nupstream = [\"10.0.0.53\", \"[fd00::53]:5353\"]\n{}",
        zone("corp.example.")
    ));
    let model::Resolver { upstream, timeout, zones, .. } = read.resolver;
    let servers: Vec<_> = upstream.iter().map(ToString::to_string).collect();
    assert_eq!(
        (servers, timeout.as_secs()),
        (vec!["10.0.0.53:53".to_owned(), "[fd00::53]:5353".to_owned()], 5)
    );
    assert_eq!(
        (zones[0].name.as_str(), zones[0].upstream[0].to_string().as_str()),
        ("corp.example", "10.1.0.53:53")
    );
}

#[test]
fn rules() {
    in_rule("", &[(2, 1, "`path` is missing"), (2, 1, "`ops` is missing"), (2, 1, "`verdict` is missing")]);
    in_rule("path = \"/\"\nops = []\nverdict = \"deny\"", &[(4, 7, "`ops` is empty")]);
    in_rule(
        "path = \"/\"\nops = [\"wirte\", 1, \"write\", \"write\"]\nverdict = \"deny\"",
        &[(4, 8, "did you mean `write`?"), (4, 17, "must be a string"), (4, 29, "named twice")],
    );
    in_rule("path = \"/\"\nops = [\"connect\"]\nverdict = \"deny\"", &[(4, 8, "unknown operation")]);
    in_rule("path = \"/\"\nops = [\"write\"]\nverdict = \"deny\"\nreason = 1", &[(6, 10, "`reason`")]);
}

#[test]
fn critical() {
    let critical = |verdict| {
        format!("version = 1\n[[critical]]\npath = \"/\"\nops = [\"write\"]\nverdict = {verdict:?}\n")
    };
    for verdict in ["allow", "report"] {
        mistakes(&format!("{}reason = \"x\"", critical(verdict)), &[(5, 11, "open it for all of them")]);
    }
    mistakes(&critical("deny"), &[(2, 1, "`reason` is missing")]);
    for verdict in ["hold", "deny", "kill"] {
        policy(&format!("{}reason = \"x\"", critical(verdict)));
    }
}

#[test]
fn names_of_profiles() {
    for name in ["", "a b", "é", "a\\nb"] {
        mistakes(&format!("version = 1\n[profile.\"{name}\"]"), &[(2, 10, "name of a profile")]);
    }
    mistakes(&format!("version = 1\n[profile.{}]", "x".repeat(65)), &[(2, 10, "name of a profile")]);
}

#[test]
fn one_run_finds_all() {
    let text = "version = 3\nx = 1\n[profile.p]\nmode = 1\n[profile.p.files]\nscope = [\"a\", \"b\"]\n";
    mistakes(text, &[(1, 11, ""), (2, 1, ""), (4, 8, ""), (6, 10, ""), (6, 15, "")]);
}

#[test]
fn several_files() {
    let file = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
    let found = load(vec![
        file("a.toml", "version = 1\n[profile.p]\n[profile.q]"),
        file("b.toml", "version = 1\n\n[profile.p]"),
        file("c.toml", "[profile.r]"),
    ])
    .unwrap_err();
    assert_eq!(found.len(), 2);
    assert!(
        found[0].to_string().starts_with("b.toml:3:10: error: profile `p` is already defined at a.toml:2:10")
    );
    assert!(found[1].to_string().starts_with("c.toml:1:1: error: `version` is missing"));
    let rule =
        "version = 1\n[[critical]]\npath = \"/\"\nops = [\"write\"]\nverdict = \"deny\"\nreason = \"x\"\n";
    let both = load(vec![file("a", rule), file("b", rule)]).unwrap();
    assert_eq!(both.critical.iter().map(|rule| rule.origin.file.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_ne!(both.digest, policy(rule).digest);
    assert_eq!(both.digest.len(), 64);
}

#[test]
fn paths_that_cannot_be_looked_up() {
    let mut fs = FakeFs::new(&["/a"]);
    fs.link("/loop", "/loop");
    fs.link("/a/lost", "/none");
    let text = "version = 1\n[profile.p.files]\nscope = [\"/a\", \"/none\", \"/loop/x\"]\n\
                [[profile.p.files.rule]]\npath = \"/loop\"\nops = [\"write\"]\nverdict = \"deny\"\n\
                [[critical]]\npath = \"/loop/*/x\"\nops = [\"write\"]\nverdict = \"deny\"\nreason = \"x\"\n";
    let found = built(&policy(text), &fs).unwrap_err();
    let found: Vec<_> = found.iter().map(|d| (d.line, d.column, d.message.as_str())).collect();
    let message = "\"/loop\" can't be looked up: too many links";
    assert_eq!(
        found,
        [(3, 25, "\"/loop/x\" can't be looked up: too many links"), (5, 8, message), (9, 8, message)]
    );
    let text = "version = 1\n[profile.p.files]\nscope = [\"/a/lost/x\"]\n";
    let warnings = compiled(text, &fs).warnings;
    assert_eq!((warnings.len(), warnings[0].line, warnings[0].column), (1, 3, 10));
    assert!(warnings[0].message.contains("\"/a/lost\" is a link that leads nowhere"), "{}", warnings[0]);
}

#[test]
fn paths_that_are_too_long_in_truth() {
    let deep = "/d".repeat(30);
    let mut fs = FakeFs::new(&[&deep]);
    fs.link("/short", &deep);
    let text = format!("version = 1\n[profile.p.files]\nscope = [\"/short{}\"]\n", "/x".repeat(27));
    let found = built(&policy(&text), &fs).unwrap_err();
    assert_eq!((found.len(), found[0].line, found[0].column), (1, 3, 10));
    assert!(found[0].message.contains("has more than 56 components"), "{}", found[0]);
    compiled(&text.replacen("/x", "", 1), &fs);
}

#[test]
fn too_many_depths_of_one_name() {
    let rule = |depth: usize| {
        format!(
            "[[profile.p.files.rule]]\npath = \"{}/x\"\nops = [\"write\"]\nverdict = \"deny\"\n",
            "/d".repeat(depth)
        )
    };
    let text = |count: usize| format!("version = 1\n{}", (0..count).map(rule).collect::<String>());
    compiled(&text(31), &FakeFs::new(&[]));
    let found = built(&policy(&text(32)), &FakeFs::new(&[])).unwrap_err();
    assert_eq!((found.len(), found[0].line, found[0].column), (1, 127, 8));
    assert!(found[0].message.contains("no room for"), "{}", found[0]);
}
