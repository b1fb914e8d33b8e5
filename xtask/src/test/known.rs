//! The scenarios that there are, as their program lists them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::run;
use crate::setup::kernels::Kernel;
use crate::vm::Mode;

/// A scenario as the program describes it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Scenario {
    pub(super) name: String,
    boot: Boot,
    /// Words for the kernel's command line; a guest of its own then.
    #[serde(default)]
    cmdline: Option<String>,
    /// The only kernels that it is run on by default, with spaces between.
    #[serde(default)]
    kernels: Option<String>,
    /// A disk besides the usual ones; a guest of its own then.
    #[serde(default)]
    disk: Option<Disk>,
    /// Run it on this machine's own kernel, too.
    #[serde(default)]
    here: bool,
}

/// A disk that only some guests have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Disk {
    /// The tools that real workloads need.
    Toolchain,
}

impl Scenario {
    /// Whether it needs a disk.
    pub(crate) fn needs(&self, disk: Disk) -> bool {
        self.disk == Some(disk)
    }

    /// Whether it is run on this machine's own kernel, too.
    pub(super) fn runs_here(&self) -> bool {
        self.here
    }

    /// Takes the mark of the kernels away.
    pub(crate) fn everywhere(self) -> Self {
        Self { kernels: None, ..self }
    }

    /// Whether it is run on a kernel.
    pub(super) fn wants(&self, kernel: &Kernel) -> bool {
        self.kernels.as_ref().is_none_or(|only| only.split(' ').any(|one| one == kernel.name))
    }

    /// What scenarios of one guest have in common.
    pub(super) fn group(&self) -> Group {
        (self.boot.into(), self.cmdline.clone(), self.disk)
    }
}

/// How a guest boots, its kernel's command line, its disk.
pub(super) type Group = (Mode, Option<String>, Option<Disk>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Boot {
    Direct,
    Systemd,
}

impl From<Boot> for Mode {
    fn from(boot: Boot) -> Self {
        match boot {
            Boot::Direct => Self::Direct,
            Boot::Systemd => Self::Systemd,
        }
    }
}

/// Asks the program for all scenarios.
pub(crate) fn list(program: &Path) -> Result<Vec<Scenario>> {
    let text = run::capture(Command::new(program).arg("list"))?;
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).with_context(|| format!("`scenarios list` said: {line}")))
        .collect()
}

/// The scenarios with these names, or all.
pub(crate) fn choose(known: &[Scenario], only: &[String]) -> Result<Vec<Scenario>> {
    if only.is_empty() {
        return Ok(known.to_vec());
    }
    let mut chosen = Vec::new();
    for name in only {
        match known.iter().find(|scenario| scenario.name == *name) {
            Some(scenario) => chosen.push(scenario.clone()),
            None => {
                let names: Vec<&str> = known.iter().map(|s| s.name.as_str()).collect();
                bail!("there is no scenario `{name}`; known are:\n  {}", names.join("\n  "));
            }
        }
    }
    Ok(chosen)
}
