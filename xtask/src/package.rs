//! `cargo xtask package`: a Debian package of the product.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::build::{self, Built};
use crate::project::Project;
use crate::run::{self, note};
use crate::setup;

/// Where to put the package.
#[derive(Args, Debug)]
pub(crate) struct PackageArgs {
    /// The folder for the package (target/debian otherwise)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What is installed besides the program: source, target, whether the administrator may change it.
const FILES: [(&str, &str, bool); 4] = [
    ("dist/agent-guard.service", "usr/lib/systemd/system/agent-guard.service", false),
    ("dist/deb/sysusers.conf", "usr/lib/sysusers.d/agent-guard.conf", false),
    ("dist/agent-guard.toml", "etc/agent-guard/agent-guard.toml", true),
    ("dist/policy.d/50-default.toml", "etc/agent-guard/policy.d/50-default.toml", true),
];

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// The libraries that the program may need, and the packages that have them.
const LIBRARIES: [(&str, &str); 6] = [
    ("libc.so.6", "libc6"),
    ("libm.so.6", "libc6"),
    ("libdl.so.2", "libc6"),
    ("libpthread.so.0", "libc6"),
    ("ld-linux-x86-64.so.2", "libc6"),
    ("libgcc_s.so.1", "libgcc-s1"),
];

/// The command.
pub(crate) fn command(project: &Project, args: &PackageArgs) -> Result<()> {
    setup::ensure_build(project)?;
    let program = build::agent_guard(project)?;
    let dir = match &args.out {
        Some(dir) => dir.clone(),
        None => project.target.join("debian"),
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
    let file = dir.join(format!("agent-guard_{}_{}.deb", version(), architecture()?));
    if licences(project)?.is_empty() {
        bail!("there is no LICENSE* file in {}: a package needs one", project.root.display());
    }
    assemble(project, &program, &file, "xz")?;
    note("package", format!("{}", file.display()));
    Ok(())
}

/// The package that guests get, if there is a product to put into it. Uncompressed: it lives for a
/// minute, and guests are slow.
pub(crate) fn for_guest(project: &Project, built: &Built) -> Result<Option<PathBuf>> {
    let Some(program) = &built.agent_guard else { return Ok(None) };
    let dir = project.target.join("xtask");
    std::fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
    let fresh = dir.join(format!(".agent-guard.{}.deb", std::process::id()));
    let file = dir.join("agent-guard.deb");
    assemble(project, program, &fresh, "none")?;
    std::fs::rename(&fresh, &file).with_context(|| format!("can't put {} in its place", file.display()))?;
    Ok(Some(file))
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn architecture() -> Result<String> {
    Ok(run::capture(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned())
}

fn licences(project: &Project) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(&project.root)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("LICENSE")))
        .collect();
    found.sort();
    Ok(found)
}

/// Lays out the package's tree and has dpkg pack it.
fn assemble(project: &Project, program: &Path, file: &Path, compression: &str) -> Result<()> {
    let work = tempfile::tempdir_in(&project.target).context("can't create a folder for the package")?;
    let tree = work.path();
    std::fs::set_permissions(tree, std::fs::Permissions::from_mode(0o755))?;
    install(program, &tree.join("usr/bin/agent-guard"), 0o755)?;
    let mut conffiles = String::new();
    for (from, to, conffile) in FILES {
        install(&project.root.join(from), &tree.join(to), 0o644)?;
        if conffile {
            conffiles.push_str(&format!("/{to}\n"));
        }
    }
    documents(project, &tree.join("usr/share/doc/agent-guard"))?;
    let control = tree.join("DEBIAN");
    let depends = depends(program)?;
    let size = run::capture(Command::new("du").args(["-sk", "--apparent-size"]).arg(tree))?;
    let size = size.split_whitespace().next().unwrap_or("0").to_owned();
    for script in SCRIPTS {
        install(&project.root.join("dist/deb").join(script), &control.join(script), 0o755)?;
    }
    write(&control.join("conffiles"), &conffiles)?;
    write(&control.join("control"), &control_file(&depends, &size)?)?;
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", &format!("-Z{compression}"), "--build"]).arg(tree).arg(file);
    run::quiet(&mut build)
}

/// Readme, documentation, licences.
fn documents(project: &Project, to: &Path) -> Result<()> {
    let licences = licences(project)?;
    let mut copyright =
        String::from("agent-guard is licensed under either of the licences below, at your option.\n");
    for licence in &licences {
        let text =
            std::fs::read_to_string(licence).with_context(|| format!("can't read {}", licence.display()))?;
        copyright.push_str(&format!("\n{}\n\n{text}", "-".repeat(78)));
    }
    write(&to.join("copyright"), &copyright)?;
    let readme = project.root.join("README.md");
    if readme.is_file() {
        install(&readme, &to.join("README.md"), 0o644)?;
    }
    copy_tree(&project.root.join("docs"), &to.join("docs"))
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(from) else { return Ok(()) };
    for entry in entries.flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            install(&entry.path(), &target, 0o644)?;
        }
    }
    Ok(())
}

