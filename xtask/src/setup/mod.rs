//! `cargo xtask setup`: everything that builds, guests and tests need, fetched once and cached.

pub(crate) mod apt;
pub(crate) mod image;
pub(crate) mod kernels;
pub(crate) mod rootfs;
pub(crate) mod toolchain;
pub(crate) mod tools;

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::project::Project;
use crate::run::{self, Rights, note};
use kernels::{Kernel, SERIES};

/// Installs and downloads what is missing.
#[derive(Args, Debug, Clone)]
pub(crate) struct SetupArgs {
    /// Only these kernel series (all four otherwise)
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<String>,
    /// Ask the mirror for newer kernels than the cached ones
    #[arg(long)]
    update: bool,
}

/// A machine on which guests can run.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    /// The guest's root file system.
    pub(crate) rootfs: PathBuf,
    /// The kernels that were asked for, in that order.
    pub(crate) kernels: Vec<Kernel>,
}

/// The command.
pub(crate) fn command(project: &Project, args: &SetupArgs) -> Result<()> {
    let started = Instant::now();
    let series: Vec<String> =
        if args.kernel.is_empty() { SERIES.map(str::to_owned).to_vec() } else { args.kernel.clone() };
    let ready = ensure(project, &series, args.update)?;
    let toolchain = ensure_toolchain(project)?;
    if let Err(error) = deny(project) {
        note("setup", format!("cargo-deny: left out, licences won't be checked: {error:#}"));
    }
    note("setup", format!("QEMU: {}", tools::qemu_version()?));
    note("setup", format!("bpf-linker: {}", tools::BPF_LINKER));
    note("setup", format!("root file system: {}", ready.rootfs.display()));
    note("setup", format!("toolchain: {}", toolchain.display()));
    for kernel in &ready.kernels {
        note("setup", format!("kernel {}: {} {}", kernel.name, kernel.release, kernel.version));
    }
    note(
        "setup",
        format!(
            "ready after {:.1} s, cached in {}",
            started.elapsed().as_secs_f32(),
            project.cache.display()
        ),
    );
    Ok(())
}

/// Makes sure that the product can be built.
pub(crate) fn ensure_build(project: &Project) -> Result<()> {
    let _lock = lock(project)?;
    tools::ensure_rust_src()?;
    tools::ensure_bpf_linker(project)
}

/// The disk with the tools that real workloads need; who runs none doesn't wait for it.
pub(crate) fn ensure_toolchain(project: &Project) -> Result<PathBuf> {
    let _lock = lock(project)?;
    let image = toolchain::file(project);
    if image.is_file() {
        return Ok(image);
    }
    let rights = run::rights();
    if rights == Rights::None {
        bail!("{}", by_hand(project));
    }
    tools::ensure_programs(project, rights)?;
    toolchain::ensure(project, rights)
}

/// The licence checker.
pub(crate) fn deny(project: &Project) -> Result<PathBuf> {
    let _lock = lock(project)?;
    tools::ensure_deny(project)
}

/// Only one set-up of a cache at a time.
fn lock(project: &Project) -> Result<File> {
    let path = project.cache.join("lock");
    let lock = File::create(&path).with_context(|| format!("can't create {}", path.display()))?;
    if lock.try_lock().is_err() {
        note("setup", "waiting for another set-up of this cache to end");
        lock.lock().with_context(|| format!("can't lock {}", path.display()))?;
    }
    Ok(lock)
}

/// Makes sure that everything for these kernels is there. Takes no time if it is.
pub(crate) fn ensure(project: &Project, series: &[String], update: bool) -> Result<Ready> {
    let _lock = lock(project)?;
    tools::ensure_rust_src()?;
    tools::ensure_bpf_linker(project)?;
    // Asking sudo only when something is missing keeps the ordinary run free of questions.
    let rootfs = rootfs::file(project);
    let complete = tools::missing_programs().is_empty() && rootfs.is_file();
    if !complete {
        let rights = run::rights();
        if rights == Rights::None {
            bail!("{}", by_hand(project));
        }
        tools::ensure_programs(project, rights)?;
        rootfs::ensure(project, rights)?;
    }
    let mut archive = None;
    let mut kernels = Vec::new();
    for name in series {
        if !update && let Some(kernel) = kernels::cached(project, name) {
            kernels.push(kernel);
            continue;
        }
        let archive = match &mut archive {
            Some(archive) => archive,
            None => archive.insert(apt::Archive::new(&project.cache, apt::Scope::Kernels)?),
        };
        kernels.push(kernels::fetch(project, archive, name)?);
    }
    Ok(Ready { rootfs, kernels })
}

/// What a person has to do who can't become root here.
fn by_hand(project: &Project) -> String {
    let mut text = String::from("set-up needs root for this, and neither are we root nor does sudo work:\n");
    let missing = tools::missing_programs();
    if !missing.is_empty() {
        text.push_str(&format!("  apt-get install --no-install-recommends {}\n", missing.join(" ")));
    }
    let rootfs = rootfs::file(project);
    if !rootfs.is_file() {
        text.push_str(&format!(
            "  a root file system image, {} (built by mmdebstrap as root)\n",
            rootfs.display()
        ));
    }
    let toolchain = toolchain::file(project);
    if !toolchain.is_file() {
        text.push_str(&format!("  the disk of tools, {} (built in the same way)\n", toolchain.display()));
    }
    text.push_str(&format!(
        "run `AGENT_GUARD_CACHE={} cargo xtask setup` as root once, then go on as yourself",
        project.cache.display()
    ));
    text
}
