//! What the guard promises, tried against the installed program inside a virtual machine.
//!
//! `scenarios list` prints one JSON object a line: name, boot, what it is about, and the kernel command line,
//! the kernel and the disk it needs, if any. `scenarios run --boot direct|systemd [--only NAME]...` runs them one after another and
//! prints `start` and `end` events as JSON lines on stdout; everything else goes to stderr and to
//! `/var/log/agent-guard-tests/<scenario>/`.
//!
//! Every scenario has a positive control: the same action outside a session works.
#![forbid(unsafe_code)]

mod attach;
mod bad_input;
mod clock;
mod death;
mod doctor;
mod enforcement;
mod enroll;
mod enroll_standing;
mod events;
mod exec;
mod explain;
mod files;
mod files_32bit;
mod files_execute;
mod files_inherited_fds;
mod files_ioctl;
mod files_metadata;
mod files_races;
mod files_read;
mod files_received;
mod files_reused;
mod files_systems;
mod files_writes_need_open;
mod fixture;
mod full;
mod guard_itself;
mod helpers;
mod helpers_systemd;
mod holds;
mod mounts;
mod mounts_later;
mod nested;
mod net_before;
mod net_clients;
mod net_holds;
mod net_hosts;
mod net_listen;
mod net_names;
mod net_only;
mod net_protocols;
mod net_races;
mod net_resolver;
mod network;
mod oracle;
mod persistence;
mod refused;
mod reload;
mod restarts;
mod rules;
mod runner;
mod service;
mod sessions;
mod starved;
mod system;
mod tags;
mod untagged;
mod verifier;
mod workloads;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// How a guest boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Boot {
    /// Without systemd; each scenario starts the daemon itself.
    Direct,
    /// With systemd, the package installed and its service active.
    Systemd,
}

/// The kernels that scenarios are tried on where time counts: the oldest and the newest.
const USUAL: &str = "6.1 7.2";

/// Something to try.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Scenario {
    /// Its name, also of its folder of logs.
    name: &'static str,
    /// The guest it needs.
    boot: Boot,
    /// What it is about.
    about: &'static str,
    /// What must stand on the kernel's command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    cmdline: Option<&'static str>,
    /// The only kernels that it is tried on where time counts, with spaces between.
    #[serde(skip_serializing_if = "Option::is_none")]
    kernels: Option<&'static str>,
    /// A disk that the guest must have besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<&'static str>,
    /// Whether it is tried on the kernel of the machine that tests run on, too.
    here: bool,
    #[serde(skip)]
    run: fn() -> Result<()>,
}

impl Scenario {
    const fn direct(name: &'static str, about: &'static str, run: fn() -> Result<()>) -> Self {
        Self {
            name,
            boot: Boot::Direct,
            about,
            cmdline: None,
            kernels: Some(USUAL),
            disk: None,
            here: false,
            run,
        }
    }

    const fn systemd(name: &'static str, about: &'static str, run: fn() -> Result<()>) -> Self {
        Self {
            name,
            boot: Boot::Systemd,
            about,
            cmdline: None,
            kernels: Some(USUAL),
            disk: None,
            here: false,
            run,
        }
    }

    const fn with_cmdline(self, cmdline: &'static str) -> Self {
        Self { cmdline: Some(cmdline), ..self }
    }

    /// On this kernel only (or these, with spaces between), unless all are wanted: it takes long, or what it is about hardly depends on
    /// the kernel.
    const fn on(self, kernel: &'static str) -> Self {
        Self { kernels: Some(kernel), ..self }
    }

    /// On all kernels, also where time counts.
    const fn everywhere(self) -> Self {
        Self { kernels: None, ..self }
    }

    /// On none, unless all are wanted, or it is named.
    const fn thorough(self) -> Self {
        self.on("")
    }

    /// Also on the kernel of the machine that tests run on, which must not have any harm from it.
    const fn here_too(self) -> Self {
        Self { here: true, ..self }
    }

