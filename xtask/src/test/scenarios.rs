//! Runs scenarios in guests: one guest per kernel and way to boot, and a new one after each crash.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde::Deserialize;

use super::host;
use super::known::{Disk, Group, Scenario};
use super::report::{Record, Report, Verdict};
use crate::build::Built;
use crate::project::Project;
use crate::setup::kernels::Kernel;
use crate::vm::machine::{self, Ending, Sink};
use crate::vm::payload::{Job, Payload};
use crate::vm::{Mode, Run};

const PROGRAM: &str = "/opt/agent-guard-tests/scenarios";

/// How long scenarios may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From its start to its end.
    pub(crate) scenario: Duration,
    /// Without any sign of life.
    pub(crate) silence: Duration,
}

/// What all guests have in common.
pub(crate) struct Guests<'a> {
    pub(crate) project: &'a Project,
    pub(crate) rootfs: &'a Path,
    pub(crate) built: &'a Built,
    pub(crate) package: &'a Path,
    /// The disk of tools, if a scenario needs it.
    pub(crate) toolchain: Option<&'a Path>,
    pub(crate) limits: Limits,
    pub(crate) report: &'a Report,
}

/// The scenarios for one guest.
struct Batch<'a> {
    kernel: &'a Kernel,
    mode: Mode,
    cmdline: Option<String>,
    disk: Option<Disk>,
    names: Vec<String>,
}

impl Guests<'_> {
    /// Runs these scenarios on these kernels, some guests side by side.
    pub(crate) fn run(&self, kernels: &[Kernel], scenarios: &[Scenario], jobs: usize) {
        let mut batches = VecDeque::new();
        // Groups in the order of their first scenario, direct boots first: they are the long ones.
        let mut groups: Vec<Group> = Vec::new();
        for mode in [Mode::Direct, Mode::Systemd] {
            for scenario in scenarios.iter().filter(|scenario| scenario.group().0 == mode) {
                let group = scenario.group();
                if !groups.contains(&group) {
                    groups.push(group);
                }
            }
        }
        for group in groups {
            for kernel in kernels {
                let here = |scenario: &&Scenario| scenario.group() == group && scenario.wants(kernel);
                let names: Vec<String> =
                    scenarios.iter().filter(here).map(|scenario| scenario.name.clone()).collect();
                if !names.is_empty() {
                    let (mode, cmdline, disk) = group.clone();
                    batches.push_back(Batch { kernel, mode, cmdline, disk, names });
                }
            }
        }
        let queue = Mutex::new(batches);
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some(batch) = next() {
                        self.batch(&batch);
                    }
                });
            }
        });
    }

    /// Runs scenarios on this machine's own kernel, where it can have them.
    pub(crate) fn run_here(&self, scenarios: &[Scenario]) {
        let wanted = scenarios.iter().filter(|scenario| scenario.runs_here());
        let names: Vec<String> = wanted.map(|scenario| scenario.name.clone()).collect();
        if names.is_empty() {
            return;
        }
        let logs = self.project.target.join("vm-logs").join(host::NAME);
        let mut verdicts = Verdicts::new(self, host::NAME, &names, &logs);
        if let Some(why) = host::unable() {
            for name in names {
                verdicts.verdict(name, Verdict::Skipped, 0.0, why.to_owned());
            }
            return;
        }
        let code = host::run(self.project, self.rootfs, (self.built, self.package), &names, &mut verdicts);
        let why = match code {
            Ok(code) => format!("`scenarios` ended with code {code}"),
            Err(error) => format!("{error:#}"),
        };
        for name in verdicts.settle(&why) {
            let record = Record {
                scenario: name,
                kernel: host::NAME.to_owned(),
                outcome: Verdict::Failed,
                seconds: 0.0,
                why: format!("{why} before it ran"),
            };
            self.report.record(&record, &logs);
        }
    }

    /// Runs a batch in as many boots as it takes; each of them settles at least one scenario.
    fn batch(&self, batch: &Batch<'_>) {
        let mut left = batch.names.clone();
        let mut boots = 0;
        while !left.is_empty() {
            boots += 1;
            let logs = self.log_folder(batch, boots);
            let mut verdicts = Verdicts::new(self, &batch.kernel.name, &left, &logs);
            let ending = self.boot(batch, &left, &logs, &mut verdicts);
            left = match ending {
                Ok(Ending::Ended(code)) => verdicts.settle(&format!("`scenarios` ended with code {code}")),
                Ok(Ending::Broken(why) | Ending::FalseStart(why)) => self.broken(verdicts, &why),
                Err(error) => self.broken(verdicts, &format!("{error:#}")),
            };
        }
    }

    /// A guest that breaks after its last scenario has still broken.
    fn broken(&self, verdicts: Verdicts<'_>, why: &str) -> Vec<String> {
        if verdicts.left.is_empty() {
            let what = format!("the guest at {}", verdicts.logs.display());
            self.report.check(&what, Err(anyhow!("{why}, after its last scenario")));
        }
        verdicts.settle(why)
    }

    fn log_folder(&self, batch: &Batch<'_>, boots: u32) -> PathBuf {
        let mut name = format!("{}-{}", batch.kernel.name, batch.mode.name());
        if batch.cmdline.is_some() {
            name.push_str("-cmdline");
        }
        if batch.disk == Some(Disk::Toolchain) {
            name.push_str("-toolchain");
        }
        if boots > 1 {
            name.push_str(&format!("-{boots}"));
        }
        self.project.target.join("vm-logs").join(name)
    }

    fn boot(&self, batch: &Batch<'_>, names: &[String], logs: &Path, sink: &mut dyn Sink) -> Result<Ending> {
        let mut argv = vec![PROGRAM.to_owned(), "run".into(), "--boot".into(), batch.mode.name().into()];
        for name in names {
            argv.extend(["--only".to_owned(), name.clone()]);
        }
        let env = BTreeMap::from([("RUST_BACKTRACE".to_owned(), "1".to_owned())]);
        let job = Job {
            argv,
            env,
            cwd: "/root".into(),
            terminal: None,
            service: (batch.mode == Mode::Systemd).then(|| "agent-guard.service".to_owned()),
            collect: true,
            records: true,
        };
        let run = Run {
            project: self.project,
            kernel: batch.kernel,
            rootfs: self.rootfs,
            built: self.built,
            package: Some(self.package),
        };
        let words: Vec<String> =
            batch.cmdline.iter().flat_map(|words| words.split(' ')).map(str::to_owned).collect();
        let mut boot = run.boot(batch.mode, &words, logs)?;
        boot.toolchain = self.toolchain.filter(|_| batch.disk == Some(Disk::Toolchain));
        let payload = Payload {
            built: self.built,
            package: Some(self.package),
            mode: batch.mode,
            job: &job,
            folders: &[],
        };
        let limits = machine::Limits { boot: machine::TO_JOB, silence: Some(self.limits.silence) };
        machine::run(&boot, &self.built.guest, &payload, &limits, sink)
    }
}

