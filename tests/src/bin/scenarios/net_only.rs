//! Kernels that run no LSM programs: the network is judged all the same, and nothing is said to be that isn't.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};

use crate::Scenario;
use crate::fixture::guard::{cli, degraded, json, remove_traces, status};
use crate::fixture::net::lab::{OPEN, SHUT, about_name, list, network};
use crate::fixture::net::{Lab, ONE, TWO, at};
use crate::fixture::{
    Guard, PROFILE, SOON, Server, Skip, World, attack, contains, number, same, text, until,
};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "network_only",
    "without LSM programs: hosts, names, ports and protocols; what isn't enforced is said",
    only,
)
.with_cmdline("lsm=landlock,lockdown,yama")
.on("6.1 7.2")
.here_too()];

/// What says that a profile is content with less.
const CONTENT: &str = "degraded = \"report\"\n";

fn lines() -> String {
    let places = [at(ONE.v4(1), OPEN), at(ONE.v6(1), OPEN), format!("allowed.example.test:{SHUT}")];
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    list("allow", &places) + &list("listen", &["127.0.0.1:9000", "[::1]:9000"])
}

/// The usual profile, content with less, with a network section.
fn policy(lines: &str) -> String {
    let head = format!("version = 1\n\n[profile.{PROFILE}]\n{CONTENT}");
    network(lines).replacen("version = 1\n", &head, 1).replace("sockets = \"allow\"\n", "")
}

/// Whether this kernel runs LSM programs, which is nothing for this scenario.
fn runs_lsm_programs() -> Result<bool> {
    let list =
        std::fs::read_to_string("/sys/kernel/security/lsm").context("can't read the list of modules")?;
    let takes =
        aya::sys::is_program_supported(aya::programs::ProgramType::Lsm(aya::programs::LsmAttachType::Mac));
    Ok(list.trim().split(',').any(|name| name == "bpf") && takes.unwrap_or(false))
}

fn only() -> Result<()> {
    if runs_lsm_programs()? {
        return Err(Skip("this kernel runs LSM programs".to_owned()).into());
    }
    remove_traces()?;
    refused()?;
    let mut lab = Lab::new(&policy(&lines()))?;
    said()?;
    hosts(&mut lab)?;
    processes(&mut lab)?;
    names(&mut lab)?;
    ports(&mut lab)?;
    protocols(&mut lab)?;
    attached(&mut lab)?;
    reloaded(&mut lab)?;
    died(&mut lab)?;
    lab.guard.stop()?;
    remove_traces()
}

/// A policy that wants files guarded isn't taken, unless it says that it is content with less.
fn refused() -> Result<()> {
    let _world = World::new()?;
    let plain = policy(&lines()).replace(CONTENT, "");
    let guard = Guard::prepare(&plain)?;
    let done = guard.refuses()?;
    contains("why", &done.stderr, "only the network is judged")?;
    contains("what to do", &done.stderr, "degraded = \"report\"")?;
    contains("which rule", &done.stderr, "deny write outside")?;
    guard.stop()
}

/// `status` says what is enforced and what isn't.
fn said() -> Result<()> {
    let status = status()?;
    let degraded = degraded()?;
    contains("what is degraded", &degraded, "only the network is judged")?;
    contains("what isn't enforced", &degraded, "not enforced: ")?;
    contains("what isn't enforced", &degraded, "deny write outside")?;
    let rules = crate::fixture::list(&status, "/rules")?;
    let enforced = |words: &str| -> Result<String> {
        let rule = rules.iter().find(|rule| text(rule, "/text") == words);
        Ok(text(rule.with_context(|| format!("no rule {words:?}"))?, "/enforced").to_owned())
    };
    same("connecting", enforced("deny connect elsewhere")?.as_str(), "part")?;
    same("writing", enforced("deny write outside")?.as_str(), "none")
}