    const fn with_disk(self, disk: &'static str) -> Self {
        Self { disk: Some(disk), ..self }
    }
}

/// All scenarios, by family. First those that want a kernel in which nothing was loaded yet.
const FAMILIES: &[&[Scenario]] = &[
    bad_input::SCENARIOS,
    verifier::SCENARIOS,
    doctor::SCENARIOS,
    enroll::SCENARIOS,
    enroll_standing::SCENARIOS,
    enforcement::SCENARIOS,
    tags::SCENARIOS,
    files::SCENARIOS,
    files_metadata::SCENARIOS,
    files_read::SCENARIOS,
    files_execute::SCENARIOS,
    exec::SCENARIOS,
    files_ioctl::SCENARIOS,
    files_32bit::SCENARIOS,
    files_received::SCENARIOS,
    files_inherited_fds::SCENARIOS,
    files_writes_need_open::SCENARIOS,
    files_systems::SCENARIOS,
    files_races::SCENARIOS,
    files_reused::SCENARIOS,
    rules::SCENARIOS,
    persistence::SCENARIOS,
    mounts::SCENARIOS,
    mounts_later::SCENARIOS,
    network::SCENARIOS,
    net_hosts::SCENARIOS,
    net_protocols::SCENARIOS,
    net_listen::SCENARIOS,
    net_before::SCENARIOS,
    net_names::SCENARIOS,
    net_only::SCENARIOS,
    net_resolver::SCENARIOS,
    net_holds::SCENARIOS,
    net_races::SCENARIOS,
    net_clients::SCENARIOS,
    helpers::SCENARIOS,
    helpers_systemd::SCENARIOS,
    system::SCENARIOS,
    guard_itself::SCENARIOS,
    holds::SCENARIOS,
    death::SCENARIOS,
    restarts::SCENARIOS,
    refused::SCENARIOS,
    starved::SCENARIOS,
    full::SCENARIOS,
    clock::SCENARIOS,
    reload::SCENARIOS,
    explain::SCENARIOS,
    sessions::SCENARIOS,
    nested::SCENARIOS,
    attach::SCENARIOS,
    events::SCENARIOS,
    untagged::SCENARIOS,
    oracle::SCENARIOS,
    service::SCENARIOS,
    workloads::SCENARIOS,
];

fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    FAMILIES.iter().copied().flatten()
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["list"] => list(),
        ["run", options @ ..] => Options::read(options).and_then(|options| runner::run(&options)),
        ["one", name] => runner::one(name),
        _ => Err(anyhow::anyhow!(
            "usage: scenarios list | scenarios run --boot direct|systemd [--only NAME]..."
        )),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("scenarios: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn list() -> Result<bool> {
    for scenario in scenarios() {
        println!("{}", serde_json::to_string(scenario)?);
    }
    Ok(true)
}

/// What to run.
pub(crate) struct Options {
    boot: Boot,
    only: Vec<String>,
}

impl Options {
    fn read(words: &[&str]) -> Result<Self> {
        let (mut boot, mut only) = (None, Vec::new());
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let value = *words.next().with_context(|| format!("{word} needs a value"))?;
            match (word, value) {
                ("--boot", "direct") => boot = Some(Boot::Direct),
                ("--boot", "systemd") => boot = Some(Boot::Systemd),
                ("--only", name) if scenarios().any(|s| s.name == name) => only.push(name.to_owned()),
                ("--only", name) => bail!("there is no scenario called {name}; `scenarios list` shows them"),
                _ => bail!("{word} {value} is not understood"),
            }
        }
        Ok(Self { boot: boot.context("--boot direct or --boot systemd is missing")?, only })
    }

    /// Whether a scenario is to be run: those that need another command line or a disk only when named.
    fn wants(&self, scenario: &Scenario) -> bool {
        let named = self.only.iter().any(|name| name == scenario.name);
        scenario.boot == self.boot
            && (named || (self.only.is_empty() && scenario.cmdline.is_none() && scenario.disk.is_none()))
    }
}
