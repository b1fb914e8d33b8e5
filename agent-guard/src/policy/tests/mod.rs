//! Tests of the whole pipeline.

mod cases;
mod errors;
mod explain;
mod fake;
mod large;
mod names;
mod network;
mod property;
mod sessions;
mod shipped;
mod tables;

use std::{collections::BTreeMap, path::Path};

use super::{case::KEY, session::NO_SESSION, *};
use fake::FakeFs;

fn source(text: &str) -> Source {
    Source { name: "test.toml".into(), text: text.into() }
}

fn policy(text: &str) -> Policy {
    load(vec![source(text)]).unwrap_or_else(|mistakes| panic!("{}", shown(&mistakes)))
}

fn shown(mistakes: &[Diagnostic]) -> String {
    mistakes.iter().map(|mistake| format!("{mistake}\n")).collect()
}

fn built(policy: &Policy, fs: &dyn Filesystem) -> Result<Compiled, Vec<Diagnostic>> {
    build(policy, fs, &BTreeMap::new(), KEY, &[])
}

fn compiled(text: &str, fs: &FakeFs) -> Compiled {
    built(&policy(text), fs).unwrap_or_else(|mistakes| panic!("{}", shown(&mistakes)))
}

/// What profile `p` may do.
fn explanation(compiled: &Compiled, fs: &FakeFs, binding: u32, op: &str, path: &str) -> Explanation {
    let op = agent_guard_common::Op::from_name(op).unwrap();
    let index = compiled.index_of("p").unwrap();
    explain_path(&compiled.view(), fs, (index, binding), op, Path::new(path)).unwrap()
}

/// Verdict, source and line of the rule.
fn explained(compiled: &Compiled, fs: &FakeFs, op: &str, path: &str) -> (String, String, u32) {
    let answer = explanation(compiled, fs, NO_SESSION, op, path);
    (answer.verdict, answer.source, answer.rule.map_or(0, |rule| rule.line))
}

fn is(verdict: &str, source: &str, line: u32) -> (String, String, u32) {
    (verdict.into(), source.into(), line)
}
