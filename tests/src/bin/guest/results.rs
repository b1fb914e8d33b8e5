//! What goes back to the host: logs and whatever the job left in the results folder, as a tar archive on
//! a disk of its own.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::job::exists;
use crate::ports;

const FOLDER: &str = "/var/log/agent-guard-tests";

/// Collects the logs and sends the folder.
pub(crate) fn send() -> Result<()> {
    std::fs::create_dir_all(FOLDER).with_context(|| format!("can't create {FOLDER}"))?;
    log("dmesg.log", "dmesg", &[]);
    if exists("/run/systemd/system") {
        log("journal.log", "journalctl", &["--no-pager", "-b", "-o", "short-precise"]);
    }
    let disk = ports::disk("results")?;
    let file = OpenOptions::new()
        .write(true)
        .open(&disk)
        .with_context(|| format!("can't open {}", disk.display()))?;
    let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, file));
    archive.follow_symlinks(false);
    archive.append_dir_all(".", FOLDER).with_context(|| format!("can't pack {FOLDER}"))?;
    let mut writer = archive.into_inner().context("can't finish the results")?;
    writer.flush().context("can't write the results")?;
    writer.get_ref().sync_all().context("can't write the results")
}

/// Keeps a program's output; a log that can't be had is no failure of the job.
fn log(name: &str, program: &str, args: &[&str]) {
    let Ok(file) = File::create(Path::new(FOLDER).join(name)) else { return };
    drop(Command::new(program).args(args).stdin(Stdio::null()).stdout(file).stderr(Stdio::null()).status());
}
