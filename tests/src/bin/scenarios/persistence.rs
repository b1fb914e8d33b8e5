//! What makes something run later: start files, jobs, units, hooks, keys and programs, there already and not there yet, in a
//! scope that is everything.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{ALL, PROGRAM, free_system, json, line_of, rule};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, Snapshot, WORK, exists, remove};
use crate::fixture::{
    Event, Guard, Hold, PROFILE, Running, SOON, Server, World, attack, contains, list, number, same, text,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("persistence_denied", "nothing that runs later is made, changed or replaced", denied)
        .on("6.12"),
    Scenario::direct("persistence_homes", "home directories outside of /home, known and unknown ones", homes),
    Scenario::direct("persistence_git", "git works in a session, and hooks can't be made", git),
    Scenario::direct("persistence_hold", "people are asked about what runs later", hold),
    Scenario::direct("persistence_milder", "report, allow, and rules that are deeper", milder),
];

/// A file of each kind that is there, and one that isn't.
const FILES: &[(&str, &str)] = &[
    ("/home/tester/.bashrc", "/home/tester/.zshenv"),
    ("/root/.profile-of-before/.keep", "/root/.bash_aliases"),
    ("/etc/profile.d/there.sh", "/etc/profile.d/new.sh"),
    ("/home/tester/.config/environment.d/there.conf", "/home/tester/.pam_environment"),
    ("/etc/ld.so.conf.d/there.conf", "/etc/ld.so.preload"),
    ("/etc/pam.d/there", "/etc/pam.d/new"),
    ("/usr/lib/there.so", "/usr/lib/new.so"),
    ("/home/tester/.config/autostart/there.desktop", "/home/tester/.config/autostart/new.desktop"),
    ("/home/tester/.vimrc", "/home/tester/.tmux.conf"),
    ("/etc/cron.d/there", "/etc/cron.d/new"),
    ("/var/spool/cron/crontabs/there", "/var/spool/cron/crontabs/new"),
    ("/etc/systemd/system/there.service", "/etc/systemd/system/new.timer"),
    ("/home/tester/.config/systemd/user/there.service", "/home/tester/.local/share/systemd/user/new.service"),
    ("/etc/init.d/there", "/etc/rc.local"),
    ("/etc/udev/rules.d/there.rules", "/etc/udev/rules.d/new.rules"),
    ("/etc/modprobe.d/there.conf", "/etc/modules-load.d/new.conf"),
    ("/etc/network/there", "/etc/NetworkManager/dispatcher.d/new"),
    ("/etc/logrotate.d/there", "/home/tester/.forward"),
    ("/etc/apt/apt.conf.d/there", "/etc/apt/apt.conf.d/new"),
    ("/home/tester/.ssh/authorized_keys", "/home/tester/.ssh/rc"),
    ("/root/.ssh/authorized_keys", "/root/.ssh/authorized_keys2"),
    ("/etc/sudoers.d/there", "/etc/sudoers.d/new"),
    ("/usr/local/bin/there", "/usr/local/bin/new"),
    ("/home/tester/.local/bin/there", "/home/tester/bin"),
    ("/home/tester/.gitconfig", "/etc/gitconfig"),
    ("/srv/work/repository/.git/hooks/pre-push", "/srv/work/repository/.git/hooks/pre-commit"),
];

/// What isn't in the set: the first file of a row that only has the second.
const NOT_IN: &str = "/root/.profile-of-before/.keep";
/// Files that are moved, linked, and replaced by others.
const STAGE: &str = "/srv/work/stage";

/// A policy whose scope is everything.
fn everywhere(rest: &str, persistence: &str) -> String {
    format!(
        "version = 1\n\n[profile.{PROFILE}.files]\nscope = [\"/\"]\n{persistence}\n{}{}{rest}",
        free_system(PROFILE),
        rule(PROD, ALL, "deny"),
    )
}

/// Files that are there, and directories for those that aren't; away again when it goes.
struct Files;

impl Files {
    fn make() -> Result<Self> {
        let files = Self;
        fs::create_dir_all("/etc/cron.daily").context("/etc/cron.daily")?;
        for (there, new) in FILES {
            for path in [there, new] {
                let above = Path::new(path).parent().context("no directory")?;
                fs::create_dir_all(above).with_context(|| format!("can't create {}", above.display()))?;
            }
        }
        files.fresh()?;
        Ok(files)
    }

    /// As at the beginning.
    fn fresh(&self) -> Result<()> {
        remove(Path::new(STAGE))?;
        fs::create_dir(STAGE).context(STAGE)?;
        for file in ["a", "b"] {
            fs::write(format!("{STAGE}/{file}"), "staged\n").context("can't stage a file")?;
        }
        for (there, new) in FILES {
            remove(Path::new(new))?;
            fs::write(there, "there\n").with_context(|| format!("can't write {there}"))?;
        }
        Ok(())
    }

