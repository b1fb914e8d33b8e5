//! On made hosts, with samples of real kernels' BTF.

// The samples are of the byte order that all supported machines have.
#![cfg(target_endian = "little")]

use super::*;
use crate::kernel::host::tests::Tree;

/// A kernel that answers as it is told.
struct Told {
    root: bool,
    lsm_program: Answer,
    free: u64,
}

const WILLING: Told = Told { root: true, lsm_program: Answer::Yes, free: 1 << 40 };

impl Probe for Told {
    fn is_root(&self) -> bool {
        self.root
    }
    fn lsm_program(&self) -> Answer {
        self.lsm_program.clone()
    }
    fn ring_buffer(&self) -> Answer {
        if self.root { Answer::Yes } else { Answer::NotAsked }
    }
    fn task_storage(&self) -> Answer {
        self.ring_buffer()
    }
    fn free_bytes(&self, _: &std::path::Path) -> Option<u64> {
        Some(self.free)
    }
}

fn sample(series: &str) -> Vec<u8> {
    let path = format!("{}/testdata/btf/{series}.btf", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

const MOUNTS: &str = "1 0 0:1 / / rw - ext4 /dev/vda1 rw\n2 1 0:2 / /sys/fs/cgroup rw - cgroup2 c rw\n\
                      3 1 0:3 / /sys/fs/bpf rw - bpf b rw\n4 1 0:4 / /sys/kernel/tracing rw - tracefs t rw\n";
const BUILT: &str = "CONFIG_BPF_SYSCALL=y\nCONFIG_BPF_JIT=y\nCONFIG_BPF_LSM=y\nCONFIG_DEBUG_INFO_BTF=y\n\
                     CONFIG_SECURITY_PATH=y\nCONFIG_SECURITY_NETWORK=y\nCONFIG_LSM=\"yama,bpf\"\n";

/// A host as Debian has it.
fn debian(name: &str, series: &str) -> Tree {
    let tree = Tree::new(name);
    let release = format!("{series}.9-amd64");
    tree.write(support::BTF, sample(series));
    tree.write("/proc/sys/kernel/osrelease", format!("{release}\n"));
    tree.write("/proc/sys/kernel/version", "#1 SMP PREEMPT_DYNAMIC Debian\n");
    tree.write("/proc/sys/kernel/unprivileged_bpf_disabled", "2\n");
    tree.write("/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/vda1 quiet\n");
    tree.write("/proc/self/mountinfo", MOUNTS);
    tree.write("/sys/kernel/security/lsm", "lockdown,capability,yama,apparmor,bpf\n");
    tree.write("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n");
    tree.write("/sys/kernel/debug/sched/preempt", "none (voluntary) full\n");
    tree.write(&format!("/boot/config-{release}"), BUILT);
    tree.write("/etc/default/grub", "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"\"\n");
    tree.write("/usr/sbin/update-grub", "");
    tree.write("/run/systemd/system/x", "");
    tree.write("/run/systemd/journal/socket", "");
    tree
}

fn look(tree: &Tree, probe: &Told) -> Report {
    examine(&tree.host(), probe, Ok(Config::default()))
}

fn check<'a>(report: &'a Report, name: &str) -> &'a Check {
    report.checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check {name}"))
}

fn operation_of<'a>(report: &'a Report, name: &str) -> &'a Operation {
    report.operations.iter().find(|operation| operation.operation == name).unwrap()
}

#[test]
fn a_good_host_of_each_series() {
    for series in ["6.1", "6.12", "6.18", "7.2"] {
        let report = look(&debian(&format!("good-{series}"), series), &WILLING);
        assert_eq!(report.outcome, Outcome::Full, "{series}: {:#?}", report.checks);
        assert_eq!(report.operations.len(), 37);
        assert_eq!(operation_of(&report, "reboot").hold, Extent::None);
        assert_eq!(operation_of(&report, "delete").hold, Extent::Full);
        // Nothing is installed, which is no fault of the host's.
        assert_eq!(
            (check(&report, "policy").state, check(&report, "policy").needed_for),
            (State::Missing, Need::Service)
        );
    }
    let old = look(&debian("stands-in", "6.1"), &WILLING);
    assert!(check(&old, "hooks").found.contains("path_truncate stands in for file_truncate"));
}

