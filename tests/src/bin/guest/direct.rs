//! The first process of a guest without systemd.

use std::process::{Child, Command};

use anyhow::{Context, Result};
use rustix::process::{WaitOptions, wait};

use crate::{job, mounts, power_off};

/// Runs as process 1.
pub(crate) fn main() -> Result<()> {
    mounts::late()?;
    rustix::system::sethostname(b"guest").context("can't set the host name")?;
    let status =
        Command::new("/sbin/ip").args(["link", "set", "lo", "up"]).status().context("can't run ip")?;
    anyhow::ensure!(status.success(), "can't bring up the loopback interface ({status})");
    users()?;
    job::run(wait_and_reap)?;
    power_off()
}

/// The product's group, which its package declares and systemd would make.
fn users() -> Result<()> {
    const DECLARED: &str = "/usr/lib/sysusers.d/agent-guard.conf";
    if job::exists(DECLARED) {
        let status =
            Command::new("systemd-sysusers").arg(DECLARED).status().context("can't run systemd-sysusers")?;
        anyhow::ensure!(status.success(), "systemd-sysusers failed ({status})");
    }
    Ok(())
}

/// Waits for the job, and meanwhile for every orphan that came to us.
fn wait_and_reap(child: &mut Child) -> Result<i32> {
    let wanted = i32::try_from(child.id()).context("a process id out of range")?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == wanted => {
                return Ok(status
                    .exit_status()
                    .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
                    .unwrap_or(1));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("can't wait for the job"),
        }
    }
}
