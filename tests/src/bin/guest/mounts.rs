//! Mounting, with errors that name what and where.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::MountFlags;

/// Mounts a file system, making its mount point first.
pub(crate) fn mount(source: &str, target: impl AsRef<Path>, kind: &str, flags: MountFlags) -> Result<()> {
    let target = target.as_ref();
    std::fs::create_dir_all(target).with_context(|| format!("can't create {}", target.display()))?;
    rustix::mount::mount(source, target, kind, flags, None)
        .with_context(|| format!("can't mount {source} ({kind}) on {}", target.display()))
}

/// The file systems that the initramfs needs itself.
pub(crate) fn early() -> Result<()> {
    mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID)?;
    mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV)?;
    mount("sysfs", "/sys", "sysfs", MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV)
}

/// What systemd would mount besides.
pub(crate) fn late() -> Result<()> {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    mount("devpts", "/dev/pts", "devpts", MountFlags::NOSUID | MountFlags::NOEXEC)?;
    mount("tmpfs", "/dev/shm", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV)?;
    mount("tmpfs", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV)?;
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", plain)?;
    // A kernel without one of these still runs what doesn't need it.
    for (kind, target) in [
        ("bpf", "/sys/fs/bpf"),
        ("securityfs", "/sys/kernel/security"),
        ("tracefs", "/sys/kernel/tracing"),
        ("debugfs", "/sys/kernel/debug"),
    ] {
        if let Err(error) = mount(kind, target, kind, plain) {
            drop(std::fs::write("/dev/console", format!("guest: {error:#}\n")));
        }
    }
    Ok(())
}