#[test]
fn without_bpf_among_the_modules_it_says_what_to_change() {
    let tree = debian("no-bpf", "6.12");
    tree.write("/sys/kernel/security/lsm", "lockdown,capability,yama,apparmor\n");
    let report = look(&tree, &WILLING);
    assert_eq!(report.outcome, Outcome::Degraded);
    let lsm = check(&report, "lsm");
    assert_eq!(lsm.state, State::Degraded);
    let steps = lsm.advice.join("\n");
    assert!(
        steps.contains("GRUB_CMDLINE_LINUX=\"lsm=lockdown,yama,apparmor,bpf\"; then update-grub"),
        "{steps}"
    );
    assert_eq!(operation_of(&report, "delete").enforced, Extent::None);
    assert!(operation_of(&report, "delete").why[0].contains("security modules"));
    let connect = operation_of(&report, "connect");
    assert_eq!((connect.enforced, connect.hold), (Extent::Part, Extent::None));
    assert!(connect.hooks.contains(&"connect6"), "{connect:?}");
    // What the command line says is what is added to.
    tree.write("/proc/cmdline", "quiet lsm=landlock,yama\n");
    let steps = check(&look(&tree, &WILLING), "lsm").advice.join("\n");
    assert!(steps.contains("lsm=landlock,yama,bpf"), "{steps}");
}

#[test]
fn without_securityfs() {
    let tree = debian("no-securityfs", "6.12");
    tree.remove("/sys/kernel/security/lsm");
    tree.remove("/sys/kernel/security/lockdown");
    let report = look(&tree, &WILLING);
    let lsm = check(&report, "lsm");
    assert_eq!((lsm.state, report.outcome), (State::Missing, Outcome::Impossible));
    assert_eq!(lsm.advice.len(), 1, "{:?}", lsm.advice);
    assert!(lsm.advice[0].contains("mount -t securityfs"));
    assert_eq!(check(&report, "lockdown").state, State::Unknown);
    // The kernel was built to leave `bpf` out, so mounting isn't all.
    tree.write("/boot/config-6.12.9-amd64", BUILT.replace("yama,bpf", "yama,tomoyo"));
    let steps = check(&look(&tree, &WILLING), "lsm").advice.join("\n");
    assert!(steps.contains("lsm=yama,tomoyo,bpf"), "{steps}");
}

#[test]
fn what_the_kernel_lacks_is_named() {
    let tree = debian("lacks", "6.12");
    tree.write("/boot/config-6.12.9-amd64", BUILT.replace("CONFIG_BPF_LSM=y", "# CONFIG_BPF_LSM is not set"));
    let report = look(&tree, &WILLING);
    assert!(check(&report, "config").found.contains("built without CONFIG_BPF_LSM"));
    tree.remove(support::BTF);
    let report = look(&tree, &WILLING);
    assert_eq!((check(&report, "btf").state, report.outcome), (State::Missing, Outcome::Impossible));
    assert!(report.checks.iter().all(|check| check.name != "layout"));
}

/// The same BTF with another name for something.
fn renamed(series: &str, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = sample(series);
    let name = [b"\0", from.as_bytes(), b"\0"].concat();
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at + 1..=from.len() + at].copy_from_slice(to.as_bytes());
    bytes
}

#[test]
fn a_hook_that_is_missing_takes_its_operations_away() {
    let tree = debian("hook", "6.12");
    tree.write(support::BTF, renamed("6.12", "bpf_lsm_path_mkdir", "bpf_lsm_path_mkdix"));
    let report = look(&tree, &WILLING);
    assert_eq!((check(&report, "hooks").state, report.outcome), (State::Degraded, Outcome::Degraded));
    assert!(check(&report, "hooks").found.contains("path_mkdir (create: directories)"));
    let create = operation_of(&report, "create");
    assert_eq!((create.enforced, create.hold), (Extent::Part, Extent::Part));
    assert!(create.why[0].contains("path_mkdir"));
    assert_eq!(operation_of(&report, "delete").enforced, Extent::Full);
}

