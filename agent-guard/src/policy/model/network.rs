//! What a policy says of networks, in the words of the contract.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use agent_guard_common::{Protocol, Verdict, rules::PortRule};

use super::Origin;

/// Ports of a protocol: what a rule is about besides where a connection goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    /// First port.
    pub low: u16,
    /// Last port, not less than the first.
    pub high: u16,
    /// The protocol; [`Protocol::ANY`] for all.
    pub protocol: Protocol,
}

impl Ports {
    /// Every port of every protocol.
    pub const ALL: Self = Self { low: 0, high: u16::MAX, protocol: Protocol::ANY };

    /// As tables have them.
    pub const fn rule(self, verdict: Verdict, number: u32) -> PortRule {
        let Self { low, high, protocol } = self;
        PortRule { low, high, verdict: verdict.0, protocol, pad: [0; 2], rule: number }
    }
}

/// An address in `network.allow` and its kin, or in `network.listen`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetRule {
    /// As written.
    pub text: String,
    /// What it stands for.
    pub prefixes: Vec<Prefix>,
    /// Which ports.
    pub ports: Ports,
    /// What happens.
    pub verdict: Verdict,
    /// Where it stands.
    pub origin: Origin,
}

/// A network: the addresses of one family that begin with the same bits. IPv4 that is written in an IPv6 address is IPv4
/// ([`agent_guard_common::net::inner`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// First address.
    pub addr: IpAddr,
    /// Number of bits.
    pub bits: u8,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            IpAddr::V4(addr) => write!(f, "{addr}/{}", self.bits),
            IpAddr::V6(addr) => write!(f, "[{addr}]/{}", self.bits),
        }
    }
}

/// A name in `network.allow` and its kin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameRule {
    /// As written.
    pub text: String,
    /// Which names.
    pub pattern: NamePattern,
    /// Which ports.
    pub ports: Ports,
    /// What happens.
    pub verdict: Verdict,
    /// Where it stands.
    pub origin: Origin,
}

/// Names of hosts: labels with dots between them, in lower case and without the final dot (RFC 1035, section 2.3).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NamePattern {
    /// `example.org`: that name.
    Exact(String),
    /// `*.example.org`: every name below, and not itself.
    Below(String),
    /// `*`: every name.
    Every,
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Every => f.write_str("*"),
        }
    }
}

/// `network.names`: how a name may look that only a rule with `*` allows, and how many such names a session may ask for. Whoever
/// owns a domain reads what is asked of its servers, so what such a name spells is a way out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameLimits {
    /// `length`: characters of the whole name, without the final dot; 1 to 253.
    pub length: u8,
    /// `labels`: labels in front of those that the rule has: `a.b.example.org` has two in front of `*.example.org`; 1 to 127.
    pub labels: u8,
    /// `label`: characters of one of these; 1 to 63 (RFC 1035, section 2.3.4).
    pub label: u8,
    /// `long`: from how many characters on the entropy of one of these counts; 1 to 63. Of a short text it says little.
    pub long: u8,
    /// `entropy`: Shannon entropy of a long one over its own characters, in thousandths of a bit a character; up to 8000.
    pub entropy: u16,
    /// `rate`: different names in a time.
    pub rate: Rate,
}

impl Default for NameLimits {
    /// Buckets, UUIDs, hashes in hexadecimal digits and what content delivery networks use pass.
    fn default() -> Self {
        let rate = Rate { count: 60, per: Duration::from_mins(1) };
        Self { length: 128, labels: 6, label: 56, long: 36, entropy: 4250, rate }
    }
}

/// So many in a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// How many, at least one.
    pub count: u32,
    /// In which time, which isn't zero.
    pub per: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.per.as_secs();
        let (number, unit) = match (seconds % 86_400, seconds % 3600, seconds % 60) {
            (0, ..) => (seconds / 86_400, "d"),
            (_, 0, _) => (seconds / 3600, "h"),
            (.., 0) => (seconds / 60, "m"),
            _ => (seconds, "s"),
        };
        write!(f, "{}/{number}{unit}", self.count)
    }
}

/// `network.denied`: what a connection that is denied fails with (`include/uapi/asm-generic/errno.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Denied {
    /// `"EPERM"`: as everything else that is denied.
    #[default]
    NotPermitted,
    /// `"ECONNREFUSED"`: as if nobody listened, which programs know what to do about.
    Refused,
}

impl Denied {
    /// As policies write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotPermitted => "EPERM",
            Self::Refused => "ECONNREFUSED",
        }
    }
}

/// An abstract name of a Unix socket in `network.allow` and its kin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AbstractRule {
    /// The name, or what names begin with.
    pub name: String,
    /// Whether it is what names begin with.
    pub begins: bool,
    /// What happens.
    pub verdict: Verdict,
    /// Where it stands.
    pub origin: Origin,
}

impl fmt::Display for AbstractRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:@{}{}", self.name, if self.begins { "*" } else { "" })
    }
}

/// `[resolver]`: where the daemon's own resolver asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolver {
    /// Name servers, in this order. None: those of the host's `resolv.conf`.
    pub upstream: Vec<SocketAddr>,
    /// How long a question may take, whatever it needs.
    pub timeout: Duration,
    /// Zones with servers of their own; the longest that a name is in decides.
    pub zones: Vec<Zone>,
    /// Where it stands; none if no source has it.
    pub origin: Option<Origin>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { upstream: Vec::new(), timeout: Duration::from_secs(5), zones: Vec::new(), origin: None }
    }
}

/// `[[resolver.zone]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone {
    /// Its name, as `corp.example`: that name and all below, in lower case and without the final dot.
    pub name: String,
    /// Name servers, in this order; at least one.
    pub upstream: Vec<SocketAddr>,
    /// Where its name stands.
    pub origin: Origin,
}
