//! The policy on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::{Mode, Time};

/// A rule of the policy in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its number in the generation's list.
    pub number: u32,
    /// Which part of the policy it belongs to: `critical`, `files`, `network`, `names`, `listen`, `exec`, `persistence`,
    /// `guard`, `enroll`.
    pub kind: String,
    /// Profile; nothing for what concerns all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The rule, as a person would say it.
    pub text: String,
    /// The path, the address or the name that it is about.
    #[serde(default)]
    pub target: String,
    /// Its verdict.
    pub verdict: String,
    /// Why it is there, in the words of who wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Policy file.
    pub file: String,
    /// Line in it.
    pub line: u32,
    /// Hooks that enforce it on this kernel.
    #[serde(default)]
    pub hooks: Vec<String>,
}

/// A profile of the policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileView {
    /// Its name.
    pub name: String,
    /// Whether it blocks.
    pub mode: Mode,
    /// What becomes of rules about files and the system where the kernel has no LSM for the guard: `refuse` or `report`.
    pub degraded: String,
    /// Directories in which it may create, change and delete; as the policy says it.
    pub scope: Vec<String>,
    /// Verdict of each operation outside of them.
    pub outside: BTreeMap<String, String>,
    /// Verdict of what makes something run later.
    pub persistence: String,
    /// Verdict of connections that no rule names.
    pub connect: String,
    /// What a denied connection fails with: `EPERM` or `ECONNREFUSED`.
    pub denied: String,
    /// How names of hosts may look that only a rule with `*` allows.
    pub names: NameLimitsView,
    /// Verdict of programs that no path leads to.
    pub anonymous: String,
    /// Verdict of each operation on the system.
    pub system: BTreeMap<String, String>,
    /// Capabilities that it may use; `*` for all.
    pub capabilities: Vec<String>,
}

/// `network.names` of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameLimitsView {
    /// Characters of the whole name.
    pub length: u8,
    /// Labels in front of those that the rule has.
    pub labels: u8,
    /// Characters of one of them.
    pub label: u8,
    /// From how many characters on the entropy of one of them counts.
    pub long: u8,
    /// Entropy of a long one, in thousandths of a bit a character.
    pub entropy: u16,
    /// Different names in a time, as `60/1m`.
    pub rate: String,
}

/// `[resolver]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverView {
    /// Name servers with their ports; none for those of the host's `resolv.conf`.
    pub upstream: Vec<String>,
    /// Milliseconds that a question may take.
    pub timeout_ms: u64,
    /// Zones with servers of their own.
    pub zones: Vec<ZoneView>,
}

/// `[[resolver.zone]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneView {
    /// Its name: that name and all below.
    pub name: String,
    /// Name servers with their ports.
    pub upstream: Vec<String>,
}

/// `GET /v1/policy`: what is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// Its generation.
    pub generation: u32,
    /// Digest of its text.
    pub digest: String,
    /// Since when it is in force.
    pub loaded: Time,
    /// Files it was read from.
    pub files: Vec<String>,
    /// Where the daemon's own resolver asks.
    pub resolver: ResolverView,
    /// Profiles.
    pub profiles: Vec<ProfileView>,
    /// Rules, by number.
    pub rules: Vec<RuleView>,
    /// What needs no rule.
    pub builtin: Vec<String>,
    /// What the policy says and this kernel or host doesn't give in full.
    pub warnings: Vec<String>,
}

/// `POST /v1/policy/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The generation that judged before.
    pub generation_before: u32,
    /// The one that judges now.
    pub generation: u32,
    /// Digest of its text.
    pub digest: String,
    /// Number of profiles.
    pub profiles: u32,
    /// Number of rules.
    pub rules: u32,
    /// What the policy says and this kernel or host doesn't give in full.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// `POST /v1/policy/explain`: one of `operation` and `path`, `connect`, `listen`, and `exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Profile of the policy.
    pub profile: String,
    /// Operation on a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `HOST:PORT`, `HOST:PORT/PROTO`, `HOST/icmp`, `unix:PATH` or `unix:@NAME`; without a protocol it is TCP. Names aren't looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<String>,
    /// With `connect` and a name: an address that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `ADDRESS:PORT` or `ADDRESS:PORT/PROTO`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// A program, by its name or its path, and its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// A session of that profile: what `${cwd}`, `${home}` and `${tmp}` mean to it counts, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Ulid>,
}

/// Answer to [`ExplainRequest`], one an object: a host can have several addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplanationView {
    /// Profile.
    pub profile: String,
    /// Operation.
    pub operation: String,
    /// Policy generation that was asked.
    pub generation: u32,
    /// What would happen; the strictest where there are several objects.
    pub verdict: String,
    /// The objects, each with its own verdict.
    pub objects: Vec<ExplainedObject>,
    /// What else is good to know: the object doesn't exist, the path goes through a link, ...
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One object of an [`ExplanationView`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedObject {
    /// Path or address.
    pub object: String,
    /// What would happen.
    pub verdict: String,
    /// What the policy says; differs where the profile only reports.
    pub policy_verdict: String,
    /// Part of the policy that decides.
    pub source: String,
    /// The rule, where a single one decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleView>,
}
