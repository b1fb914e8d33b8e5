//! What `policy show` shows.

use std::net::SocketAddr;

use agent_guard_common::{Op, Verdict};
use serde::{Deserialize, Serialize};

use super::{
    model::{Degraded, Mode, NameLimits, Origin, Policy, Profile, Resolver},
    rules::{self, RuleInfo, RuleKind},
};

/// A whole policy, for people and programs to read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicySummary {
    /// SHA-256 of the sources, in hexadecimal.
    pub digest: String,
    /// Names of the sources.
    pub files: Vec<String>,
    /// `[[critical]]`.
    pub critical: Vec<RuleInfo>,
    /// The profiles, by name.
    pub profiles: Vec<ProfileSummary>,
    /// The guard's own files.
    pub own: Vec<RuleInfo>,
    /// `[resolver]`.
    pub resolver: ResolverSummary,
    /// What needs no rule.
    pub builtin: Vec<String>,
}

/// Where the daemon's own resolver asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResolverSummary {
    /// Name servers, with ports; none for those of the host's `resolv.conf`.
    pub upstream: Vec<String>,
    /// Milliseconds that a question may take.
    pub timeout_ms: u64,
    /// Zones with servers of their own.
    pub zones: Vec<ZoneSummary>,
}

/// A zone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ZoneSummary {
    /// Its name.
    pub name: String,
    /// Name servers, with ports.
    pub upstream: Vec<String>,
    /// Where its name stands.
    pub origin: Origin,
}

/// How names may look that only a rule with `*` allows, see [`NameLimits`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LimitsSummary {
    /// `length`.
    pub length: u8,
    /// `labels`.
    pub labels: u8,
    /// `label`.
    pub label: u8,
    /// `long`.
    pub long: u8,
    /// `entropy`, in thousandths of a bit a character.
    pub entropy: u16,
    /// `rate`, as the policy writes it.
    pub rate: String,
}

impl From<NameLimits> for LimitsSummary {
    fn from(limits: NameLimits) -> Self {
        let NameLimits { length, labels, label, long, entropy, rate } = limits;
        Self { length, labels, label, long, entropy, rate: rate.to_string() }
    }
}

/// A profile.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProfileSummary {
    /// Its name.
    pub name: String,
    /// `mode`.
    pub mode: Mode,
    /// `files.scope`.
    pub scope: Vec<ScopeSummary>,
    /// `files.outside`, in the order of the operations.
    pub outside: Vec<OutsideSummary>,
    /// `files.rule`.
    pub rules: Vec<RuleInfo>,
    /// Verdict of `files.persistence`.
    pub persistence: String,
    /// The rules that come of it.
    pub persistent: Vec<RuleInfo>,
    /// `network.connect`.
    pub connect: String,
    /// Addresses and Unix sockets in `network.allow` and its kin.
    pub network: Vec<RuleInfo>,
    /// Names of hosts in there.
    pub names: Vec<RuleInfo>,
    /// `network.names`.
    pub limits: LimitsSummary,
    /// `network.listen`.
    pub listen: Vec<RuleInfo>,
    /// `network.denied`.
    pub denied: String,
    /// `degraded`.
    pub degraded: Degraded,
    /// `exec.anonymous`.
    pub anonymous: String,
    /// `exec.rule`.
    pub commands: Vec<RuleInfo>,
    /// `system`, in the order of the operations.
    pub system: Vec<OutsideSummary>,
    /// `system.capabilities`.
    pub capabilities: Vec<String>,
    /// Where its name stands first.
    pub origin: Origin,
}

/// An entry of `files.scope`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScopeSummary {
    /// The path.
    pub path: String,
    /// Where it stands.
    pub origin: Origin,
}

/// What happens to an operation outside of every rule and scope.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OutsideSummary {
    /// Name of the operation.
    pub op: String,
    /// Name of the verdict.
    pub verdict: String,
}

/// What no program can do without and nothing is lost by.
pub const BUILTIN: [&str; 8] = [
    "reading and writing /dev/null, /dev/zero, /dev/full, /dev/random and /dev/urandom",
    "reading and writing /dev/tty and the session's own terminal",
    "reading and writing the process's own /proc/self files",
    "pipes",
    "sockets as open files",
    "going to a Unix socket that the session has made itself, or to the one that the guard has for sessions",
    "anonymous memory",
    "other objects of file systems internal to the kernel",
];

impl PolicySummary {
    /// Sums a policy up.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        let rules = rules::list(policy);
        let pick = |kind: RuleKind, profile: Option<&str>| -> Vec<RuleInfo> {
            let picked = rules.iter().filter(|rule| rule.kind == kind && rule.profile.as_deref() == profile);
            picked.cloned().collect()
        };
        let profile = |profile: &Profile| ProfileSummary {
            name: profile.name.clone(),
            mode: profile.mode,
            scope: scope(profile),
            outside: verdicts(Op::FILE, |op| profile.outside.get(op)),
            rules: pick(RuleKind::Rule, Some(&profile.name)),
            persistence: profile.persistence.verdict.name().to_owned(),
            persistent: pick(RuleKind::Persistence, Some(&profile.name)),
            connect: profile.connect.name().to_owned(),
            network: pick(RuleKind::Network, Some(&profile.name)),
            names: pick(RuleKind::Name, Some(&profile.name)),
            limits: profile.limits.into(),
            listen: pick(RuleKind::Listen, Some(&profile.name)),
            denied: profile.denied.name().to_owned(),
            degraded: profile.degraded,
            anonymous: profile.exec.anonymous.name().to_owned(),
            commands: pick(RuleKind::Exec, Some(&profile.name)),
            system: verdicts(Op::SYSTEM, |op| profile.system.get(op)),
            capabilities: profile.system.capability_names(),
            origin: profile.origin.clone(),
        };
        Self {
            digest: policy.digest.clone(),
            files: policy.files.clone(),
            critical: pick(RuleKind::Critical, None),
            profiles: policy.profiles.iter().map(profile).collect(),
            own: pick(RuleKind::Guard, None),
            resolver: resolver(&policy.resolver),
            builtin: BUILTIN.iter().map(|&text| text.to_owned()).collect(),
        }
    }
}

fn resolver(resolver: &Resolver) -> ResolverSummary {
    let servers = |servers: &[SocketAddr]| servers.iter().map(ToString::to_string).collect();
    ResolverSummary {
        upstream: servers(&resolver.upstream),
        timeout_ms: u64::try_from(resolver.timeout.as_millis()).unwrap_or(u64::MAX),
        zones: resolver
            .zones
            .iter()
            .map(|zone| ZoneSummary {
                name: zone.name.clone(),
                upstream: servers(&zone.upstream),
                origin: zone.origin.clone(),
            })
            .collect(),
    }
}

fn scope(profile: &Profile) -> Vec<ScopeSummary> {
    let entries = profile.scope.iter();
    entries.map(|entry| ScopeSummary { path: entry.path.to_string(), origin: entry.origin.clone() }).collect()
}

fn verdicts<const N: usize>(ops: [Op; N], verdict: impl Fn(Op) -> Verdict) -> Vec<OutsideSummary> {
    ops.into_iter()
        .map(|op| OutsideSummary { op: op.name().to_owned(), verdict: verdict(op).name().to_owned() })
        .collect()
}
