//! Scenarios on this machine's own kernel: those of what is enforced where it runs no LSM programs.
//!
//! They see the small Debian system that guests have, in a mount and a network name space of their own; what they change
//! is in memory, and gone with them. Programs that they attach judge processes of their own sessions only, and go with the mount of
//! the BPF file system that they are pinned in.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::build::Built;
use crate::project::Project;
use crate::vm::Mode;
use crate::vm::machine::Sink;
use crate::vm::payload::{Job, Payload};

/// What the kernel is called in reports.
pub(crate) const NAME: &str = "host";

/// Builds the system and has the scenarios run in it: root file system, payload, an empty directory, names.
const SCRIPT: &str = r#"
rootfs=$1 payload=$2 work=$3
shift 3
mount -t tmpfs tmpfs "$work"
mkdir "$work/lower" "$work/upper" "$work/changes" "$work/root"
mount -o loop,ro,noload "$rootfs" "$work/lower"
mount -t overlay overlay -o "lowerdir=$work/lower,upperdir=$work/upper,workdir=$work/changes" "$work/root"
cd "$work/root"
tar -xf "$payload"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t securityfs securityfs sys/kernel/security
exec chroot . /bin/sh -euc 'ip link set lo up; systemd-sysusers /usr/lib/sysusers.d/agent-guard.conf; cd /root; exec "$@"' sh \
  /opt/agent-guard-tests/scenarios run --boot direct "$@"
"#;

/// Why this machine can't have them; nothing if it can.
pub(crate) fn unable() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root can attach programs");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("this machine's kernel has no BTF");
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("this machine has no loop devices");
    }
    None
}

/// Runs these scenarios and hands over what they say.
pub(crate) fn run(
    project: &Project,
    rootfs: &Path,
    (built, package): (&Built, &Path),
    names: &[String],
    sink: &mut dyn Sink,
) -> Result<i32> {
    let work = project.target.join("xtask/host");
    std::fs::create_dir_all(&work).with_context(|| format!("can't create {}", work.display()))?;
    let archive = project.target.join("xtask/host.tar");
    let job = Job {
        argv: Vec::new(),
        env: std::collections::BTreeMap::new(),
        cwd: "/root".into(),
        terminal: None,
        service: None,
        collect: false,
        records: false,
    };
    let payload = Payload { built, package: Some(package), mode: Mode::Direct, job: &job, folders: &[] };
    payload.write(&archive)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--propagation", "private", "sh", "-euc", SCRIPT, "sh"]);
    command.args([rootfs, archive.as_path(), work.as_path()]);
    command.args(names.iter().flat_map(|name| ["--only", name.as_str()]));
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOME", "/root").env("USER", "root").env("LANG", "C.UTF-8").env("RUST_BACKTRACE", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("can't start unshare(1)")?;
    let mut out = child.stdout.take().context("no stdout")?;
    let mut err = child.stderr.take().context("no stderr")?;
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        // What was read by then is all there is.
        drop(err.read_to_end(&mut text));
        text
    });
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = out.read(&mut buffer).context("can't read what the scenarios say")?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        sink.out(bytes)?;
    }
    let status = child.wait().context("can't wait for the scenarios")?;
    sink.err(&errors.join().unwrap_or_default())?;
    Ok(status.code().unwrap_or(1))
}
