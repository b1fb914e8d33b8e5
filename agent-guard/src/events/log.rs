//! The log of events: numbers them, gives them to the sinks and to whoever follows.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;

use crate::api::types::Time;

use super::{
    activity::{Activity, Event, EventsLost},
    journal::{self, Journal},
    ocsf::{self, Host},
    recover::{self, Probe, Recovered},
    sink::{Line, Queue, Sink},
};

/// When what was written is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sync {
    /// When the kernel likes.
    Never,
    /// With every [`EventLog::tick`].
    #[default]
    Ticks,
    /// At once for what says that something was stopped, else with every [`EventLog::tick`].
    Decisions,
}

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file.
    pub path: PathBuf,
    /// When it is made durable.
    pub sync: Sync,
    /// Bytes kept in memory for each sink while it doesn't take events.
    pub queue_bytes: usize,
    /// Socket of the journal; used if it is there.
    pub journal: Option<PathBuf>,
    /// Directory that is kept until the next boot, for what has no room beside the log.
    pub state: Option<PathBuf>,
}

impl Options {
    /// A log in a file, with the journal beside it where there is one.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            sync: Sync::default(),
            queue_bytes: 64 << 20,
            journal: Some(PathBuf::from(journal::SOCKET)),
            state: None,
        }
    }
}

/// Why the log can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file can't be opened or read.
    #[error("event log {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Following needs the daemon's runtime.
    #[error("events can only be streamed inside the daemon's runtime")]
    Runtime,
}