/// What the program in the guest says.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Start {
        scenario: String,
    },
    End {
        scenario: String,
        outcome: Verdict,
        seconds: f64,
        #[serde(default)]
        why: String,
    },
}

/// Reads a guest's records while it runs.
struct Verdicts<'a> {
    report: &'a Report,
    limit: Duration,
    kernel: String,
    logs: &'a Path,
    left: Vec<String>,
    current: Option<(String, Instant)>,
    /// Whether this boot has settled anything.
    progressed: bool,
    partial: Vec<u8>,
    log: Option<File>,
}

impl<'a> Verdicts<'a> {
    fn new(guests: &'a Guests<'_>, kernel: &str, names: &[String], logs: &'a Path) -> Self {
        drop(std::fs::remove_dir_all(logs));
        // Without it the run itself fails, and says so.
        drop(std::fs::create_dir_all(logs));
        Self {
            report: guests.report,
            limit: guests.limits.scenario,
            kernel: kernel.to_owned(),
            logs,
            left: names.to_vec(),
            current: None,
            progressed: false,
            partial: Vec::new(),
            log: File::create(logs.join("job.log")).ok(),
        }
    }

    fn line(&mut self, line: &[u8]) {
        match serde_json::from_slice(line) {
            Ok(Event::Start { scenario }) => {
                self.note(format!("--- {scenario}\n").as_bytes());
                self.current = Some((scenario, Instant::now()));
            }
            Ok(Event::End { scenario, outcome, seconds, why }) => {
                self.note(format!("--- {scenario}: {outcome:?} {why}\n").as_bytes());
                self.current = None;
                self.verdict(scenario, outcome, seconds, why);
            }
            Err(_) => self.note(&[line, b"\n"].concat()),
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        if let Some(log) = &mut self.log {
            drop(log.write_all(bytes));
        }
    }

    fn verdict(&mut self, scenario: String, outcome: Verdict, seconds: f64, why: String) {
        // One verdict a scenario, and only on what was asked for.
        let before = self.left.len();
        self.left.retain(|name| *name != scenario);
        if self.left.len() < before {
            self.progressed = true;
            let record = Record { scenario, kernel: self.kernel.clone(), outcome, seconds, why };
            self.report.record(&record, self.logs);
        }
    }

    /// Settles what the guest's end means for the scenario that ran, and returns those that didn't.
    fn settle(mut self, why: &str) -> Vec<String> {
        let rest = std::mem::take(&mut self.partial);
        if !rest.is_empty() {
            self.line(&rest);
        }
        let asked_for = self.left.clone();
        match self.current.take() {
            Some((scenario, since)) if asked_for.contains(&scenario) => {
                let seconds = since.elapsed().as_secs_f64();
                self.verdict(scenario, Verdict::Failed, seconds, format!("{why} while it ran"));
            }
            _ => {
                // Nothing was running: if that is how it began, the next boot would end the same way.
                let why = format!("{why} before it ran");
                let hopeless = !self.progressed;
                if let Some(first) = asked_for.first().cloned() {
                    self.verdict(first, Verdict::Failed, 0.0, why.clone());
                }
                if hopeless {
                    for name in self.left.clone() {
                        self.verdict(name, Verdict::Failed, 0.0, why.clone());
                    }
                }
            }
        }
        self.left
    }
}

impl Sink for Verdicts<'_> {
    fn out(&mut self, bytes: &[u8]) -> Result<()> {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.partial);
                self.line(&line);
            } else {
                self.partial.push(*byte);
            }
        }
        Ok(())
    }

    fn err(&mut self, bytes: &[u8]) -> Result<()> {
        self.note(bytes);
        Ok(())
    }

    fn terminal(&mut self, _bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    fn overdue(&mut self) -> Option<String> {
        let (_, since) = self.current.as_ref()?;
        (since.elapsed() > self.limit).then(|| format!("the limit of {} s was over", self.limit.as_secs()))
    }
}
