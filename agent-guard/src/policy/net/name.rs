//! Names of hosts.

use super::{super::model::NamePattern, FORMS, Unusable, wrong};

/// Characters of a name without the final dot, and of a label, at most (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Reads the host of an entry that is no address.
pub(super) fn pattern(text: &str, host: &str) -> Result<NamePattern, Unusable> {
    if host == "*" {
        return Ok(NamePattern::Every);
    }
    let (name, below) = host.strip_prefix("*.").map_or((host, false), |name| (name, true));
    if name.contains('*') {
        return Err(wrong(
            format!("`*` can't stand where {text:?} has it"),
            "write `*.example.org` for every name below that one, or `*` for every name",
        ));
    }
    let name = plain(text, name)?;
    if below && name.len() + 2 > MAX_NAME {
        return Err(wrong(format!("no name is below {name:?}: it would be too long"), "write a shorter one"));
    }
    Ok(if below { NamePattern::Below(name) } else { NamePattern::Exact(name) })
}

/// Reads a name without any `*`: a zone, or a host in a question.
pub(in super::super) fn host(name: &str) -> Result<String, Unusable> {
    plain(name, name)
}

/// In lower case, without the final dot.
fn plain(text: &str, name: &str) -> Result<String, Unusable> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if !name.is_ascii() {
        return Err(wrong(
            format!("{text:?} has characters that no name on the wire has"),
            "write its A-label, which begins with `xn--` (RFC 5890): that is what is asked for",
        ));
    }
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    // Digits and dots alone are an address that isn't one.
    if name.is_empty() || !name.bytes().all(usual) || !name.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        return Err(wrong(format!("{text:?} is neither an address nor a name"), FORMS));
    }
    if let Some(label) = name.split('.').find(|label| label.is_empty() || label.len() > MAX_LABEL) {
        let what =
            if label.is_empty() { "an empty label".to_owned() } else { format!("the label {label:?}") };
        return Err(wrong(
            format!("{text:?} has {what}"),
            format!("between dots a name has 1 to {MAX_LABEL} characters"),
        ));
    }
    if name.len() > MAX_NAME {
        return Err(wrong(
            format!("{text:?} has {} characters", name.len()),
            format!("a name has {MAX_NAME} at most"),
        ));
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    // Whoever has numbers for addresses read takes it for one (`inet_aton`), and asks for no name.
    let hexadecimal =
        last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong(
            format!("{text:?} looks like an address, and isn't one"),
            "write an IPv4 address as four numbers from 0 to 255; the last label of a name isn't a number",
        ));
    }
    Ok(name)
}
