//! From the policy's own types to those on the wire: the one place where the two meet.

use std::{collections::BTreeMap, path::Path};

use agent_guard_common::Verdict;

use super::{
    error::{ApiError, Code, ErrorItem},
    types::{
        ExplainRequest, ExplainedObject, ExplanationView, Mode, NameLimitsView, PolicyView, ProfileView,
        ResolverView, RuleView, Time, ZoneView,
    },
};
use crate::policy::{
    Compiled, Diagnostic, Explanation, PolicySummary, RuleInfo, RuleKind,
    explain::{ExplainError, Question},
    model,
    summary::{LimitsSummary, OutsideSummary, ProfileSummary, ResolverSummary},
};

/// A rule, with the hooks that enforce it on this kernel.
#[must_use]
pub fn rule(rule: &RuleInfo, hooks: Vec<String>) -> RuleView {
    RuleView {
        number: rule.number,
        kind: match rule.kind {
            RuleKind::Critical => "critical",
            RuleKind::Rule => "files",
            RuleKind::Network => "network",
            RuleKind::Name => "names",
            RuleKind::Listen => "listen",
            RuleKind::Exec => "exec",
            RuleKind::Persistence => "persistence",
            RuleKind::Guard => "guard",
            RuleKind::Enroll => "enroll",
        }
        .to_owned(),
        profile: rule.profile.clone(),
        text: rule.text(),
        target: rule.target.clone(),
        verdict: rule.verdict.clone(),
        reason: rule.reason.clone(),
        file: rule.file.clone(),
        line: rule.line,
        hooks,
    }
}

/// Whether a profile blocks.
#[must_use]
pub const fn mode(mode: model::Mode) -> Mode {
    match mode {
        model::Mode::Enforce => Mode::Enforce,
        model::Mode::Report => Mode::Report,
    }
}

/// Mistakes in a policy, as the items of an error.
#[must_use]
pub fn errors(diagnostics: &[Diagnostic]) -> Vec<ErrorItem> {
    diagnostics
        .iter()
        .map(|diagnostic| ErrorItem {
            message: diagnostic.message.clone(),
            file: Some(diagnostic.file.clone()),
            line: Some(diagnostic.line),
            column: Some(diagnostic.column),
            help: diagnostic.help.clone(),
        })
        .collect()
}

/// A policy that can't be used, as an error.
#[must_use]
pub fn invalid_policy(diagnostics: &[Diagnostic]) -> ApiError {
    let what = if diagnostics.len() == 1 { "mistake" } else { "mistakes" };
    let detail = format!("{} {what}; what was in force stays in force", diagnostics.len());
    ApiError::new(Code::InvalidPolicy, detail).with_errors(errors(diagnostics))
}

/// The policy in force.
pub fn policy(
    summary: &PolicySummary,
    generation: u32,
    loaded: Time,
    warnings: &[Diagnostic],
    hooks: impl Fn(&RuleInfo) -> Vec<String>,
) -> PolicyView {
    let profiles = &summary.profiles;
    let mut rules: Vec<&RuleInfo> = summary
        .critical
        .iter()
        .chain(profiles.iter().flat_map(|profile| {
            let network = profile.network.iter().chain(&profile.names).chain(&profile.listen);
            profile.rules.iter().chain(network).chain(&profile.commands).chain(&profile.persistent)
        }))
        .chain(&summary.own)
        .collect();
    rules.sort_by_key(|rule| rule.number);
    PolicyView {
        generation,
        digest: summary.digest.clone(),
        loaded,
        files: summary.files.clone(),
        resolver: resolver(&summary.resolver),
        profiles: profiles.iter().map(profile).collect(),
        rules: rules.into_iter().map(|info| rule(info, hooks(info))).collect(),
        builtin: summary.builtin.clone(),
        warnings: warnings.iter().map(ToString::to_string).collect(),
    }
}

fn verdicts(entries: &[OutsideSummary]) -> BTreeMap<String, String> {
    entries.iter().map(|entry| (entry.op.clone(), entry.verdict.clone())).collect()
}

fn resolver(resolver: &ResolverSummary) -> ResolverView {
    let zones = resolver.zones.iter();
    ResolverView {
        upstream: resolver.upstream.clone(),
        timeout_ms: resolver.timeout_ms,
        zones: zones
            .map(|zone| ZoneView { name: zone.name.clone(), upstream: zone.upstream.clone() })
            .collect(),
    }
}

