//! Real work, as agents do it: `workload git|cargo|apt DIR`, where DIR is its own and is emptied first.
//!
//! It prints what came out, in words that don't depend on time and place: two runs that did the same work print
//! the same. `cargo` and `apt` work in the system on the toolchain disk, mounted where `AGENT_GUARD_TOOLCHAIN` says
//! (`/srv/toolchain` otherwise): `cargo` in a DIR somewhere below it, `apt` on the system itself, where DIR is its
//! root.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["git", dir] => git(Path::new(dir)),
        ["cargo", dir] => cargo(Path::new(dir)),
        ["apt", dir] => apt(Path::new(dir)),
        _ => Err(anyhow::anyhow!("usage: workload git|cargo|apt DIR")),
    };
    match result {
        Ok(text) => {
            println!("{}", text.trim());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("workload: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// An empty directory.
fn fresh(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("can't empty {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))?;
    }
    fs::write(file, text).with_context(|| format!("can't write {}", file.display()))
}

/// Runs a command that must succeed; what it printed.
fn output(command: &mut Command) -> Result<String> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("can't start {line}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        bail!("{line}: {}: {} {}", output.status, text(&output.stdout), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

/// A clone of a local repository, changes, commits, branches, a merge, a collection of garbage.
fn git(dir: &Path) -> Result<String> {
    fresh(dir)?;
    let (origin, clone) = (dir.join("origin"), dir.join("clone"));
    let git = |at: &Path, words: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(at).args(words).env("HOME", dir);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "Agent")
                .env(format!("GIT_{who}_EMAIL"), "agent@example.org");
            command.env(format!("GIT_{who}_DATE"), "2025-12-01T12:00:00Z");
        }
        output(&mut command)
    };
    for number in 0..40 {
        write(&origin.join(format!("src/part-{number}.txt")), &format!("part {number}\n").repeat(50))?;
    }
    git(&origin, &["init", "-q", "-b", "main"])?;
    git(&origin, &["add", "-A"])?;
    git(&origin, &["commit", "-q", "-m", "parts"])?;
    git(dir, &["clone", "-q", "origin", "clone"])?;
    git(&clone, &["checkout", "-q", "-b", "topic"])?;
    for number in 0..5 {
        write(&clone.join(format!("src/part-{number}.txt")), "changed\n")?;
    }
    git(&clone, &["mv", "src/part-6.txt", "src/moved.txt"])?;
    git(&clone, &["rm", "-q", "src/part-7.txt"])?;
    git(&clone, &["commit", "-q", "-a", "-m", "changes"])?;
    git(&clone, &["checkout", "-q", "main"])?;
    git(&clone, &["merge", "-q", "--no-ff", "-m", "merge", "topic"])?;
    git(&clone, &["branch", "-d", "topic"])?;
    git(&clone, &["reset", "-q", "--hard", "HEAD"])?;
    git(&clone, &["clean", "-fdxq"])?;
    git(&clone, &["gc", "-q"])?;
    git(&clone, &["fsck", "--strict"])?;
    let status = git(&clone, &["status", "--porcelain"])?;
    Ok(format!("{} {status:?}", git(&clone, &["rev-parse", "HEAD"])?))
}

/// Root of the system with the tools.
fn toolchain() -> PathBuf {
    std::env::var_os("AGENT_GUARD_TOOLCHAIN").map_or_else(|| "/srv/toolchain".into(), PathBuf::from)
}

/// A command in that system.
fn inside(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("chroot");
    command.arg(root).args(words).current_dir("/").env_clear();
    command
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8");
    command
}

/// Builds and runs a program with a library and a build script.
fn cargo(dir: &Path) -> Result<String> {
    fresh(dir)?;
    let root = toolchain();
    let below = dir
        .strip_prefix(&root)
        .with_context(|| format!("{} isn't below {}, where the tools are", dir.display(), root.display()))?;
    for (file, text) in [
        (
            "Cargo.toml",
            "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[workspace]\n",
        ),
        ("build.rs", "fn main() { println!(\"cargo:rustc-env=MADE=by a build script\"); }\n"),
        ("src/lib.rs", "pub fn made() -> &'static str { env!(\"MADE\") }\n"),
        ("src/main.rs", "fn main() { println!(\"made {}\", small::made()); }\n"),
    ] {
        write(&dir.join(file), text)?;
    }
    for sub in ["home", "tmp"] {
        fs::create_dir(dir.join(sub)).with_context(|| format!("can't make {sub}"))?;
    }
    let here = Path::new("/").join(below).to_string_lossy().into_owned();
    let mut build = inside(&root, &["cargo", "build", "--quiet", "--offline", "--manifest-path"]);
    build.arg(format!("{here}/Cargo.toml"));
    build.env("HOME", format!("{here}/home")).env("TMPDIR", format!("{here}/tmp"));
    output(&mut build)?;
    let said = output(&mut inside(&root, &[&format!("{here}/target/debug/small")]))?;
    let mut made: Vec<String> = fs::read_dir(dir.join("target/debug"))
        .context("there is no target folder")?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    made.sort();
    Ok(format!("{said} {made:?}"))
}

/// Installs a package from the repository that is in the system, uses it, and takes it away again.
fn apt(root: &Path) -> Result<String> {
    let apt = |words: &[&str]| {
        let mut command = inside(root, &["apt-get", "-q", "-y", "-o", "Dpkg::Use-Pty=0"]);
        output(command.args(words).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let state = || output(&mut inside(root, &["dpkg-query", "-W", "-f=${Status} ${Version}", "hello"]));
    apt(&["update"])?;
    apt(&["install", "hello"])?;
    let (said, installed) = (output(&mut inside(root, &["hello"]))?, state()?);
    apt(&["purge", "hello"])?;
    anyhow::ensure!(!root.join("usr/bin/hello").exists(), "it was taken away, and is still there");
    Ok(format!("{said} {installed}"))
}
