//! Entries as a whole.

use super::*;

fn one(text: &str) -> (String, u16, u16, Option<&'static str>) {
    let Entry { host, ports } =
        parse(text, For::Connecting).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    let host = match host {
        Host::Networks(prefixes) => prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Host::Names(pattern) => pattern.to_string(),
    };
    (host, ports.low, ports.high, ports.protocol.name())
}

#[test]
fn addresses() {
    for (text, prefix, low, high) in [
        ("10.20.0.0/16:5432", "10.20.0.0/16", 5432, 5432),
        ("10.1.2.3", "10.1.2.3/32", 0, 65535),
        ("10.1.2.3:443", "10.1.2.3/32", 443, 443),
        ("10.1.2.3:8000-8100", "10.1.2.3/32", 8000, 8100),
        ("0.0.0.0/0", "0.0.0.0/0", 0, 65535),
        ("[fd00::]/8:443", "[fd00::]/8", 443, 443),
        ("[fd00::]/8", "[fd00::]/8", 0, 65535),
        ("[::1]:80", "[::1]/128", 80, 80),
        ("[::1]", "[::1]/128", 0, 65535),
        ("::1", "[::1]/128", 0, 65535),
        ("fd00::/8", "[fd00::]/8", 0, 65535),
        ("::/0", "[::]/0", 0, 65535),
        ("::ffff:10.1.2.3", "10.1.2.3/32", 0, 65535),
        ("[::ffff:10.0.0.0]/104:1-65535", "10.0.0.0/8", 1, 65535),
        ("[2002:a01:203::]/48:53", "10.1.2.3/32", 53, 53),
        ("localhost:80", "127.0.0.0/8 [::1]/128", 80, 80),
        ("LocalHost.", "127.0.0.0/8 [::1]/128", 0, 65535),
    ] {
        assert_eq!(one(text), (prefix.to_owned(), low, high, None), "{text}");
    }
}

#[test]
fn protocols() {
    for (text, host, low, high, protocol) in [
        ("10.0.0.0/8:443/tcp", "10.0.0.0/8", 443, 443, "tcp"),
        ("10.0.0.0/8/tcp", "10.0.0.0/8", 0, 65535, "tcp"),
        ("10.1.2.3/tcp", "10.1.2.3/32", 0, 65535, "tcp"),
        ("10.0.0.53:53/udp", "10.0.0.53/32", 53, 53, "udp"),
        ("[::1]/128/udp", "[::1]/128", 0, 65535, "udp"),
        ("[::1]:5-6/sctp", "[::1]/128", 5, 6, "sctp"),
        ("[::1]/icmp", "[::1]/128", 0, 65535, "icmp"),
        ("::1/udp", "[::1]/128", 0, 65535, "udp"),
        ("fd00::/8/tcp", "[fd00::]/8", 0, 65535, "tcp"),
        ("[fd00::]/8:1-2/tcp", "[fd00::]/8", 1, 2, "tcp"),
        ("localhost/icmp", "127.0.0.0/8 [::1]/128", 0, 65535, "icmp"),
        ("*.crates.io:443/tcp", "*.crates.io", 443, 443, "tcp"),
        ("*/udp", "*", 0, 65535, "udp"),
        ("tcp/udp", "tcp", 0, 65535, "udp"),
    ] {
        assert_eq!(one(text), (host.to_owned(), low, high, Some(protocol)), "{text}");
    }
}

