//! File systems that must be mounted.

use super::{Check, Need, State};
use crate::{config::Config, kernel::host::Host};

/// Mount points and their file systems, innermost last.
struct Mounts(Vec<(String, String)>);

impl Mounts {
    /// By `/proc/self/mountinfo` (`Documentation/filesystems/proc.rst`, 3.5). Points with odd characters are as the kernel
    /// escapes them, which those that are looked for aren't.
    fn read(host: &Host) -> Self {
        let text = host.read("/proc/self/mountinfo").unwrap_or_default();
        let mount = |line: &str| {
            let (before, after) = line.split_once(" - ")?;
            let point = before.split(' ').nth(4)?;
            Some((point.to_owned(), after.split(' ').next()?.to_owned()))
        };
        Self(text.lines().filter_map(mount).collect())
    }

    /// The kind of file system that a path is on.
    fn kind(&self, path: &str) -> Option<&str> {
        let holds = |point: &str| {
            let below = path.strip_prefix(point.trim_end_matches('/'));
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // Of two as deep the later one covers the other.
        let on = self.0.iter().filter(|(point, _)| holds(point)).max_by_key(|(point, _)| point.len());
        on.map(|(_, kind)| kind.as_str())
    }
}

pub(super) fn checks(host: &Host, config: &Config) -> Vec<Check> {
    let mounts = Mounts::read(host);
    let pins = config.pins.to_string_lossy();
    vec![bpffs(&mounts, &pins), cgroups(&mounts), tracefs(&mounts)]
}

fn bpffs(mounts: &Mounts, pins: &str) -> Check {
    match mounts.kind(pins) {
        Some("bpf") => Check::ok("bpffs", Need::Enforcement, format!("{pins} is on a BPF file system")),
        _ => Check::not(
            "bpffs",
            Need::Enforcement,
            State::Missing,
            format!("{pins} is not on a BPF file system"),
        )
        .then("mount -t bpf bpf /sys/fs/bpf (systemd does it at boot)"),
    }
}

/// The daemon's own control group is protected where the second version is mounted at its usual place.
fn cgroups(mounts: &Mounts) -> Check {
    const AT: &str = "/sys/fs/cgroup";
    match mounts.kind(AT) {
        Some("cgroup2") => Check::ok("cgroup2", Need::Enforcement, format!("mounted at {AT}")),
        _ => {
            let found =
                format!("no cgroup2 at {AT}: the guard's own control group isn't protected by a rule");
            Check::not("cgroup2", Need::Enforcement, State::Degraded, found).then(
                "boot with systemd.unified_cgroup_hierarchy=1, or without what turns it off; until then let no \
                 profile have system.cgroups = \"allow\"",
            )
        }
    }
}

/// Programs are attached by the kernel's types, not by tracefs; people who look for faults want it.
fn tracefs(mounts: &Mounts) -> Check {
    match mounts.kind("/sys/kernel/tracing") {
        Some("tracefs") => Check::ok("tracefs", Need::Advice, "mounted at /sys/kernel/tracing"),
        _ => Check::not("tracefs", Need::Advice, State::Degraded, "not mounted; agent-guard does without")
            .then("for tracing: mount -t tracefs tracefs /sys/kernel/tracing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::host::tests::Tree;

    #[test]
    fn the_innermost_mount_counts() {
        let tree = Tree::new("mounts");
        tree.write(
            "/proc/self/mountinfo",
            "1 0 0:1 / / rw - ext4 /dev/vda1 rw\n2 1 0:2 / /sys rw shared:3 - sysfs sysfs rw\n\
             3 2 0:3 / /sys/fs/bpf rw - bpf bpf rw\nnonsense\n4 2 0:4 / /sys/fs/cgroup rw - tmpfs t rw\n\
             5 4 0:5 / /sys/fs/cgroup rw - cgroup2 c rw\n",
        );
        let mounts = Mounts::read(&tree.host());
        assert_eq!(mounts.kind("/sys/fs/bpf/agent-guard"), Some("bpf"));
        assert_eq!(mounts.kind("/sys/fs/bpf2"), Some("sysfs"));
        assert_eq!(mounts.kind("/sys/fs/cgroup"), Some("cgroup2"));
        assert_eq!(mounts.kind("/etc"), Some("ext4"));
        assert_eq!(Mounts(Vec::new()).kind("/etc"), None);
    }
}
