//! What people get wrong: each mistake has its exit code, and a message that helps.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, PROGRAM, cli, line_of, pins, points_at, policy, remove_traces, rule};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, exists};
use crate::fixture::{Guard, PROFILE, Running, SOON, Server, Skip, World, contains};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "bad_policies",
        "the daemon refuses to start with a policy that is wrong or anybody's",
        policies,
    )
    .on("6.18"),
    Scenario::direct("bad_commands", "wrong names, wrong words, no daemon", commands).on("7.2"),
    Scenario::direct("bad_daemons", "a second daemon, a daemon that isn't root's", daemons).on("6.18"),
    Scenario::direct("bad_kernel", "a kernel without BPF among its security modules is refused", kernel)
        .with_cmdline("lsm=landlock,lockdown,yama"),
];

fn commands() -> Result<()> {
    let _world = World::new()?;
    for words in
        [&["status"][..], &["session", "list"], &["approvals", "list"], &["policy", "reload"], &["events"]]
    {
        cli(words)?.code(5).context("no daemon")?.complains("agent-guard")?;
    }
    let guard = Guard::prepare(&policy(&rule(PROD, CHANGES, "deny")))?;
    guard.ran(&["touch", "/srv/work/unguarded"])?.code(125)?;
    exists("/srv/work/unguarded", false)?;
    let mut guard = guard;
    guard.launch()?;
    let unknown = run(&mut guard.command("no-such-profile", &["touch", "/srv/work/unguarded"]))?.code(125)?;
    contains("the message", &unknown.stderr, "no-such-profile")?;
    contains("the message lists what there is", &unknown.stderr, PROFILE)?;
    exists("/srv/work/unguarded", false)?;
    for words in [
        &["no-such-command"][..],
        &["run"],
        &["run", "--profile", PROFILE],
        &["run", "--no-such-option", "--", "true"],
        &["approvals", "approve"],
        &["session", "show"],
        &["policy", "explain", "--profile", PROFILE],
        &["policy", "explain", "--profile", PROFILE, "--op", "explode", "--path", "/"],
        &["events", "--since", "yesterday"],
    ] {
        let done = cli(words)?.code(2)?;
        anyhow::ensure!(!done.stderr.is_empty(), "no message: {}", done.summary());
    }
    for words in [
        &["approvals", "approve", "01ARZ3NDEKTSV4RRFFQ69G5FAV"][..],
        &["session", "show", "01ARZ3NDEKTSV4RRFFQ69G5FAV"],
        &["policy", "explain", "--profile", "no-such-profile", "--op", "delete", "--path", "/srv"],
    ] {
        let done = cli(words)?.code(1)?;
        anyhow::ensure!(!done.stderr.is_empty(), "no message: {}", done.summary());
    }
    cli(&["--version"])?.good()?;
    cli(&["--help"])?.good()?;
    guard.stop()
}

fn daemons() -> Result<()> {
    let _world = World::new()?;
    let mut guard = Guard::start(&policy(&rule(PROD, CHANGES, "deny")))?;
    let mut inside = Server::inside(&guard)?;
    let first = guard.daemon()?.pid();
    let done = guard.refuses()?;
    contains("the second daemon's message", &done.stderr, "already")?;
    let other = Guard::prepare(&policy(""))?;
    let done = other.refuses()?;
    contains("the message of a second daemon with another configuration", &done.stderr, "already")?;
    let status = crate::fixture::guard::json(&["status"])?;
    let pid = crate::fixture::number(&status, "/pid")?;
    anyhow::ensure!(pid == u64::from(first), "the first daemon was replaced");
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    guard.halt()?;
    let mut command = std::process::Command::new("setpriv");
    let daemon = guard.daemon_command();
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", PROGRAM])
        .args(daemon.get_args());
    let done = Running::start(&mut command)?.wait(SOON)?;
    anyhow::ensure!(!done.status.success(), "it started: {}", done.summary());
    contains("the message", &done.stderr, "root")?;
    guard.launch()?;
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    guard.stop()
}

fn policies() -> Result<()> {
    remove_traces()?;
    let _world = World::new()?;
    let relative = policy(&rule("srv/prod", CHANGES, "deny"));
    let unknown_key = policy("[profile.agent.filse]\n");
    let not_toml = "version = 1\nthis is no TOML\n".to_owned();
    for (text, mistake) in [(&relative, "srv/prod\""), (&unknown_key, "filse"), (&not_toml, "this is")] {
        let guard = Guard::prepare(text)?;
        let done = guard.refuses()?.code(3)?;
        points_at(&done.stderr, line_of(text, mistake)?)?;
        nothing_left()?;
        remove_traces()?;
    }
    // Whoever can write the policy is the policy: nobody but root may.
    let good = policy(&rule(PROD, CHANGES, "deny"));
    let guard = Guard::prepare(&good)?;
    let file = guard.policy_file();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).context("can't chmod")?;
    let done = guard.refuses()?;
    contains("the message", &done.stderr, "10-test.toml")?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).context("can't chmod")?;
    std::os::unix::fs::chown(file, Some(65534), None).context("can't chown")?;
    let done = guard.refuses()?;
    contains("the message", &done.stderr, "10-test.toml")?;
    std::os::unix::fs::chown(file, Some(0), None).context("can't chown")?;
    let mut guard = guard;
    guard.launch()?;
    guard.attack(&["unlink", "/srv/prod/f"])?.says("EPERM")?;
    guard.stop()
}

fn kernel() -> Result<()> {
    remove_traces()?;
    let modules =
        std::fs::read_to_string("/sys/kernel/security/lsm").context("can't read the list of modules")?;
    if modules.split(',').any(|module| module.trim() == "bpf") {
        return Err(Skip(format!(
            "needs a kernel without bpf among its modules, this one has {}",
            modules.trim()
        ))
        .into());
    }
    let _world = World::new()?;
    let guard = Guard::prepare(&policy(&rule(PROD, CHANGES, "deny")))?;
    let done = guard.refuses()?;
    contains("the message", &done.stderr, "bpf")?;
    contains("the message says what to do", &done.stderr, "lsm=landlock,lockdown,yama,bpf")?;
    contains("the message says where to look", &done.stderr, "agent-guard doctor")?;
    nothing_left()?;
    guard.ran(&["touch", "/srv/work/unguarded"])?.code(125)?;
    exists("/srv/work/unguarded", false)
}

/// A daemon that refused to start has left nothing behind in the kernel.
fn nothing_left() -> Result<()> {
    anyhow::ensure!(pins().map_or(true, |pins| pins.is_empty()), "it has left {:?}", pins());
    Ok(())
}
