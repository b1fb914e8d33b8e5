//! A second, naive evaluator, straight from the definition: paths and lists, no tables, nothing shared
//! with the decision that the kernel runs. Tests compare the two.
//!
//! It judges paths, so it is for trees where everything has one name: no bind mounts.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use agent_guard_common::{Op, Source, Verdict};

use super::{
    model::{FileRule, Mode, NetRule, Policy, Profile},
    resolve::Filesystem,
};

/// What the oracle says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What happens.
    pub verdict: Verdict,
    /// What the policy says.
    pub policy: Verdict,
    /// Which part of the policy.
    pub source: Source,
    /// Line of the rule, where a single one decides.
    pub line: Option<u32>,
}

/// Judges an operation on a path, which may not exist. None if there is no such profile.
///
/// # Errors
///
/// A path of the policy, or every directory above the one asked for, can't be looked up.
pub fn file(
    policy: &Policy,
    fs: &dyn Filesystem,
    profile: &str,
    op: Op,
    path: &Path,
) -> io::Result<Option<Answer>> {
    let Some(profile) = policy.profile(profile) else { return Ok(None) };
    let path = real(fs, path, !matches!(op, Op::DELETE | Op::RENAME))?;
    let device = op == Op::WRITE && fs.lookup(&path, false).is_ok_and(|object| object.device.is_some());
    if let Some(rule) = deepest(&policy.critical, fs, op, &path)? {
        return Ok(Some(answer(profile, rule.verdict, Source::CRITICAL, Some(rule.origin.line))));
    }
    if let Some(rule) = deepest(&profile.rules, fs, op, &path)? {
        return Ok(Some(answer(profile, rule.verdict, Source::RULE, Some(rule.origin.line))));
    }
    for entry in &profile.scope {
        // No scope covers a device node.
        if !device && path.starts_with(fs.lookup(&entry.path, true)?.path) {
            return Ok(Some(answer(profile, Verdict::ALLOW, Source::SCOPE, None)));
        }
    }
    Ok(Some(answer(profile, profile.outside.get(op), Source::OUTSIDE, None)))
}

/// Judges a connection. None if there is no such profile.
#[must_use]
pub fn connect(policy: &Policy, profile: &str, addr: IpAddr, port: u16) -> Option<Answer> {
    let profile = policy.profile(profile)?;
    let addr = match addr.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    let mut best: Option<(u8, &NetRule)> = None;
    for rule in &profile.network {
        if port < rule.low || port > rule.high {
            continue;
        }
        for prefix in &rule.prefixes {
            if contains(prefix.addr, prefix.bits, addr)
                && best.is_none_or(|old| better((prefix.bits, rule), old))
            {
                best = Some((prefix.bits, rule));
            }
        }
    }
    Some(match best {
        Some((_, rule)) => answer(profile, rule.verdict, Source::RULE, Some(rule.origin.line)),
        None => answer(profile, profile.connect, Source::NETWORK, None),
    })
}

/// The most specific prefix, then the narrowest range of ports, then the strictest, then the first.
fn better(new: (u8, &NetRule), old: (u8, &NetRule)) -> bool {
    let width = |rule: &NetRule| rule.high - rule.low;
    if new.0 != old.0 {
        return new.0 > old.0;
    }
    if width(new.1) != width(old.1) {
        return width(new.1) < width(old.1);
    }
    new.1.verdict > old.1.verdict
}

fn contains(network: IpAddr, bits: u8, addr: IpAddr) -> bool {
    let same = |a: &[u8], b: &[u8]| {
        (0..usize::from(bits)).all(|bit| {
            let one = |bytes: &[u8]| bytes.get(bit / 8).map(|byte| byte >> (7 - bit % 8) & 1);
            one(a) == one(b)
        })
    };
    match (network, addr) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(&a.octets(), &b.octets()),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(&a.octets(), &b.octets()),
        _ => false,
    }
}

/// Among the rules that name the path and the operation the one whose path is deepest, then the
/// strictest, then the first.
fn deepest<'p>(
    rules: &'p [FileRule],
    fs: &dyn Filesystem,
    op: Op,
    path: &Path,
) -> io::Result<Option<&'p FileRule>> {
    let mut best: Option<(usize, &FileRule)> = None;
    for rule in rules {
        let named = fs.lookup(&rule.path, true)?.path;
        if !rule.ops.contains(&op) || !path.starts_with(&named) {
            continue;
        }
        let depth = named.components().count();
        if best.is_none_or(|(old, other)| depth > old || (depth == old && rule.verdict > other.verdict)) {
            best = Some((depth, rule));
        }
    }
    Ok(best.map(|(_, rule)| rule))
}

/// The path without symbolic links; what doesn't exist keeps its name below what does.
fn real(fs: &dyn Filesystem, path: &Path, follow: bool) -> io::Result<PathBuf> {
    match (fs.lookup(path, follow), path.parent(), path.file_name()) {
        (Ok(object), ..) => Ok(object.path),
        (Err(error), Some(above), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            Ok(real(fs, above, true)?.join(name))
        }
        (Err(error), ..) => Err(error),
    }
}

fn answer(profile: &Profile, policy: Verdict, source: Source, line: Option<u32>) -> Answer {
    let softened = profile.mode == Mode::Report && source != Source::CRITICAL && !policy.goes_on();
    let verdict = if softened { Verdict::REPORT } else { policy };
    Answer { verdict, policy, source, line }
}
