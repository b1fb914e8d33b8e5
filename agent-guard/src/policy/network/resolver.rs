//! `[resolver]`: where the daemon's own resolver asks.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::super::{
    check::Checker,
    model::{Resolver, Zone},
    net,
    parse::{Keys, Value},
};
use crate::api::time::parse_span;

const RESOLVER: Keys = Keys { place: "`resolver`", known: &["upstream", "timeout", "zone"], later: &[] };
const ZONE: Keys = Keys { place: "a zone", known: &["name", "upstream"], later: &[] };

/// The port of name servers (RFC 1035, section 4.2).
const PORT: u16 = 53;
/// Milliseconds that a question may take.
const TIMES: std::ops::RangeInclusive<u64> = 100..=60_000;

impl Checker<'_> {
    /// Reads the table of a source.
    pub(in super::super) fn resolver(&mut self, value: &Value<'_>) -> Resolver {
        let mut resolver =
            Resolver { origin: Some(self.report.origin(&value.span())), ..Resolver::default() };
        let Some(table) = self.report.table(value, "`resolver`") else { return resolver };
        self.report.keys(table, &RESOLVER);
        if let Some(value) = table.get("upstream") {
            resolver.upstream = self.servers(value);
        }
        if let Some(timeout) = table.get("timeout").and_then(|value| self.timeout(value)) {
            resolver.timeout = timeout;
        }
        if let Some(value) = table.get("zone") {
            for (table, span) in self.report.tables(value, "resolver.zone") {
                self.report.keys(table, &ZONE);
                let name = self.required(table, &span, "name");
                let servers = self.required(table, &span, "upstream").map(|value| self.servers(value));
                let zone = name.and_then(|value| self.zone(value, &resolver.zones));
                if let (Some((name, value)), Some(upstream)) = (zone.zip(name), servers) {
                    resolver.zones.push(Zone { name, upstream, origin: self.report.origin(&value.span()) });
                }
            }
        }
        resolver
    }

    fn timeout(&mut self, value: &Value<'_>) -> Option<Duration> {
        let text = self.report.string(value, "`timeout`")?;
        let ms = parse_span(text).filter(|ms| TIMES.contains(ms));
        if ms.is_none() {
            self.report.error_help(
                &value.span(),
                format!("{text:?} is no time-out"),
                "write one from `100ms` to `1m`",
            );
        }
        ms.map(Duration::from_millis)
    }

    /// The name of a zone that isn't there yet.
    fn zone(&mut self, value: &Value<'_>, zones: &[Zone]) -> Option<String> {
        let text = self.report.string(value, "the name of a zone")?;
        let name = match net::host_name(text) {
            Ok(name) => name,
            Err(_) if text.contains('*') => {
                let help = "leave out the `*`: a zone is its name and all below";
                self.report.error_help(&value.span(), format!("{text:?} can't be the name of a zone"), help);
                return None;
            }
            Err(net::Unusable(message, _)) => {
                self.report.error_help(&value.span(), message, "write a name, as `corp.example`");
                return None;
            }
        };
        if let Some(zone) = zones.iter().find(|zone| zone.name == name) {
            let message = format!("zone `{name}` is already defined at {}", zone.origin);
            self.report.error_help(&value.span(), message, "keep one of them: it can have several servers");
            return None;
        }
        Some(name)
    }

    /// Addresses of name servers, at least one.
    fn servers(&mut self, value: &Value<'_>) -> Vec<SocketAddr> {
        let mut servers = Vec::new();
        let values = self.report.array(value, "`upstream`");
        if values.is_empty() && value.get_ref().is_array() {
            self.report.error_help(
                &value.span(),
                "`upstream` is empty, so nobody could be asked",
                "name servers; for those of the host's /etc/resolv.conf leave out the whole key",
            );
        }
        for value in values {
            let Some(text) = self.report.string(value, "a name server") else { continue };
            match server(text) {
                Some(server) if servers.contains(&server) => {
                    self.report.error(&value.span(), format!("{server} is named twice"));
                }
                Some(server) => servers.push(server),
                None => self.report.error_help(
                    &value.span(),
                    format!("{text:?} is no address of a name server"),
                    "write an address, or an address and a port: \"10.0.0.53\", \"10.0.0.53:5353\", \"[fd00::53]:5353\"",
                ),
            }
        }
        servers
    }
}

/// An address, and port 53 where none is written.
fn server(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let bare = bare.filter(|text| text.contains(':')).unwrap_or(text);
    let server = match bare.parse::<IpAddr>() {
        Ok(addr) => SocketAddr::new(addr, PORT),
        Err(_) => text.parse().ok()?,
    };
    let ip = server.ip();
    (server.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()).then_some(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        for (text, expected) in [
            ("10.0.0.53", Some("10.0.0.53:53")),
            ("10.0.0.53:5353", Some("10.0.0.53:5353")),
            ("fd00::53", Some("[fd00::53]:53")),
            ("[fd00::53]", Some("[fd00::53]:53")),
            ("[fd00::53]:5353", Some("[fd00::53]:5353")),
            ("127.0.0.53", Some("127.0.0.53:53")),
            ("", None),
            ("dns.example", None),
            ("[10.0.0.53]", None),
            ("10.0.0.53:0", None),
            ("10.0.0.53:", None),
            ("10.0.0.53:65536", None),
            ("fd00::53:", None),
            ("0.0.0.0", None),
            ("[::]:53", None),
            ("224.0.0.251", None),
            ("10.0.0.0/8", None),
        ] {
            assert_eq!(server(text), expected.map(|text| text.parse().unwrap()), "{text:?}");
        }
    }
}
