//! Where events go, and what happens while a place doesn't take them.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use ulid::Ulid;

use crate::api::types::Time;

/// An event as sinks and followers get it.
#[derive(Debug)]
pub struct Line {
    /// One line of JSON, without the newline.
    pub json: String,
    /// Its number; nothing for what isn't part of the log.
    pub sequence: Option<u64>,
    /// When it happened.
    pub time: Time,
    /// Its session.
    pub session: Option<Ulid>,
    /// Its verdict.
    pub verdict: Option<String>,
    /// Its sentence for people.
    pub message: String,
    /// `severity_id`.
    pub severity: u64,
    /// Whether it says that something was or would be stopped.
    pub decision: bool,
}

/// A place that takes events.
pub trait Sink: Send {
    /// Its name, for status and events.
    fn name(&self) -> &'static str;

    /// Takes one event, wholly or not at all.
    ///
    /// # Errors
    ///
    /// If it isn't taken; the same event comes again later.
    fn write(&mut self, line: &Line) -> io::Result<()>;

    /// Makes what was taken durable.
    ///
    /// # Errors
    ///
    /// If that isn't certain.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Opens its file again, after somebody has moved it away.
    ///
    /// # Errors
    ///
    /// If that fails; the sink goes on with what it has.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Events that a sink lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// How many.
    pub count: u64,
    /// Of them, how many said that something was or would be stopped.
    pub decisions: u64,
    /// The first.
    pub from: Time,
    /// The last.
    pub to: Time,
}

/// A sink with what it hasn't taken yet: bounded, in order.
pub struct Queue {
    sink: Box<dyn Sink>,
    waiting: VecDeque<Arc<Line>>,
    bytes: usize,
    limit: usize,
    error: Option<String>,
    retry_at: Option<Instant>,
    wait: Duration,
    loss: Option<Loss>,
}

impl Queue {
    const FIRST_WAIT: Duration = Duration::from_millis(200);
    const LONGEST_WAIT: Duration = Duration::from_secs(30);

    /// A sink, with room for so many bytes that it doesn't take.
    #[must_use]
    pub fn new(sink: Box<dyn Sink>, limit: usize) -> Self {
        Self {
            sink,
            waiting: VecDeque::new(),
            bytes: 0,
            limit,
            error: None,
            retry_at: None,
            wait: Self::FIRST_WAIT,
            loss: None,
        }
    }

    /// The sink's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.sink.name()
    }

    /// What the sink says if it doesn't take events now.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// What it hasn't taken yet.
    #[must_use]
    pub fn waiting(&self) -> &VecDeque<Arc<Line>> {
        &self.waiting
    }

    /// Gives an event to the sink, or keeps it for later. Half of the room is for decisions alone, so
    /// that a flood of reports is lost first.
    pub fn push(&mut self, line: Arc<Line>) {
        self.drain(false);
        if self.waiting.is_empty() && self.retry_at.is_none() && self.try_write(&line) {
            return;
        }
        let room = if line.decision { self.limit } else { self.limit / 2 };
        if self.bytes.saturating_add(line.json.len()) > room {
            self.lose(&line);
        } else {
            self.bytes += line.json.len();
            self.waiting.push_back(line);
        }
    }

    /// Tries what waits; `now` even if the last failure was a moment ago.
    pub fn drain(&mut self, now: bool) {
        if self.retry_at.is_some_and(|at| !now && Instant::now() < at) {
            return;
        }
        while let Some(line) = self.waiting.front().cloned() {
            if !self.try_write(&line) {
                return;
            }
            self.waiting.pop_front();
            self.bytes = self.bytes.saturating_sub(line.json.len());
        }
        if self.waiting.is_empty() && self.error.is_none() {
            self.retry_at = None;
        }
    }

    fn try_write(&mut self, line: &Line) -> bool {
        match self.sink.write(line) {
            Ok(()) => {
                if self.error.take().is_some() {
                    tracing::info!(sink = self.sink.name(), "takes events again");
                }
                self.retry_at = None;
                self.wait = Self::FIRST_WAIT;
                true
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if self.error.is_none() {
            tracing::error!(sink = self.sink.name(), %error, "doesn't take events; keeping them in memory");
        }
        self.error = Some(error.to_string());
        self.retry_at = Some(Instant::now() + self.wait);
        self.wait = (self.wait * 2).min(Self::LONGEST_WAIT);
    }

    fn lose(&mut self, line: &Line) {
        let loss = self.loss.get_or_insert(Loss { count: 0, decisions: 0, from: line.time, to: line.time });
        loss.count += 1;
        loss.decisions += u64::from(line.decision);
        loss.to = loss.to.max(line.time);
    }

    /// What was lost, once the sink takes events again. Taken once.
    pub fn take_loss(&mut self) -> Option<Loss> {
        if self.error.is_some() || !self.waiting.is_empty() { None } else { self.loss.take() }
    }

    /// What was lost and not said yet.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        self.loss
    }

    /// Makes what was taken durable.
    pub fn flush(&mut self) {
        if let Err(error) = self.sink.flush() {
            self.failed(&error);
        } else if self.waiting.is_empty() {
            self.error = None;
            self.retry_at = None;
        }
    }

    /// Opens the sink's file again.
    ///
    /// # Errors
    ///
    /// If that fails; the sink goes on with what it has.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.drain(true);
        self.sink.reopen()?;
        self.drain(true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<(bool, Vec<String>)>>);

    impl Sink for Shared {
        fn name(&self) -> &'static str {
            "shared"
        }

        fn write(&mut self, line: &Line) -> io::Result<()> {
            let mut state = self.0.lock().unwrap();
            if state.0 {
                return Err(io::Error::other("down"));
            }
            state.1.push(line.json.clone());
            Ok(())
        }
    }

    fn line(text: &str, decision: bool) -> Arc<Line> {
        Arc::new(Line {
            json: text.to_owned(),
            sequence: Some(1),
            time: Time(5),
            session: None,
            verdict: None,
            message: String::new(),
            severity: 1,
            decision,
        })
    }

    #[test]
    fn keeps_order_and_loses_reports_first() {
        let shared = Shared::default();
        let mut queue = Queue::new(Box::new(shared.clone()), 8);
        queue.push(line("a", true));
        shared.0.lock().unwrap().0 = true;
        queue.push(line("bbbb", false));
        queue.push(line("c", false));
        queue.push(line("dddd", true));
        queue.push(line("e", true));
        assert_eq!(queue.error(), Some("down"));
        assert_eq!(queue.take_loss(), None);
        shared.0.lock().unwrap().0 = false;
        queue.drain(true);
        assert_eq!(shared.0.lock().unwrap().1, ["a", "bbbb", "dddd"]);
        assert_eq!(queue.error(), None);
        let loss = queue.take_loss().unwrap();
        assert_eq!((loss.count, loss.decisions), (2, 1));
        assert_eq!(queue.take_loss(), None);
        queue.push(line("f", false));
        assert_eq!(shared.0.lock().unwrap().1.len(), 4);
    }
}
