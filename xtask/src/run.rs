//! Running other programs, with errors that name the command and show what it said.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on only errors are told.
pub(crate) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether progress is told.
pub(crate) fn talkative() -> bool {
    !QUIET.load(Ordering::Relaxed)
}

/// Prints one progress line. All of them go to stderr, so that stdout belongs to what was asked for.
pub(crate) fn note(topic: &str, text: impl AsRef<str>) {
    if talkative() {
        say(topic, text);
    }
}

/// Prints one line that has to be seen.
pub(crate) fn say(topic: &str, text: impl AsRef<str>) {
    let mut err = std::io::stderr().lock();
    // A closed stderr is no reason to stop working.
    drop(writeln!(err, "{topic}: {}", text.as_ref()));
}

/// Does something that takes long, and says from time to time that it is still at it.
pub(crate) fn patiently<T>(topic: &str, what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let (done, waiting) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while waiting.recv_timeout(Duration::from_secs(20)) == Err(RecvTimeoutError::Timeout) {
                note(topic, format!("{what}: still at it after {} s", started.elapsed().as_secs()));
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// A command line as people would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// Runs a command with our own stdout and stderr.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("can't start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command silently; what it said is shown only if it fails.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    capture(command).map(drop)
}

/// Runs a command and returns its stdout.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&capture_bytes(command)?).into_owned())
}

/// Runs a command and returns its stdout as it is.
pub(crate) fn capture_bytes(command: &mut Command) -> Result<Vec<u8>> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("can't start `{}`", shown(command)))?;
    if !output.status.success() {
        let said = tail(&[output.stdout.as_slice(), output.stderr.as_slice()].concat(), 30);
        bail!("`{}` failed ({}):\n{said}", shown(command), output.status);
    }
    Ok(output.stdout)
}

/// Feeds `input` to a filter and returns what comes out of it. Filters such as `xz` may complain about
/// bytes after the end of their stream; `lenient` takes the output in spite of that.
pub(crate) fn filter(command: &mut Command, input: Vec<u8>, lenient: bool) -> Result<Vec<u8>> {
    let line = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start `{line}`"))?;
    let mut stdin = child.stdin.take().context("the filter has no stdin")?;
    // The filter may end before it has read everything; its exit code tells whether that matters.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().with_context(|| format!("can't wait for `{line}`"))?;
    drop(feeder.join());
    if output.status.success() || (lenient && !output.stdout.is_empty()) {
        return Ok(output.stdout);
    }
    bail!("`{line}` failed ({}): {}", output.status, tail(&output.stderr, 5));
}

/// The last lines of a program's output.
pub(crate) fn tail(bytes: &[u8], lines: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

/// Where `program` is found in PATH or in the folders where administrators' tools live.
pub(crate) fn which(program: impl AsRef<Path>) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].into_iter().map(Into::into))
        .map(|dir| dir.join(program.as_ref()))
        .find(|file| file.is_file())
}

/// What we may do to the machine we run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// We are root.
    Root,
    /// We can become root through `sudo`, without being asked or at the terminal.
    Sudo,
    /// Neither.
    None,
}

/// Finds out what we may do.
pub(crate) fn rights() -> Rights {
    if rustix::process::geteuid().is_root() {
        return Rights::Root;
    }
    let works = which("sudo").is_some() && Command::new("sudo").arg("-v").status().is_ok_and(|s| s.success());
    if works { Rights::Sudo } else { Rights::None }
}

/// A command that runs as root.
pub(crate) fn as_root(rights: Rights, program: impl AsRef<OsStr>) -> Result<Command> {
    match rights {
        Rights::Root => Ok(Command::new(program)),
        Rights::Sudo => {
            let mut command = Command::new("sudo");
            command.arg("--").arg(program);
            Ok(command)
        }
        Rights::None => bail!(
            "`{}` has to run as root, and neither are we root nor does sudo work: run this command as root",
            program.as_ref().to_string_lossy()
        ),
    }
}
