//! Names that nobody is asked for: those of the host's own file, and those that stand for it.

use std::path::Path;

use hickory_proto::{
    op::Query,
    rr::{
        Name, RData, RecordType,
        domain::usage::{IN_ADDR_ARPA_127, INVALID, IP6_ARPA_1, LOCALHOST, ONION},
        rdata::{A, AAAA, PTR},
    },
};
use hickory_resolver::Hosts as Table;

use super::{chain::Found, config};

/// How long who asks may keep what a file says that can change at any time, in seconds.
const TTL: u32 = 60;

/// What is known of names without asking.
#[derive(Default)]
pub(super) struct Hosts(Table);

impl Hosts {
    /// Reads a hosts(5). Without one there are only the names that stand for the host.
    pub(super) fn read(path: &Path) -> Self {
        let mut table = Table::default();
        let read = config::read(path).and_then(|text| table.read_hosts_conf(text.as_bytes()));
        if let Err(error) = read {
            tracing::warn!(%error, path = %path.display(), "can't be read, so its names are asked for like any other");
            return Self::default();
        }
        Self(table)
    }

    /// Records of a name; `None` if somebody has to be asked. A name that the file has an address of either family for has
    /// none of the other.
    pub(super) fn lookup(&self, name: &Name, kind: RecordType) -> Option<Found> {
        let records = |kind| -> Option<Vec<RData>> {
            let found = self.0.lookup_static_host(&Query::query(name.clone(), kind))?;
            Some(found.answers().iter().map(|record| record.data.clone()).collect())
        };
        // Whatever a file says of it: programs rely on who is behind it (RFC 6761, section 6.3).
        if LOCALHOST.zone_of(name) {
            return special(name, kind);
        }
        let known = records(RecordType::A).is_some() || records(RecordType::AAAA).is_some();
        match kind {
            RecordType::A | RecordType::AAAA if known => Some(found(records(kind).unwrap_or_default())),
            RecordType::PTR => records(kind).map(found).or_else(|| special(name, kind)),
            _ => special(name, kind),
        }
    }
}

fn found(records: Vec<RData>) -> Found {
    Found { exists: true, ttl: TTL, records }
}

/// What RFC 6761 (`localhost`, `invalid`) and RFC 7686 (`onion`) say of names.
pub(super) fn special(name: &Name, kind: RecordType) -> Option<Found> {
    if LOCALHOST.zone_of(name) {
        return Some(found(match kind {
            RecordType::A => vec![RData::A(A::new(127, 0, 0, 1))],
            RecordType::AAAA => vec![RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 1))],
            _ => Vec::new(),
        }));
    }
    if IN_ADDR_ARPA_127.zone_of(name) || IP6_ARPA_1.zone_of(name) {
        let itself = RData::PTR(PTR(LOCALHOST.name().clone()));
        return Some(found(if kind == RecordType::PTR { vec![itself] } else { Vec::new() }));
    }
    (INVALID.zone_of(name) || ONION.zone_of(name)).then(|| Found { exists: false, ..found(Vec::new()) })
}

#[cfg(test)]
mod tests {
    use std::{fs, net::IpAddr};

    use super::*;

    fn hosts(text: &str) -> Hosts {
        let file =
            std::env::temp_dir().join(format!("agent-guard-hosts-{}-{}", std::process::id(), text.len()));
        fs::write(&file, text).unwrap();
        let hosts = Hosts::read(&file);
        fs::remove_file(&file).unwrap();
        hosts
    }

    fn addresses(hosts: &Hosts, name: &str, kind: RecordType) -> Option<Vec<IpAddr>> {
        let found = hosts.lookup(&Name::from_ascii(name).unwrap(), kind)?;
        assert!(found.exists && found.ttl <= 60);
        Some(found.records.iter().map(|data| data.ip_addr().unwrap()).collect())
    }

    #[test]
    fn names_of_the_file() {
        let hosts =
            hosts("10.0.0.1 Build build.corp # x\n10.0.0.2 build\n2001:db8::1 six\nnonsense\n127.0.1.1 me");
        let one = |text: &str| Some(vec![text.parse::<IpAddr>().unwrap()]);
        assert_eq!(addresses(&hosts, "build.corp.", RecordType::A), one("10.0.0.1"));
        assert_eq!(addresses(&hosts, "BUILD.corp.", RecordType::A), one("10.0.0.1"));
        assert_eq!(addresses(&hosts, "build.", RecordType::A).unwrap().len(), 2);
        assert_eq!(addresses(&hosts, "build.", RecordType::AAAA), Some(Vec::new()), "nobody is asked for it");
        assert_eq!(addresses(&hosts, "six.", RecordType::AAAA), one("2001:db8::1"));
        assert_eq!(addresses(&hosts, "six.", RecordType::A), Some(Vec::new()));
        assert_eq!(addresses(&hosts, "x.build.", RecordType::A), None);
        assert!(hosts.lookup(&Name::from_ascii("build.").unwrap(), RecordType::MX).is_none());
        let back = hosts.lookup(&Name::from_ascii("1.1.0.127.in-addr.arpa.").unwrap(), RecordType::PTR);
        assert_eq!(back.unwrap().records, [RData::PTR(PTR(Name::from_ascii("me.").unwrap()))]);
    }

    #[test]
    fn localhost_is_this_host() {
        for hosts in [Hosts::default(), hosts("# nothing")] {
            for name in ["localhost.", "LocalHost.", "a.localhost.", "a.b.localhost."] {
                assert_eq!(addresses(&hosts, name, RecordType::A), Some(vec!["127.0.0.1".parse().unwrap()]));
                assert_eq!(addresses(&hosts, name, RecordType::AAAA), Some(vec!["::1".parse().unwrap()]));
                assert_eq!(addresses(&hosts, name, RecordType::MX), Some(Vec::new()));
            }
            assert_eq!(addresses(&hosts, "localhost.example.", RecordType::A), None);
            let back = hosts.lookup(&Name::from_ascii("1.0.0.127.in-addr.arpa.").unwrap(), RecordType::PTR);
            assert_eq!(back.unwrap().records.len(), 1);
            for name in ["x.invalid.", "x.onion."] {
                let found = hosts.lookup(&Name::from_ascii(name).unwrap(), RecordType::A).unwrap();
                assert!(!found.exists && found.records.is_empty());
            }
        }
    }

    #[test]
    fn no_file_is_no_names() {
        let hosts = Hosts::read(Path::new("/nonexistent/hosts"));
        assert_eq!(addresses(&hosts, "build.", RecordType::A), None);
    }
}
