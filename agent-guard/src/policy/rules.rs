//! The numbered list of rules.

use agent_guard_common::{Op, Source, Verdict};
use serde::{Deserialize, Serialize};

use super::{
    enroll::{Enroll, Target},
    exec::CommandRule,
    model::{AbstractRule, FileRule, NetRule, Origin, Policy, Profile},
};

/// Kind of a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleKind {
    /// `[[critical]]`.
    Critical,
    /// `files.rule`.
    Rule,
    /// An address or a Unix socket in `network.allow` and its kin.
    Network,
    /// A name of hosts in there.
    Name,
    /// `network.listen`.
    Listen,
    /// `exec.rule`.
    Exec,
    /// `files.persistence`: it comes with the program.
    Persistence,
    /// The guard's own files.
    Guard,
    /// `[[enroll]]`.
    Enroll,
}

impl RuleKind {
    /// Whether somebody has written it: it doesn't come with the program.
    #[must_use]
    pub const fn is_written(self) -> bool {
        !matches!(self, Self::Persistence | Self::Guard)
    }
}

/// What the target of a rule about a Unix socket begins with.
const UNIX: &str = "unix:";

/// Which part of the policy decided, as people and events see it: the kernel knows that it was a rule, its kind says which.
#[must_use]
pub const fn source(source: Source, kind: Option<RuleKind>) -> &'static str {
    match (source, kind) {
        (Source::RULE, Some(RuleKind::Persistence)) => "persistence",
        _ => source.name(),
    }
}

/// A rule, as people and events see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleInfo {
    /// Its number: its place in the list, from 1.
    pub number: u32,
    /// Its kind.
    pub kind: RuleKind,
    /// The profile it belongs to; none for what is critical.
    pub profile: Option<String>,
    /// The path, the address or the command, as the policy has it.
    pub target: String,
    /// Names of the operations.
    pub ops: Vec<String>,
    /// Name of the verdict.
    pub verdict: String,
    /// Why, for people.
    pub reason: Option<String>,
    /// Name of the source.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
}

impl RuleInfo {
    /// The rule, as a person would say it.
    #[must_use]
    pub fn text(&self) -> String {
        if self.kind == RuleKind::Enroll {
            return format!("enroll {}", self.target);
        }
        let ops = if self.ops.is_empty() { "connect".to_owned() } else { self.ops.join(", ") };
        format!("{} {ops} {}", self.verdict, self.target)
    }

    /// The operations that it is about.
    #[must_use]
    pub fn operations(&self) -> Vec<Op> {
        match self.kind {
            RuleKind::Network if self.target.starts_with(UNIX) => vec![Op::UNIX],
            RuleKind::Network | RuleKind::Name => vec![Op::CONNECT],
            RuleKind::Enroll => vec![Op::ENROLL],
            _ => self.ops.iter().filter_map(|op| Op::from_name(op)).collect(),
        }
    }
}

/// All rules of a policy in the order of their numbers: critical ones, then files, then addresses, names, what may be listened at,
/// files of Unix sockets and abstract names, then commands, then persistence, each by profile; then those of the guard itself, and at last those who are
/// enrolled.
pub(super) fn list(policy: &Policy) -> Vec<RuleInfo> {
    let critical = policy.critical.iter().map(|rule| file_rule(RuleKind::Critical, None, rule));
    let files = policy.profiles.iter().flat_map(|profile| {
        profile.rules.iter().map(|rule| file_rule(RuleKind::Rule, Some(&profile.name), rule))
    });
    let networks = policy
        .profiles
        .iter()
        .flat_map(|profile| profile.network.iter().map(|rule| net_rule(&profile.name, rule)));
    let names = policy.profiles.iter().flat_map(|profile| {
        let rules = profile.names.iter();
        rules.map(|rule| RuleInfo {
            kind: RuleKind::Name,
            ..connect_rule(&profile.name, rule.text.clone(), rule.verdict, &rule.origin)
        })
    });
    let listen = policy.profiles.iter().flat_map(|profile| {
        profile.listen.iter().map(|rule| RuleInfo {
            kind: RuleKind::Listen,
            ops: vec![Op::LISTEN.name().to_owned()],
            ..net_rule(&profile.name, rule)
        })
    });
    let sockets = policy
        .profiles
        .iter()
        .flat_map(|profile| profile.sockets.iter().map(|rule| socket_rule(&profile.name, rule)));
    let abstracts = policy
        .profiles
        .iter()
        .flat_map(|profile| profile.abstracts.iter().map(|rule| abstract_rule(&profile.name, rule)));
    let persistence = policy.profiles.iter().flat_map(|profile| {
        let rules = profile.persistence.rules.iter();
        rules.map(|rule| file_rule(RuleKind::Persistence, Some(&profile.name), rule))
    });
    let own = policy.own.iter().map(|rule| file_rule(RuleKind::Guard, None, rule));
    let enroll = policy.enrolled().map(|(entry, target)| enroll_rule(entry, target));
    let commands = policy
        .profiles
        .iter()
        .flat_map(|profile| profile.exec.rules.iter().map(|rule| command_rule(&profile.name, rule)));
    let networks = networks.chain(names).chain(listen).chain(sockets).chain(abstracts);
    let mut rules: Vec<_> = critical
        .chain(files)
        .chain(networks)
        .chain(commands)
        .chain(persistence)
        .chain(own)
        .chain(enroll)
        .collect();
    for (number, rule) in (1..).zip(&mut rules) {
        rule.number = number;
    }
    rules
}

