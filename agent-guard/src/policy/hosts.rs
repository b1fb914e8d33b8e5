//! Names of hosts: what a policy says of them, for the resolver that answers sessions.
//!
//! The kernel knows addresses only. So a name is looked up here, what is said of it ([`NameRuling`]) is put into the session's table
//! under the addresses that it has ([`merge`](super::merge) where an address has several names), and then the answer leaves.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use agent_guard_common::{
    Verdict,
    rules::{MAX_NAMED_PORTS, PortRule},
};

use super::{
    diagnostic::Diagnostic,
    model::{self, Mode, NameLimits, NamePattern, NameRule, Policy, Ports},
    net::LOCALHOST,
    ports,
    rules::Numbers,
};

/// What profiles say of names, by index.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hosts {
    profiles: BTreeMap<u32, Rules>,
}

/// What is said of a name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NameRuling {
    /// Rules about ports, of which the first that is about a port and its protocol decides. Where none is, nothing is said.
    pub rules: Vec<PortRule>,
    /// Whether somebody who asks for it gets an answer: whether there is anything that its addresses could be connected to for.
    pub answer: bool,
    /// It gets one only because its profile blocks nothing.
    pub only_reported: bool,
    /// Set where one with `*` allows something, and neither one that has the whole name does nor `network.connect`.
    pub wildcard: Option<Wildcard>,
    /// Number of the rule to tell of; 0 if it is `network.connect` that decides.
    pub rule: u32,
}

/// A rule like `*.example.org`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wildcard {
    /// How many labels it has behind its `*`: two.
    pub base: usize,
    /// How a name may look that it allows.
    pub limits: NameLimits,
}

/// What one profile says.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Rules {
    exact: HashMap<String, Vec<PortRule>>,
    below: HashMap<String, Vec<PortRule>>,
    every: Vec<PortRule>,
    limits: NameLimits,
    connect: Verdict,
    mode: Mode,
}

impl Rules {
    fn new(profile: &model::Profile, numbers: &mut Numbers) -> Self {
        let mut rules = Self {
            exact: HashMap::new(),
            below: HashMap::new(),
            every: Vec::new(),
            limits: profile.limits,
            connect: profile.connect,
            mode: profile.mode,
        };
        for NameRule { pattern, ports, verdict, .. } in &profile.names {
            let list = match pattern {
                NamePattern::Exact(name) => rules.exact.entry(name.clone()).or_default(),
                NamePattern::Below(name) => rules.below.entry(name.clone()).or_default(),
                NamePattern::Every => &mut rules.every,
            };
            list.push(ports.rule(*verdict, numbers.take()));
        }
        let lists = rules.exact.values_mut().chain(rules.below.values_mut()).chain([&mut rules.every]);
        lists.for_each(|list| list.sort_by_key(ports::rank));
        rules
    }

    /// The lists that are about a name, the most specific first, each with the number of labels behind its `*` if it has one. At most
    /// one for each label.
    fn about<'s>(&'s self, name: &'s str) -> impl Iterator<Item = (Option<usize>, &'s [PortRule])> {
        let exact = self.exact.get(name).map(|rules| (None, rules.as_slice()));
        let above = name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..));
        let below = above.filter_map(|base| {
            let rules = self.below.get(base)?;
            Some((Some(base.split('.').count()), rules.as_slice()))
        });
        let every = (!name.is_empty() && !self.every.is_empty()).then_some((Some(0), self.every.as_slice()));
        exact.into_iter().chain(below).chain(every)
    }

    fn ruling(&self, name: &str) -> NameRuling {
        let mut rules = Vec::new();
        // The most specific rule that allows something.
        let mut allows: Option<(Option<usize>, u32)> = None;
        for (base, list) in self.about(name) {
            for rule in list {
                let before = rules.len();
                ports::add(&mut rules, *rule);
                if rules.len() > before && lets_through(Verdict(rule.verdict)) {
                    allows.get_or_insert((base, rule.rule));
                }
            }
        }
        let elsewhere =
            lets_through(self.connect) && !ports::shadowed(&rules, &Ports::ALL.rule(self.connect, 0));
        let answer = allows.is_some() || elsewhere;
        let first = rules.first().map_or(0, |rule| rule.rule);
        NameRuling {
            rule: match allows {
                Some((_, rule)) => rule,
                None if answer => 0,
                None => first,
            },
            rules,
            answer: answer || self.mode == Mode::Report,
            only_reported: !answer && self.mode == Mode::Report,
            wildcard: allows
                .filter(|_| !elsewhere)
                .and_then(|(base, _)| base)
                .map(|base| Wildcard { base, limits: self.limits }),
        }
    }
}

/// Whether something comes of a connection with that verdict, at once or when people say so.
fn lets_through(verdict: Verdict) -> bool {
    verdict < Verdict::DENY
}