#[test]
fn members_that_are_missing_are_named_all() {
    let tree = debian("members", "6.12");
    tree.write(support::BTF, renamed("6.12", "mnt_parent", "mnt_parenx"));
    let report = look(&tree, &WILLING);
    let layout = check(&report, "layout");
    assert_eq!(layout.state, State::Missing);
    assert!(layout.found.contains("mount.mnt_parent"), "{}", layout.found);
    assert_eq!(operation_of(&report, "read").enforced, Extent::None);
}

#[test]
fn what_only_root_can_look_at() {
    let tree = debian("user", "6.12");
    let user = Told { root: false, lsm_program: Answer::NotAsked, ..WILLING };
    let report = look(&tree, &user);
    assert_eq!((report.outcome, report.root), (Outcome::Unknown, false));
    assert_eq!(check(&report, "lsm_program").state, State::Unknown);
    assert!(check(&report, "lsm_program").advice[0].contains("sudo"));
}

#[test]
fn a_kernel_that_refuses_programs() {
    let tree = debian("refused", "6.12");
    let refusing = Told { lsm_program: Answer::Refused("EPERM".to_owned()), ..WILLING };
    let report = look(&tree, &refusing);
    assert_eq!(report.outcome, Outcome::Degraded);
    assert!(check(&report, "lsm_program").found.contains("EPERM"));
    assert_eq!(check(&report, "lsm_program").state, State::Degraded);
}

#[test]
fn full_preemption_before_6_2() {
    let tree = debian("preempt", "6.1");
    tree.write("/sys/kernel/debug/sched/preempt", "none voluntary (full)\n");
    let report = look(&tree, &WILLING);
    assert_eq!((check(&report, "preemption").state, report.outcome), (State::Degraded, Outcome::Degraded));
    assert!(check(&report, "preemption").advice.join("\n").contains("preempt=voluntary"));
    assert!(report.operations.iter().all(|operation| operation.enforced == Extent::Part));
    tree.remove("/sys/kernel/debug/sched/preempt");
    assert_eq!(check(&look(&tree, &WILLING), "preemption").state, State::Unknown);
    let later = debian("preempt-later", "6.12");
    later.write("/sys/kernel/debug/sched/preempt", "none voluntary (full)\n");
    assert_eq!(look(&later, &WILLING).outcome, Outcome::Full);
}

#[test]
fn old_kernels_locked_kernels_and_unmounted_file_systems() {
    let tree = debian("others", "6.12");
    tree.write("/sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
    tree.write("/proc/self/mountinfo", "1 0 0:1 / / rw - ext4 /dev/vda1 rw\n");
    tree.write("/proc/sys/kernel/unprivileged_bpf_disabled", "0\n");
    let report = look(&tree, &Told { free: 1 << 20, ..WILLING });
    let states = ["lockdown", "bpffs", "cgroup2", "tracefs", "unprivileged_bpf", "disk_space"]
        .map(|name| (name, check(&report, name).state));
    assert_eq!(states[0].1, State::Missing);
    assert_eq!(states[1].1, State::Missing);
    assert!(states[2..].iter().all(|(_, state)| *state == State::Degraded), "{states:?}");
    tree.write("/proc/sys/kernel/osrelease", "5.15.0-generic\n");
    assert_eq!(check(&look(&tree, &WILLING), "kernel").state, State::Missing);
}

#[test]
fn a_policy_and_a_configuration_that_the_daemon_refuses() {
    use std::os::unix::fs::PermissionsExt as _;
    let tree = debian("policy", "6.12");
    tree.write("/etc/agent-guard/policy.d/a.toml", "version = 1\n");
    let file = tree.host().path("/etc/agent-guard/policy.d/a.toml");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).unwrap();
    let report = look(&tree, &WILLING);
    let policy = check(&report, "policy");
    assert_eq!((policy.state, policy.needed_for), (State::Missing, Need::Enforcement), "{policy:?}");
    let bad = Config::read(std::path::Path::new("/nonexistent/agent-guard.toml"));
    let report = examine(&tree.host(), &WILLING, bad);
    assert_eq!(check(&report, "configuration").state, State::Missing);
}
