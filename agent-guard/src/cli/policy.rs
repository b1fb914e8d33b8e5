//! `policy`.

use std::collections::BTreeMap;

use super::{
    approvals::place,
    args::PolicyCommand,
    client::Client,
    exit::{Exit, Failure},
    output::{Colour, Out, printable},
};
use crate::api::types::{NameLimitsView, PolicyView, Reloaded, ResolverView, RuleView};

/// The kind of rules that `files.persistence` stands for.
const PERSISTENCE: &str = "persistence";

pub(super) fn policy(client: &Client, command: PolicyCommand) -> Result<Exit, Failure> {
    match command {
        PolicyCommand::Check(args) => super::check::check(&Out::new(args.json), &args.paths),
        PolicyCommand::Show(args) => show(&Out::new(args.json), &client.get("/v1/policy")?),
        PolicyCommand::Reload(args) => {
            reload(&Out::new(args.json), &client.post("/v1/policy/reload", &serde_json::json!({}))?)
        }
        PolicyCommand::Explain(args) => super::explain::explain(client, *args),
    }
}

fn show(out: &Out, policy: &PolicyView) -> Result<Exit, Failure> {
    if out.json {
        out.value(policy)?;
        return Ok(Exit::Done);
    }
    out.fields(&[
        ("generation", policy.generation.to_string()),
        ("digest", policy.digest.clone()),
        ("since", policy.loaded.local()),
        ("files", policy.files.join(", ")),
        ("resolver", resolver(&policy.resolver)),
    ])?;
    for profile in &policy.profiles {
        out.line("")?;
        out.fields(&[
            ("profile", format!("{} ({})", profile.name, profile.mode.name())),
            ("degraded", profile.degraded.clone()),
            ("scope", profile.scope.join(", ")),
            ("outside", verdicts(&profile.outside)),
            ("persistence", profile.persistence.clone()),
            ("connect", format!("{}, denied with {}", profile.connect, profile.denied)),
            ("names", limits(&profile.names)),
            ("anonymous", profile.anonymous.clone()),
            ("system", verdicts(&profile.system)),
            ("capabilities", profile.capabilities.join(", ")),
        ])?;
    }
    out.line("")?;
    let rows: Vec<Vec<String>> = policy
        .rules
        .iter()
        .filter(|rule| rule.kind != PERSISTENCE)
        .map(|rule| {
            vec![
                rule.number.to_string(),
                rule.profile.clone().unwrap_or_else(|| "all".to_owned()),
                rule.verdict.clone(),
                rule.text.clone(),
                place(rule),
                rule.hooks.join(" "),
            ]
        })
        .collect();
    out.table(&["RULE", "PROFILE", "VERDICT", "TEXT", "FROM", "HOOKS"], &rows)?;
    persistence(out, &policy.rules)?;
    if !policy.builtin.is_empty() {
        out.line("")?;
        out.line("allowed without a rule:")?;
        policy.builtin.iter().try_for_each(|text| out.line(&format!("  {}", printable(text))))?;
    }
    warnings(out, &policy.warnings)?;
    Ok(Exit::Done)
}

/// The rules of `persistence`: many, and those of one reason belong together.
fn persistence(out: &Out, rules: &[RuleView]) -> Result<(), Failure> {
    let mut groups: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| rule.kind == PERSISTENCE) {
        let what = rule.text.strip_suffix(rule.target.as_str()).unwrap_or(&rule.text).trim_end();
        let key = (rule.profile.as_deref(), place(rule), rule.reason.as_deref(), what);
        groups.entry(key).or_default().push(&rule.target);
    }
    for ((profile, place, reason, what), targets) in groups {
        out.line("")?;
        out.fields(&[
            ("profile", profile.unwrap_or_default().to_owned()),
            ("what", reason.unwrap_or_default().to_owned()),
            ("verdict", what.to_owned()),
            ("from", place),
            ("paths", targets.join(", ")),
        ])?;
    }
    Ok(())
}

/// Where names are looked up.
fn resolver(resolver: &ResolverView) -> String {
    let servers = match resolver.upstream.as_slice() {
        [] => "those of resolv.conf".to_owned(),
        servers => servers.join(", "),
    };
    let zones = resolver.zones.iter().map(|zone| format!("; {}: {}", zone.name, zone.upstream.join(", ")));
    format!("{servers}{}; {} ms", zones.collect::<String>(), resolver.timeout_ms)
}

/// What is said of names that only a rule with `*` allows.
fn limits(limits: &NameLimitsView) -> String {
    let NameLimitsView { length, labels, label, long, entropy, rate } = limits;
    let entropy = f64::from(*entropy) / 1000.0;
    format!(
        "below `*` length {length}, labels {labels}, label {label}, entropy {entropy} from {long} on, rate {rate}"
    )
}

/// Operations, each with its verdict.
fn verdicts(verdicts: &BTreeMap<String, String>) -> String {
    verdicts.iter().map(|(op, verdict)| format!("{op} {verdict}")).collect::<Vec<_>>().join(", ")
}

pub(super) fn warnings(out: &Out, warnings: &[String]) -> Result<(), Failure> {
    warnings.iter().try_for_each(|text| {
        out.line(&format!("{} {}", out.paint(Colour::Yellow, "warning:"), printable(text)))
    })
}

fn reload(out: &Out, reloaded: &Reloaded) -> Result<Exit, Failure> {
    if out.json {
        out.value(reloaded)?;
        return Ok(Exit::Done);
    }
    out.line(&format!(
        "generation {} is in force (before: {}), {} profiles, {} rules, {}",
        reloaded.generation, reloaded.generation_before, reloaded.profiles, reloaded.rules, reloaded.digest
    ))?;
    warnings(out, &reloaded.warnings)?;
    Ok(Exit::Done)
}
