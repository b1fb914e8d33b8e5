//! Unix sockets in `network`.
//!
//! A socket with a file is like a file: what the policy says of it is a rule on that path, about connecting. An abstract name
//! has a table of its own, where the longest name that a rule has decides.

use std::collections::BTreeMap;

use agent_guard_common::{
    object::{AbstractKey, AbstractName},
    rules::AbstractEntry,
};

use super::{
    model::{PathPattern, Policy},
    paths,
    rules::Numbers,
};

const FORMS: &str = "write `unix:/run/docker.sock`, with all the forms of paths; `unix:@name` for an abstract name, or \
                     `unix:@begin*` for all that begin so";

/// What an entry that begins with `unix:` stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Socket {
    /// A file, and all below.
    File(PathPattern),
    /// An abstract name; true if it is what names begin with.
    Abstract(String, bool),
}

/// Reads what comes after `unix:`.
pub(super) fn parse(text: &str) -> Result<Socket, paths::Unusable> {
    let wrong = |message: String| paths::Unusable(message, FORMS);
    let Some(name) = text.strip_prefix('@') else {
        if text.is_empty() {
            return Err(wrong("`unix:` names no socket".to_owned()));
        }
        // A path names what it leads to and all below: this says no more.
        let whole = match text.strip_suffix("/**") {
            Some("") => "/",
            Some(path) if path != "**" => path,
            _ => text,
        };
        return paths::parse(whole).map(Socket::File).map_err(|paths::Unusable(message, help)| {
            let absolute = text.starts_with(['/', '*', '$']);
            paths::Unusable(message, if absolute { help } else { FORMS })
        });
    };
    let (name, begins) = name.strip_suffix('*').map_or((name, false), |name| (name, true));
    if name.contains('\0') {
        return Err(wrong(format!("{text:?} has a NUL character")));
    }
    if name.contains('*') {
        return Err(wrong(format!("`*` can only stand at the end, not where {text:?} has it")));
    }
    if name.is_empty() && !begins {
        return Err(wrong("`unix:@` names no socket; every abstract name is `unix:@*`".to_owned()));
    }
    if name.len() > usize::try_from(AbstractName::MAX).unwrap_or(usize::MAX) {
        return Err(wrong(format!(
            "the abstract name {text:?} has {} bytes, and can have {}",
            name.len(),
            AbstractName::MAX
        )));
    }
    Ok(Socket::Abstract(name.to_owned(), begins))
}

/// The key of a name that is looked up, and its length; none for a name longer than any.
pub(super) fn key(name: &[u8]) -> Option<(AbstractKey, u32)> {
    let length = u32::try_from(name.len()).ok().filter(|length| *length <= AbstractName::MAX)?;
    let mut bytes = [0; AbstractName::ROOM];
    bytes.get_mut(..name.len())?.copy_from_slice(name);
    Some((AbstractKey { bits: 0, name: AbstractName { profile: [0; 4], whole: 0, bytes } }, length))
}

/// A key as tables have it: with nothing behind the bits that count.
pub(super) fn first_key(name: &AbstractName, bits: u32) -> AbstractName {
    let mut first = *name;
    let length = usize::try_from(bits / 8).unwrap_or(usize::MAX).saturating_sub(5);
    first.bytes.iter_mut().skip(length).for_each(|byte| *byte = 0);
    first
}

/// Makes the table of abstract names; `indexes` are those of the profiles. Of two rules for the same the stricter counts, of
/// two that are as strict the first.
pub(super) fn compile(policy: &Policy, indexes: &[u32]) -> BTreeMap<(u32, AbstractName), AbstractEntry> {
    let mut table: BTreeMap<(u32, AbstractName), AbstractEntry> = BTreeMap::new();
    let mut numbers = Numbers::abstracts(policy);
    for (profile, &index) in policy.profiles.iter().zip(indexes) {
        for rule in &profile.abstracts {
            let number = numbers.take();
            let Some((AbstractKey { mut name, .. }, length)) = key(rule.name.as_bytes()) else { continue };
            name.profile = index.to_be_bytes();
            name.whole = if rule.begins { 0 } else { u8::try_from(length + 1).unwrap_or(u8::MAX) };
            let entry = table.entry((AbstractName::bits(length), name)).or_default();
            if u32::from(rule.verdict.0) > entry.verdict {
                *entry = AbstractEntry { verdict: rule.verdict.0.into(), rule: number };
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, shown) in [
            ("/run/docker.sock", "/run/docker.sock"),
            ("/run/postgresql/**", "/run/postgresql"),
            ("/run/postgresql", "/run/postgresql"),
            ("/**", "/"),
            ("/run/user/*/bus", "/run/user/*/bus"),
            ("**/agent.sock", "**/agent.sock"),
            ("**/*.sock", "**/*.sock"),
            ("${home}/.docker/**", "${home}/.docker"),
        ] {
            let Ok(Socket::File(path)) = parse(text) else { panic!("{text:?} is a file") };
            assert_eq!(path.to_string(), shown);
        }
        assert_eq!(parse("@a/b"), Ok(Socket::Abstract("a/b".into(), false)));
        assert_eq!(parse("@/tmp/.X11-unix/*"), Ok(Socket::Abstract("/tmp/.X11-unix/".into(), true)));
        assert_eq!(parse("@*"), Ok(Socket::Abstract(String::new(), true)));
        assert!(parse(&format!("@{}", "x".repeat(107))).is_ok());
    }

    #[test]
    fn what_no_socket_is() {
        let long = format!("@{}", "x".repeat(108));
        for (text, part) in [
            ("", "names no socket"),
            ("@", "names no socket"),
            ("run/x", "not absolute"),
            ("**", "not absolute"),
            ("**/**", "only stand at the beginning"),
            ("/a/**/b", "only stand at the beginning"),
            ("/a/../b", "component `..`"),
            ("@a*b", "only stand at the end"),
            ("@**", "only stand at the end"),
            ("@a\0b", "NUL"),
            (&long, "has 108 bytes"),
        ] {
            let paths::Unusable(message, help) = parse(text).unwrap_err();
            assert!(message.contains(part) && !help.is_empty(), "{text:?}: {message}");
        }
    }
}
