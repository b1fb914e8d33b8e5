//! The guard: its daemon, which stands still while something is measured, and its policy.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{places, workloads};

const PROGRAM: &str = "/usr/bin/agent-guard";
const CONFIG: &str = "/etc/agent-guard-bench/agent-guard.toml";
const POLICIES: &str = "/etc/agent-guard-bench/policy.d";
const LOG: &str = "/var/log/agent-guard-bench.log";
const EVENTS: &str = "/var/log/agent-guard-bench.jsonl";
const PROFILE: &str = "bench";
/// The same with a rule about commands, whose price is a row of its own.
const OF_COMMANDS: &str = "bench-commands";

/// Most rules of the profile; the others are critical, so that every one of them counts for the session. (A profile
/// must be in one file, and a file has at most 1 MiB.)
const OF_PROFILE: usize = 1000;
/// Critical rules in a file: few, because finding out in which line a rule stands takes the daemon time in proportion
/// to what stands before it.
const IN_A_FILE: usize = 250;

/// A daemon that runs or stands still.
pub(crate) struct Guard {
    daemon: Child,
}

impl Guard {
    /// Starts the daemon with the plain policy and waits until it answers.
    pub(crate) fn start() -> Result<Self> {
        fs::create_dir_all(POLICIES).with_context(|| format!("can't create {POLICIES}"))?;
        let text = format!("policy = {POLICIES:?}\nevents = {EVENTS:?}\n");
        fs::write(CONFIG, text).with_context(|| format!("can't write {CONFIG}"))?;
        write_policy(0)?;
        let log = File::create(LOG).with_context(|| format!("can't create {LOG}"))?;
        let daemon = Command::new(PROGRAM)
            .args(["daemon", "--config", CONFIG])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("can't start {PROGRAM}"))?;
        let mut guard = Self { daemon };
        for _ in 0..600 {
            if let Some(status) = guard.daemon.try_wait().context("can't wait for the daemon")? {
                bail!("the daemon ended ({status}): {}", log_tail());
            }
            let asked = Command::new(PROGRAM).args(["status", "--json"]).output();
            if asked.context("can't ask the daemon")?.stdout.starts_with(b"{") {
                return Ok(guard);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the daemon doesn't answer: {}", log_tail())
    }

    /// Puts a policy with that many file rules in force.
    pub(crate) fn rules(&self, count: usize) -> Result<()> {
        write_policy(count)?;
        self.reload(&format!("with {count} rules"))
    }

    /// Brings a policy into force that enrolls others than who is measured.
    pub(crate) fn enroll(&self) -> Result<()> {
        write_policy(0)?;
        let entry = |by: &str, who: &str| format!("[[enroll]]\n{by} = [{who:?}]\nprofile = {PROFILE:?}\n");
        let text =
            entry("exe", "/opt/bench-enrolled") + &entry("user", "4242") + &entry("unit", "bench@*.service");
        let path = format!("{POLICIES}/30-enroll.toml");
        fs::write(&path, format!("version = 1\n{text}")).with_context(|| format!("can't write {path}"))?;
        self.reload("that enrolls")
    }

    fn reload(&self, policy: &str) -> Result<()> {
        let begun = Instant::now();
        let done =
            Command::new(PROGRAM).args(["policy", "reload"]).output().context("can't ask the daemon")?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(done.status.success(), "a policy {policy} is refused: {}; {}", said.trim(), log_tail());
        // Nanoseconds are instructions.
        eprintln!("a policy {policy} in force after {} million instructions", begun.elapsed().as_millis());
        Ok(())
    }

    /// The command that becomes a session and then `program`.
    pub(crate) fn session(program: &str, of_commands: bool) -> Command {
        let mut command = Command::new(PROGRAM);
        let profile = if of_commands { OF_COMMANDS } else { PROFILE };
        command.args(["run", "--profile", profile, "--", program]);
        command
    }

    /// Lets the daemon take in what the kernel side has written, then stops all its threads.
    pub(crate) fn drain_and_freeze(&self) -> Result<()> {
        self.thaw()?;
        let mut before = (self.busy()?, 0);
        while before.1 < 3 {
            std::thread::sleep(Duration::from_millis(10));
            let now = self.busy()?;
            before = if now == before.0 { (now, before.1 + 1) } else { (now, 0) };
        }
        self.signal(Signal::STOP)?;
        while !self.threads()?.iter().all(|thread| state(thread) == Some('T')) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Lets the daemon go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Stops the daemon; what it has loaded stays.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.thaw()?;
        self.signal(Signal::TERM)?;
        let status = self.daemon.wait().context("can't wait for the daemon")?;
        ensure!(status.success(), "the daemon ended badly ({status}): {}", log_tail());
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.daemon.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).context("can't signal the daemon")
    }

