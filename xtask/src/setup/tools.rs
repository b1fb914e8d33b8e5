//! Programs of this machine: Debian packages, the nightly's sources, cargo-installed tools.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt;
use crate::project::Project;
use crate::run::{self, Rights, note};

/// The last bpf-linker that reads what nightly 1.97 writes (LLVM 22) without an LLVM of the system's.
pub(crate) const BPF_LINKER: &str = "0.10.4";

/// A cargo-deny that this Rust builds.
const CARGO_DENY: &str = "0.20.2";

/// Programs that are needed, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 10] = [
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("setpriv", "util-linux"),
    ("dpkg-deb", "dpkg"),
    ("strip", "binutils"),
    ("find", "findutils"),
    ("cc", "gcc"),
];

/// Installs what is missing of the Debian packages.
pub(crate) fn ensure_programs(project: &Project, rights: Rights) -> Result<()> {
    let mut missing: Vec<&str> =
        PROGRAMS.into_iter().filter(|(program, _)| run::which(program).is_none()).map(|(_, p)| p).collect();
    for (file, package) in [
        ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
        ("/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev"),
    ] {
        // Only where Debian's packages are the way things get here.
        if run::which("apt-get").is_some() && !std::path::Path::new(file).exists() {
            missing.push(package);
        }
    }
    if !missing.is_empty() {
        apt::install(&project.cache, rights, &missing)?;
    }
    if run::which("qemu-system-x86_64").is_none() {
        apt::install(&project.cache, rights, &["qemu-system-x86"])?;
    }
    for (program, package) in PROGRAMS.into_iter().chain([("qemu-system-x86_64", "qemu-system-x86")]) {
        if run::which(program).is_none() {
            bail!("`{program}` is still missing after installing {package}");
        }
    }
    Ok(())
}

/// What is missing of the Debian packages, for a message.
pub(crate) fn missing_programs() -> Vec<&'static str> {
    PROGRAMS
        .into_iter()
        .chain([("qemu-system-x86_64", "qemu-system-x86")])
        .filter(|(program, _)| run::which(program).is_none())
        .map(|(_, package)| package)
        .collect()
}

/// QEMU's own version line.
pub(crate) fn qemu_version() -> Result<String> {
    let text = run::capture(Command::new("qemu-system-x86_64").arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The standard library's sources of the nightly toolchain, from which the kernel side builds `core`.
pub(crate) fn ensure_rust_src() -> Result<()> {
    let sysroot = || -> Result<PathBuf> {
        let mut command = Command::new("rustc");
        command.args(["+nightly", "--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN");
        Ok(PathBuf::from(run::capture(&mut command)?.trim()))
    };
    if run::which("rustup").is_none() {
        bail!("rustup is missing: the kernel side is built with its nightly toolchain (see rustup.rs)");
    }
    if sysroot().is_err() {
        note("setup", "rust: installing the nightly toolchain");
        run::quiet(Command::new("rustup").args(["toolchain", "install", "nightly", "--profile", "minimal"]))?;
    }
    if !sysroot()?.join("lib/rustlib/src/rust/library/core").is_dir() {
        note("setup", "rust: adding nightly's rust-src");
        run::quiet(Command::new("rustup").args(["component", "add", "rust-src", "--toolchain", "nightly"]))?;
    }
    if !sysroot()?.join("bin/cargo-clippy").is_file() {
        note("setup", "rust: adding nightly's clippy");
        run::quiet(Command::new("rustup").args(["component", "add", "clippy", "--toolchain", "nightly"]))?;
    }
    Ok(())
}

/// The program that links eBPF objects.
pub(crate) fn ensure_bpf_linker(project: &Project) -> Result<()> {
    let ours = project.cache.join("tools/bin/bpf-linker");
    let right = |program: PathBuf| {
        run::capture(Command::new(program).arg("--version")).is_ok_and(|v| v.trim().ends_with(BPF_LINKER))
    };
    if (ours.is_file() && right(ours)) || run::which("bpf-linker").is_some_and(right) {
        return Ok(());
    }
    note("setup", format!("bpf-linker {BPF_LINKER}: building (about a minute)"));
    cargo_install(project, "bpf-linker", &["--version", BPF_LINKER])
}

/// The licence checker: ours, or one that is installed already.
pub(crate) fn ensure_deny(project: &Project) -> Result<PathBuf> {
    let ours = project.cache.join("tools/bin/cargo-deny");
    if ours.is_file() {
        return Ok(ours);
    }
    if let Some(found) = run::which("cargo-deny") {
        return Ok(found);
    }
    note("setup", "cargo-deny: building (some minutes, once)");
    cargo_install(project, "cargo-deny", &["--version", CARGO_DENY])?;
    Ok(ours)
}

/// Installs a program from the registry into the cache.
fn cargo_install(project: &Project, name: &str, more: &[&str]) -> Result<()> {
    let mut command = project.cargo();
    command.args(["install", "--locked", "--root"]).arg(project.cache.join("tools")).arg(name).args(more);
    // A shared target folder would be filled with things that nobody builds again.
    command.env_remove("CARGO_TARGET_DIR").current_dir(&project.cache);
    run::patiently("setup", name, || run::quiet(&mut command))
        .with_context(|| format!("can't install {name}"))
}
