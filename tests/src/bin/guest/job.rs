//! The guest's one job: runs it, carries its output to the host, and says how it ended.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::Winsize;
use serde::Deserialize;

use crate::ports::{self, Control};
use crate::{power_off, results};

const JOB: &str = "/opt/agent-guard-tests/job.json";
const TERMINAL: &str = "/dev/hvc0";

/// What the host wants to be run.
#[derive(Deserialize)]
struct Job {
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    cwd: String,
    /// Run it on a terminal.
    terminal: Option<Terminal>,
    /// A service that has to be active before.
    service: Option<String>,
    /// Send logs and results back.
    collect: bool,
    /// Its stdout are records: hand each over before the job goes on, so that none is lost in a crash.
    records: bool,
}

#[derive(Deserialize)]
struct Terminal {
    rows: u16,
    cols: u16,
}

/// Runs inside systemd's job service.
pub(crate) fn main() -> Result<()> {
    run(|child| {
        let status = child.wait().context("can't wait for the job")?;
        Ok(status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1))
    })?;
    // No orderly shutdown: the host has everything, and the disk is thrown away.
    power_off()
}

/// Reads the job and runs it; `wait` waits for its process. The host learns how that ended, whichever way.
pub(crate) fn run(wait: impl FnOnce(&mut Child) -> Result<i32>) -> Result<()> {
    let mut control = Control::open()?;
    match read_and_run(&mut control, wait) {
        Ok(code) => control.ended(code),
        Err(error) => control.broken(&format!("{error:#}")),
    }
}

fn read_and_run(control: &mut Control, wait: impl FnOnce(&mut Child) -> Result<i32>) -> Result<i32> {
    let text = std::fs::read_to_string(JOB).with_context(|| format!("can't read {JOB}"))?;
    let job: Job = serde_json::from_str(&text).with_context(|| format!("{JOB} isn't a job"))?;
    if let Some(service) = &job.service {
        require(service)?;
    }
    control.started()?;
    let code = match &job.terminal {
        Some(size) => on_terminal(&job, size, control, wait)?,
        None => on_pipes(&job, wait)?,
    };
    if job.collect {
        results::send()?;
    }
    rustix::fs::sync();
    Ok(code)
}

/// The command, found and with its environment.
fn command(job: &Job) -> Result<Command> {
    let [program, args @ ..] = job.argv.as_slice() else { bail!("{JOB} has an empty argv") };
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("USER", "root")
        .env("LOGNAME", "root")
        .env("SHELL", "/bin/bash")
        .env("LANG", "C.UTF-8")
        .envs(&job.env)
        .current_dir(&job.cwd);
    Ok(command)
}

/// Starts the job; a program that isn't there is the job's failure, told as a shell would.
fn spawn(command: &mut Command) -> Result<Result<Child, i32>> {
    match command.spawn() {
        Ok(child) => Ok(Ok(child)),
        Err(error) => {
            let name = command.get_program().to_string_lossy().into_owned();
            let text = format!("{name}: {error}\n");
            ports::open("agent-guard.err")?.write_all(text.as_bytes()).context("can't write to the host")?;
            Ok(Err(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }))
        }
    }
}

/// Runs the job with its output in two pipes, which we carry to the host. (The ports themselves can be
/// opened only once: a job that opens /dev/stderr would fail.)
fn on_pipes(job: &Job, wait: impl FnOnce(&mut Child) -> Result<i32>) -> Result<i32> {
    let mut command = command(job)?;
    let mut port = Some(ports::open("agent-guard.out")?);
    // A write to the port itself ends when the host has it.
    let stdout = port.take_if(|_| job.records).map_or_else(Stdio::piped, Stdio::from);
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    let mut child = match spawn(&mut command)? {
        Ok(child) => child,
        Err(code) => return Ok(code),
    };
    let ended = Arc::new(AtomicBool::new(false));
    let err = child.stderr.take().context("the job has no stderr")?;
    let mut carriers = vec![carry(err, ports::open("agent-guard.err")?, Arc::clone(&ended))];
    if let (Some(out), Some(port)) = (child.stdout.take(), port) {
        carriers.push(carry(out, port, Arc::clone(&ended)));
    }
    let code = wait(&mut child)?;
    ended.store(true, Ordering::SeqCst);
    for carrier in carriers {
        match carrier.join() {
            Ok(result) => result?,
            Err(_) => bail!("carrying the job's output failed"),
        }
    }
    Ok(code)
}