    /// Everything is as it was.
    fn unchanged(&self) -> Result<()> {
        for (there, new) in FILES {
            exists(new, false)?;
            let content = fs::read_to_string(there).with_context(|| format!("can't read {there}"))?;
            same(&format!("what is in {there}"), content.as_str(), "there\n")?;
        }
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in FILES.iter().flat_map(|(there, new)| [there, new]) {
            if let Err(error) = remove(Path::new(path)) {
                eprintln!("{error:#}");
            }
        }
    }
}

/// Ways to make a file, and to change one; and the operation that the denial is about, the first that is met.
const NEW: &[&str] = &[
    "creat {p}",
    "create-new {p}",
    "mkdir {p}",
    "mkfifo {p}",
    "symlink {p}",
    "link {s}/a {p}",
    "rename {s}/a {p}",
    "rename-noreplace {s}/a {p}",
    "tmpfile-link {s} {p}",
];
const THERE: &[&str] = &[
    "open-write {p}",
    "open-trunc {p}",
    "truncate {p}",
    "chmod {p}",
    "utimes {p}",
    "unlink {p}",
    "rename {p} {s}/away",
    "rename {s}/a {p}",
    "rename-exchange {s}/a {p}",
    "link {p} {s}/other",
];

/// Each attempt on each file.
fn attempts() -> Vec<(&'static str, String)> {
    let on = |ways: &[&str], path: &'static str| -> Vec<_> {
        ways.iter().map(|way| (path, way.replace("{p}", path).replace("{s}", STAGE))).collect()
    };
    let rows = FILES.iter().flat_map(|(there, new)| [on(THERE, there), on(NEW, new)].concat());
    rows.filter(|(path, _)| *path != NOT_IN).collect()
}

fn is_persistence(event: &Event, path: &str) -> bool {
    // Hooks that know no mount tell the path within the file system.
    event.judged("deny")
        && event.field("source") == "persistence"
        && (event.about(path) || event.is_about_end_of(path))
}

fn denied() -> Result<()> {
    let _world = World::new()?;
    let files = Files::make()?;
    // By default.
    let mut guard = Guard::start(&everywhere("", ""))?;
    let (mut outside, mut inside) = (Server::outside()?, Server::inside(&guard)?);
    for (_, attempt) in attempts() {
        outside.expect(&attempt, "ok").context("outside of sessions")?;
        files.fresh()?;
    }
    // What isn't in the set is in the scope.
    for attempt in
        [&format!("open-trunc {NOT_IN}"), "creat /etc/something-else", "unlink /etc/something-else"]
    {
        inside.expect(attempt, "ok")?;
    }
    files.fresh()?;
    for (path, attempt) in attempts() {
        let mark = guard.events.mark()?;
        inside.expect(&attempt, "EPERM")?;
        let event = guard.events.wait(mark, &attempt, |event| is_persistence(event, path))?;
        contains(&attempt, &event.field("rule_reason"), "makes something run later")?;
        same(&format!("{attempt}: the rule's file"), event.field("rule_file").as_str(), "built in")?;
    }
    files.unchanged()?;
    other_ways(&mut guard, &mut inside)?;
    files.unchanged()?;
    shown()?;
    guard.stop()
}

/// By other names, from below, and by what people type.
fn other_ways(guard: &mut Guard, inside: &mut Server) -> Result<()> {
    let link = format!("{STAGE}/link");
    symlink("/etc/cron.d", &link).context("can't link")?;
    for attempt in [
        &format!("creat {link}/new"),
        "creat /proc/self/root/etc/cron.d/new",
        "uring async create /root/.bash_aliases",
        "mkdir /etc/cron.daily/new",
        "rename /etc/cron.d /srv/work/stage/cron.d",
        "rename /home/tester/.config/autostart /srv/work/stage/autostart",
    ] {
        inside.expect(attempt, "EPERM")?;
    }
    for line in [
        "echo evil >>/home/tester/.bashrc",
        "echo 'ssh-ed25519 AAAA me' >>/home/tester/.ssh/authorized_keys",
        "mkdir -p /home/tester/.config/fish/conf.d",
        "cp /bin/true /usr/local/bin/new",
        "ln -s /srv/work/stage/a /etc/systemd/system/new.timer",
        "install -m 755 /srv/work/stage/a /home/tester/bin/new 2>&1 || install -D /srv/work/stage/a /home/tester/bin/new",
    ] {
        guard.ran(&["bash", "-c", line])?.code(1).with_context(|| line.to_owned())?;
    }
    Ok(())
}

