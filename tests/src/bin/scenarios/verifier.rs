//! The kernel side loads, and says truly what it enforces.

use std::collections::BTreeMap;

use agent_guard_common::event::Hook;
use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, json, policy, rule};
use crate::fixture::{Guard, World, list, number, same, text, world};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "verifier_load",
    "every hook is attached, those that are absent don't exist in this kernel, nothing is degraded",
    verifier_load,
)];

fn verifier_load() -> Result<()> {
    let _world = World::new()?;
    let guard = Guard::start(&policy(&rule(world::PROD, CHANGES, "deny")))?;
    let status = json(&["status"])?;
    let mut hooks: BTreeMap<String, String> = BTreeMap::new();
    for hook in list(&status, "/hooks")? {
        hooks.insert(text(hook, "/name").to_owned(), text(hook, "/state").to_owned());
    }
    for hook in Hook::ALL {
        let state = hooks.get(hook.name()).with_context(|| format!("status doesn't name {}", hook.name()))?;
        let must = if kernel_has(hook.name())? { "attached" } else { "absent" };
        same(&format!("the state of {}", hook.name()), state.as_str(), must)?;
    }
    // Whatever a kernel lacks, it may only be this one, and up to 6.1 only.
    let absent: Vec<&String> =
        hooks.iter().filter(|(_, state)| *state == "absent").map(|(name, _)| name).collect();
    anyhow::ensure!(absent.iter().all(|name| *name == "file_truncate"), "absent hooks: {absent:?}");
    same("what is degraded", list(&status, "/degraded")?.len(), 0)?;
    anyhow::ensure!(number(&status, "/generation")? > 0, "no policy is in force: {status}");
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    same("the kernel", text(&status, "/kernel"), release.as_str())?;
    guard.stop()
}

/// Whether the kernel has an LSM hook: BPF programs attach to a function of its own for each.
fn kernel_has(hook: &str) -> Result<bool> {
    let symbols = std::fs::read_to_string("/proc/kallsyms").context("can't read /proc/kallsyms")?;
    let function = format!("bpf_lsm_{hook}");
    Ok(symbols.lines().any(|line| line.split_whitespace().nth(2) == Some(function.as_str())))
}
