//! `policy check`: the same reading, checking and compiling as the daemon's, without the daemon.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use super::{
    exit::{Exit, Failure},
    output::{Out, count, printable},
    policy::warnings,
};
use crate::{
    api::{ErrorItem, convert},
    kernel::{
        enforcement::Enforcement,
        host::Host,
        support::{self, Tier},
    },
    policy::{self, Compiled, Diagnostic, HostFilesystem, Level, Policy, Source, TRIAL_KEY, source},
    sys,
};

/// What `policy check --json` prints.
#[derive(Serialize)]
struct Checked {
    valid: bool,
    digest: Option<String>,
    profiles: usize,
    rules: usize,
    errors: Vec<ErrorItem>,
    warnings: Vec<ErrorItem>,
}

impl Checked {
    fn invalid(errors: Vec<ErrorItem>) -> Self {
        Self { valid: false, digest: None, profiles: 0, rules: 0, errors, warnings: Vec::new() }
    }
}

pub(super) fn check(out: &Out, paths: &[PathBuf]) -> Result<Exit, Failure> {
    let built = policy::load(read(paths)?).and_then(|mut policy| {
        policy.persist(&sys::homes());
        let mut compiled =
            policy::build(&policy, &HostFilesystem::default(), &BTreeMap::new(), TRIAL_KEY, &[])?;
        compiled.warnings.extend(unenforceable_here(&policy));
        Ok(compiled)
    });
    match built {
        Ok(compiled) => valid(out, &compiled),
        Err(diagnostics) => invalid(out, &diagnostics),
    }
}

/// What this host's kernel can't enforce, for which its daemon would refuse the policy. Only warnings: it may be meant for
/// another host.
fn unenforceable_here(policy: &Policy) -> Vec<Diagnostic> {
    let host = Host::this();
    let Ok(btf) = host.btf() else { return Vec::new() };
    let tier = support::tier(&host, || Ok(true)).unwrap_or(Tier::All);
    let found = policy::unenforceable(policy, &Enforcement::of_kernel(&btf, &host, &tier));
    found.into_iter().map(|diagnostic| Diagnostic { level: Level::Warning, ..diagnostic }).collect()
}

/// Reads policy files, whoever wrote them.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    source::read(paths, source::Trust::Anybody).map_err(|error| {
        let exit =
            if matches!(error, source::SourceError::NotText { .. }) { Exit::Policy } else { Exit::Failed };
        Failure::new(exit, error.to_string())
    })
}

fn valid(out: &Out, compiled: &Compiled) -> Result<Exit, Failure> {
    if out.json {
        out.value(&Checked {
            valid: true,
            digest: Some(compiled.digest.clone()),
            profiles: compiled.profiles.len(),
            rules: written(compiled),
            errors: Vec::new(),
            warnings: convert::errors(&compiled.warnings),
        })?;
        return Ok(Exit::Done);
    }
    let texts: Vec<String> = compiled.warnings.iter().map(ToString::to_string).collect();
    warnings(out, &texts)?;
    let number = |length: usize, noun: &str| count(u64::try_from(length).unwrap_or(u64::MAX), noun);
    let profiles = number(compiled.profiles.len(), "profile");
    let rules = number(written(compiled), "rule");
    out.line(&format!("the policy is valid: {profiles}, {rules}, {}", compiled.digest))?;
    Ok(Exit::Done)
}

fn invalid(out: &Out, diagnostics: &[Diagnostic]) -> Result<Exit, Failure> {
    if out.json {
        out.value(&Checked::invalid(convert::errors(diagnostics)))?;
        return Err(Failure::new(Exit::Policy, ""));
    }
    Err(mistakes(diagnostics))
}

/// Number of rules that the files have.
fn written(compiled: &Compiled) -> usize {
    compiled.rules.iter().filter(|rule| rule.kind.is_written()).count()
}

/// The mistakes of a policy, as the reason why a command fails.
pub(super) fn mistakes(diagnostics: &[Diagnostic]) -> Failure {
    let mut text = String::from("the policy is invalid");
    for diagnostic in diagnostics {
        // The help of a diagnostic is a line of its own.
        for line in diagnostic.to_string().lines() {
            text.push('\n');
            text.push_str(&printable(line));
        }
    }
    Failure::new(Exit::Policy, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, text: &str) -> Result<Exit, Failure> {
        let path = std::env::temp_dir().join(format!("agent-guard-check-{name}-{}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let result = check(&Out::new(false), std::slice::from_ref(&path));
        std::fs::remove_file(&path).unwrap();
        result
    }

    #[test]
    fn mistakes_are_exit_code_3_with_their_place() {
        let failure = checked("bad", "version = 1\nnonsense = 2\n").unwrap_err();
        assert_eq!(failure.exit, Exit::Policy);
        assert!(failure.message.contains(".toml:2:1: error:"), "{}", failure.message);
    }

    #[test]
    fn what_can_not_be_read_is_exit_code_1() {
        let failure = check(&Out::new(false), &[PathBuf::from("/nonexistent/policy.d")]).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
    }
}
