//! QEMU's command line, and whether it may use KVM.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::machine::{self, Boot, Ending, Limits, Silent};
use super::{Accel, Mode};
use crate::project::Project;
use crate::run::{self, note};
use crate::setup::tools;

/// The channels between a guest and us, each a Unix socket in the run's folder.
pub(crate) const CHANNELS: [Channel; 5] =
    [Channel::Console, Channel::Out, Channel::Err, Channel::Control, Channel::Terminal];

/// One channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// The kernel's console.
    Console,
    /// The job's stdout.
    Out,
    /// The job's stderr.
    Err,
    /// Records about the guest itself.
    Control,
    /// The terminal, for jobs that want one.
    Terminal,
}

impl Channel {
    /// The name of its socket and of its port in the guest.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Out => "out",
            Self::Err => "err",
            Self::Control => "control",
            Self::Terminal => "terminal",
        }
    }
}

/// Starts QEMU; the sockets in `dir` have to be listening already.
pub(crate) fn start(boot: &Boot<'_>, dir: &Path, initramfs: &Path) -> Result<Child> {
    // The parent may be killed in ways that leave it no time to clean up: no guest outlives it.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    command.args(["-machine", "q35", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    match boot.accel {
        Accel::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
        Accel::Tcg => command.args(["-accel", "tcg,thread=multi", "-cpu", "max"]),
        Accel::Counting => command.args(["-accel", "tcg,thread=single", "-cpu", "max", "-icount", "shift=0"]),
    };
    let processors = if boot.accel == Accel::Counting { "1" } else { "2" };
    command.args(["-smp", processors, "-m", "1024"]);
    command.arg("-kernel").arg(&boot.kernel.image).arg("-initrd").arg(initramfs);
    command.arg("-append").arg(kernel_command_line(boot));
    disks(&mut command, boot, dir);
    channels(&mut command, dir);
    let log = std::fs::File::create(boot.logs.join("qemu.log")).context("can't create QEMU's log")?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // What the guest writes to its root disk goes to a scratch file, which goes with the folder.
    command.env("TMPDIR", dir);
    command.spawn().with_context(|| format!("can't start `{}`", run::shown(&command)))
}

fn kernel_command_line(boot: &Boot<'_>) -> String {
    let mode = match boot.mode {
        None => "trial",
        Some(Mode::Direct) => "direct",
        Some(Mode::Systemd) => "systemd",
    };
    // An emulated processor gets its turn when the host is free: what the kernel takes for a stall or a lockup
    // (twice the watchdog's time) has to last a minute.
    let mut line = format!(
        "console=ttyS0 quiet panic=-1 oops=panic rcupdate.rcu_cpu_stall_timeout=60 watchdog_thresh=30 \
         systemd.show_status=no systemd.log_target=journal ag.mode={mode}"
    );
    for word in boot.append {
        line.push(' ');
        line.push_str(word);
    }
    line
}

fn disks(command: &mut Command, boot: &Boot<'_>, dir: &Path) {
    let mut disk = |name: &str, file: &Path, options: &str| {
        // A comma ends a value unless it is doubled.
        let file = file.to_string_lossy().replace(',', ",,");
        command.arg("-drive").arg(format!("if=none,id={name},format=raw,cache=unsafe,file={file},{options}"));
        command.arg("-device").arg(format!("virtio-blk-pci,drive={name},serial={name}"));
    };
    if boot.mode.is_none() {
        return;
    }
    disk("root", boot.rootfs, "snapshot=on");
    disk("modules", &boot.kernel.modules_image, "readonly=on");
    disk("payload", &dir.join("payload.tar"), "readonly=on");
    disk("results", &dir.join("results.tar"), "readonly=off");
    if let Some(toolchain) = boot.toolchain {
        disk("toolchain", toolchain, "snapshot=on");
    }
}

fn channels(command: &mut Command, dir: &Path) {
    command.args(["-device", "virtio-serial-pci,max_ports=8"]);
    for channel in CHANNELS {
        let name = channel.name();
        let path = dir.join(name).to_string_lossy().replace(',', ",,");
        command.arg("-chardev").arg(format!("socket,id={name},path={path}"));
        command.arg("-device").arg(match channel {
            Channel::Console => format!("isa-serial,chardev={name}"),
            // Port 0 is the only one that a console can always have.
            Channel::Terminal => format!("virtconsole,chardev={name},nr=0"),
            _ => format!("virtserialport,chardev={name},name=agent-guard.{name}"),
        });
    }
}

/// Whether guests may use KVM here: only where one has been seen to reach user space with it. That
/// /dev/kvm can be opened says nothing.
pub(crate) fn accel(project: &Project, trial: &Boot<'_>, guest: &Path) -> Result<Accel> {
    let usable = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    if !usable {
        return Ok(Accel::Tcg);
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let key = format!("{} on Linux {release}", tools::qemu_version()?);
    let file = project.cache.join("kvm.json");
    let mut known: BTreeMap<String, bool> =
        std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let works = match known.get(&key) {
        Some(works) => *works,
        None => {
            note("vm", "/dev/kvm is there: trying whether a guest boots with it");
            let boot = Boot { accel: Accel::Kvm, mode: None, ..trial.clone() };
            let limits = Limits { boot: Duration::from_secs(20), silence: None };
            let works =
                matches!(machine::run_once(&boot, guest, None, &limits, &mut Silent)?, Ending::Ended(0));
            note("vm", if works { "KVM works" } else { "KVM doesn't work here: guests are emulated" });
            known.insert(key, works);
            let fresh = file.with_extension(format!("{}", std::process::id()));
            std::fs::write(&fresh, serde_json::to_vec_pretty(&known)?).context("can't remember about KVM")?;
            std::fs::rename(&fresh, &file).context("can't remember about KVM")?;
            works
        }
    };
    Ok(if works { Accel::Kvm } else { Accel::Tcg })
}
