//! Questions, as people and programs put them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use agent_guard_common::{Op, Protocol};

use super::ExplainError;
use crate::policy::{hosts::NameRuling, net, sockets};

/// A port of a protocol; port 0 for one that has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// The port.
    pub port: u16,
    /// The protocol: one of [`Protocol::ALL`].
    pub protocol: Protocol,
}

impl Service {
    /// A port of TCP.
    #[must_use]
    pub const fn tcp(port: u16) -> Self {
        Self { port, protocol: Protocol::TCP }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.name().unwrap_or("another protocol");
        match self.protocol {
            Protocol::ICMP => f.write_str(protocol),
            _ => write!(f, "port {}/{protocol}", self.port),
        }
    }
}

/// What somebody wants to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// An operation on a file.
    File(Op, PathBuf),
    /// A connection to any of these addresses.
    Connect(Vec<IpAddr>, Service),
    /// A connection to what a name stands for: an address, if that is known.
    Name {
        /// The name, in lower case and without the final dot.
        name: String,
        /// Its address.
        address: Option<IpAddr>,
        /// What is connected to there.
        service: Service,
    },
    /// Listening at any of these addresses.
    Listen(Vec<IpAddr>, Service),
    /// A connection to a Unix socket by its path.
    Socket(PathBuf),
    /// A connection to a Unix socket by its abstract name.
    Abstract(String),
    /// The execution of a program with arguments, of which the first is how it is called.
    Exec(Vec<String>),
}

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Why something isn't what is connected to, or listened at.
type Wrong = String;

impl Question {
    /// About an operation on a file, by its name.
    ///
    /// # Errors
    ///
    /// [`ExplainError::UnknownOp`]
    pub fn file(op: &str, path: &Path) -> Result<Self, ExplainError> {
        let known = Op::from_name(op).ok_or_else(|| ExplainError::UnknownOp(op.to_owned()))?;
        Ok(Self::File(known, path.into()))
    }

    /// About a connection to `unix:PATH`, `unix:@NAME`, `HOST:PORT`, `HOST:PORT/PROTO` or `HOST/icmp`; without a protocol it is TCP.
    /// The host is an address, `localhost` or a name, which isn't looked up: `address` is one that it has.
    ///
    /// # Errors
    ///
    /// [`ExplainError::NoAddress`]
    pub fn connect(to: &str, address: Option<&str>) -> Result<Self, ExplainError> {
        let bad = |what| ExplainError::NoAddress { address: to.to_owned(), what };
        let question = Self::to(to).map_err(bad)?;
        let Some(address) = address else { return Ok(question) };
        let found = bare(address).parse::<IpAddr>();
        match (question, found) {
            (Self::Name { name, service, .. }, Ok(address)) => {
                Ok(Self::Name { name, address: Some(address), service })
            }
            (_, Ok(_)) => Err(bad("only a name has an address besides".to_owned())),
            (_, Err(error)) => {
                Err(ExplainError::NoAddress { address: address.to_owned(), what: error.to_string() })
            }
        }
    }

    fn to(to: &str) -> Result<Self, Wrong> {
        if let Some(socket) = to.strip_prefix("unix:") {
            return match socket.strip_prefix('@') {
                Some(name) if sockets::key(name.as_bytes()).is_none() => {
                    Err("no name is that long".to_owned())
                }
                Some(name) => Ok(Self::Abstract(name.to_owned())),
                None => Ok(Self::Socket(socket.into())),
            };
        }
        let forms = "HOST:PORT, HOST:PORT/PROTO, HOST/icmp, unix:PATH or unix:@NAME is wanted";
        let (host, service) = service(to, forms)?;
        if let Some(addresses) = addresses(host) {
            return Ok(Self::Connect(addresses, service));
        }
        match net::host_name(host) {
            Ok(name) if name == net::LOCALHOST => Ok(Self::Connect(LOOPBACK.to_vec(), service)),
            Ok(name) => Ok(Self::Name { name, address: None, service }),
            Err(net::Unusable(what, _)) => Err(what),
        }
    }

    /// About listening at `ADDRESS:PORT` or `ADDRESS:PORT/PROTO`; without a protocol it is TCP. The address can be `localhost`.
    ///
    /// # Errors
    ///
    /// [`ExplainError::NoAddress`]
    pub fn listen(at: &str) -> Result<Self, ExplainError> {
        let bad = |what| ExplainError::NoAddress { address: at.to_owned(), what };
        let (host, service) = service(at, "ADDRESS:PORT or ADDRESS:PORT/PROTO is wanted").map_err(bad)?;
        if host == net::LOCALHOST {
            return Ok(Self::Listen(LOOPBACK.to_vec(), service));
        }
        let addresses =
            addresses(host).ok_or_else(|| bad("what is listened at is an address of the host's".to_owned()));
        Ok(Self::Listen(addresses?, service))
    }

