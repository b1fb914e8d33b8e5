//! What rules are about that doesn't exist, comes again, moves, or may be anywhere.

use super::*;

/// A policy with one rule a line: verdict, operations and path; the scope is `/scope` and what begins with it.
fn rules(lines: &[(&str, &str)]) -> String {
    let rules = lines.iter().map(|(verdict, path)| {
        format!(
            "[[profile.p.files.rule]]\npath = {path:?}\nops = [\"read\", \"delete\"]\nverdict = {verdict:?}\n"
        )
    });
    format!(
        "version = 1\n[profile.p.files]\nscope = [\"/scope\"]\npersistence = \"allow\"\n{}",
        rules.collect::<String>()
    )
}

/// The verdict for deleting.
fn delete(compiled: &Compiled, fs: &FakeFs, path: &str) -> String {
    let (verdict, source, _) = explained(compiled, fs, "delete", path);
    format!("{verdict} {source}")
}

impl FakeFs {
    fn rename(&mut self, from: &str, to: &str) {
        self.world.rename(Path::new(from), Path::new(to)).unwrap();
    }

    fn remove(&mut self, path: &str) {
        self.world.remove(Path::new(path)).unwrap();
    }

    fn file(&mut self, path: &str) {
        self.world.file(Path::new(path)).unwrap();
    }
}

#[test]
fn what_does_not_exist_yet() {
    let mut fs = FakeFs::new(&["/a"]);
    let compiled = compiled(&rules(&[("kill", "/a/b/c"), ("report", "/a")]), &fs);
    assert_eq!(delete(&compiled, &fs, "/a/b/c"), "kill rule");
    assert_eq!(delete(&compiled, &fs, "/a/b/c/d"), "kill rule");
    assert_eq!(delete(&compiled, &fs, "/a/b"), "report rule");
    fs.add("/a/b/c/d");
    assert_eq!(delete(&compiled, &fs, "/a/b/c/d"), "kill rule");
    assert_eq!(explained(&compiled, &fs, "create", "/a/b/c"), is("deny", "outside", 0));
    // The directory that was there takes the rule along.
    fs.rename("/a", "/z");
    assert_eq!(delete(&compiled, &fs, "/z/b/c"), "kill rule");
    // And the name keeps it.
    fs.add("/a/b/c");
    assert_eq!(delete(&compiled, &fs, "/a/b/c"), "kill rule");
    assert_eq!(delete(&compiled, &fs, "/a/b"), "report rule");
}

#[test]
fn a_scope_that_does_not_exist_yet() {
    let mut fs = FakeFs::new(&[]);
    let compiled = compiled(&rules(&[]), &fs);
    assert_eq!(delete(&compiled, &fs, "/scope/x"), "allow scope");
    fs.add("/scope/x");
    assert_eq!(delete(&compiled, &fs, "/scope/x"), "allow scope");
    fs.rename("/scope/x", "/x");
    assert_eq!(delete(&compiled, &fs, "/x"), "deny outside");
}

#[test]
fn deleted_and_made_again() {
    let mut fs = FakeFs::new(&["/a/b", "/other"]);
    fs.file("/a/b/f");
    let compiled = compiled(&rules(&[("kill", "/a/b/f")]), &fs);
    let old = fs.key("/a/b/f");
    fs.remove("/a/b/f");
    // Another file gets the number.
    fs.file("/other/f");
    let new = fs.key("/other/f");
    assert_eq!((old.ino, old.igen == new.igen), (new.ino, false));
    assert_eq!(delete(&compiled, &fs, "/other/f"), "deny outside");
    fs.file("/a/b/f");
    assert_eq!(delete(&compiled, &fs, "/a/b/f"), "kill rule");
    fs.remove("/a/b/f");
    fs.remove("/a/b");
    fs.add("/a/b/f");
    assert_eq!(delete(&compiled, &fs, "/a/b/f"), "kill rule");
}