impl LogError {
    pub(super) fn file(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

/// The log.
pub struct EventLog {
    inner: Mutex<Inner>,
    followers: broadcast::Sender<Arc<Line>>,
    host: Host,
    options: Options,
}

pub(super) struct Inner {
    /// The file first.
    pub(super) queues: Vec<Queue>,
    sequence: u64,
    kept: u64,
    dirty: bool,
}

impl EventLog {
    /// Lines that a follower can be behind before it loses some.
    const FOLLOWER_LINES: usize = 4096;

    /// Opens the log, goes on where it ended, and opens the other sinks.
    ///
    /// # Errors
    ///
    /// If the file can't be opened, or isn't a log.
    pub fn open(options: Options, host: Host) -> Result<Self, LogError> {
        let (file, found) = FileSink::open(&options.path)?;
        let kept = recover::kept_sequence(&options.path, options.state.as_deref());
        let sequence = found.sequence.max(kept);
        let mut queues = vec![Queue::new(Box::new(file), options.queue_bytes)];
        if let Some(socket) = options.journal.as_deref().filter(|socket| socket.exists()) {
            match Journal::new(socket) {
                Ok(journal) => queues.push(Queue::new(Box::new(journal), options.queue_bytes / 8)),
                Err(error) => tracing::error!(%error, "no events to the journal"),
            }
        }
        let inner = Inner { queues, sequence, kept: 0, dirty: false };
        let (followers, _) = broadcast::channel(Self::FOLLOWER_LINES);
        let log = Self { inner: Mutex::new(inner), followers, host, options };
        // An empty file was just rotated: what it would begin with is in another one.
        if found.sequence > 0 && kept > found.sequence {
            log.say(Activity::EventsLost(EventsLost {
                kind: "decisions".to_owned(),
                place: "file".to_owned(),
                count: kept - found.sequence,
                from: Time(found.time),
                to: Time::now(),
            }));
        }
        Ok(log)
    }

    /// The host that events name.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.options.path
    }

    /// Says that something happens now.
    pub fn say(&self, activity: Activity) {
        self.append(&Event::now(activity));
    }

    /// Takes an event. Never fails: what a sink doesn't take waits, and what there is no room for is
    /// counted and becomes an event.
    pub fn append(&self, event: &Event) {
        let mut inner = self.lock();
        self.append_locked(&mut inner, event);
        if self.options.sync == Sync::Decisions && event.is_decision() {
            inner.flush();
        }
        self.say_losses(&mut inner);
    }

    fn append_locked(&self, inner: &mut Inner, event: &Event) {
        inner.sequence += 1;
        let line = Arc::new(line_of(event, &self.host, Some(inner.sequence)));
        for queue in &mut inner.queues {
            queue.push(Arc::clone(&line));
        }
        inner.dirty = true;
        // Nobody follows: that is no failure.
        drop(self.followers.send(line));
    }

    fn say_losses(&self, inner: &mut Inner) {
        let losses: Vec<_> = inner
            .queues
            .iter_mut()
            .filter_map(|queue| queue.take_loss().map(|loss| (queue.name(), loss)))
            .collect();
        for (place, loss) in losses {
            let kind = if loss.decisions > 0 { "decisions" } else { "reports" };
            let lost = EventsLost {
                kind: kind.to_owned(),
                place: place.to_owned(),
                count: loss.count,
                from: loss.from,
                to: loss.to,
            };
            self.append_locked(inner, &Event::now(Activity::EventsLost(lost)));
        }
    }

    /// To be called about every second: tries what waits again, makes durable what was written, and
    /// says what was lost.
    pub fn tick(&self) {
        let mut inner = self.lock();
        for queue in &mut inner.queues {
            queue.drain(false);
        }
        if self.options.sync != Sync::Never && inner.dirty {
            inner.flush();
        }
        self.say_losses(&mut inner);
        self.keep_sequence(&mut inner);
    }

    /// Opens the file again, after it was rotated.
    ///
    /// # Errors
    ///
    /// If that fails; the log goes on in the file that it has.
    pub fn reopen(&self) -> Result<(), LogError> {
        let mut inner = self.lock();
        self.keep_sequence(&mut inner);
        for queue in &mut inner.queues {
            queue.reopen().map_err(LogError::file(&self.options.path))?;
        }
        Ok(())
    }

    /// Makes everything durable; for the end of the daemon.
    pub fn close(&self) {
        let mut inner = self.lock();
        for queue in &mut inner.queues {
            queue.drain(true);
        }
        inner.flush();
        self.keep_sequence(&mut inner);
    }

    /// What doesn't work as it should.
    #[must_use]
    pub fn degraded(&self) -> Vec<String> {
        self.lock()
            .queues
            .iter()
            .filter_map(|queue| {
                let error = queue.error()?;
                let lost = queue.loss().map_or(0, |loss| loss.count);
                Some(format!(
                    "events don't reach the {}: {error} ({} wait, {lost} lost)",
                    queue.name(),
                    queue.waiting().len()
                ))
            })
            .collect()
    }

    fn keep_sequence(&self, inner: &mut Inner) {
        if inner.kept == inner.sequence {
            return;
        }
        let kept = recover::keep_sequence(&self.options.path, self.options.state.as_deref(), inner.sequence);
        match kept {
            Ok(()) => inner.kept = inner.sequence,
            Err(error) => tracing::warn!(%error, "the number of the last event could not be kept"),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Arc<Line>> {
        self.followers.subscribe()
    }
}

impl Inner {
    fn flush(&mut self) {
        for queue in &mut self.queues {
            queue.flush();
        }
        self.dirty = false;
    }
}

/// An event as sinks get it.
pub(super) fn line_of(event: &Event, host: &Host, sequence: Option<u64>) -> Line {
    let value = ocsf::render(event, host, sequence);
    let text = |path: &str| value.pointer(path).and_then(|value| value.as_str()).map(str::to_owned);
    Line {
        sequence,
        time: event.time,
        session: text("/unmapped/agent_guard/session").and_then(|id| id.parse().ok()),
        verdict: text("/unmapped/agent_guard/verdict"),
        message: text("/message").unwrap_or_default(),
        severity: value.get("severity_id").and_then(serde_json::Value::as_u64).unwrap_or(0),
        decision: event.is_decision(),
        json: value.to_string(),
    }
}

/// The log's file.
struct FileSink {
    path: PathBuf,
    file: File,
    /// Where a line that was written in part begins, if it could not be cut off.
    torn: Option<u64>,
}

impl FileSink {
    fn open(path: &Path) -> Result<(Self, Recovered), LogError> {
        let mut file = Self::open_file(path).map_err(LogError::file(path))?;
        let found = recover::recover(&mut file, path).map_err(LogError::file(path))?;
        if found.torn > 0 {
            tracing::warn!(path = %path.display(), bytes = found.torn, "the last line was torn; see .torn");
        }
        Ok((Self { path: path.to_owned(), file, torn: None }, found))
    }

    fn open_file(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)
    }
}

impl Sink for FileSink {
    fn name(&self) -> &'static str {
        "file"
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        if let Some(length) = self.torn {
            self.file.set_len(length)?;
            self.torn = None;
        }
        let before = self.file.metadata()?.len();
        let mut bytes = Vec::with_capacity(line.json.len() + 1);
        bytes.extend_from_slice(line.json.as_bytes());
        bytes.push(b'\n');
        self.file.write_all(&bytes).inspect_err(|_| {
            if self.file.set_len(before).is_err() {
                self.torn = Some(before);
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let mut file = Self::open_file(&self.path)?;
        recover::recover(&mut file, &self.path)?;
        self.file = file;
        self.torn = None;
        Ok(())
    }
}

/// Reads the fields by which a stored line is chosen.
pub(super) fn probe(line: &[u8]) -> Option<Probe> {
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests;