#[test]
fn names() {
    let (label, long) = ("x".repeat(63), format!("{}x", "x.".repeat(126)));
    let below = format!("*.{}", "x.".repeat(125) + "x");
    for (text, shown) in [
        ("example.org", "example.org"),
        ("Example.ORG.", "example.org"),
        ("example", "example"),
        ("_dmarc.host_1.example.org", "_dmarc.host_1.example.org"),
        ("1.example.org", "1.example.org"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("*.Example.org.", "*.example.org"),
        ("*.com", "*.com"),
        ("*", "*"),
        ("0xyz", "0xyz"),
        ("a.0x7g", "a.0x7g"),
        ("a-", "a-"),
        (&label, &label),
        (&long, &long),
        (&below, &below),
    ] {
        assert_eq!(one(text), (shown.to_owned(), 0, 65535, None), "{text}");
        assert_eq!(one(&format!("{text}:443")), (shown.to_owned(), 443, 443, None), "{text}");
    }
    assert_eq!(long.len(), 253);
}

#[test]
fn mistakes() {
    for text in [
        "",
        ":",
        "/",
        "[",
        "[]",
        "[::1",
        "[::1]x",
        "[::1]:",
        "[10.0.0.1]:1",
        "10.0.0",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:+1",
        "10.0.0.1:9-8",
        "10.0.0.1:1-",
        "10.0.0.1/33",
        "10.0.0.1/",
        "10.0.0.1/+8",
        "::1/129",
        "fe80::1%eth0",
        "0.0.0.0",
        "0.0.0.0:80",
        "::",
        "[::]:80",
        "0.0.0.0/32",
        "::/128",
        "10.20.1.0/16",
        "[fd00::1]/8:443",
        "::ffff:0:0/95",
        "::ffff:0:0/96",
        "localhost/8",
        "10.0.0.1 ",
        "010.0.0.1",
        "1234",
        "fd00::/8:443",
        "::ffff:0.0.0.0/128",
        "example.org/8",
        "example.org:443/8",
        "a..b",
        ".a",
        "a..",
        ".",
        "..",
        "*.",
        "*.*",
        "a.*.b",
        "*a.b",
        "a*",
        "**.b",
        "*.1",
        "a.1",
        "a.0x7f",
        "0x",
        "-",
        "a b",
        "a/tcp/udp",
        "a:1/tcp/udp",
        "10.0.0.1/icmp/8",
        "10.0.0.1:7/icmp",
        "[::1]:7/icmp",
        "a/tpc",
        "a/",
        "a:b",
        "a:1:2",
        "@",
        "bücher.example",
        "10.0.0.1/8/tcp",
        "[::1]/tcp:80",
    ] {
        let found = parse(text, For::Connecting);
        assert!(
            matches!(&found, Err(Unusable(message, help)) if !message.is_empty() && !help.is_empty()),
            "{text:?}: {found:?}"
        );
    }
    for text in [
        &"x".repeat(64),
        &("x.".repeat(127) + "x"),
        &format!("*.{}", "x.".repeat(127)),
        &format!("a.{}.b", "y".repeat(64)),
    ] {
        assert!(parse(text, For::Connecting).is_err(), "{text:?}");
    }
}

#[test]
fn what_to_do_about_it() {
    for (text, part) in [
        ("10.20.1.0/16", "`10.20.0.0/16`"),
        ("[fd00::1]/8", "`[fd00::]/8`"),
        ("bücher.example", "`xn--`"),
        ("10.0.0.1:7/icmp", "remove the ports"),
        ("a.example:443/TCP", "did you mean `tcp`?"),
        ("a.example/path", "protocols are `icmp`, `tcp`, `udp`, `sctp`"),
        ("https://api.example.org/v1", "write `api.example.org:443`"),
        ("http://api.example.org:8080/", "write `api.example.org:8080`"),
        ("example.10", "last label"),
        ("a.*.b", "`*.example.org`"),
    ] {
        let Unusable(_, help) = parse(text, For::Connecting).unwrap_err();
        assert!(help.contains(part), "{text}: {help}");
    }
}

/// Whoever may bind the unspecified address listens everywhere.
#[test]
fn listening() {
    for (text, ok) in [
        ("0.0.0.0/0:8000-8100/tcp", true),
        ("[::]/0", true),
        ("localhost", true),
        ("128.0.0.0/1", true),
        ("0.0.0.0:80", false),
        ("0.0.0.0/8", false),
        ("0.0.0.0/1", false),
        ("[::]:80", false),
        ("::/1", false),
        ("::/96", false),
        ("64:ff9b::/100", false),
    ] {
        let found = parse(text, For::Listening);
        assert_eq!(found.is_ok(), ok, "{text}: {found:?}");
    }
    let Unusable(_, help) = parse("0.0.0.0:80", For::Listening).unwrap_err();
    assert!(help.contains("`0.0.0.0/0` for every address"), "{help}");
}
