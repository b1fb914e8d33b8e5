//! `cargo xtask demo`: plays the demonstration in a guest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use crate::build::{self, BuildArgs};
use crate::package;
use crate::project::Project;
use crate::run::say;
use crate::vm::payload::Job;
use crate::vm::{self, Mode, Run, terminal};

/// Where the guest has the demonstration.
const FOLDER: &str = "/opt/agent-guard-demo";

/// What to play it on.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// 6.1, 6.12, 6.18, 7.2, or the path of a bzImage or vmlinux
    #[arg(long, value_name = "KERNEL", default_value = "6.12")]
    kernel: String,
    /// The modules folder of a kernel given as a path (beside it otherwise)
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
}

/// The command; its exit code is the demonstration's.
pub(crate) fn command(project: &Project, args: &DemoArgs) -> Result<ExitCode> {
    let script = project.root.join("dist/demo/play.sh");
    if !script.is_file() {
        bail!("there is no demonstration: {} is missing", script.display());
    }
    let (rootfs, kernel) = vm::kernel(project, &args.kernel, args.modules.as_deref())?;
    let built = build::build(project, &BuildArgs::default())?;
    let package = package::for_guest(project, &built)?;
    say("demo", where_and_why(&kernel.release));
    let shown = terminal::on_terminal();
    let mut env = BTreeMap::new();
    if shown {
        env.insert("TERM".into(), std::env::var("TERM").unwrap_or_else(|_| "xterm-256color".into()));
    }
    if let Ok(value) = std::env::var("NO_COLOR") {
        env.insert("NO_COLOR".into(), value);
    }
    let job = Job {
        argv: vec!["/bin/bash".into(), format!("{FOLDER}/play.sh")],
        env,
        cwd: "/root".into(),
        terminal: shown.then(terminal::size),
        service: Some("agent-guard.service".into()),
        collect: false,
        records: false,
    };
    let folders = [(project.root.join("dist/demo"), PathBuf::from(FOLDER.trim_start_matches('/')))];
    let run = Run { project, kernel: &kernel, rootfs: &rootfs, built: &built, package: package.as_deref() };
    run.interactive(Mode::Systemd, &job, &folders, &[], None)
}

/// Why the demonstration doesn't run on this machine itself.
fn where_and_why(release: &str) -> String {
    let list = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let has_bpf = list.trim().split(',').any(|name| name == "bpf");
    let why = if has_bpf {
        "it destroys things, and shall not do so here".to_owned()
    } else if list.trim().is_empty() {
        "this machine's kernel doesn't say that it can load LSM programs".to_owned()
    } else {
        format!("this machine's kernel can't load LSM programs (its list: {})", list.trim())
    };
    format!("playing in a virtual machine with Linux {release}, because {why}")
}