/// By the usual calls; the error that the policy wants.
fn hosts(lab: &mut Lab) -> Result<()> {
    for attempt in [
        "connect {one}:{shut}",
        "connect {one6}:{shut}",
        "connect {two}:{open}",
        "connect-udp {one}:{shut}",
        "connect-udp {two6}:{open}",
        "sendto {one}:{shut}",
        "sendto {two6}:{open}",
        "sendmsg {one6}:{shut}",
        "sendmmsg {one}:{open} {one}:{shut}",
        "fastopen {one}:{shut}",
        "connect-nonblocking {one}:{shut}",
        "connect-again-udp {one6}:{open} {one6}:{shut}",
        "uring plain connect {one}:{shut}",
        "uring async connect {one}:{shut}",
    ] {
        lab.denied(attempt)?;
    }
    for attempt in
        ["connect {one}:{open}", "connect {one6}:{open}", "connect-udp {one6}:{open}", "sendto {one}:{open}"]
    {
        lab.allowed(attempt)?;
    }
    lab.guard.reload(&policy(&(lines() + "denied = \"ECONNREFUSED\"\n")))?;
    for attempt in ["connect {one}:{shut}", "connect {two6}:{open}", "sendto {two}:{open}"] {
        let to: SocketAddr = Lab::line(attempt).rsplit(' ').next().unwrap_or_default().parse()?;
        lab.refused(attempt, to, "ECONNREFUSED")?;
    }
    lab.guard.reload(&policy(&lines())).map(drop)
}

/// What a session starts belongs to it, whatever started it.
fn processes(lab: &mut Lab) -> Result<()> {
    let attack = attack()?.display().to_string();
    let line = Lab::line("connect {one}:{shut}");
    for words in [
        format!("{attack} {line}"),
        format!("{attack} {line} & wait $!"),
        format!("(setsid {attack} {line})"),
        format!("unshare --pid --fork {attack} {line}"),
        format!("cd / && exec {attack} {line}"),
    ] {
        let run = |words: &str| lab.guard.ran(&["sh", "-c", words]);
        run(&words)?.says("EPERM").with_context(|| words.clone())?;
        run(&words.replace(&SHUT.to_string(), &OPEN.to_string()))?
            .says("ok")
            .with_context(|| words.clone())?;
    }
    lab.open.arrived();
    lab.shut.gets_nothing("processes of a session")
}

/// Names are asked of the daemon, by whichever socket; and whose question it is is known.
fn names(lab: &mut Lab) -> Result<()> {
    let one = format!("{} {}", ONE.v4(1), ONE.v6(1));
    let shut = SocketAddr::new(ONE.v4(1).into(), SHUT);
    lab.outside.expect("resolve other.example.test", &format!("{} {}", TWO.v4(1), TWO.v6(1)))?;
    lab.inside.expect(&format!("connect {shut}"), "EPERM")?;
    let mark = lab.guard.events.mark()?;
    lab.inside.expect("resolve allowed.example.test", &one)?;
    let told =
        lab.guard.events.wait(mark, "a name", |event| about_name(event, "allowed.example.test", false))?;
    let mut another = Server::inside(&lab.guard)?;
    another.expect(&format!("connect {shut}"), "EPERM").context("another session has not asked")?;
    ensure!(!told.field("session").is_empty(), "{}", told.brief());
    lab.inside.expect(&format!("connect {shut}"), "ok")?;
    lab.shut.gets("what a name leads to")?;
    for name in ["other.example.test", "example.test"] {
        let (mark, before) = (lab.guard.events.mark()?, lab.names.asked(name)?);
        lab.inside.expect(&format!("resolve {name}"), "unknown")?;
        lab.guard.events.wait(mark, name, |event| about_name(event, name, true))?;
        same("how often its server was asked", lab.names.asked(name)?, before)?;
    }
    lab.inside.expect("resolve-tcp allowed.example.test", &one).or_else(|error| {
        // Not every resolver can be told to.
        if format!("{error:#}").contains("? ") { Ok(()) } else { Err(error) }
    })
}

fn ports(lab: &mut Lab) -> Result<()> {
    for attempt in
        ["bind tcp 127.0.0.1:9001", "bind udp [::1]:9001", "bind tcp 0.0.0.0:9000", "bind tcp [::]:9000"]
    {
        lab.outside.expect(attempt, "ok")?;
        let mark = lab.guard.events.mark()?;
        lab.inside.expect(attempt, "EPERM")?;
        let told = lab.guard.events.wait(mark, attempt, |event| event.judged("deny"))?;
        same("the operation", told.field("operation").as_str(), "listen")?;
    }
    for attempt in ["bind tcp 127.0.0.1:9000", "listen tcp [::1]:9000", "bind udp 127.0.0.1:0"] {
        lab.inside.expect(attempt, "ok")?;
    }
    Ok(())
}

