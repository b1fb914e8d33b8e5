//! Where things are: the repository, cargo's target folder, the cache that clones share.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::run;

/// The folders that everything else starts from.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
    /// Downloads and images, shared by all clones of this user.
    pub(crate) cache: PathBuf,
}

impl Project {
    /// Finds the folders, and creates the cache.
    pub(crate) fn find() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask's folder has no parent")?.to_path_buf();
        let target = target_dir(&root)?;
        let cache = cache_dir()?;
        std::fs::create_dir_all(&cache)
            .with_context(|| format!("can't create the cache folder {}", cache.display()))?;
        Ok(Self { root, target, cache })
    }

    /// A cargo command in the repository. What `cargo run` put into our environment is taken out again:
    /// it would make the inner cargo build things anew.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(&self.root);
        for (name, _) in std::env::vars_os() {
            let Some(name) = name.to_str() else { continue };
            let inherited = name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || matches!(name, "CARGO" | "CARGO_CRATE_NAME" | "CARGO_BIN_NAME" | "LD_LIBRARY_PATH");
            if inherited {
                command.env_remove(name);
            }
        }
        command.env("PATH", self.path_with_tools());
        command
    }

    /// PATH with the cache's own tools in front.
    pub(crate) fn path_with_tools(&self) -> std::ffi::OsString {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::iter::once(self.cache.join("tools/bin")).chain(std::env::split_paths(&path));
        std::env::join_paths(dirs).unwrap_or(path)
    }
}

fn target_dir(root: &Path) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR").filter(|d| !d.is_empty()) {
        return Ok(std::env::current_dir().context("can't tell the current folder")?.join(dir));
    }
    let text = run::capture(
        Command::new("cargo")
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
            .current_dir(root),
    )?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo metadata isn't JSON")?;
    let dir = metadata
        .get("target_directory")
        .and_then(|v| v.as_str())
        .context("cargo metadata names no target folder")?;
    Ok(PathBuf::from(dir))
}

fn cache_dir() -> Result<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let dir = var("AGENT_GUARD_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|d| d.join("agent-guard")))
        .or_else(|| var("HOME").map(|d| d.join(".cache/agent-guard")))
        .ok_or_else(|| anyhow!("neither AGENT_GUARD_CACHE nor HOME is set: say where the cache may be"))?;
    std::path::absolute(&dir).with_context(|| format!("{} is no usable path", dir.display()))
}
