//! The kernel side loads, and says truly what it enforces.

use std::collections::{BTreeMap, BTreeSet};

use agent_guard::kernel::programs;
use agent_guard_common::event::Hook;
use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, json, rule, strict_policy_of};
use crate::fixture::{Guard, World, list, number, same, text, world};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "verifier_load",
    "every hook is attached, those that are absent don't exist in this kernel, nothing is degraded",
    verifier_load,
)
.everywhere()];

fn verifier_load() -> Result<()> {
    let _world = World::new()?;
    let enrolled = "\n[[enroll]]\nexe = [\"/srv/agent\"]\nprofile = \"agent\"\n";
    let rules = strict_policy_of(world::WORK, &rule(world::PROD, CHANGES, "deny"));
    let guard = Guard::start(&(rules + enrolled))?;
    let status = json(&["status"])?;
    let mut hooks: BTreeMap<String, String> = BTreeMap::new();
    for hook in list(&status, "/hooks")? {
        hooks.insert(text(hook, "/name").to_owned(), text(hook, "/state").to_owned());
    }
    let known = kernel_hooks()?;
    // Others judge where no LSM programs run (`network_only`).
    let judges =
        |hook: &&Hook| programs::PROGRAMS.iter().any(|program| program.lsm_hook() == Some(hook.name()));
    for hook in Hook::ALL.iter().filter(judges) {
        // Programs are called by their hooks, but for those that share one with others.
        let name = if *hook == Hook::BPRM_CREDS_FOR_EXEC { "enroll" } else { hook.name() };
        let state = hooks.get(name).with_context(|| format!("status doesn't name {name}"))?;
        // Nothing in that policy is about reading or executing.
        let needed = !["mmap_file", "file_mprotect"].contains(&hook.name());
        let must = match (known.contains(hook.name()), needed) {
            (true, true) => "attached",
            (true, false) => "idle",
            (false, _) => "absent",
        };
        same(&format!("the state of {}", hook.name()), state.as_str(), must)?;
    }
    for program in ["enroll_interpreter", "cgroup_mkdir"] {
        same(program, hooks.get(program).map(String::as_str), Some("attached"))?;
    }
    // Whatever a kernel lacks, it may only be these, which have another there that sees the same.
    const LATER: [&str; 5] =
        ["file_truncate", "inode_set_acl", "inode_remove_acl", "file_ioctl_compat", "inode_file_setattr"];
    let absent: Vec<&String> =
        hooks.iter().filter(|(_, state)| *state == "absent").map(|(name, _)| name).collect();
    anyhow::ensure!(absent.iter().all(|name| LATER.contains(&name.as_str())), "absent hooks: {absent:?}");
    same("what is degraded", list(&status, "/degraded")?.len(), 0)?;
    anyhow::ensure!(number(&status, "/generation")? > 0, "no policy is in force: {status}");
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    same("the kernel", text(&status, "/kernel"), release.as_str())?;
    guard.stop()
}

/// The kernel's LSM hooks: BPF programs attach to a function of its own for each. Reading the list of functions
/// takes an emulated processor more than a second, so it is read once.
fn kernel_hooks() -> Result<BTreeSet<String>> {
    let symbols = std::fs::read_to_string("/proc/kallsyms").context("can't read /proc/kallsyms")?;
    let functions = symbols.lines().filter_map(|line| line.split_whitespace().nth(2));
    Ok(functions.filter_map(|function| function.strip_prefix("bpf_lsm_")).map(str::to_owned).collect())
}
