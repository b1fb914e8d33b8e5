//! What each of the guard's programs has part in a figure: how often it ran, and how many instructions that took.
//!
//! The kernel counts it (`kernel.bpf_stats_enabled`, `Documentation/admin-guide/sysctl/kernel.rst`) in nanoseconds, of which
//! a guest that counts has one an instruction. The counting itself costs some, and what leads to a program and back isn't
//! part of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context, Result};
use aya::programs::loaded_programs;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Runs and nanoseconds, by program.
pub(crate) struct Programs(BTreeMap<(String, u32), (u64, u64)>);

/// Begins or ends the counting.
pub(crate) fn count(on: bool) -> Result<()> {
    fs::write(SWITCH, if on { "1" } else { "0" }).with_context(|| format!("can't write to {SWITCH}"))
}

impl Programs {
    /// What all of them have done so far.
    pub(crate) fn now() -> Result<Self> {
        let mut all = BTreeMap::new();
        for info in loaded_programs() {
            let info = info.context("can't list programs")?;
            let fd = info.fd().context("can't open a program")?;
            let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
            let text = fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
            let number = |key: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
                line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
            };
            let name = info.name_as_str().unwrap_or_default().to_owned();
            all.insert((name, info.id()), (number("run_cnt"), number("run_time_ns")));
        }
        Ok(Self(all))
    }

    /// What they have done since, in each of so many operations: the most expensive first.
    pub(crate) fn since(&self, before: &Self, times: u64) -> Vec<String> {
        let mut all: Vec<_> = self
            .0
            .iter()
            .filter_map(|(key, (runs, spent))| {
                let (old_runs, old_spent) = before.0.get(key).copied().unwrap_or_default();
                let (runs, spent) = (runs.checked_sub(old_runs)?, spent.checked_sub(old_spent)?);
                (runs > 0).then_some((spent / times, runs, key.0.as_str()))
            })
            .collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        let line = |(spent, runs, name): (u64, u64, &str)| {
            format!("{name}: {spent} instructions in {}.{:02} runs", runs / times, runs % times * 100 / times)
        };
        all.into_iter().map(line).collect()
    }
}