#[test]
fn moved_and_linked() {
    let mut fs = FakeFs::new(&["/a/b", "/c"]);
    fs.file("/a/b/f");
    let compiled = compiled(&rules(&[("kill", "/a/b/f"), ("report", "/a/b")]), &fs);
    fs.world.link(Path::new("/a/b/f"), Path::new("/c/g")).unwrap();
    assert_eq!(delete(&compiled, &fs, "/c/g"), "kill rule");
    fs.rename("/a/b/f", "/c/f");
    assert_eq!(delete(&compiled, &fs, "/c/f"), "kill rule");
    // What comes in its place has the rule too.
    fs.file("/a/b/f");
    assert_eq!(delete(&compiled, &fs, "/a/b/f"), "kill rule");
    fs.rename("/a/b", "/c/b");
    assert_eq!(delete(&compiled, &fs, "/c/b/f"), "kill rule");
    assert_eq!(delete(&compiled, &fs, "/c/b/x"), "report rule");
}

#[test]
fn one_component() {
    let mut fs = FakeFs::new(&["/home/u/.ssh", "/home/v", "/out"]);
    fs.file("/home/w");
    let compiled =
        compiled(&rules(&[("kill", "/home/*/.ssh"), ("report", "/home/*"), ("allow", "/home")]), &fs);
    for (path, expected) in [
        ("/home/u/.ssh/id", "kill rule"),
        ("/home/v/.ssh", "kill rule"),
        ("/home/new/.ssh", "kill rule"),
        ("/home/.ssh", "report rule"),
        ("/home/u/x/.ssh", "report rule"),
        ("/home/u", "report rule"),
        ("/home/w", "report rule"),
        ("/home", "allow rule"),
    ] {
        assert_eq!(delete(&compiled, &fs, path), expected, "{path}");
    }
    // What was there keeps it, wherever it goes; so does what comes below.
    fs.rename("/home/u/.ssh", "/out/ssh");
    assert_eq!(delete(&compiled, &fs, "/out/ssh/id"), "kill rule");
    fs.rename("/home/v", "/out/v");
    assert_eq!(delete(&compiled, &fs, "/out/v/.ssh"), "kill rule");
    assert_eq!(delete(&compiled, &fs, "/out/v"), "deny outside");
}

#[test]
fn several_stars() {
    let fs = FakeFs::new(&["/a/b/c/d"]);
    let compiled = compiled(&rules(&[("kill", "/*/x/*/y"), ("report", "/*/*/z"), ("hold", "/a/*/c/*")]), &fs);
    for (path, expected) in [
        ("/a/x/q/y", "kill rule"),
        ("/q/x/q/y", "kill rule"),
        ("/a/x/y", "deny outside"),
        ("/a/q/z", "report rule"),
        ("/a/b/c/z", "hold rule"),
        ("/a/b/c", "deny outside"),
        ("/a/q/c/z", "hold rule"),
    ] {
        assert_eq!(delete(&compiled, &fs, path), expected, "{path}");
    }
}

#[test]
fn anywhere() {
    let mut fs = FakeFs::new(&["/a/.git", "/scope"]);
    let compiled = compiled(&rules(&[("kill", "**/.git"), ("hold", "**/x/*/y"), ("report", "**/*.tf")]), &fs);
    for (path, expected) in [
        ("/a/.git", "kill rule"),
        ("/.git/hooks/x", "kill rule"),
        ("/scope/new/.git", "kill rule"),
        ("/a/.gitignore", "deny outside"),
        ("/x/b/y", "hold rule"),
        ("/a/x/b/y/z", "hold rule"),
        ("/x/y", "deny outside"),
        ("/a/main.tf", "report rule"),
        ("/a/.tf", "report rule"),
        ("/a/main.tf/x", "report rule"),
        ("/a/main.tfx", "deny outside"),
        // The deepest decides.
        ("/a/.git/main.tf", "report rule"),
    ] {
        assert_eq!(delete(&compiled, &fs, path), expected, "{path}");
    }
    fs.rename("/a/.git", "/a/git");
    assert_eq!(delete(&compiled, &fs, "/a/git"), "deny outside");
    assert_eq!(compiled.head.suffixes, 1 << 2);
}