/// Sockets whose destinations aren't seen aren't made.
fn protocols(lab: &mut Lab) -> Result<()> {
    for attempt in ["connect-mptcp {one}:{shut}", "connect-sctp {one}:{shut}"] {
        let line = Lab::line(attempt);
        if lab.outside.ask(&line)? == "ok" {
            lab.shut.arrived();
            // It isn't even made.
            let answer = lab.inside.ask(&line)?;
            contains(&line, &answer, "Operation not permitted")?;
        }
    }
    lab.shut.gets_nothing("other protocols")
}

/// A tree that runs already.
fn attached(lab: &mut Lab) -> Result<()> {
    let mut server = Server::outside()?;
    let line = Lab::line("connect {one}:{shut}");
    server.expect(&line, "ok")?;
    lab.shut.arrived();
    let pid = server.process().pid().to_string();
    cli(&["attach", "--profile", PROFILE, "--pid", &pid])?.good()?;
    server.expect(&line, "EPERM")?;
    server.expect(&Lab::line("connect {one6}:{open}"), "ok")?;
    lab.shut.gets_nothing("what was attached")?;
    // Killing a session ends all of it.
    let sessions = json(&["session", "list"])?;
    let last = crate::fixture::list(&sessions, "/sessions")?.iter().rev();
    let mut of_it = last.filter(|one| number(one, "/root_pid").ok() == pid.parse().ok());
    let session = of_it.next().map(|one| text(one, "/id").to_owned()).context("no session of it")?;
    cli(&["session", "kill", &session])?.good()?;
    ensure!(server.process().ends_within(SOON)?, "it lives");
    Ok(())
}

/// What is connected goes on, until a policy forbids it.
fn reloaded(lab: &mut Lab) -> Result<()> {
    // A stream that is closed goes on trying to deliver what it has, and may again at the end.
    for kind in ["udp", "tcp"] {
        lab.guard.reload(&policy(&lines()))?;
        lab.inside.expect(&Lab::line(&format!("connect-keep {kind} {kind} {{one}}:{{open}}")), "ok")?;
        lab.inside.expect(&format!("use-kept {kind} write"), "ok")?;
        lab.open.gets("what is connected")?;
        lab.open.settle()?;
        lab.guard.reload(&policy(&list("allow", &[&at(ONE.v6(1), OPEN)])))?;
        let mark = lab.guard.events.mark()?;
        let answer = lab.inside.ask(&format!("use-kept {kind} write"))?;
        // A stream has taken it, and doesn't deliver it.
        ensure!(answer == "EPERM" || kind == "tcp", "{kind}: {answer}");
        lab.open.gets_nothing("what is forbidden now")?;
        let told = lab.guard.events.wait(mark, kind, |event| event.judged("deny"))?;
        same("the hook", told.field("hook").as_str(), "egress")?;
        let pid = lab.inside.process().pid();
        same("who", number(&told.0, "/actor/process/pid")?, pid.into())?;
        let ip: IpAddr = text(&told.0, "/dst_endpoint/ip").parse().context("no address")?;
        same("where it went", ip, IpAddr::from(ONE.v4(1)))?;
        lab.inside.expect(&format!("drop-kept {kind}"), "ok")?;
    }
    lab.guard.reload(&policy(&lines())).map(drop)
}

/// The daemon's death opens nothing.
fn died(lab: &mut Lab) -> Result<()> {
    lab.guard.kill()?;
    let shut = Lab::line("connect {one6}:{shut}");
    lab.inside.expect(&Lab::line("connect {two}:{open}"), "EPERM")?;
    lab.inside.expect(&Lab::line("connect {one}:{open}"), "ok")?;
    lab.inside.expect("resolve allowed.example.test", "try-again")?;
    lab.guard.launch()?;
    until("names are answered again", SOON, || {
        Ok((lab.inside.ask("resolve allowed.example.test")? != "try-again").then_some(()))
    })?;
    let mut new = Server::inside(&lab.guard)?;
    new.expect(&shut, "EPERM")?;
    lab.open.arrived();
    lab.shut.gets_nothing("what is forbidden")
}