impl Hosts {
    /// What a profile, by its index, says of a name. `localhost` needs no rule: it is this host itself, and rules about its addresses
    /// decide. A profile that isn't there denies everything.
    #[must_use]
    pub fn name(&self, profile: u32, name: &str) -> NameRuling {
        let name = name.strip_suffix('.').unwrap_or(name);
        // As rules have them (RFC 4343).
        let lower = name.bytes().any(|byte| byte.is_ascii_uppercase()).then(|| name.to_ascii_lowercase());
        let name = lower.as_deref().unwrap_or(name);
        if name == LOCALHOST {
            return NameRuling { answer: self.profiles.contains_key(&profile), ..NameRuling::default() };
        }
        self.profiles.get(&profile).map(|rules| rules.ruling(name)).unwrap_or_default()
    }

    /// How names may look that only rules with `*` of a profile allow.
    #[must_use]
    pub fn limits(&self, profile: u32) -> Option<NameLimits> {
        self.profiles.get(&profile).map(|rules| rules.limits)
    }

    /// All patterns that a profile has rules for.
    pub(super) fn patterns(&self, profile: u32) -> impl Iterator<Item = NamePattern> + '_ {
        let rules = self.profiles.get(&profile);
        rules.into_iter().flat_map(|rules| {
            let exact = rules.exact.keys().cloned().map(NamePattern::Exact);
            exact.chain(rules.below.keys().cloned().map(NamePattern::Below))
        })
    }

    /// The rules for a name, or for all names below it that no longer rule has, or, with an empty one, for all that no rule has but
    /// `*`; of which the first that is about a port and its protocol decides.
    pub(super) fn list(&self, profile: u32, pattern: &NamePattern) -> Vec<PortRule> {
        let Some(rules) = self.profiles.get(&profile) else { return Vec::new() };
        // No rule has a name with such a label.
        let list = match pattern {
            NamePattern::Exact(name) => rules.ruling(name),
            NamePattern::Below(name) => rules.ruling(&format!("?.{name}")),
            NamePattern::Every => rules.ruling("?"),
        };
        list.rules
    }
}

/// Makes the table of names; `indexes` are those of the profiles.
///
/// # Errors
///
/// Names that more rules about ports are about than there is room for.
pub(super) fn compile(policy: &Policy, indexes: &[u32]) -> Result<Arc<Hosts>, Vec<Diagnostic>> {
    let mut hosts = Hosts::default();
    let mut mistakes = Vec::new();
    let (mut numbers, first) = (Numbers::names(policy), Numbers::names(policy).take());
    let all: Vec<&NameRule> = policy.profiles.iter().flat_map(|profile| &profile.names).collect();
    for (profile, &index) in policy.profiles.iter().zip(indexes) {
        hosts.profiles.insert(index, Rules::new(profile, &mut numbers));
        let mut seen = HashSet::new();
        for rule in profile.names.iter().filter(|rule| seen.insert(&rule.pattern)) {
            let list = hosts.list(index, &rule.pattern);
            if super::merge(&[&list]).is_err() {
                let numbers = list.iter().map(|rule| usize::try_from(rule.rule - first));
                let rules = numbers.filter_map(|at| all.get(at.ok()?).copied());
                mistakes.push(too_many(profile, &rule.pattern, &rules.collect::<Vec<_>>()));
            }
        }
    }
    if mistakes.is_empty() { Ok(Arc::new(hosts)) } else { Err(mistakes) }
}

/// What the author of a policy should know.
pub(super) fn warnings(policy: &Policy) -> impl Iterator<Item = Diagnostic> + '_ {
    policy.profiles.iter().filter_map(|profile| {
        let rule = profile.names.iter().find(|rule| rule.verdict > profile.connect)?;
        let message = format!(
            "`{}` is about who asks for the name: whoever knows its address may connect to that by `connect = {:?}`",
            rule.text,
            profile.connect.name()
        );
        Some(Diagnostic::warning(&rule.origin, message).help("say `connect = \"deny\"`, or name addresses"))
    })
}

fn too_many(profile: &model::Profile, pattern: &NamePattern, rules: &[&NameRule]) -> Diagnostic {
    let last = rules.iter().map(|rule| &rule.origin).max().unwrap_or(&profile.origin);
    let names: Vec<_> =
        rules.iter().map(|rule| format!("`{}` (line {})", rule.text, rule.origin.line)).collect();
    let message = format!(
        "profile `{}` has {} port rules for `{pattern}`, and there is room for {MAX_NAMED_PORTS}: {}",
        profile.name,
        rules.len(),
        names.join(", ")
    );
    Diagnostic::error(last, message).help("join ports into ranges, or name the host without ports")
}

#[cfg(test)]
mod tests;
