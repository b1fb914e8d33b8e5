//! One run of one guest: starts it, follows its channels, and says how it ended.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::payload::Payload;
use super::qemu::{self, CHANNELS, Channel};
use super::{Accel, Mode, console, initramfs};
use crate::run::{self, note};
use crate::setup::kernels::Kernel;

/// What to boot, and how.
#[derive(Debug, Clone)]
pub(crate) struct Boot<'a> {
    /// The kernel.
    pub(crate) kernel: &'a Kernel,
    /// The root file system's image, which stays as it is.
    pub(crate) rootfs: &'a Path,
    /// The disk of tools, for guests that need them; it stays as it is, too.
    pub(crate) toolchain: Option<&'a Path>,
    /// Hardware or emulation.
    pub(crate) accel: Accel,
    /// How user space starts; none for a trial that ends there.
    pub(crate) mode: Option<Mode>,
    /// More words for the kernel's command line.
    pub(crate) append: &'a [String],
    /// Where console log and results go.
    pub(crate) logs: &'a Path,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From the start to the job.
    pub(crate) boot: Duration,
    /// Without any sign of life of the job.
    pub(crate) silence: Option<Duration>,
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The job ended with this code.
    Ended(i32),
    /// The guest broke, or was ended because of this.
    Broken(String),
    /// The kernel didn't get as far as user space.
    FalseStart(String),
}

/// Where a job's output goes.
pub(crate) trait Sink {
    /// Its stdout.
    fn out(&mut self, bytes: &[u8]) -> Result<()>;
    /// Its stderr.
    fn err(&mut self, bytes: &[u8]) -> Result<()>;
    /// Its terminal's output.
    fn terminal(&mut self, bytes: &[u8]) -> Result<()>;
    /// The guest's terminal is connected; writing to it is typing, writing to the control channel
    /// tells its size.
    fn connected(&mut self, _terminal: UnixStream, _control: UnixStream) {}
    /// Called several times a second; a reason ends the guest.
    fn overdue(&mut self) -> Option<String> {
        None
    }
}

/// Takes no interest.
pub(crate) struct Silent;

