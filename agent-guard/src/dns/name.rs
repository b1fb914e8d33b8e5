//! Names as text.

use std::net::IpAddr;

use hickory_proto::rr::Name;

/// A name as people write it: lower case, without the final dot; what isn't printable, and dots within labels, escaped.
pub(super) fn shown(name: &Name) -> String {
    let text = name.to_lowercase().to_ascii();
    match text.strip_suffix('.') {
        Some(text) if name.is_fqdn() => text.to_owned(),
        _ => text,
    }
}

/// The same, if the name has nothing but letters, digits, `-` and `_`. In a label there can be any byte, a dot as well: one that
/// says `www.example` would make a name of the zone `com` look like one of `example.com`.
pub(super) fn plain(name: &Name) -> Option<String> {
    let usual = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.iter().all(|label| label.iter().all(usual)).then(|| shown(name))
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for (RFC 1035, section 3.5; RFC 3596, section 2.5).
pub(super) fn address(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[&[u8]]) -> Name {
        Name::from_labels(labels.iter().copied()).unwrap()
    }

    #[test]
    fn text() {
        let name = labels(&[b"WWW", b"Example", b"com"]);
        assert_eq!(shown(&name), "www.example.com");
        assert_eq!(plain(&name).as_deref(), Some("www.example.com"));
        assert_eq!(plain(&Name::root()).as_deref(), Some(""));
        assert_eq!(
            plain(&labels(&[b"_dmarc", b"xn--bcher-kva", b"x"])).as_deref(),
            Some("_dmarc.xn--bcher-kva.x")
        );
    }

    #[test]
    fn a_dot_within_a_label_is_none_between_labels() {
        let name = labels(&[b"www.example", b"com"]);
        assert_eq!(plain(&name), None);
        assert_eq!(shown(&name), "www\\.example.com");
        for label in [&b"a b"[..], b"a\0", b"*", b"\xff", b"a\\", b"b\xc3\xbccher", b"a/b", b"a."] {
            assert_eq!(plain(&labels(&[label, b"com"])), None, "{label:?}");
            assert!(shown(&labels(&[label, b"com"])).is_ascii());
        }
        // The last one ends with a dot of its own.
        assert_eq!(shown(&labels(&[b"com", b"a."])), "com.a\\.");
    }

    #[test]
    fn addresses() {
        for (name, expected) in [
            ("4.3.2.1.in-addr.arpa.", Some("1.2.3.4")),
            ("4.3.2.1.IN-ADDR.ARPA.", Some("1.2.3.4")),
            ("3.2.1.in-addr.arpa.", None),
            ("5.4.3.2.1.in-addr.arpa.", None),
            ("256.3.2.1.in-addr.arpa.", None),
            (
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
                Some("2001:db8::1"),
            ),
            ("8.b.d.0.1.0.0.2.ip6.arpa.", None),
            ("example.com.", None),
            ("arpa.", None),
            (".", None),
        ] {
            let name = Name::from_ascii(name).unwrap();
            assert_eq!(address(&name), expected.map(|text| text.parse().unwrap()), "{name}");
        }
    }
}
