//! Entries of `network`: `10.0.0.0/8:443`, `[fd00::]/8:443/tcp`, `*.example.org:443`, `localhost:8000-8100`.

mod address;
mod name;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_guard_common::Protocol;

use super::{
    model::{NamePattern, Ports, Prefix},
    parse,
};

pub(super) use address::first_address;
pub(super) use name::host as host_name;

/// What one entry stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) host: Host,
    pub(super) ports: Ports,
}

/// Where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Host {
    /// Networks: two for `localhost`.
    Networks(Vec<Prefix>),
    /// Names.
    Names(NamePattern),
}

/// What an entry is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum For {
    /// Connections.
    Connecting,
    /// Addresses of the host's that are bound.
    Listening,
}

/// Why an entry can't be used, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unusable(pub(super) String, pub(super) String);

fn wrong(message: String, help: impl Into<String>) -> Unusable {
    Unusable(message, help.into())
}

const FORMS: &str = "write HOST, HOST:PORT or HOST:FIRST-LAST, with /tcp, /udp, /icmp or /sctp behind it for one protocol alone; \
                     HOST is an address, ADDRESS/BITS, a name or *.NAME, with an IPv6 address in brackets before /BITS or :PORT";

/// Reads an entry that is no Unix socket.
pub(super) fn parse(text: &str, what_for: For) -> Result<Entry, Unusable> {
    if let Some((scheme, rest)) = text.split_once("://") {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let port = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => ":PORT",
        };
        let port = if host.contains(':') { "" } else { port };
        return Err(wrong(
            format!("{text:?} is a URL: a connection is judged before anything is said over it"),
            format!("write `{host}{port}`"),
        ));
    }
    let (rest, protocol) = split_protocol(text)?;
    let parts = split(text, rest)?;
    let ports = ports(text, parts.ports, protocol)?;
    Ok(Entry { host: host(text, &parts, what_for)?, ports })
}

fn host(text: &str, parts: &Parts<'_>, what_for: For) -> Result<Host, Unusable> {
    if parts.bracketed || parts.host.contains(':') {
        let addr = parts.host.parse::<Ipv6Addr>();
        let addr =
            addr.map_err(|_malformed| wrong(format!("{text:?} is not an IPv6 address"), address::FORMS))?;
        return Ok(Host::Networks(vec![address::prefix(text, addr.into(), parts.bits, what_for)?]));
    }
    if let Ok(addr) = parts.host.parse::<Ipv4Addr>() {
        return Ok(Host::Networks(vec![address::prefix(text, addr.into(), parts.bits, what_for)?]));
    }
    let pattern = name::pattern(text, parts.host)?;
    if parts.bits.is_some() {
        return Err(wrong(format!("the name in {text:?} takes no prefix length"), "remove it"));
    }
    match pattern {
        NamePattern::Exact(name) if name == LOCALHOST => Ok(Host::Networks(LOOPBACK.to_vec())),
        pattern => Ok(Host::Names(pattern)),
    }
}

/// The name that is no name: it stands for this host, whatever a name server says.
pub(super) const LOCALHOST: &str = "localhost";

/// What it stands for.
const LOOPBACK: [Prefix; 2] = [
    Prefix { addr: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), bits: 8 },
    Prefix { addr: IpAddr::V6(Ipv6Addr::LOCALHOST), bits: 128 },
];

/// What comes behind the last slash, if it is a protocol. A prefix length begins with a digit, or with nothing else that a protocol
/// could begin with.
pub(super) fn split_protocol(text: &str) -> Result<(&str, Protocol), Unusable> {
    let Some((rest, name)) = text.rsplit_once('/') else { return Ok((text, Protocol::ANY)) };
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Ok((text, Protocol::ANY));
    }
    let known = Protocol::ALL.map(|protocol| protocol.name().unwrap_or_default());
    match Protocol::from_name(name) {
        Some(protocol) => Ok((rest, protocol)),
        None => {
            let help = parse::suggest(&name.to_ascii_lowercase(), known);
            let help = help.unwrap_or_else(|| format!("protocols are {}", parse::list(&known)));
            Err(wrong(format!("unknown protocol {name:?} in {text:?}"), help))
        }
    }
}

struct Parts<'a> {
    host: &'a str,
    bracketed: bool,
    bits: Option<&'a str>,
    ports: Option<&'a str>,
}

/// Splits what is left without a protocol.
fn split<'a>(text: &str, rest: &'a str) -> Result<Parts<'a>, Unusable> {
    if let Some(rest) = rest.strip_prefix('[') {
        let malformed = || wrong(format!("{text:?} is not an address"), address::FORMS);
        let (host, rest) = rest.split_once(']').ok_or_else(malformed)?;
        let (bits, ports) = match rest.strip_prefix('/') {
            Some(rest) => {
                rest.split_once(':').map_or((Some(rest), None), |(bits, ports)| (Some(bits), Some(ports)))
            }
            None if rest.is_empty() => (None, None),
            None => (None, Some(rest.strip_prefix(':').ok_or_else(malformed)?)),
        };
        return Ok(Parts { host, bracketed: true, bits, ports });
    }
    // Two colons before any slash: IPv6 without brackets, so without a port.
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    if host.matches(':').count() > 1 {
        let bits = rest.split_once('/').map(|(_, bits)| bits);
        if let Some((bits, ports)) = bits.and_then(|bits| bits.split_once(':')) {
            return Err(wrong(
                format!("{text:?} has a port behind an IPv6 address without brackets"),
                format!("write `[{host}]/{bits}:{ports}`"),
            ));
        }
        return Ok(Parts { host, bracketed: false, bits, ports: None });
    }
    let (host, ports) = rest.split_once(':').map_or((rest, None), |(host, ports)| (host, Some(ports)));
    let (host, bits) = host.split_once('/').map_or((host, None), |(host, bits)| (host, Some(bits)));
    Ok(Parts { host, bracketed: false, bits, ports })
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    // `parse` takes a sign too.
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn ports(text: &str, ports: Option<&str>, protocol: Protocol) -> Result<Ports, Unusable> {
    let Some(ports) = ports else { return Ok(Ports { protocol, ..Ports::ALL }) };
    if protocol == Protocol::ICMP {
        return Err(wrong(format!("icmp has no ports, and {text:?} has some"), "remove the ports"));
    }
    let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
    match (number::<u16>(low), number::<u16>(high)) {
        (Some(low), Some(high)) if low > high => Err(wrong(
            format!("the first port in {text:?} is greater than the last"),
            format!("write {high}-{low}"),
        )),
        (Some(low), Some(high)) if low > 0 => Ok(Ports { low, high, protocol }),
        _ => Err(wrong(
            format!("{ports:?} in {text:?} is not a port"),
            "ports are numbers from 1 to 65535, or two of them with a hyphen",
        )),
    }
}

#[cfg(test)]
mod tests;
