//! The channels to the host: named virtio ports for the job's output and for records about it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

/// Finds the device of a named port.
fn device(name: &str) -> Option<PathBuf> {
    std::fs::read_dir("/sys/class/virtio-ports").ok()?.flatten().find_map(|entry| {
        let found = std::fs::read_to_string(entry.path().join("name")).ok()?;
        (found.trim() == name).then(|| Path::new("/dev").join(entry.file_name()))
    })
}

/// Opens a named port; it may take a moment to appear, and the stage before may still hold it.
pub(crate) fn open(name: &str) -> Result<File> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut problem = anyhow::anyhow!("the port {name} doesn't exist: the kernel lacks virtio_console");
    while Instant::now() < deadline {
        if let Some(path) = device(name) {
            match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => return Ok(file),
                Err(error) => {
                    problem =
                        anyhow::Error::new(error).context(format!("can't open {} ({name})", path.display()));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!(problem)
}

/// Finds the disk with a serial number that the host gave it.
pub(crate) fn disk(serial: &str) -> Result<PathBuf> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        for entry in std::fs::read_dir("/sys/block").context("can't read /sys/block")?.flatten() {
            let found = std::fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
            if found.trim() == serial {
                return Ok(Path::new("/dev").join(entry.file_name()));
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("there is no disk with the serial number {serial}")
}

/// The port that carries records about the guest itself.
pub(crate) struct Control(File);

impl Control {
    pub(crate) fn open() -> Result<Self> {
        open("agent-guard.control").map(Self)
    }

    /// A second handle, to read what the host says.
    pub(crate) fn reader(&self) -> Result<File> {
        self.0.try_clone().context("can't duplicate the control port")
    }

    /// The kernel runs and user space begins.
    pub(crate) fn booted(&mut self) -> Result<()> {
        self.send(&json!({"event": "booted"}))
    }

    /// The job is about to run.
    pub(crate) fn started(&mut self) -> Result<()> {
        self.send(&json!({"event": "started"}))
    }

    /// The job has ended, all its output and results are with the host.
    pub(crate) fn ended(&mut self, code: i32) -> Result<()> {
        self.send(&json!({"event": "ended", "code": code}))
    }

    /// The guest can't do what it is there for.
    pub(crate) fn broken(&mut self, why: &str) -> Result<()> {
        self.send(&json!({"event": "broken", "why": why}))
    }

    fn send(&mut self, record: &serde_json::Value) -> Result<()> {
        self.0.write_all(format!("{record}\n").as_bytes()).context("can't write to the control port")
    }
}
