//! Whole workloads: what all processes of real work take together.
//!
//! Counted is the time that they and what they started have run, which the kernel knows to the instruction; waiting for the
//! disk isn't part of it, nor is the daemon.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cases::{Case, Confinement};
use crate::guard::Guard;
use crate::{places, sys};

/// Where the toolchain disk is mounted; the `workload` program looks there.
pub(crate) const TOOLCHAIN: &str = "/srv/toolchain";
/// Serial number of that disk.
const SERIAL: &str = "toolchain";

/// Real work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Workload {
    /// Clone, commit, merge, collect garbage.
    Git,
    /// Build a small program.
    Cargo,
    /// Install a package into a container's root.
    Apt,
}

impl Workload {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Git, Self::Cargo, Self::Apt];

    /// Its name in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Git => "workload_git",
            Self::Cargo => "workload_cargo",
            Self::Apt => "workload_apt",
        }
    }

    /// The workload with that name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name)
    }

    /// What the program takes: its kind, and its directory, which is in every session's scope.
    fn arguments(self) -> [String; 2] {
        let (kind, dir) = match self {
            Self::Git => ("git", format!("{}/repositories", places::SCOPE)),
            Self::Cargo => ("cargo", format!("{TOOLCHAIN}/work/small")),
            Self::Apt => ("apt", TOOLCHAIN.to_owned()),
        };
        [kind.to_owned(), dir]
    }

    fn needs_tools(self) -> bool {
        self != Self::Git
    }
}

/// Whether the case is one of a whole workload: bare, beside the guard, in a session.
pub(crate) fn fits(case: &Case) -> bool {
    ["bare", "untagged", "tagged_d6"].contains(&case.name)
}

/// Mounts the disk with the tools, if one of these needs it.
pub(crate) fn prepare(workloads: &[Workload]) -> Result<()> {
    if !workloads.iter().any(|workload| workload.needs_tools()) {
        return Ok(());
    }
    let mut device = None;
    for entry in fs::read_dir("/sys/block").context("can't read /sys/block")? {
        let entry = entry?;
        let serial = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if serial.trim() == SERIAL {
            device = Some(format!("/dev/{}", entry.file_name().to_string_lossy()));
        }
    }
    let device = device.context("this guest has no disk with the tools")?;
    let mount = |words: &[&str], at: &str| -> Result<()> {
        fs::create_dir_all(at).with_context(|| format!("can't create {at}"))?;
        let status = Command::new("mount").args(words).arg(at).status().context("can't start mount")?;
        ensure!(status.success(), "can't mount {at}: {status}");
        Ok(())
    };
    mount(&[&device], TOOLCHAIN)?;
    mount(&["--bind", "/dev"], &format!("{TOOLCHAIN}/dev"))?;
    mount(&["-t", "proc", "proc"], &format!("{TOOLCHAIN}/proc"))?;
    fs::create_dir_all(format!("{TOOLCHAIN}/work")).context("can't make a directory for work")
}

/// Does the work once; the instructions of all its processes.
pub(crate) fn measure(workload: Workload, confinement: Confinement) -> Result<u64> {
    let me = std::env::current_exe().context("can't find this program")?;
    let program = me.with_file_name("workload").to_string_lossy().into_owned();
    let mut command = match confinement {
        Confinement::Allowed => Guard::session(&program, false),
        _ => Command::new(&program),
    };
    command.args(workload.arguments()).current_dir(Path::new(places::SCOPE)).stdin(Stdio::null());
    let before = sys::children_ran()?;
    let output = command.stderr(Stdio::inherit()).output().context("can't start the work")?;
    ensure!(output.status.success(), "{}: {}", workload.name(), output.status);
    Ok(sys::children_ran()?.saturating_sub(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for workload in Workload::ALL {
            assert_eq!(Workload::from_name(workload.name()), Some(workload));
            assert!(workload.name().starts_with("workload_"));
        }
        assert_eq!(crate::cases::ALL.iter().filter(|case| fits(case)).count(), 3);
    }
}
