//! The initramfs: from the kernel's first breath to the root file system.

use std::ffi::CString;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::mount::MountFlags;

use crate::{mounts, ports, power_off};

const NEW_ROOT: &str = "/newroot";

/// Runs as `/init`.
pub(crate) fn main() -> Result<()> {
    mounts::early()?;
    let command_line = std::fs::read_to_string("/proc/cmdline").context("can't read /proc/cmdline")?;
    let mode = command_line.split_whitespace().find_map(|word| word.strip_prefix("ag.mode="));
    load_modules()?;
    ports::Control::open()?.booted()?;
    let init = match mode {
        Some("trial") => {
            ports::Control::open()?.ended(0)?;
            return power_off();
        }
        Some("direct") => vec!["/opt/agent-guard-tests/guest", "direct"],
        Some("systemd") => vec!["/lib/systemd/systemd"],
        other => bail!("ag.mode={} is none of trial, direct and systemd", other.unwrap_or_default()),
    };
    mount_root()?;
    unpack_payload()?;
    switch_root()?;
    let [program, args @ ..] = init.as_slice() else { bail!("there is nothing to start") };
    let error = Command::new(program).args(args).exec();
    Err(error).with_context(|| format!("can't start {program}"))
}

/// Loads the modules that the host has put into the initramfs, in its order.
fn load_modules() -> Result<()> {
    let list = std::fs::read_to_string("/modules/list").context("can't read /modules/list")?;
    let none = CString::default();
    for name in list.lines() {
        let file =
            File::open(Path::new("/modules").join(name)).with_context(|| format!("can't open {name}"))?;
        match rustix::system::finit_module(&file, &none, 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("can't load the module {name}")),
        }
    }
    Ok(())
}

fn mount_root() -> Result<()> {
    let root = ports::disk("root")?;
    mounts::mount(&root.to_string_lossy(), NEW_ROOT, "ext4", MountFlags::NOATIME)?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let modules = ports::disk("modules")?;
    mounts::mount(
        &modules.to_string_lossy(),
        format!("{NEW_ROOT}/usr/lib/modules/{release}"),
        "ext4",
        MountFlags::RDONLY | MountFlags::NOATIME,
    )
}

/// Unpacks what the host wants in the root file system.
fn unpack_payload() -> Result<()> {
    let disk = ports::disk("payload")?;
    let file = File::open(&disk).with_context(|| format!("can't open {}", disk.display()))?;
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 20, file));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_overwrite(true);
    archive.unpack(NEW_ROOT).context("can't unpack the payload")
}

/// Makes the mounted file system the root of everything.
fn switch_root() -> Result<()> {
    for dir in ["dev", "proc", "sys"] {
        rustix::mount::mount_move(format!("/{dir}"), format!("{NEW_ROOT}/{dir}"))
            .with_context(|| format!("can't move /{dir}"))?;
    }
    rustix::process::chdir(NEW_ROOT).context("can't enter the new root")?;
    rustix::mount::mount_move(".", "/").context("can't move the new root")?;
    rustix::process::chroot(".").context("can't change the root")?;
    rustix::process::chdir("/").context("can't enter the root")
}