#[test]
fn links_below_stars_are_not_followed() {
    let mut fs = FakeFs::new(&["/home/u", "/etc"]);
    fs.link("/home/u/public", "/etc");
    fs.link("/home/l", "/etc");
    let compiled = compiled(&rules(&[("allow", "/home/*/public"), ("allow", "/home/*/x")]), &fs);
    assert_eq!(delete(&compiled, &fs, "/etc/passwd"), "deny outside");
    assert_eq!(delete(&compiled, &fs, "/etc/x"), "deny outside");
    assert_eq!(delete(&compiled, &fs, "/home/u/public"), "allow rule");
}

/// Unmounted, and another disk mounted: stricter, never milder.
#[test]
fn names_over_mount_points() {
    let mut fs = FakeFs::new(&["/a"]);
    fs.mount(2, "/a/disk");
    fs.add("/a/disk/x");
    let compiled = compiled(&rules(&[("kill", "/a/disk/x"), ("allow", "/a/disk/y")]), &fs);
    assert_eq!(delete(&compiled, &fs, "/a/disk/y"), "allow rule");
    fs.mount(3, "/a/disk");
    assert_eq!(delete(&compiled, &fs, "/a/disk/x/z"), "kill rule");
    assert_eq!(delete(&compiled, &fs, "/a/disk/y"), "deny outside");
    for _ in 0..2 {
        fs.world.unmount(Path::new("/a/disk")).unwrap();
    }
    assert_eq!(delete(&compiled, &fs, "/a/disk/x/z"), "kill rule");
    assert_eq!(delete(&compiled, &fs, "/a/disk/y"), "allow rule");
}

/// A file system that was mounted in what a pattern matches belongs to it.
#[test]
fn mounted_in_a_pattern() {
    let mut fs = FakeFs::new(&["/home/u", "/srv/secret.d"]);
    fs.mount(2, "/home/u/disk");
    fs.mount(3, "/home/v");
    fs.mount(4, "/srv/secret.d/disk");
    fs.mount(5, "/srv/x/.git/disk");
    let compiled = compiled(
        &rules(&[("kill", "/home/*"), ("report", "**/*.d"), ("allow", "**/.git"), ("hold", "/home/*/.ssh")]),
        &fs,
    );
    assert_eq!(delete(&compiled, &fs, "/home/u/disk/x"), "kill rule");
    assert_eq!(delete(&compiled, &fs, "/home/v/x"), "kill rule");
    assert_eq!(delete(&compiled, &fs, "/home/v"), "kill rule");
    assert_eq!(delete(&compiled, &fs, "/home/v/.ssh"), "hold rule");
    assert_eq!(delete(&compiled, &fs, "/srv/secret.d/disk/x"), "report rule");
    assert_eq!(delete(&compiled, &fs, "/srv/x/.git/disk/x"), "allow rule");
}

#[test]
fn more_matches_than_there_is_room_for() {
    let mut fs = FakeFs::new(&["/home"]);
    for number in 0..10_001 {
        fs.world.mkdir(Path::new(&format!("/home/u{number:05}"))).unwrap();
    }
    fs.add("/home/u00000/.ssh");
    fs.add("/home/u10000/.ssh");
    let compiled = compiled(&rules(&[("kill", "/home/*/.ssh")]), &fs);
    assert_eq!((compiled.warnings.len(), compiled.warnings[0].line), (1, 6));
    assert!(compiled.warnings[0].message.contains("matches more than"), "{}", compiled.warnings[0]);
    fs.rename("/home/u00000/.ssh", "/first");
    fs.rename("/home/u10000/.ssh", "/last");
    assert_eq!(delete(&compiled, &fs, "/first"), "kill rule");
    assert_eq!(delete(&compiled, &fs, "/last"), "deny outside");
    assert_eq!(delete(&compiled, &fs, "/home/u10000/.ssh"), "kill rule");
}

#[test]
fn equal_places_are_one() {
    let fs = FakeFs::new(&["/a/b", "/c"]);
    let compiled = compiled(&rules(&[("kill", "/a/b")]), &fs);
    // The scope, and the rule: each an object or a name below `/`, and names below directories.
    assert_eq!(compiled.places.len(), 2);
    assert_eq!((compiled.objects.len(), compiled.names.len()), (1, 3));
    assert_eq!(compiled.places.keys().copied().collect::<Vec<_>>(), [1, 2]);
}
