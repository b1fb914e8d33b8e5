//! `cargo xtask vm`: a guest with one of the kernels, the product installed and running in it.

mod console;
mod initramfs;
pub(crate) mod machine;
mod modules;
pub(crate) mod payload;
pub(crate) mod qemu;
pub(crate) mod terminal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::build::{self, BuildArgs, Built};
use crate::project::Project;
use crate::run::note;
use crate::setup::kernels::{self, Kernel};
use crate::{package, setup};
use machine::{Boot, Ending, Limits};
use payload::{Job, Payload};
use terminal::{Passthrough, Raw};

/// How a guest's user space starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Mode {
    /// No service manager: what the job doesn't start doesn't run
    Direct,
    /// systemd, with agent-guard as a service
    Systemd,
}

impl Mode {
    /// Its name on command lines and in records.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Systemd => "systemd",
        }
    }
}

/// What executes a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accel {
    /// The processor.
    Kvm,
    /// QEMU.
    Tcg,
    /// QEMU, counting: one processor, whose every instruction takes a nanosecond of the guest's time.
    Counting,
}

/// What to run where.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cargo xtask vm --kernel 6.12 -- agent-guard status
  cargo xtask vm --kernel 7.2 --copy ./project -- bash -c 'cd project && git status'
  cargo xtask vm --kernel 6.1 --shell
  cargo xtask vm --kernel ~/linux/arch/x86/boot/bzImage --modules ~/linux/mods/lib/modules/6.20.0 -- uname -r")]
pub(crate) struct VmArgs {
    /// 6.1, 6.12, 6.18, 7.2, or the path of a bzImage or vmlinux
    #[arg(long, value_name = "KERNEL", default_value = "6.12")]
    kernel: String,
    /// The modules folder of a kernel given as a path (beside it otherwise)
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// Put a folder of the host into the guest's /root
    #[arg(long, value_name = "DIR")]
    copy: Vec<PathBuf>,
    /// How user space starts
    #[arg(long, value_enum, default_value = "systemd")]
    boot: Mode,
    /// More words for the kernel's command line
    #[arg(long, value_name = "WORD")]
    append: Vec<String>,
    /// End the guest after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Boot without the product
    #[arg(long, hide = true)]
    no_guard: bool,
    /// An interactive shell on this terminal
    #[arg(long, conflicts_with = "command")]
    shell: bool,
    /// The command and its arguments
    #[arg(last = true, value_name = "CMD", required_unless_present = "shell")]
    command: Vec<String>,
}

/// The command; its exit code is the guest command's.
pub(crate) fn command(project: &Project, args: &VmArgs) -> Result<ExitCode> {
    let (rootfs, kernel) = kernel(project, &args.kernel, args.modules.as_deref())?;
    let built = build::build(project, &BuildArgs { no_guard: args.no_guard })?;
    let package = package::for_guest(project, &built)?;
    let argv = if args.shell { vec!["/bin/bash".into(), "--login".into()] } else { args.command.clone() };
    let guarded = args.boot == Mode::Systemd && package.is_some();
    let mut env = BTreeMap::new();
    if args.shell {
        env.insert("TERM".into(), std::env::var("TERM").unwrap_or_else(|_| "dumb".into()));
    }
    let job = Job {
        argv,
        env,
        cwd: "/root".into(),
        terminal: args.shell.then(terminal::size),
        service: guarded.then(|| "agent-guard.service".into()),
        collect: false,
        records: false,
    };
    let mut folders = Vec::new();
    for dir in &args.copy {
        let full = dir.canonicalize().with_context(|| format!("can't find {}", dir.display()))?;
        let name = full.file_name().with_context(|| format!("{} has no name", dir.display()))?.to_owned();
        folders.push((full, Path::new("root").join(name)));
    }
    let run = Run { project, kernel: &kernel, rootfs: &rootfs, built: &built, package: package.as_deref() };
    run.interactive(args.boot, &job, &folders, &args.append, args.timeout.map(Duration::from_secs))
}

