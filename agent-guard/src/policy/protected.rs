//! The guard's own files: no policy lets a session change them.

use std::path::{Path, PathBuf};

use agent_guard_common::{Op, Verdict};

use super::{
    model::{FileRule, Origin, Policy},
    paths,
};

/// What stands for the file of a policy where the guard itself says something.
pub(super) const BUILT_IN: &str = "built in";

/// Where service managers look for units by the guard's name, and for what changes them.
const UNITS: [&str; 8] = [
    "/etc/systemd/system/agent-guard.service",
    "/etc/systemd/system/agent-guard.service.d",
    "/etc/systemd/system.control/agent-guard.service.d",
    "/run/systemd/system/agent-guard.service",
    "/run/systemd/system/agent-guard.service.d",
    "/run/systemd/system.control/agent-guard.service.d",
    "/lib/systemd/system/agent-guard.service",
    "/usr/lib/systemd/system/agent-guard.service",
];

/// What a guard has on disk and in the kernel's file systems.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Own {
    /// Files and directories, each with all below.
    pub paths: Vec<PathBuf>,
}

impl Own {
    /// What every guard has, besides these.
    #[must_use]
    pub fn with(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut all: Vec<PathBuf> = paths.into_iter().chain(UNITS.map(PathBuf::from)).collect();
        all.sort();
        all.dedup();
        Self { paths: all }
    }
}

impl Policy {
    /// Adds a rule for each of the guard's own files. Paths that no rule can name are returned.
    pub fn protect(&mut self, own: &Own) -> Vec<PathBuf> {
        let mut unusable = Vec::new();
        self.own.clear();
        for path in &own.paths {
            match rule(path) {
                Some(rule) => self.own.push(rule),
                None => unusable.push(path.clone()),
            }
        }
        unusable
    }
}

fn rule(path: &Path) -> Option<FileRule> {
    Some(FileRule {
        path: paths::parse(path.to_str()?).ok()?,
        ops: vec![Op::WRITE, Op::CREATE, Op::DELETE, Op::RENAME, Op::METADATA],
        verdict: Verdict::DENY,
        reason: Some("the guard's own".to_owned()),
        origin: Origin { file: BUILT_IN.to_owned(), line: 0, column: 0 },
    })
}