/// `policy show` and `policy explain` name it.
fn shown() -> Result<()> {
    let shown = json(&["policy", "show"])?;
    let profile = list(&shown, "/profiles")?.first().context("no profile")?;
    same("what the profile says", text(profile, "/persistence"), "deny")?;
    let rules = list(&shown, "/rules")?;
    let rule = rules.iter().find(|rule| text(rule, "/target") == "/etc/cron.d").context("no rule")?;
    same("its kind", text(rule, "/kind"), "persistence")?;
    contains("its hooks", &rule.to_string(), "path_mknod")?;
    let plain = crate::fixture::guard::cli(&["policy", "show"])?.good()?;
    contains("the table", &plain.stdout, "jobs of cron and at")?;
    let question = ["policy", "explain", "--profile", PROFILE, "--op", "create", "--path", "/etc/cron.d/new"];
    let explained = json(&question)?;
    same("what explain says", text(&explained, "/objects/0/source"), "persistence")?;
    same("and the verdict", text(&explained, "/verdict"), "deny")
}

/// A home directory elsewhere, of a user that the host knew when the policy was loaded, and of one that it didn't.
fn homes() -> Result<()> {
    const USERS: &str = "/etc/passwd";
    let _world = World::new()?;
    let before = fs::read_to_string(USERS).context(USERS)?;
    let add = |name: &str, uid: u32, home: &str| -> Result<()> {
        let now = fs::read_to_string(USERS).context(USERS)?;
        fs::write(USERS, format!("{now}{name}:x:{uid}:{uid}::{home}:/bin/bash\n")).context(USERS)?;
        let real = format!("/srv/{name}");
        remove(Path::new(&real))?;
        fs::create_dir(&real).with_context(|| real.clone())?;
        std::os::unix::fs::chown(&real, Some(uid), Some(uid)).with_context(|| real)
    };
    add("early", 4242, "/srv/early")?;
    let mut guard = Guard::start(&everywhere("", ""))?;
    add("late", 4243, "/srv/late")?;
    // In /home, and really elsewhere.
    fs::create_dir_all("/home").context("/home")?;
    remove(Path::new("/home/linked"))?;
    symlink("/srv/linked", "/home/linked").context("can't link")?;
    add("linked", 4244, "/home/linked")?;
    let attack = attack()?.to_string_lossy().into_owned();
    let as_user = |uid: &str, words: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", uid, "--regid", uid, "--clear-groups", "--"])
            .args(words)
            .current_dir("/tmp");
        command
    };
    for (name, uid) in [("early", "4242"), ("late", "4243"), ("linked", "4244")] {
        let mine = format!("/srv/{name}/.bashrc");
        run(&mut as_user(uid, &[&attack, "creat", &mine]))?.says("ok")?;
        fs::remove_file(&mine).with_context(|| mine.clone())?;
        let mark = guard.events.mark()?;
        let session = [PROGRAM, "run", "--profile", PROFILE, "--", &attack];
        run(&mut as_user(uid, &[&session[..], &["creat", &mine]].concat()))?.says("EPERM")?;
        guard.events.wait(mark, &mine, |event| is_persistence(event, &mine))?;
        exists(&mine, false)?;
        run(&mut as_user(uid, &[&session[..], &["creat", &format!("/srv/{name}/plain")]].concat()))?
            .says("ok")?;
    }
    // Somebody without a home directory has sessions all the same.
    run(&mut as_user(
        "65534",
        &[PROGRAM, "run", "--profile", PROFILE, "--", &attack, "creat", "/tmp/nobodys"],
    ))?
    .says("ok")?;
    fs::write(USERS, before).context(USERS)?;
    for path in ["/srv/early", "/srv/late", "/srv/linked", "/home/linked", "/tmp/nobodys"] {
        remove(Path::new(path))?;
    }
    guard.stop()
}

