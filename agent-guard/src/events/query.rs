//! Events of the past, and those that happen while somebody follows.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{broadcast, mpsc},
};

use super::{
    activity::{Activity, Event, EventsLost},
    log::{EventLog, LogError, line_of, probe},
    recover::{Probe, beside},
    sink::Line,
};
use crate::api::{
    backend::EventLines,
    types::{EventQuery, Time},
};

/// Lines on the way to one reader.
const LINES: usize = 256;
/// A reader that doesn't take a line for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events are logged in the order in which they arrive, which is nearly that in which they happened.
const DISORDER_MS: u64 = 60_000;

/// What a reader sees at the moment when it asks.
struct Snapshot {
    files: Vec<(File, u64)>,
    waiting: Vec<Arc<Line>>,
    live: Option<broadcast::Receiver<Arc<Line>>>,
}

impl EventLog {
    /// The events that a query asks for: those of the past from the log and the file that was rotated
    /// last (`<path>.1`), then, if it follows, what happens. A reader that is too slow gets an event
    /// that says how many it missed.
    ///
    /// # Errors
    ///
    /// If the log can't be read, or this isn't called inside a tokio runtime.
    pub fn stream(self: &Arc<Self>, query: EventQuery) -> Result<EventLines, LogError> {
        let handle = Handle::try_current().map_err(|_error| LogError::Runtime)?;
        let (sender, receiver) = mpsc::channel(LINES);
        let snapshot = self.snapshot(&query)?;
        let log = Arc::clone(self);
        let runtime = handle.clone();
        handle.spawn(async move {
            let Snapshot { files, waiting, live } = snapshot;
            let past = (query.clone(), sender.clone());
            let replayed = tokio::task::spawn_blocking(move || {
                let (query, sender) = past;
                replay(&query, files, &waiting, |line| {
                    runtime.block_on(sender.send_timeout(line, PATIENCE)).is_ok()
                })
            });
            match replayed.await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    tracing::error!(%error, "the event log could not be read");
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "reading the event log ended early");
                    return;
                }
            }
            if let Some(live) = live {
                follow(&log, &query, live, &sender).await;
            }
        });
        Ok(receiver)
    }

    fn snapshot(&self, query: &EventQuery) -> Result<Snapshot, LogError> {
        // Nothing is written while this is held: what is in the files or waits is the past, and
        // everything else comes to the follower.
        let inner = self.lock();
        let live = query.follow.then(|| self.subscribe());
        if query.follow && query.since.is_none() {
            return Ok(Snapshot { files: Vec::new(), waiting: Vec::new(), live });
        }
        let mut files = Vec::new();
        for path in [beside(self.path(), ".1"), self.path().to_owned()] {
            match open(&path) {
                Ok(file) => files.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LogError::file(&path)(error)),
            }
        }
        let waiting = inner.queues.first().map(|queue| queue.waiting().iter().cloned().collect());
        Ok(Snapshot { files, waiting: waiting.unwrap_or_default(), live })
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// Gives out the past; false once nobody takes it any more.
fn replay(
    query: &EventQuery,
    files: Vec<(File, u64)>,
    waiting: &[Arc<Line>],
    mut send: impl FnMut(String) -> bool,
) -> io::Result<bool> {
    for (mut file, length) in files {
        let start = query.since.map_or(Ok(0), |since| find(&mut file, length, since))?;
        file.seek(SeekFrom::Start(start))?;
        let mut lines = BufReader::new(file).take(length.saturating_sub(start));
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let wanted = probe(text).is_some_and(|probe| wants_stored(query, &probe));
            if wanted && !send(String::from_utf8_lossy(text).into_owned()) {
                return Ok(false);
            }
            line.clear();
        }
    }
    for line in waiting.iter().filter(|line| wants(query, line)) {
        if !send(line.json.clone()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where lines that were logged at a time, or a little before, begin: by bisection.
fn find(file: &mut File, length: u64, since: Time) -> io::Result<u64> {
    let since = since.ms().saturating_sub(DISORDER_MS);
    let (mut low, mut high) = (0, length);
    while high - low > 64 * 1024 {
        let middle = low + (high - low) / 2;
        file.seek(SeekFrom::Start(middle))?;
        let mut lines = BufReader::new(&*file);
        let mut line = Vec::new();
        let cut = lines.read_until(b'\n', &mut line)?;
        line.clear();
        lines.read_until(b'\n', &mut line)?;
        let start = middle + u64::try_from(cut).unwrap_or(0);
        match probe(&line) {
            Some(probe) if probe.metadata.logged_time < since && start < high => low = start,
            Some(_) => high = middle,
            // A line that isn't an event: read from here on.
            None => break,
        }
    }
    Ok(low)
}

fn wants(query: &EventQuery, line: &Line) -> bool {
    chosen(query, line.time.ms(), line.session.map(|id| id.to_string()).as_deref(), line.verdict.as_deref())
}

fn wants_stored(query: &EventQuery, probe: &Probe) -> bool {
    let fields = &probe.unmapped.agent_guard;
    chosen(query, probe.time, fields.session.as_deref(), fields.verdict.as_deref())
}

fn chosen(query: &EventQuery, time: u64, session: Option<&str>, verdict: Option<&str>) -> bool {
    query.since.is_none_or(|since| time >= since.ms())
        && query.session.is_none_or(|wanted| session == Some(wanted.to_string().as_str()))
        && (query.verdicts.is_empty()
            || verdict.is_some_and(|verdict| query.verdicts.iter().any(|wanted| wanted == verdict)))
}

/// Gives out what happens until nobody takes it any more.
async fn follow(
    log: &EventLog,
    query: &EventQuery,
    mut live: broadcast::Receiver<Arc<Line>>,
    sender: &mpsc::Sender<String>,
) {
    let mut behind_since = Time::now();
    loop {
        let received = tokio::select! {
            () = sender.closed() => return,
            received = live.recv() => received,
        };
        let text = match received {
            Ok(line) if wants(query, &line) => line.json.clone(),
            Ok(line) => {
                behind_since = line.time;
                continue;
            }
            Err(broadcast::error::RecvError::Lagged(count)) => missed(log, count, behind_since),
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if sender.send_timeout(text, PATIENCE).await.is_err() {
            return;
        }
        behind_since = Time::now();
    }
}

/// Says that a reader was too slow. It is the reader's alone, so it has no number.
fn missed(log: &EventLog, count: u64, from: Time) -> String {
    let lost = EventsLost {
        kind: "follower".to_owned(),
        place: "follower".to_owned(),
        count,
        from,
        to: Time::now(),
    };
    line_of(&Event::now(Activity::EventsLost(lost)), log.host(), None).json
}
