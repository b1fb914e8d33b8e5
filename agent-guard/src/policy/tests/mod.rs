//! Tests of the whole pipeline.

mod errors;
mod explain;
mod fake;
mod property;
mod shipped;
mod tables;

use std::{collections::BTreeMap, path::Path};

use super::*;
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

fn compiled(text: &str, fs: &FakeFs) -> Compiled {
    build(&policy(text), fs, &BTreeMap::new()).unwrap_or_else(|mistakes| panic!("{}", shown(&mistakes)))
}

/// Verdict, source and line of the rule.
fn explained(compiled: &Compiled, fs: &FakeFs, op: &str, path: &str) -> (String, String, u32) {
    let op = agent_guard_common::Op::from_name(op).unwrap();
    let answer = explain_path(compiled, fs, "p", op, Path::new(path)).unwrap();
    (answer.verdict, answer.source, answer.rule.map_or(0, |rule| rule.line))
}

fn is(verdict: &str, source: &str, line: u32) -> (String, String, u32) {
    (verdict.into(), source.into(), line)
}
