//! The guest's side of a virtual machine: the first process of the initramfs, the first process of a
//! guest without systemd, and what runs the guest's one job.
//!
//! - as `/init` of the initramfs it loads modules, mounts the root file system, unpacks the payload, and
//!   hands over to systemd or to itself (`ag.mode=` on the kernel's command line);
//! - `guest direct` is the first process of a guest without systemd;
//! - `guest job` runs inside systemd's `agent-guard-job.service`.
#![forbid(unsafe_code)]

mod boot;
mod direct;
mod job;
mod mounts;
mod ports;
mod results;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let first = std::process::id() == 1;
    let mode = std::env::args().nth(1);
    let result = match mode.as_deref() {
        Some("direct") if first => direct::main(),
        Some("job") => job::main(),
        _ if first => boot::main(),
        _ => Err(anyhow::anyhow!(
            "this program runs inside a guest that `cargo xtask vm` or `test` has started"
        )),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    if first || mode.as_deref() == Some("job") {
        report(&error);
        // There is nothing left to wait for. And the first process may not end: the kernel would panic
        // and hide the reason.
        drop(power_off());
    }
    eprintln!("guest: {error:#}");
    ExitCode::FAILURE
}

/// Tells the host, or at least the console, what went wrong.
fn report(error: &anyhow::Error) {
    let why = format!("{error:#}");
    if ports::Control::open().and_then(|mut control| control.broken(&why)).is_err() {
        drop(std::fs::write("/dev/console", format!("guest: {why}\n")));
    }
}

/// Ends the machine.
fn power_off() -> Result<()> {
    rustix::fs::sync();
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff).context("can't power off")?;
    bail!("the machine is still on")
}
