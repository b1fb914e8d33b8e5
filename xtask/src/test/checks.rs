//! Formatting, lints, licences, unit tests.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::report::Report;
use crate::project::Project;
use crate::run::{self, note};
use crate::setup;

/// Runs all of them; one that fails doesn't keep the others from running.
pub(crate) fn run(project: &Project, report: &Report) {
    let mut fmt = project.cargo();
    report.check("fmt", run::run(fmt.args(["fmt", "--all", "--check"])));
    let mut clippy = project.cargo();
    // By the product's profile: the kernel side, which the daemon has in it, is built once then.
    clippy.args(["clippy", "--quiet", "--release", "--all-targets", "--", "-D", "warnings"]);
    report.check("clippy", run::run(&mut clippy));
    report.check("clippy of the kernel side", run::quiet(&mut clippy_ebpf(project)));
    deny(project, report);
    unit(project, report);
}

/// The kernel side isn't a default member: it is built for another target, by another toolchain.
fn clippy_ebpf(project: &Project) -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(&project.root).env("PATH", project.path_with_tools());
    command.args([
        "run",
        "nightly",
        "cargo",
        "clippy",
        "--quiet",
        "--package",
        "agent-guard-ebpf",
        "--bins",
        "--release",
    ]);
    command.args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"]);
    command.arg("--target-dir").arg(project.root.join("target/clippy-ebpf"));
    command.args([
        "--config",
        r#"build.rustflags=["--cfg=bpf_target_arch=\"x86_64\""]"#,
        "--",
        "-D",
        "warnings",
    ]);
    command
}

/// Licences, sources and bans by `deny.toml`; advisories where their database can be had.
fn deny(project: &Project, report: &Report) {
    let program = match setup::deny(project) {
        Ok(program) => program,
        Err(error) => {
            note("test", format!("deny: skipped, cargo-deny can't be installed here: {error:#}"));
            return;
        }
    };
    let command = |what: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(&project.root).args(["--log-level", "error", "check"]).args(what);
        command.env("PATH", project.path_with_tools());
        command
    };
    report.check("deny", run::quiet(&mut command(&["licenses", "bans", "sources"])));
    match run::capture(&mut command(&["advisories"])) {
        Ok(_) => report.check("advisories", Ok(())),
        Err(error) => {
            let text = format!("{error:#}");
            let unreachable = text.contains("failed to fetch advisory database")
                || text.contains("failed to load advisory database");
            if unreachable {
                note("test", "advisories: skipped, the advisory database can't be reached from here");
            } else {
                report.check("advisories", Err(error));
            }
        }
    }
}

/// Unit tests and documentation tests, counted one by one.
fn unit(project: &Project, report: &Report) {
    match count_unit(project) {
        Ok(Counts { passed, failed, status: Ok(()) }) => report.counted("unit tests", passed, failed, None),
        Ok(Counts { passed, failed, status: Err(error) }) => {
            report.counted("unit tests", passed, failed.max(1), Some(format!("{error:#}")));
        }
        Err(error) => report.check("unit tests", Err(error)),
    }
}

struct Counts {
    passed: u64,
    failed: u64,
    status: Result<()>,
}

fn count_unit(project: &Project) -> Result<Counts> {
    let mut command = project.cargo();
    // Optimised, though not without checks (see the profile): random tests try thousands of policies.
    command.args(["test", "--release", "--no-fail-fast"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("can't start `cargo test`")?;
    let stdout = child.stdout.take().context("`cargo test` has no stdout")?;
    let (mut passed, mut failed) = (0, 0);
    let mut failures = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("can't read what `cargo test` says")?;
        println!("{line}");
        if let Some((more_passed, more_failed)) = result_line(&line) {
            passed += more_passed;
            failed += more_failed;
        } else if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")) {
            failures.push(name.to_owned());
        }
    }
    let status = child.wait().context("can't wait for `cargo test`")?;
    let status = if status.success() {
        Ok(())
    } else if failures.is_empty() {
        Err(anyhow::anyhow!("`cargo test` failed ({status}); its messages are above"))
    } else {
        Err(anyhow::anyhow!("{}", failures.join(", ")))
    };
    if passed == 0 && failed == 0 && status.is_ok() {
        bail!("`cargo test` ran no test");
    }
    Ok(Counts { passed, failed, status })
}

/// Reads `test result: ok. 12 passed; 0 failed; ...`.
fn result_line(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |label: &str| {
        rest.split([';', '.']).find_map(|part| part.trim().strip_suffix(label)?.trim().parse().ok())
    };
    Some((number("passed")?, number("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_result_lines_are_counted() {
        let ok =
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        assert_eq!(result_line(ok), Some((12, 0)));
        let bad = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(result_line(bad), Some((3, 2)));
        assert_eq!(result_line("test tests::x ... ok"), None);
    }
}