/// Copies until the end, or until the job has ended and nothing is left: what it leaves running may hold
/// the pipe open for ever.
fn carry(
    mut from: impl Read + AsFd + Send + 'static,
    mut to: File,
    ended: Arc<AtomicBool>,
) -> JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        let mut buffer = vec![0_u8; 64 << 10];
        loop {
            let last_look = ended.load(Ordering::SeqCst);
            let patience = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            let ready = poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&patience));
            match ready {
                Ok(0) if last_look => return Ok(()),
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error).context("can't wait for the job's output"),
            }
            let count = from.read(&mut buffer).context("can't read the job's output")?;
            let Some(bytes) = buffer.get(..count).filter(|b| !b.is_empty()) else { return Ok(()) };
            to.write_all(bytes).context("can't carry the job's output to the host")?;
        }
    })
}

/// Runs the job in a session of its own on the guest's terminal.
fn on_terminal(
    job: &Job,
    size: &Terminal,
    control: &Control,
    wait: impl FnOnce(&mut Child) -> Result<i32>,
) -> Result<i32> {
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open(TERMINAL)
        .with_context(|| format!("can't open {TERMINAL}"))?;
    resize(&terminal, size);
    let handle =
        || -> Result<Stdio> { Ok(terminal.try_clone().context("can't duplicate the terminal")?.into()) };
    let inner = command(job)?;
    let mut outer = Command::new("setsid");
    outer.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args());
    outer.env_clear().envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?))));
    outer.current_dir(&job.cwd).stdin(handle()?).stdout(handle()?).stderr(handle()?);
    let mut child = match spawn(&mut outer)? {
        Ok(child) => child,
        Err(code) => return Ok(code),
    };
    // Ends with the machine.
    let said = control.reader()?;
    let ears = terminal.try_clone().context("can't duplicate the terminal")?;
    std::thread::spawn(move || follow_size(said, &ears));
    let code = wait(&mut child)?;
    // What was written last has to leave before the machine does. (The end of a session hangs up its
    // terminal, which then can't be asked to drain.)
    std::thread::sleep(Duration::from_millis(100));
    Ok(code)
}

/// Gives the terminal the size that the host's has whenever the host says so.
fn follow_size(said: File, terminal: &File) {
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        if let Ok(size) = serde_json::from_str::<Terminal>(&line) {
            resize(terminal, &size);
        }
    }
}

fn resize(terminal: &File, size: &Terminal) {
    let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    // A terminal of the wrong size is a nuisance, no failure.
    rustix::termios::tcsetwinsize(terminal, size).ok();
}

/// Waits until systemd has made up its mind about a service, and shows its journal if that is a no.
fn require(service: &str) -> Result<()> {
    let ask = |verb: &str| -> Result<String> {
        let output =
            Command::new("systemctl").args([verb, service]).output().context("can't run systemctl")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    for _ in 0..300 {
        match ask("is-active")?.as_str() {
            "active" => return Ok(()),
            "activating" | "reloading" => std::thread::sleep(Duration::from_millis(200)),
            other => {
                let mut err = ports::open("agent-guard.err")?;
                for (program, args) in [
                    ("systemctl", vec!["status", "--no-pager", "--full", service]),
                    ("journalctl", vec!["--no-pager", "-b", "-u", service]),
                ] {
                    let output =
                        Command::new(program).args(&args).output().context("can't read the journal")?;
                    err.write_all(&output.stdout).context("can't write to the host")?;
                }
                bail!("{service} is {other}, not active; its journal is above");
            }
        }
    }
    bail!("{service} is still starting after a minute")
}

/// Whether a file is there, for what differs between guests.
pub(crate) fn exists(path: &str) -> bool {
    Path::new(path).exists()
}