fn limits(limits: &LimitsSummary) -> NameLimitsView {
    let LimitsSummary { length, labels, label, long, entropy, rate } = limits.clone();
    NameLimitsView { length, labels, label, long, entropy, rate }
}

fn profile(profile: &ProfileSummary) -> ProfileView {
    ProfileView {
        name: profile.name.clone(),
        mode: mode(profile.mode),
        degraded: match profile.degraded {
            model::Degraded::Refuse => "refuse",
            model::Degraded::Report => "report",
        }
        .to_owned(),
        scope: profile.scope.iter().map(|entry| entry.path.clone()).collect(),
        outside: verdicts(&profile.outside),
        persistence: profile.persistence.clone(),
        connect: profile.connect.clone(),
        denied: profile.denied.clone(),
        names: limits(&profile.limits),
        anonymous: profile.anonymous.clone(),
        system: verdicts(&profile.system),
        capabilities: profile.capabilities.clone(),
    }
}

/// What is asked.
///
/// # Errors
///
/// If it is no question about a policy.
pub fn question(request: &ExplainRequest) -> Result<Question, ExplainError> {
    if let Some(command) = &request.exec {
        return Ok(Question::Exec(command.clone()));
    }
    if let Some(at) = &request.listen {
        return Question::listen(at);
    }
    match (&request.operation, &request.path, &request.connect) {
        (_, _, Some(to)) => Question::connect(to, request.address.as_deref()),
        (Some(op), Some(path), None) => Question::file(op, Path::new(path)),
        _ => Err(ExplainError::NoQuestion),
    }
}

/// The answer to a question about a profile, by its name and its index in these tables.
pub fn explanation(
    (profile, index): (&str, u32),
    tables: &Compiled,
    question: &Question,
    generation: u32,
    answers: &[(String, Explanation)],
    hooks: impl Fn(&RuleInfo) -> Vec<String>,
) -> ExplanationView {
    let objects: Vec<_> =
        answers.iter().map(|(object, answer)| explained(object.clone(), answer, &hooks)).collect();
    let strictest = objects.iter().filter_map(|object| Verdict::from_name(&object.verdict)).max();
    ExplanationView {
        profile: profile.to_owned(),
        operation: question.operation().to_owned(),
        generation,
        verdict: strictest.unwrap_or(Verdict::DENY).name().to_owned(),
        objects,
        notes: question.notes(|name| tables.hosts.name(index, name)),
    }
}

/// What the policy says about one object.
fn explained(
    object: String,
    explanation: &Explanation,
    hooks: impl Fn(&RuleInfo) -> Vec<String>,
) -> ExplainedObject {
    ExplainedObject {
        object,
        verdict: explanation.verdict.clone(),
        policy_verdict: explanation.policy.clone(),
        source: explanation.source.clone(),
        rule: explanation.rule.as_ref().map(|info| rule(info, hooks(info))),
    }
}

/// Why a question about the policy has no answer; `profiles` are those that there are.
pub fn explain_error<'a>(error: &ExplainError, profiles: impl IntoIterator<Item = &'a str>) -> ApiError {
    let code = match error {
        ExplainError::UnknownProfile(name) => return ApiError::unknown_profile(name, profiles),
        ExplainError::NotAFileOp(_)
        | ExplainError::UnknownOp(_)
        | ExplainError::NoQuestion
        | ExplainError::NoAddress { .. }
        | ExplainError::NotAbsolute(_) => Code::BadRequest,
        ExplainError::Lookup { .. } => Code::Unavailable,
        ExplainError::Names(_) => Code::Internal,
        ExplainError::Fault(_) => Code::Internal,
    };
    ApiError::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_in_words() {
        let info = RuleInfo {
            number: 1,
            kind: RuleKind::Critical,
            profile: None,
            target: "/srv/prod".to_owned(),
            ops: vec!["delete".to_owned(), "rename".to_owned()],
            verdict: "hold".to_owned(),
            reason: None,
            file: "a.toml".to_owned(),
            line: 4,
            column: 1,
        };
        assert_eq!(rule(&info, vec![]).text, "hold delete, rename /srv/prod");
        assert_eq!(rule(&info, vec![]).kind, "critical");
        assert_eq!(rule(&info, vec![]).target, "/srv/prod");
    }
}
