//! What came out: progress lines, records, the table of failures, the last line.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A scenario's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// It does what it should.
    Passed,
    /// It doesn't.
    Failed,
    /// It can't be tried on this kernel; `why` says why.
    Skipped,
}

/// One scenario on one kernel.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Record {
    pub(crate) scenario: String,
    pub(crate) kernel: String,
    pub(crate) outcome: Verdict,
    pub(crate) seconds: f64,
    pub(crate) why: String,
}

struct Failure {
    what: String,
    why: String,
    logs: Option<PathBuf>,
}

#[derive(Default)]
struct State {
    passed: u64,
    failed: u64,
    skipped: u64,
    failures: Vec<Failure>,
    json: Option<File>,
}

/// Collects results from several guests at once.
pub(crate) struct Report {
    started: Instant,
    state: Mutex<State>,
}

impl Report {
    /// Starts, with a file for the records.
    pub(crate) fn new(json: Option<&Path>) -> Result<Self> {
        let json = match json {
            Some(path) => {
                Some(File::create(path).with_context(|| format!("can't create {}", path.display()))?)
            }
            None => None,
        };
        Ok(Self { started: Instant::now(), state: Mutex::new(State { json, ..State::default() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A check that passed or didn't.
    pub(crate) fn check(&self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => self.counted(name, 1, 0, None),
            Err(error) => self.counted(name, 0, 1, Some(format!("{error:#}"))),
        }
    }

    /// Several tests that were counted elsewhere.
    pub(crate) fn counted(&self, name: &str, passed: u64, failed: u64, why: Option<String>) {
        let mut state = self.state();
        state.passed += passed;
        state.failed += failed;
        if failed == 0 && passed == 1 {
            println!("ok      {name}");
        } else if failed == 0 {
            println!("ok      {name}: {passed}");
        } else {
            println!("FAILED  {name}");
            let why = why.unwrap_or_else(|| format!("{failed} failed"));
            state.failures.push(Failure { what: name.to_owned(), why, logs: None });
        }
    }

    /// A scenario's verdict on a kernel.
    pub(crate) fn record(&self, record: &Record, logs: &Path) {
        let mut state = self.state();
        let line = format!("{:6} {} ({:.1} s)", record.kernel, record.scenario, record.seconds);
        match record.outcome {
            Verdict::Passed => {
                state.passed += 1;
                println!("ok      {line}");
            }
            Verdict::Skipped => {
                state.skipped += 1;
                println!("skipped {line}: {}", record.why);
            }
            Verdict::Failed => {
                state.failed += 1;
                println!("FAILED  {line}: {}", record.why);
                state.failures.push(Failure {
                    what: format!("{} on {}", record.scenario, record.kernel),
                    why: record.why.clone(),
                    logs: Some(logs.to_path_buf()),
                });
            }
        }
        if let Some(json) = &mut state.json {
            let written = serde_json::to_string(record)
                .map_err(std::io::Error::from)
                .and_then(|text| writeln!(json, "{text}"));
            if let Err(error) = written {
                state.failed += 1;
                let why = format!("can't write a record: {error}");
                state.failures.push(Failure { what: "--json".into(), why, logs: None });
            }
        }
    }

    /// The failures and the sum.
    pub(crate) fn finish(self) -> Result<ExitCode> {
        let took = self.started.elapsed().as_secs();
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if state.passed + state.failed == 0 {
            let why = if state.skipped == 0 { "nothing ran" } else { "everything was skipped" };
            state.failures.push(Failure { what: "test".into(), why: why.into(), logs: None });
            state.failed += 1;
        }
        if !state.failures.is_empty() {
            println!("\nfailures:");
        }
        for failure in &state.failures {
            println!("  {}", failure.what);
            for line in failure.why.lines() {
                println!("      {line}");
            }
            if let Some(logs) = &failure.logs {
                println!("      logs: {}", logs.display());
            }
        }
        let skipped = if state.skipped > 0 { format!(", {} skipped", state.skipped) } else { String::new() };
        println!("\ntook {} min {:02} s{skipped}", took / 60, took % 60);
        println!("{} passed, {} failed", state.passed, state.failed);
        Ok(if state.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
