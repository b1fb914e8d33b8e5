//! What the resolver is told to do, and what it takes from the host.

use std::{
    fs, io,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use super::limits::Rates;

/// The port of name servers (RFC 1035, section 4.2).
pub(super) const PORT: u16 = 53;

/// Servers of `resolv.conf` that are used: as many as the C library does (`MAXNS` of glibc's `resolv.h`).
const MOST_SERVERS: usize = 3;

/// Bytes of a file of the host's that are read.
const LONGEST_FILE: u64 = 16 << 20;

/// How the resolver works.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Name servers to ask, in this order. None: those of `resolv_conf`.
    pub upstreams: Vec<SocketAddr>,
    /// Zones with servers of their own; the longest that a name is in decides.
    pub zones: Vec<Zone>,
    /// How long a query may take, whatever it needs.
    pub timeout: Duration,
    /// How many answers are kept for as long as they are valid.
    pub cache: u64,
    /// How much a session may ask.
    pub rates: Rates,
    /// How long a connection may be idle.
    pub idle: Duration,
    /// resolv.conf(5): its `nameserver` lines count.
    pub resolv_conf: PathBuf,
    /// hosts(5): names in it aren't asked for.
    pub hosts: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            zones: Vec::new(),
            timeout: Duration::from_secs(5),
            cache: 2048,
            rates: Rates::default(),
            idle: Duration::from_secs(10),
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
        }
    }
}

/// A zone with name servers of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone {
    /// Its name, as `corp.example`: names below, and itself.
    pub name: String,
    /// The servers to ask, in this order.
    pub upstreams: Vec<SocketAddr>,
}

/// The name servers of a `resolv.conf`. Without any, or without the file, the one of this host (resolv.conf(5)).
pub(super) fn servers(path: &Path) -> Vec<SocketAddr> {
    let text = match read(path) {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "can't be read, so this host's own name server is asked");
            String::new()
        }
    };
    let mut servers: Vec<_> = text.lines().filter_map(server).map(|ip| SocketAddr::new(ip, PORT)).collect();
    servers.truncate(MOST_SERVERS);
    if servers.is_empty() {
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
    }
    servers
}

/// The address in a line of a `resolv.conf`.
fn server(line: &str) -> Option<IpAddr> {
    let mut words = line.split_ascii_whitespace();
    if words.next() != Some("nameserver") {
        return None;
    }
    let address = words.next()?;
    address
        .parse()
        .inspect_err(|_| tracing::warn!(address, "a name server whose address isn't understood is left out"))
        .ok()
}

/// The text of a file of the host's, of which nobody has promised that it is UTF-8.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LONGEST_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_a_file() {
        let file = tempfile();
        for (text, expected) in [
            ("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch example.com\n", &["127.0.0.53:53"][..]),
            (
                "# nameserver 10.0.0.1\n; nameserver 10.0.0.2\nnameserver\t10.0.0.3  # x\nnameserver ::1",
                &["10.0.0.3:53", "[::1]:53"],
            ),
            ("nameserver 10.0.0.1\nnameserver x\nnameserver\nnameservers 10.0.0.2", &["10.0.0.1:53"]),
            (
                "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4",
                &["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"],
            ),
            ("nameserver fe80::1%eth0\n", &["127.0.0.1:53"]),
            ("", &["127.0.0.1:53"]),
        ] {
            fs::write(&file, text).unwrap();
            let expected: Vec<SocketAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(servers(&file), expected, "{text:?}");
        }
        fs::write(&file, b"# \xff\xfe\nnameserver 10.0.0.1\n").unwrap();
        assert_eq!(servers(&file), ["10.0.0.1:53".parse().unwrap()]);
        fs::remove_file(&file).unwrap();
        assert_eq!(servers(&file), ["127.0.0.1:53".parse().unwrap()]);
    }

    fn tempfile() -> PathBuf {
        std::env::temp_dir().join(format!("agent-guard-resolv-{}", std::process::id()))
    }
}