impl Sink for Silent {
    fn out(&mut self, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }
    fn err(&mut self, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }
    fn terminal(&mut self, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// A record on the control channel.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Record {
    Booted,
    Started,
    Ended { code: i32 },
    Broken { why: String },
}

enum Event {
    Bytes(Channel, Vec<u8>),
    Record(Record),
    Trouble(String),
    Closed,
}

/// Ends QEMU when the run is over, however that comes.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The most that a guest may take to its job. More than systemd gives the product's service (120 s), whose
/// journal says better what was too slow.
pub(crate) const TO_JOB: Duration = Duration::from_secs(300);

/// The most that a kernel may take to user space. Two seconds are usual, six on a busy machine.
const FIRST_SIGN: Duration = Duration::from_secs(90);

/// Runs a guest to its end.
///
/// Under emulation, one boot in some hundreds hangs early because a processor's timer never fires. What
/// is under test isn't there yet: such a guest is booted again.
pub(crate) fn run(
    boot: &Boot<'_>,
    guest: &Path,
    payload: &Payload<'_>,
    limits: &Limits,
    sink: &mut dyn Sink,
) -> Result<Ending> {
    let mut ending = run_once(boot, guest, Some(payload), limits, sink)?;
    for _ in 0..2 {
        let Ending::FalseStart(why) = &ending else { break };
        note("vm", format!("Linux {} didn't reach user space, booting it again: {why}", boot.kernel.release));
        ending = run_once(boot, guest, Some(payload), limits, sink)?;
    }
    Ok(match ending {
        Ending::FalseStart(why) => Ending::Broken(format!("{why} (three boots in a row)")),
        other => other,
    })
}

/// Boots a guest once. A trial boot has no payload.
pub(crate) fn run_once(
    boot: &Boot<'_>,
    guest: &Path,
    payload: Option<&Payload<'_>>,
    limits: &Limits,
    sink: &mut dyn Sink,
) -> Result<Ending> {
    sweep();
    let dir = tempfile::Builder::new().prefix(PREFIX).tempdir().context("can't create a folder")?;
    let initramfs = dir.path().join("initramfs");
    std::fs::write(&initramfs, initramfs::build(boot.kernel, guest)?).context("can't write the initramfs")?;
    if let Some(payload) = payload {
        payload.write(&dir.path().join("payload.tar"))?;
    }
    let results = dir.path().join("results.tar");
    File::create(&results).and_then(|f| f.set_len(256 << 20)).context("can't create the results disk")?;
    let mut listeners = Vec::new();
    for channel in CHANNELS {
        let path = dir.path().join(channel.name());
        listeners.push((
            channel,
            UnixListener::bind(&path).with_context(|| format!("can't bind {}", path.display()))?,
        ));
    }
    let mut running = Running(qemu::start(boot, dir.path(), &initramfs)?);
    let (sender, events) = channel();
    if let Some(problem) = connect(listeners, &mut running, &sender, boot.logs, sink)? {
        return Ok(Ending::Broken(problem));
    }
    drop(sender);
    let mut watch =
        Watch { limits, booted: false, started: false, since: Instant::now(), ending: None, grace: None };
    watch.follow(&events, &mut running, sink)?;
    drop(running);
    let ending = match watch.ending.unwrap_or_else(|| Ending::Broken(silent_end(boot.logs))) {
        Ending::Broken(why) if !watch.booted => Ending::FalseStart(why),
        other => other,
    };
    if payload.is_some_and(|p| p.job.collect) && matches!(ending, Ending::Ended(_)) {
        let file = File::open(&results).context("can't read the results")?;
        tar::Archive::new(BufReader::new(file))
            .unpack(boot.logs)
            .with_context(|| format!("can't unpack the guest's results into {}", boot.logs.display()))?;
    }
    Ok(ending)
}

/// The runs' folders. Not below target: a socket's path has room for a hundred bytes only.
const PREFIX: &str = "agent-guard-vm.";

/// Removes what runs left behind that were killed. No run takes a day.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|m| m.elapsed().ok());
        if ours && age.is_some_and(|age| age > Duration::from_secs(24 * 3600)) {
            // Another user's stays.
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

/// Waits for QEMU to connect to all channels and starts to read them. Returns what QEMU said if it
/// ended instead.
fn connect(
    listeners: Vec<(Channel, UnixListener)>,
    running: &mut Running,
    events: &Sender<Event>,
    logs: &Path,
    sink: &mut dyn Sink,
) -> Result<Option<String>> {
    let (mut terminal, mut control) = (None, None);
    for (channel, listener) in listeners {
        listener.set_nonblocking(true).context("can't listen")?;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("can't accept QEMU's connection"),
            }
            if running.0.try_wait().context("can't ask for QEMU")?.is_some() {
                return Ok(Some(silent_end(logs)));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_nonblocking(false).context("can't set up a channel")?;
        match channel {
            Channel::Terminal => terminal = Some(stream.try_clone()?),
            Channel::Control => control = Some(stream.try_clone()?),
            _ => {}
        }
        let log = match channel {
            Channel::Console => {
                Some(File::create(logs.join("console.log")).context("can't create the console log")?)
            }
            _ => None,
        };
        let events = events.clone();
        std::thread::spawn(move || read(channel, stream, log, &events));
    }
    if let (Some(terminal), Some(control)) = (terminal, control) {
        sink.connected(terminal, control);
    }
    Ok(None)
}

/// Turns a channel's bytes into events, until its end.
fn read(channel: Channel, stream: UnixStream, log: Option<File>, events: &Sender<Event>) {
    // A receiver that is gone wants nothing any more.
    match channel {
        Channel::Console => read_console(stream, log, events),
        Channel::Control => {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let record = serde_json::from_str(&line).unwrap_or_else(|error| Record::Broken {
                    why: format!("a record that isn't one ({error}): {line}"),
                });
                drop(events.send(Event::Record(record)));
            }
        }
        Channel::Out | Channel::Err | Channel::Terminal => {
            let mut stream = stream;
            let mut buffer = vec![0_u8; 64 << 10];
            while let Ok(count) = stream.read(&mut buffer) {
                let Some(bytes) = buffer.get(..count).filter(|b| !b.is_empty()) else { break };
                drop(events.send(Event::Bytes(channel, bytes.to_vec())));
            }
        }
    }
    drop(events.send(Event::Closed));
}

fn read_console(stream: UnixStream, mut log: Option<File>, events: &Sender<Event>) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if let Some(log) = &mut log {
            drop(log.write_all(&line));
        }
        let text = String::from_utf8_lossy(&line);
        match console::trouble(text.trim_end()) {
            Some(trouble) => drop(events.send(Event::Trouble(trouble.to_owned()))),
            None => drop(events.send(Event::Bytes(Channel::Console, Vec::new()))),
        }
    }
}

