//! `policy explain`: the kernel's tables and a policy file give the same answers, and the kernel does what they say.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Scenario;
use crate::fixture::guard::{cli, critical, json, policy_of, rule};
use crate::fixture::world::PROD;
use crate::fixture::{Guard, PROFILE, Server, World, list, same, text};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "policy_explain",
    "explain by the kernel's tables, by a file alone, and what really happens are the same",
    explain,
)
.on("6.18")];

/// Operation, path, and the attempt that shows whether it is so.
const QUESTIONS: &[(&str, &str, &str)] = &[
    ("write", "/srv/prod/f", "open-write /srv/prod/f"),
    ("read", "/srv/prod/f", "open-read /srv/prod/f"),
    ("create", "/srv/prod/none", "mkdir /srv/prod/none"),
    ("delete", "/srv/prod/dir/f", "unlink /srv/prod/dir/f"),
    ("delete", "/srv/work/dir/f", "unlink /srv/work/dir/f"),
    ("write", "/srv/work/f", "open-write /srv/work/f"),
    ("write", "/srv/work/linked", "open-write /srv/work/linked"),
    ("write", "/srv/work/dir/a.state", "open-write /srv/work/dir/a.state"),
    ("delete", "/srv/work/dir/.git", "rmdir /srv/work/dir/.git"),
    ("metadata", "/srv/work/f", "chmod /srv/work/f"),
    ("metadata", "/srv/prod/f", "chmod /srv/prod/f"),
    ("write", "/dev/null", "open-write /dev/null"),
];
const ADDRESSES: &[&str] =
    &["127.0.0.1:81", "10.20.0.7:443", "10.20.0.7:80", "[fd00::7]:443", "[2001:db8::1]:1"];

fn told(base: &[&str], question: &[&str]) -> Result<Value> {
    let words = [&["policy", "explain", "--profile", PROFILE], question, base].concat();
    let answer = json(&words)?;
    Ok(answer.pointer("/objects").with_context(|| format!("no objects: {answer}"))?.clone())
}

/// Questions about names, protocols, and listening.
const NETWORK: &[(&[&str], &str)] = &[
    (&["--connect", "static.example.org:443"], "allow"),
    (&["--connect", "example.org:443"], "deny"),
    (&["--connect", "static.example.org:443", "--address", "192.0.2.1"], "allow"),
    (&["--connect", "static.example.org:80", "--address", "127.0.0.1"], "allow"),
    (&["--connect", "10.20.0.1:443/udp"], "allow"),
    (&["--connect", "10.20.0.1/icmp"], "deny"),
    (&["--listen", "127.0.0.1:80"], "allow"),
    (&["--listen", "0.0.0.0:80"], "deny"),
];

fn explain() -> Result<()> {
    let world = World::new()?;
    world.file("/srv/work/dir/a.state")?;
    std::fs::create_dir_all("/srv/work/dir/.git").context("can't make a directory")?;
    std::os::unix::fs::symlink("/srv/prod/dir/f", "/srv/work/linked").context("can't make a link")?;
    let rules = rule("**/.git", &["delete", "rename"], "deny")
        + &rule("**/*.state", &["write"], "deny")
        + &rule("/srv/prod/dir/*", &["delete", "write"], "deny")
        + &format!(
            "[profile.{PROFILE}.network]\nallow = [\"localhost\", \"10.20.0.0/16:443\", \"[fd00::]/8:443\", \"*.example.org:443\"]\n\
             listen = [\"localhost\"]\n\n"
        )
        + &critical(PROD, &["create"], "deny");
    let policy = policy_of("${cwd}", &rules);
    let guard = Guard::start(&policy)?;
    let mut inside = Server::inside(&guard)?;
    let file = guard.policy_file().display().to_string();
    let session = session_of(inside.process().pid())?;
    let running: &[&str] = &["--session", &session];
    let alone: &[&str] = &["--file", &file, "--cwd", "/srv/work"];
    for (op, path, attempt) in QUESTIONS {
        let question = ["--op", op, "--path", path];
        let (kernel, plain) = (told(running, &question)?, told(alone, &question)?);
        same(&format!("{op} {path}"), &plain, &kernel)?;
        let verdict = list(&serde_json::json!({ "o": kernel }), "/o")?
            .first()
            .map(|object| text(object, "/verdict").to_owned())
            .with_context(|| format!("no object: {kernel}"))?;
        let goes_on = ["allow", "report"].contains(&verdict.as_str());
        let outcome = inside.ask(attempt)?;
        let denied = outcome == "EPERM";
        anyhow::ensure!(goes_on != denied, "{op} {path}: {verdict}, but {attempt} ended in {outcome}");
    }
    for address in ADDRESSES {
        let question = ["--connect", address];
        same(address, &told(&["--file", &file], &question)?, &told(&[], &question)?)?;
    }
    for (question, verdict) in NETWORK {
        let (plain, in_force) = (told(&["--file", &file], question)?, told(&[], question)?);
        same(&question.join(" "), &plain, &in_force)?;
        same(&question.join(" "), text(&plain, "/0/verdict"), verdict)?;
    }
    // Without a session nobody's directory is in scope.
    let question = ["--op", "write", "--path", "/srv/work/f"];
    let nobody = told(&[], &question)?;
    same("for no session", text(&nobody, "/0/source"), "outside")?;
    same("by the file alone", &told(&["--file", &file], &question)?, &nobody)?;
    // Whoever asks learns what is wrong with the question.
    let ask = |words: &[&str]| cli(&[&["policy", "explain", "--profile", PROFILE], words].concat());
    ask(&["--op", "write", "--path", "/srv/prod/f", "--file", "/no/such/file"])?
        .code(1)?
        .complains("/no/such")?;
    ask(&["--op", "write", "--path", "/srv/prod/f", "--cwd", "/srv/work"])?.code(2)?.complains("--file")?;
    ask(&["--connect", "*.example.org:1", "--file", &file])?.code(2)?.complains("*.example.org:1")?;
    ask(&["--listen", "example.org:1", "--file", &file])?.code(2)?.complains("example.org:1")?;
    guard.write_policy("version = 1\nnonsense = 1\n")?;
    ask(&["--op", "write", "--path", "/", "--file", &file])?.code(3)?.complains(":2:1:")?;
    guard.stop()
}

fn session_of(pid: u32) -> Result<String> {
    let sessions = json(&["session", "list"])?;
    let all = list(&sessions, "/sessions")?;
    let mine = all
        .iter()
        .find(|session| session.pointer("/root_pid").and_then(Value::as_u64) == Some(u64::from(pid)));
    Ok(text(mine.with_context(|| format!("no session of {pid}: {sessions}"))?, "/id").to_owned())
}