fn control_file(depends: &str, size: &str) -> Result<String> {
    Ok(format!(
        "Package: agent-guard\n\
         Version: {}\n\
         Architecture: {}\n\
         Maintainer: The agent-guard developers <root@localhost>\n\
         Installed-Size: {size}\n\
         Depends: {depends}\n\
         Recommends: systemd\n\
         Section: admin\n\
         Priority: optional\n\
         Description: kernel-enforced limits for AI coding agents\n \
         A daemon that tags the processes of an agent's session in the kernel, judges\n \
         every destructive or out-of-scope action of theirs through BPF LSM hooks, and\n \
         allows, reports, holds, denies or kills according to a policy.\n",
        version(),
        architecture()?,
    ))
}

/// The packages whose libraries the program is linked to, with the C library's oldest version that does.
fn depends(program: &Path) -> Result<String> {
    let text = run::capture(Command::new("objdump").arg("-p").arg(program))?;
    depends_of(&text)
}

fn depends_of(objdump: &str) -> Result<String> {
    let mut packages = BTreeSet::new();
    for line in objdump.lines() {
        let Some(library) = line.trim().strip_prefix("NEEDED") else { continue };
        let library = library.trim();
        let (_, package) = LIBRARIES.iter().find(|(name, _)| *name == library).with_context(|| {
            format!("agent-guard needs {library}: say in xtask's package.rs which Debian package has it")
        })?;
        packages.insert(*package);
    }
    let oldest = objdump
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("GLIBC_"))
        .filter_map(|v| {
            let mut numbers = v.split('.').map(str::parse::<u32>);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        })
        .max();
    let list: Vec<String> = packages
        .into_iter()
        .map(|package| match oldest {
            Some((major, minor)) if package == "libc6" => format!("libc6 (>= {major}.{minor})"),
            _ => package.to_owned(),
        })
        .chain(["init-system-helpers (>= 1.54)".to_owned()])
        .collect();
    Ok(list.join(", "))
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let data = std::fs::read(from).with_context(|| format!("can't read {}", from.display()))?;
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("can't create {}", parent.display()))?;
    }
    std::fs::write(to, data).with_context(|| format!("can't write {}", to.display()))?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("can't set the mode of {}", to.display()))
}

fn write(to: &Path, text: &str) -> Result<()> {
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("can't create {}", parent.display()))?;
    }
    std::fs::write(to, text).with_context(|| format!("can't write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_from_the_program() {
        let text = "  NEEDED               libgcc_s.so.1\n  NEEDED               libc.so.6\n\
                    Version References:\n  required from libc.so.6:\n\
                    0x06969195 0x00 05 GLIBC_2.15\n  0x069691b9 0x00 04 GLIBC_2.34\n  0x09691a75 0x00 03 GLIBC_2.2.5\n";
        assert_eq!(depends_of(text).unwrap(), "libc6 (>= 2.34), libgcc-s1, init-system-helpers (>= 1.54)");
        assert!(depends_of("  NEEDED  libfoo.so.1\n").unwrap_err().to_string().contains("libfoo"));
    }
}