    fn threads(&self) -> Result<Vec<PathBuf>> {
        let dir = format!("/proc/{}/task", self.daemon.id());
        let entries = fs::read_dir(&dir).with_context(|| format!("can't read {dir}"))?;
        entries.map(|entry| Ok(entry.with_context(|| format!("can't read {dir}"))?.path())).collect()
    }

    /// Nanoseconds that its threads have run.
    fn busy(&self) -> Result<u64> {
        let mut sum = 0_u64;
        for thread in self.threads()? {
            let path = thread.join("schedstat");
            // A thread may end meanwhile.
            let text = fs::read_to_string(&path).unwrap_or_default();
            sum += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
        }
        Ok(sum)
    }
}

/// What a thread is doing, as `/proc` has it.
fn state(thread: &Path) -> Option<char> {
    let stat = fs::read_to_string(thread.join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn log_tail() -> String {
    let text = fs::read_to_string(LOG).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(6).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

/// Writes the policy's files. Files of an earlier, longer policy go.
fn write_policy(rules: usize) -> Result<()> {
    for entry in fs::read_dir(POLICIES).with_context(|| format!("can't read {POLICIES}"))? {
        let path = entry?.path();
        fs::remove_file(&path).with_context(|| format!("can't remove {}", path.display()))?;
    }
    for (name, text) in policy(rules) {
        let path = format!("{POLICIES}/{name}");
        fs::write(&path, text).with_context(|| format!("can't write {path}"))?;
    }
    Ok(())
}

/// The files of a policy that has so many file rules, by name.
fn policy(rules: usize) -> Vec<(String, String)> {
    let critical = |path: &str| format!("[[critical]]\n{}reason = \"bench\"\n", deny(path));
    let mut text = "version = 1\n".to_owned();
    for path in places::CRITICAL {
        text.push_str(&critical(path));
    }
    text.push_str(&profile(PROFILE, rules));
    text.push_str(&profile(OF_COMMANDS, rules));
    let argv = places::COMMAND_RULE;
    text.push_str(&format!("[[profile.{OF_COMMANDS}.exec.rule]]\nargv = {argv:?}\nverdict = \"deny\"\n"));
    let mut files = vec![("10-bench.toml".to_owned(), text)];
    let others: Vec<usize> = (OF_PROFILE..rules).collect();
    for (at, numbers) in others.chunks(IN_A_FILE).enumerate() {
        let mut text = "version = 1\n".to_owned();
        for &number in numbers {
            text.push_str(&critical(&places::ruled(number)));
        }
        // Addresses of other profiles: in the kernel they are in the same table.
        text.push_str(&format!("[profile.more-{at}.network]\n{}", networks(numbers.iter().copied())));
        files.push((format!("20-{at:04}.toml"), text));
    }
    files
}

/// A profile, with as many rules as one may have.
fn profile(name: &str, rules: usize) -> String {
    let mut text =
        format!("[profile.{name}.files]\nscope = [{:?}, {:?}]\n", places::SCOPE, workloads::TOOLCHAIN);
    // A package installation needs what a session usually may not.
    let ops = agent_guard_common::Op::SYSTEM.iter().map(|op| format!("{} = \"allow\"\n", op.name()));
    let ops: String = ops.collect();
    text.push_str(&format!("[profile.{name}.system]\ncapabilities = [\"*\"]\n{ops}"));
    text.push_str(&format!("[profile.{name}.network]\nallow = [\"localhost\"]\nlisten = [\"localhost\"]\n"));
    text.push_str(&networks(0..rules.min(OF_PROFILE)));
    for number in 0..rules.min(OF_PROFILE) {
        text.push_str(&format!("[[profile.{name}.files.rule]]\n{}", deny(&places::ruled(number))));
    }
    text
}

/// A rule about an address for each of these numbers.
fn networks(numbers: impl Iterator<Item = usize>) -> String {
    let address = |number: usize| {
        let [_, a, b, c] = u32::try_from(number).unwrap_or_default().to_be_bytes();
        format!("\"10.{a}.{b}.{c}\"")
    };
    format!("deny = [{}]\n", numbers.map(address).collect::<Vec<_>>().join(", "))
}

fn deny(path: &str) -> String {
    format!("path = {path:?}\nops = [\"delete\"]\nverdict = \"deny\"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_as_many_rules_as_asked_for() {
        for count in [0, 10, 1000, 1001, 100_000] {
            let files = policy(count);
            let rules: usize = files.iter().map(|(_, text)| text.matches("path = ").count()).sum();
            assert_eq!(rules, count + count.min(OF_PROFILE) + places::CRITICAL.len());
            assert!(files.iter().all(|(_, text)| text.len() < 1 << 20 && text.starts_with("version = 1\n")));
        }
    }
}