    /// Name of the operation.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::File(op, _) => op.name(),
            Self::Connect(..) | Self::Name { .. } | Self::Socket(_) | Self::Abstract(_) => Op::CONNECT.name(),
            Self::Listen(..) => Op::LISTEN.name(),
            Self::Exec(_) => Op::EXEC.name(),
        }
    }

    /// What an answer doesn't say, given what is said of its name.
    #[must_use]
    pub fn notes(&self, ruling: impl FnOnce(&str) -> NameRuling) -> Vec<String> {
        let Self::Name { name, address, .. } = self else { return Vec::new() };
        let ruling = ruling(name);
        let mut notes = Vec::new();
        if ruling.only_reported {
            notes.push(format!("{name} is looked up because the profile only reports; else it would not be"));
        } else if !ruling.answer {
            notes.push(format!(
                "{name} isn't looked up: whoever asks for it is told that there is no such name"
            ));
        }
        if address.is_none() {
            notes.push(
                "this is by rules about names alone: one about the address can make it stricter (--address)"
                    .to_owned(),
            );
        }
        if let Some(wildcard) = ruling.wildcard {
            let limits = wildcard.limits;
            notes.push(format!(
                "only a rule with `*` allows it, so how it looks is limited (network.names), and such names are to {}",
                limits.rate
            ));
        }
        notes
    }
}

/// What is before port and protocol, and these.
fn service<'t>(text: &'t str, forms: &str) -> Result<(&'t str, Service), Wrong> {
    let (rest, protocol) = net::split_protocol(text).map_err(|net::Unusable(what, _)| what)?;
    if protocol == Protocol::ICMP {
        // Colons of an address are no ports.
        let ports = rest.rsplit_once("]:").is_some() || rest.matches(':').count() == 1;
        let service = Service { port: 0, protocol };
        return if ports { Err("icmp has no ports".to_owned()) } else { Ok((rest, service)) };
    }
    let (host, port) = rest.rsplit_once(':').ok_or_else(|| forms.to_owned())?;
    let port = port.parse().ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| "the port must be a number from 1 to 65535".to_owned())?;
    let protocol = if protocol == Protocol::ANY { Protocol::TCP } else { protocol };
    Ok((host, Service { port, protocol }))
}

fn addresses(host: &str) -> Option<Vec<IpAddr>> {
    bare(host).parse().ok().map(|address| vec![address])
}

/// An address without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_connected_to() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let udp = Service { port: 53, protocol: Protocol::UDP };
        let icmp = Service { port: 0, protocol: Protocol::ICMP };
        let name = |name: &str, address: Option<&str>, service| Question::Name {
            name: name.to_owned(),
            address: address.map(ip),
            service,
        };
        for (to, address, question) in [
            ("10.0.0.1:53/udp", None, Question::Connect(vec![ip("10.0.0.1")], udp)),
            ("[fd00::1]:443", None, Question::Connect(vec![ip("fd00::1")], Service::tcp(443))),
            ("[fd00::1]/icmp", None, Question::Connect(vec![ip("fd00::1")], icmp)),
            ("fd00::1/icmp", None, Question::Connect(vec![ip("fd00::1")], icmp)),
            ("LOCALHOST:80", None, Question::Connect(LOOPBACK.to_vec(), Service::tcp(80))),
            ("Example.org.:443/tcp", None, name("example.org", None, Service::tcp(443))),
            ("example.org/icmp", Some("[fd00::1]"), name("example.org", Some("fd00::1"), icmp)),
            ("example.org:53/udp", Some("10.0.0.1"), name("example.org", Some("10.0.0.1"), udp)),
        ] {
            assert_eq!(Question::connect(to, address).unwrap(), question, "{to}");
        }
        for (to, address, part) in [
            ("example.org", None, "HOST:PORT"),
            ("example.org:0", None, "1 to 65535"),
            ("example.org:x", None, "1 to 65535"),
            ("example.org:1-2", None, "1 to 65535"),
            ("example.org:1/tpc", None, "unknown protocol"),
            ("example.org:1/icmp", None, "no ports"),
            ("[::1]:1/icmp", None, "no ports"),
            ("*.example.org:1", None, "neither an address nor a name"),
            ("10.0.0:1", None, "neither an address nor a name"),
            ("10.0.0.1:1", Some("10.0.0.1"), "only a name"),
            ("example.org:1", Some("example.com"), "invalid IP address"),
        ] {
            let error = Question::connect(to, address).unwrap_err().to_string();
            assert!(error.contains(part), "{to}: {error}");
        }
    }

    #[test]
    fn what_is_listened_at() {
        let all = vec!["0.0.0.0".parse().unwrap()];
        assert_eq!(Question::listen("0.0.0.0:80").unwrap(), Question::Listen(all, Service::tcp(80)));
        assert_eq!(
            Question::listen("localhost:80").unwrap(),
            Question::Listen(LOOPBACK.to_vec(), Service::tcp(80))
        );
        assert_eq!(Question::listen("[::]:80/udp").unwrap().operation(), "listen");
        for at in ["80", "example.org:80", "unix:/run/x", "10.0.0.0/8:80"] {
            assert!(Question::listen(at).is_err(), "{at}");
        }
    }
}