/// A kernel by its series or its path, and the root file system.
pub(crate) fn kernel(project: &Project, name: &str, modules: Option<&Path>) -> Result<(PathBuf, Kernel)> {
    let is_file = name.contains('/') || Path::new(name).is_file();
    if is_file {
        let ready = setup::ensure(project, &[], false)?;
        return Ok((ready.rootfs, kernels::from_file(project, Path::new(name), modules)?));
    }
    let ready = setup::ensure(project, &[series(name)?], false)?;
    let kernel = ready.kernels.into_iter().next().context("set-up made no kernel")?;
    Ok((ready.rootfs, kernel))
}

/// A series as it may be asked for: two numbers.
pub(crate) fn series(name: &str) -> Result<String> {
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    match name.split_once('.') {
        Some((major, minor)) if number(major) && number(minor) => Ok(name.to_owned()),
        _ => bail!(
            "`{name}` is neither a kernel series ({}) nor a file: give the path of a bzImage with a slash in it",
            kernels::SERIES.join(", ")
        ),
    }
}

/// Everything that a guest is made of.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) project: &'a Project,
    pub(crate) kernel: &'a Kernel,
    pub(crate) rootfs: &'a Path,
    pub(crate) built: &'a Built,
    pub(crate) package: Option<&'a Path>,
}

impl Run<'_> {
    /// Boots a guest whose output is ours, and returns its exit code.
    pub(crate) fn interactive(
        &self,
        mode: Mode,
        job: &Job,
        folders: &[(PathBuf, PathBuf)],
        append: &[String],
        timeout: Option<Duration>,
    ) -> Result<ExitCode> {
        let logs = self.logs(&format!("vm-{}-{}", self.kernel.name, std::process::id()))?;
        let boot = self.boot(mode, append, &logs)?;
        note("vm", format!("Linux {} ({})", self.kernel.release, mode.name()));
        let payload = Payload { built: self.built, package: self.package, mode, job, folders };
        let limits = Limits { boot: machine::TO_JOB, silence: None };
        let typing = job.terminal.is_some();
        let raw = if typing { Some(Raw::enter()?) } else { None };
        let mut sink = Timed {
            inner: Passthrough { typing },
            end: timeout.map(|limit| (std::time::Instant::now() + limit, limit)),
        };
        let outcome = machine::run(&boot, &self.built.guest, &payload, &limits, &mut sink);
        drop(raw);
        match outcome? {
            Ending::Ended(code) => {
                std::fs::remove_dir_all(&logs).context("can't remove the logs")?;
                Ok(ExitCode::from(u8::try_from(code.clamp(0, 255)).unwrap_or(1)))
            }
            Ending::Broken(why) | Ending::FalseStart(why) => bail!("{why} (logs: {})", logs.display()),
        }
    }

    /// A fresh folder for the logs of a guest.
    pub(crate) fn logs(&self, name: &str) -> Result<PathBuf> {
        let logs = self.project.target.join("vm-logs").join(name);
        drop(std::fs::remove_dir_all(&logs));
        std::fs::create_dir_all(&logs).with_context(|| format!("can't create {}", logs.display()))?;
        Ok(logs)
    }

    /// The machine to boot, with the best accelerator that works.
    pub(crate) fn boot<'b>(&'b self, mode: Mode, append: &'b [String], logs: &'b Path) -> Result<Boot<'b>> {
        let mut boot = Boot {
            kernel: self.kernel,
            rootfs: self.rootfs,
            toolchain: None,
            accel: Accel::Tcg,
            mode: Some(mode),
            append,
            logs,
        };
        boot.accel = qemu::accel(self.project, &boot, &self.built.guest)?;
        Ok(boot)
    }
}

/// A passthrough with an end.
struct Timed {
    inner: Passthrough,
    end: Option<(std::time::Instant, Duration)>,
}

impl machine::Sink for Timed {
    fn out(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.out(bytes)
    }
    fn err(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.err(bytes)
    }
    fn terminal(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.terminal(bytes)
    }
    fn connected(
        &mut self,
        terminal: std::os::unix::net::UnixStream,
        control: std::os::unix::net::UnixStream,
    ) {
        self.inner.connected(terminal, control);
    }
    fn overdue(&mut self) -> Option<String> {
        let (end, limit) = self.end?;
        (end <= std::time::Instant::now())
            .then(|| format!("the guest was still busy after {} s", limit.as_secs()))
    }
}
