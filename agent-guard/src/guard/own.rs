//! What the guard itself is: its process, its files, and devices that the kernel side is told of.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use agent_guard_common::subject::Guard as Told;

use crate::{config::Config, policy::Own, session::proc};

/// Where the second version of control groups is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Its process, and when that started, as `/proc` tells it.
pub(super) fn process() -> io::Result<(u32, u64)> {
    let pid = std::process::id();
    Ok((pid, proc::stat(pid)?.start))
}

/// Its files: a session changes none of them, whatever the policy says.
pub(super) fn files(config: &Config) -> Own {
    let Config { socket, policy, events, state, pins, file } = config;
    let mut paths: Vec<PathBuf> = [policy, state, pins, file].into_iter().cloned().collect();
    // Usually in there. Each daemon makes another one.
    let sockets = [socket.clone(), config.session_socket()];
    paths.extend(sockets.into_iter().filter(|socket| !socket.starts_with(state)));
    // Segments that were closed lie beside the one that is written.
    paths.extend(events.parent().map(Path::to_owned));
    match std::env::current_exe() {
        Ok(program) => paths.push(program),
        Err(error) => tracing::warn!(%error, "the guard's own program can't be found"),
    }
    paths.extend(cgroup());
    Own::with(paths)
}

/// The directory of the control group that the daemon is in; none for the root, whose processes can't be frozen by it.
fn cgroup() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).filter(|path| !path.is_empty())?;
    Some(Path::new(CGROUPS).join(path))
}

/// Major numbers of character devices that pass commands on to disks and have no number of their own: NVMe's, those of
/// SCSI devices, and of some controllers.
pub(super) fn disks() -> [u32; Told::DISKS] {
    let text = fs::read_to_string("/proc/devices").unwrap_or_else(|error| {
        tracing::warn!(%error, "/proc/devices can't be read: NVMe's character devices aren't known");
        String::new()
    });
    let mut disks = [0; Told::DISKS];
    disks.iter_mut().zip(majors(&text)).for_each(|(slot, major)| *slot = major);
    for major in majors(&text).skip(disks.len()) {
        tracing::warn!(
            major,
            "no room to tell the kernel side of these devices: opening them is not judged as raw_disk"
        );
    }
    disks
}

fn majors(devices: &str) -> impl Iterator<Item = u32> + '_ {
    const NAMES: [&str; 6] = ["nvme", "bsg", "megaraid", "mpt", "aac", "hpsa"];
    let lines = devices.lines().take_while(|line| !line.starts_with("Block devices"));
    lines.filter_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        NAMES.iter().any(|known| name.starts_with(known)).then(|| number.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_numbers() {
        let text = "Character devices:\n  1 mem\n 21 sg\n238 nvme-generic\n239 nvme\n248 bsg\n\nBlock devices:\n259 nvme\n";
        assert_eq!(majors(text).collect::<Vec<_>>(), [238, 239, 248]);
        assert_eq!(majors("").count(), 0);
    }

    #[test]
    fn what_it_has() {
        let own = files(&Config::default());
        for path in [
            "/etc/agent-guard/policy.d",
            "/run/agent-guard",
            "/var/log/agent-guard",
            crate::config::DEFAULT_PATH,
        ] {
            assert!(own.paths.contains(&PathBuf::from(path)), "{path}");
        }
    }
}
