//! `cargo xtask build`: what a guest needs of our own programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::project::Project;
use crate::run::{self, note};

/// Programs that are linked statically: the guest's first process, and the one that measures, whose start is part of
/// what it measures.
const STATIC: [&str; 2] = ["guest", "bench"];

/// How to build.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct BuildArgs {
    /// Leave out the product, for work on the machinery itself
    #[arg(long, hide = true)]
    pub(crate) no_guard: bool,
}

/// What was built, without debugging symbols.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// The product.
    pub(crate) agent_guard: Option<PathBuf>,
    /// The first process of every guest.
    pub(crate) guest: PathBuf,
    /// Everything that goes into the guest's test folder, by name, `guest` and `scenarios` among it.
    pub(crate) programs: Vec<(String, PathBuf)>,
}

impl Built {
    /// The program that knows the scenarios.
    pub(crate) fn scenarios(&self) -> Result<&Path> {
        path_of(&self.programs, "scenarios")
    }

    /// The program that measures.
    pub(crate) fn bench(&self) -> Result<&Path> {
        path_of(&self.programs, "bench")
    }
}

fn path_of<'p>(programs: &'p [(String, PathBuf)], name: &str) -> Result<&'p Path> {
    programs
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, path)| path.as_path())
        .with_context(|| format!("package `tests` built no program `{name}`"))
}

/// The command.
pub(crate) fn command(project: &Project, args: &BuildArgs) -> Result<()> {
    let built = build(project, args)?;
    if let Some(program) = &built.agent_guard {
        note("build", format!("agent-guard: {}", program.display()));
    }
    for (name, program) in &built.programs {
        note("build", format!("{name}: {}", program.display()));
    }
    Ok(())
}

/// Builds everything that is out of date. All of it optimised, as the product is: guests are slow, and what both need is
/// compiled once.
pub(crate) fn build(project: &Project, args: &BuildArgs) -> Result<Built> {
    let mut wanted = vec!["--release".to_owned(), "--package".into(), "tests".into()];
    for name in test_programs(project)? {
        wanted.extend(["--bin".into(), name]);
    }
    if !args.no_guard {
        wanted.extend(PRODUCT.map(str::to_owned));
    }
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let mut programs = Vec::new();
    for (name, program) in cargo(project, "build", &wanted, &[])? {
        let copy = stripped(project, &name, &program)?;
        programs.push((name, copy));
    }
    let product = programs.iter().position(|(name, _)| name == "agent-guard");
    let agent_guard = product.map(|at| programs.remove(at).1);
    let linked = build_static(project)?;
    programs.extend(linked.clone());
    let guest = path_of(&linked, "guest")?.to_path_buf();
    Ok(Built { agent_guard, guest, programs })
}

/// What the product is to cargo.
const PRODUCT: [&str; 4] = ["--package", "agent-guard", "--bin", "agent-guard"];

/// The product alone.
pub(crate) fn agent_guard(project: &Project) -> Result<PathBuf> {
    let built = cargo(project, "build", &[&["--release"], PRODUCT.as_slice()].concat(), &[])?;
    let (name, program) = built.into_iter().next().context("cargo built no program `agent-guard`")?;
    stripped(project, &name, &program)
}

/// The programs of [`STATIC`]: the guest's first process runs before there is a C library. Only they are compiled and linked
/// in this way, what they use is what the others use.
fn build_static(project: &Project) -> Result<Vec<(String, PathBuf)>> {
    let mut all = Vec::new();
    for name in STATIC {
        let args = ["--release", "--package", "tests", "--bin", name];
        for (name, program) in cargo(project, "rustc", &args, &["-Ctarget-feature=+crt-static"])? {
            let copy = stripped(project, &name, &program)?;
            all.push((name, copy));
        }
    }
    Ok(all)
}

/// The binaries of package `tests` but for those of [`STATIC`], which are built in their own way.
fn test_programs(project: &Project) -> Result<Vec<String>> {
    let mut command = project.cargo();
    command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&run::capture(&mut command)?)?;
    let list =
        |value: Option<&serde_json::Value>| value.and_then(|v| v.as_array()).cloned().unwrap_or_default();
    let mut names = Vec::new();
    for package in list(metadata.get("packages")) {
        if package.get("name").and_then(|n| n.as_str()) != Some("tests") {
            continue;
        }
        for target in list(package.get("targets")) {
            let is_bin = list(target.get("kind")).iter().any(|k| k == "bin");
            if let Some(name) =
                target.get("name").and_then(|n| n.as_str()).filter(|n| is_bin && !STATIC.contains(n))
            {
                names.push(name.to_owned());
            }
        }
    }
    if names.is_empty() {
        bail!("package `tests` has no programs");
    }
    Ok(names)
}

/// Runs `cargo build` or `cargo rustc`, the latter with flags for the compiler, and returns the executables it made, by name.
fn cargo(project: &Project, build: &str, args: &[&str], flags: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    let mut command = project.cargo();
    command.args([build, "--message-format=json-render-diagnostics"]);
    if !run::talkative() {
        command.arg("--quiet");
    }
    command.args(args).stdin(Stdio::null()).stderr(Stdio::inherit());
    if !flags.is_empty() {
        command.arg("--").args(flags);
    }
    let line = run::shown(&command);
    let output = command.output().with_context(|| format!("can't start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed; the compiler's messages are above");
    }
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let text = |value: Option<&serde_json::Value>| value.and_then(|v| v.as_str()).map(str::to_owned);
        let executable = text(message.get("executable"));
        let name = text(message.get("target").and_then(|t| t.get("name")));
        if let (Some(executable), Some(name)) = (executable, name) {
            found.push((name, PathBuf::from(executable)));
        }
    }
    Ok(found)
}

/// A copy without debugging symbols, which are most of a program's size; made anew when it is old.
fn stripped(project: &Project, name: &str, program: &Path) -> Result<PathBuf> {
    let dir = project.target.join("xtask/bin");
    std::fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
    let copy = dir.join(name);
    let modified = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    if modified(&copy).is_some_and(|copied| modified(program).is_some_and(|built| copied > built)) {
        return Ok(copy);
    }
    let fresh = dir.join(format!(".{name}.{}", std::process::id()));
    if run::which("strip").is_some() {
        run::quiet(Command::new("strip").arg("-o").arg(&fresh).arg(program))?;
    } else {
        std::fs::copy(program, &fresh).with_context(|| format!("can't copy {}", program.display()))?;
    }
    std::fs::rename(&fresh, &copy).with_context(|| format!("can't put {} in its place", copy.display()))?;
    Ok(copy)
}