/// The state of a run.
struct Watch<'a> {
    limits: &'a Limits,
    booted: bool,
    started: bool,
    since: Instant,
    ending: Option<Ending>,
    /// When QEMU is ended if it doesn't end by itself.
    grace: Option<Instant>,
}

impl Watch<'_> {
    fn follow(&mut self, events: &Receiver<Event>, running: &mut Running, sink: &mut dyn Sink) -> Result<()> {
        let begun = Instant::now();
        loop {
            match events.recv_timeout(Duration::from_millis(100)) {
                // All channels are closed and everything they carried has been seen.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(event) => {
                    self.since = Instant::now();
                    self.take(event, sink)?;
                }
            }
            if self.grace.is_some_and(|grace| grace <= Instant::now()) {
                // Ends the channels, and so this loop, when the rest has been read.
                drop(running.0.kill());
                self.grace = None;
            }
            if self.ending.is_none()
                && let Some(why) = self.late(begun).or_else(|| sink.overdue())
            {
                self.end(Ending::Broken(why), Duration::ZERO);
            }
        }
    }

    /// The first ending counts.
    fn end(&mut self, ending: Ending, grace: Duration) {
        if self.ending.is_none() {
            self.ending = Some(ending);
            self.grace = Some(Instant::now() + grace);
        }
    }

    fn take(&mut self, event: Event, sink: &mut dyn Sink) -> Result<()> {
        match event {
            Event::Bytes(Channel::Out, bytes) => sink.out(&bytes)?,
            Event::Bytes(Channel::Err, bytes) => sink.err(&bytes)?,
            Event::Bytes(Channel::Terminal, bytes) => sink.terminal(&bytes)?,
            Event::Bytes(Channel::Console | Channel::Control, _) | Event::Closed => {}
            Event::Record(Record::Booted) => self.booted = true,
            Event::Record(Record::Started) => self.started = true,
            // The guest powers off by itself now.
            Event::Record(Record::Ended { code }) => self.end(Ending::Ended(code), Duration::from_secs(5)),
            Event::Record(Record::Broken { why }) => self.end(Ending::Broken(why), Duration::from_secs(1)),
            // A second for the rest of the kernel's report.
            Event::Trouble(line) => {
                self.end(Ending::Broken(format!("the guest's kernel said: {line}")), Duration::from_secs(1));
            }
        }
        Ok(())
    }

    fn late(&self, begun: Instant) -> Option<String> {
        if !self.started {
            let limit = if self.booted { self.limits.boot } else { self.limits.boot.min(FIRST_SIGN) };
            return (begun.elapsed() > limit)
                .then(|| format!("the guest didn't get as far as its job within {} s", limit.as_secs()));
        }
        let limit = self.limits.silence?;
        (self.since.elapsed() > limit)
            .then(|| format!("the guest gave no sign of life for {} s", limit.as_secs()))
    }
}

/// Why a guest is gone that said nothing: the last words of console and QEMU.
fn silent_end(logs: &Path) -> String {
    let last = |name: &str| {
        let bytes = std::fs::read(logs.join(name)).unwrap_or_default();
        run::tail(&bytes, 3).replace(['\r', '\n'], " ")
    };
    let (qemu, console) = (last("qemu.log"), last("console.log"));
    let mut why = String::from("the guest ended without a record");
    for (who, said) in [("QEMU", qemu), ("the console", console)] {
        if !said.trim().is_empty() {
            why.push_str(&format!("; {who} said last: {}", said.trim()));
        }
    }
    why
}
