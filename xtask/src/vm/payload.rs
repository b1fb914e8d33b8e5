//! What goes into a guest besides its root file system: a tar archive on a disk of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Mode;
use crate::build::Built;
use crate::run;

/// Where the guest finds what isn't part of the product.
pub(crate) const TESTS: &str = "opt/agent-guard-tests";

/// What the guest is to run; read by the `guest` program.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Job {
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// Variables besides PATH, HOME and what else a login has.
    pub(crate) env: BTreeMap<String, String>,
    /// Where it starts.
    pub(crate) cwd: String,
    /// Run it on a terminal of this size.
    pub(crate) terminal: Option<Size>,
    /// A service that has to be active before.
    pub(crate) service: Option<String>,
    /// Send back logs and results.
    pub(crate) collect: bool,
    /// Its stdout are records, none of which may be lost in a crash.
    pub(crate) records: bool,
}

/// A terminal's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) cols: u16,
}

/// Everything that is put into one guest.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    /// Our own programs.
    pub(crate) built: &'a Built,
    /// The package under test.
    pub(crate) package: Option<&'a Path>,
    /// How the guest boots.
    pub(crate) mode: Mode,
    /// What it runs.
    pub(crate) job: &'a Job,
    /// Folders of the host and where they go.
    pub(crate) folders: &'a [(PathBuf, PathBuf)],
}

const JOB_UNIT: &str = "\
[Unit]
Description=The guest's job
After=agent-guard.service dbus.service systemd-user-sessions.service

[Service]
Type=exec
ExecStart=/opt/agent-guard-tests/guest job
TimeoutStopSec=5
LimitNOFILE=65536
";

impl Payload<'_> {
    /// Writes the archive.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let out = File::create(file).with_context(|| format!("can't create {}", file.display()))?;
        let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, out));
        archive.follow_symlinks(false);
        let tar = &mut archive;
        directory(tar, TESTS)?;
        for (name, program) in &self.built.programs {
            add_file(tar, program, &format!("{TESTS}/{name}"), 0o755)?;
        }
        bytes(tar, &format!("{TESTS}/job.json"), 0o644, &serde_json::to_vec(self.job)?)?;
        if let Some(package) = self.package {
            add_file(tar, package, &format!("{TESTS}/agent-guard.deb"), 0o644)?;
            add_package(tar, package)?;
        }
        // Without an id, systemd takes every boot for the first and presets all units.
        bytes(tar, "etc/machine-id", 0o444, b"5e1f0a5c0ffee0d15ea5e5eedfacade0\n")?;
        if self.mode == Mode::Systemd {
            self.units(tar)?;
        }
        for (from, to) in self.folders {
            tar.append_dir_all(to, from).with_context(|| format!("can't pack {}", from.display()))?;
        }
        let writer = archive.into_inner().context("can't finish the payload")?;
        writer.into_inner().map_err(|e| anyhow::anyhow!("can't write the payload: {}", e.error()))?;
        Ok(())
    }

    fn units<W: std::io::Write>(&self, tar: &mut tar::Builder<W>) -> Result<()> {
        let units = "etc/systemd/system";
        bytes(tar, &format!("{units}/agent-guard-job.service"), 0o644, JOB_UNIT.as_bytes())?;
        let wants = format!("{units}/multi-user.target.wants");
        directory(tar, &wants)?;
        link(tar, &format!("{wants}/agent-guard-job.service"), "../agent-guard-job.service")?;
        if self.package.is_some() {
            link(
                tar,
                &format!("{wants}/agent-guard.service"),
                "/usr/lib/systemd/system/agent-guard.service",
            )?;
        }
        // The job's terminal and the kernel's console aren't for logging in.
        for getty in ["hvc0", "ttyS0"] {
            link(tar, &format!("{units}/serial-getty@{getty}.service"), "/dev/null")?;
        }
        Ok(())
    }
}

/// Adds the files of a Debian package as dpkg would unpack them.
fn add_package<W: std::io::Write>(tar: &mut tar::Builder<W>, package: &Path) -> Result<()> {
    let data = run::capture_bytes(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package))?;
    let mut source = tar::Archive::new(data.as_slice());
    for entry in source.entries().context("the package's data is no tar archive")? {
        let mut entry = entry.context("the package's data is no tar archive")?;
        // The root directory itself exists, and its mode is the image's.
        if entry.path()?.components().all(|c| !matches!(c, std::path::Component::Normal(_))) {
            continue;
        }
        let mut header = entry.header().clone();
        let path = entry.path()?.into_owned();
        match entry.link_name()? {
            Some(target) => tar.append_link(&mut header, &path, &target)?,
            None => tar.append_data(&mut header, &path, &mut entry)?,
        }
    }
    Ok(())
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
    header.set_mtime(now);
    header
}

fn directory<W: std::io::Write>(tar: &mut tar::Builder<W>, path: &str) -> Result<()> {
    let mut header = header(tar::EntryType::Directory, 0o755, 0);
    tar.append_data(&mut header, path, std::io::empty()).with_context(|| format!("can't pack {path}"))
}

fn bytes<W: std::io::Write>(tar: &mut tar::Builder<W>, path: &str, mode: u32, data: &[u8]) -> Result<()> {
    let size = u64::try_from(data.len()).context("too much data")?;
    let mut header = header(tar::EntryType::Regular, mode, size);
    tar.append_data(&mut header, path, data).with_context(|| format!("can't pack {path}"))
}

fn add_file<W: std::io::Write>(tar: &mut tar::Builder<W>, from: &Path, to: &str, mode: u32) -> Result<()> {
    let data = std::fs::read(from).with_context(|| format!("can't read {}", from.display()))?;
    bytes(tar, to, mode, &data)
}

fn link<W: std::io::Write>(tar: &mut tar::Builder<W>, path: &str, target: &str) -> Result<()> {
    let mut header = header(tar::EntryType::Symlink, 0o777, 0);
    tar.append_link(&mut header, path, target).with_context(|| format!("can't pack {path}"))
}