/// Numbers of the first rule of each part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    next: u32,
}

impl Numbers {
    pub(super) fn critical() -> Self {
        Self { next: 1 }
    }

    pub(super) fn files(policy: &Policy) -> Self {
        Self::critical().after(policy.critical.len())
    }

    pub(super) fn networks(policy: &Policy) -> Self {
        Self::files(policy).after_each(policy, |profile| profile.rules.len())
    }

    pub(super) fn names(policy: &Policy) -> Self {
        Self::networks(policy).after_each(policy, |profile| profile.network.len())
    }

    pub(super) fn listen(policy: &Policy) -> Self {
        Self::names(policy).after_each(policy, |profile| profile.names.len())
    }

    pub(super) fn sockets(policy: &Policy) -> Self {
        Self::listen(policy).after_each(policy, |profile| profile.listen.len())
    }

    pub(super) fn abstracts(policy: &Policy) -> Self {
        Self::sockets(policy).after_each(policy, |profile| profile.sockets.len())
    }

    pub(super) fn commands(policy: &Policy) -> Self {
        Self::abstracts(policy).after_each(policy, |profile| profile.abstracts.len())
    }

    pub(super) fn persistence(policy: &Policy) -> Self {
        Self::commands(policy).after_each(policy, |profile| profile.exec.rules.len())
    }

    pub(super) fn own(policy: &Policy) -> Self {
        Self::persistence(policy).after_each(policy, |profile| profile.persistence.rules.len())
    }

    pub(super) fn enroll(policy: &Policy) -> Self {
        Self::own(policy).after(policy.own.len())
    }

    /// The numbers after so many of each profile.
    fn after_each(self, policy: &Policy, count: impl Fn(&Profile) -> usize) -> Self {
        self.after(policy.profiles.iter().map(count).sum())
    }

    /// The numbers after that many.
    pub(super) fn after(self, count: usize) -> Self {
        Self { next: self.next.saturating_add(u32::try_from(count).unwrap_or(u32::MAX)) }
    }

    /// The next number.
    pub(super) fn take(&mut self) -> u32 {
        let number = self.next;
        self.next = number.saturating_add(1);
        number
    }
}

fn file_rule(kind: RuleKind, profile: Option<&str>, rule: &FileRule) -> RuleInfo {
    RuleInfo {
        number: 0,
        kind,
        profile: profile.map(str::to_owned),
        target: rule.path.to_string(),
        ops: rule.ops.iter().map(|op| op.name().to_owned()).collect(),
        verdict: rule.verdict.name().to_owned(),
        reason: rule.reason.clone(),
        file: rule.origin.file.clone(),
        line: rule.origin.line,
        column: rule.origin.column,
    }
}

/// Whoever should be in a session and isn't, isn't executed: that is the verdict.
fn enroll_rule(entry: &Enroll, target: &Target) -> RuleInfo {
    RuleInfo {
        number: 0,
        kind: RuleKind::Enroll,
        profile: Some(entry.profile.clone()),
        target: entry.key(target),
        ops: vec![Op::ENROLL.name().to_owned()],
        verdict: Verdict::DENY.name().to_owned(),
        reason: None,
        file: target.origin.file.clone(),
        line: target.origin.line,
        column: target.origin.column,
    }
}

fn command_rule(profile: &str, rule: &CommandRule) -> RuleInfo {
    RuleInfo {
        number: 0,
        kind: RuleKind::Exec,
        profile: Some(profile.to_owned()),
        target: rule.command.to_string(),
        ops: vec!["exec".to_owned()],
        verdict: rule.verdict.name().to_owned(),
        reason: rule.reason.clone(),
        file: rule.origin.file.clone(),
        line: rule.origin.line,
        column: rule.origin.column,
    }
}

fn net_rule(profile: &str, rule: &NetRule) -> RuleInfo {
    connect_rule(profile, rule.text.clone(), rule.verdict, &rule.origin)
}

fn socket_rule(profile: &str, rule: &FileRule) -> RuleInfo {
    connect_rule(profile, format!("{UNIX}{}", rule.path), rule.verdict, &rule.origin)
}

fn abstract_rule(profile: &str, rule: &AbstractRule) -> RuleInfo {
    connect_rule(profile, rule.to_string(), rule.verdict, &rule.origin)
}

fn connect_rule(profile: &str, target: String, verdict: Verdict, origin: &Origin) -> RuleInfo {
    RuleInfo {
        number: 0,
        kind: RuleKind::Network,
        profile: Some(profile.to_owned()),
        target,
        ops: vec!["connect".to_owned()],
        verdict: verdict.name().to_owned(),
        reason: None,
        file: origin.file.clone(),
        line: origin.line,
        column: origin.column,
    }
}