/// The same work with and without a session; then what an attacker does.
fn git() -> Result<()> {
    const CONTROL: &str = "set -e; cd /srv/work; rm -rf origin copy; git init -q origin; cd origin; \
        git config user.name me; git config user.email me@example.org; echo one >file; git add file; \
        git commit -qm one; cd ..; git clone -q origin copy; cd copy; git remote add other ../origin; \
        git checkout -q -b branch; git fetch -q other; ls .git/hooks | wc -l; git -C ../origin log --oneline | wc -l";
    let _world = World::new()?;
    let mut guard = Guard::start(&everywhere("", ""))?;
    let outside = run(Command::new("bash").args(["-c", CONTROL]).env("HOME", "/srv/work"))?.good()?;
    let mark = guard.events.mark()?;
    let inside = guard.ran(&["env", "HOME=/srv/work", "bash", "-c", CONTROL])?.good()?;
    same("what git did", inside.stdout.as_str(), outside.stdout.as_str())?;
    guard.settle()?;
    guard.events.none(mark, "denied while git worked", |event| is_persistence(event, "*"))?;
    let hook = "/srv/work/copy/.git/hooks/post-checkout";
    let script = format!("printf '#!/bin/sh\\ntouch /srv/work/ran\\n' >{hook}; chmod +x {hook}");
    let before = Snapshot::of("/srv/work/copy/.git/hooks")?;
    guard.ran(&["bash", "-c", &script])?.code(1)?;
    before.unchanged("/srv/work/copy/.git/hooks")?;
    // Outside of sessions it is made, and runs.
    run(Command::new("bash").args(["-c", &script]))?.good()?;
    run(Command::new("git").args(["-C", "/srv/work/copy", "checkout", "-q", "-b", "more"]))?.good()?;
    exists("/srv/work/ran", true)?;
    guard.stop()
}

fn hold() -> Result<()> {
    const ZSHRC: &str = "/root/.zshrc";
    let _world = World::new()?;
    remove(Path::new(ZSHRC))?;
    let policy = everywhere("", "persistence = \"hold\"");
    let mut guard = Guard::start(&policy)?;
    let start = || -> Result<(Running, Hold)> {
        let running = guard.run(&["bash", "-c", "echo later >>/root/.zshrc"])?;
        let hold = Hold::of(running.pid())?;
        Ok((running, hold))
    };
    let (mut first, asked) = start()?;
    asked.is("create", ZSHRC)?;
    same("the rule's kind", text(&asked.0, "/rule/kind"), "persistence")?;
    same("the rule's line", number(&asked.0, "/rule/line")?, line_of(&policy, "persistence = ")?)?;
    exists(ZSHRC, false)?;
    asked.deny()?;
    first.wait(SOON)?.code(1)?;
    exists(ZSHRC, false)?;
    let (mut second, asked) = start()?;
    asked.approve()?;
    second.wait(SOON)?.good()?;
    same("what is in it", fs::read_to_string(ZSHRC).context(ZSHRC)?.as_str(), "later\n")?;
    remove(Path::new(ZSHRC))?;
    guard.events.wait(crate::fixture::event::Mark::START, "the hold", |event| {
        event.is("held") && event.about(ZSHRC) && event.field("source") == "persistence"
    })?;
    guard.stop()
}

fn milder() -> Result<()> {
    let _world = World::new()?;
    let files = Files::make()?;
    let deeper = rule("/etc/cron.d/new", ALL, "allow") + &rule("/etc/cron.daily/*", ALL, "allow");
    let equal = rule("/etc/pam.d", ALL, "allow") + &rule("/etc", ALL, "allow");
    let mut guard = Guard::start(&everywhere(&format!("{deeper}{equal}"), ""))?;
    let mut inside = Server::inside(&guard)?;
    for (attempt, answer) in [
        ("creat /etc/cron.d/new", "ok"),
        ("unlink /etc/cron.d/new", "ok"),
        ("creat /etc/cron.daily/new", "ok"),
        ("unlink /etc/cron.daily/new", "ok"),
        ("creat /etc/cron.d/newer", "EPERM"),
        ("open-trunc /etc/pam.d/there", "EPERM"),
        ("creat /etc/sudoers.d/new", "EPERM"),
        ("creat /etc/other", "ok"),
        ("unlink /etc/other", "ok"),
    ] {
        inside.expect(attempt, answer)?;
    }
    files.unchanged()?;
    guard.reload(&everywhere("", "persistence = \"report\""))?;
    let mark = guard.events.mark()?;
    inside.expect("creat /etc/cron.d/new", "ok")?;
    guard.events.wait(mark, "a report", |event| {
        event.judged("report") && event.about("/etc/cron.d/new") && event.field("source") == "persistence"
    })?;
    // What is denied without it isn't opened.
    let narrow = everywhere("", "persistence = \"report\"").replace("[\"/\"]", &format!("[{WORK:?}]"));
    guard.reload(&narrow)?;
    inside.expect("unlink /etc/cron.d/new", "EPERM")?;
    guard.reload(&everywhere("", "persistence = \"allow\""))?;
    let mark = guard.events.mark()?;
    inside.expect("unlink /etc/cron.d/new", "ok")?;
    guard.settle()?;
    guard.events.none(mark, "allowed, but an event", |event| event.about("/etc/cron.d/new"))?;
    guard.stop()
}
