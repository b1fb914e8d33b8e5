//! Decisions that need no walk.

use super::*;
use crate::{net::mapped, object::AbstractName, rules::PortRule};

/// A rule about ports of a protocol.
const fn ports(low: u16, high: u16, protocol: Protocol, verdict: Verdict, rule: u32) -> PortRule {
    PortRule { low, high, verdict: verdict.0, protocol, pad: [0; 2], rule }
}

/// A session's number.
const N: u64 = 12;

const TO: Endpoint = Endpoint { addr: mapped([10, 0, 0, 1]), port: 443, protocol: Protocol::TCP };

#[test]
fn the_first_port_rule_decides() {
    let mut plain = Plain::new(0);
    let mut net = NetEntry::default();
    net.ports[0] = ports(443, 443, Protocol::TCP, Verdict::ALLOW, 5);
    net.ports[1] = ports(0, 1023, Protocol::ANY, Verdict::HOLD, 6);
    plain.nets.insert(NetKey::new(P, TO.addr), net);
    let at = |port, protocol| connect(&plain, P, N, &Endpoint { port, protocol, ..TO }, 1).unwrap();
    assert_eq!(at(443, Protocol::TCP), Decision::new(Verdict::ALLOW, Source::RULE, 5));
    assert_eq!(at(443, Protocol::UDP), Decision::new(Verdict::HOLD, Source::RULE, 6));
    assert_eq!(at(22, Protocol::TCP), Decision::new(Verdict::HOLD, Source::RULE, 6));
    assert_eq!(at(0, Protocol::ICMP), Decision::new(Verdict::HOLD, Source::RULE, 6));
    assert_eq!(at(5432, Protocol::TCP), Decision::new(Verdict::DENY, Source::NETWORK, 0));
    let elsewhere = Endpoint { addr: [9; 16], ..TO };
    assert_eq!(connect(&plain, P, N, &elsewhere, 1), Ok(Decision::new(Verdict::DENY, Source::NETWORK, 0)));
}

#[test]
fn names() {
    let mut plain = Plain::new(Profile::NAMES);
    let mut named = Named { until: 100, ..Named::default() };
    named.ports[0] = ports(443, 443, Protocol::ANY, Verdict::ALLOW, 5);
    named.before = named.ports;
    plain.named.insert(NamedKey::new(N, TO.addr), named);
    let at = |plain: &Plain, session, port, now| {
        connect(plain, P, session, &Endpoint { port, ..TO }, now)
            .map(|decision| (decision.verdict, decision.rule))
    };
    let (allowed, denied) = (Ok((Verdict::ALLOW, 5)), Ok((Verdict::DENY, 0)));
    assert_eq!(at(&plain, N, 443, 99), allowed);
    assert_eq!(at(&plain, N, 443, 0), allowed, "a socket that has gone there before");
    for (session, port, now) in [(N, 443, 100), (N, 80, 99), (N + 1, 443, 99), (N, 80, 0)] {
        assert_eq!(at(&plain, session, port, now), denied, "{session} {port} {now}");
    }
    // A name doesn't make an address allowed that a rule denies; nor the other way round.
    let mut net = NetEntry::default();
    net.ports[0] = ports(0, 65535, Protocol::ANY, Verdict::DENY, 7);
    plain.nets.insert(NetKey::new(P, TO.addr), net);
    assert_eq!(at(&plain, N, 443, 99), Ok((Verdict::DENY, 7)));
    net.ports[0].verdict = Verdict::ALLOW.0;
    plain.nets.insert(NetKey::new(P, TO.addr), net);
    assert_eq!(at(&plain, N, 443, 99), allowed, "of two that are as strict the first");
    named.ports[0].verdict = Verdict::HOLD.0;
    plain.named.insert(NamedKey::new(N, TO.addr), named);
    assert_eq!(at(&plain, N, 443, 99), Ok((Verdict::HOLD, 5)));
    plain.profiles.get_mut(&P).unwrap().flags &= !Profile::NAMES;
    assert_eq!(at(&plain, N, 443, 99), Ok((Verdict::ALLOW, 7)));
}

#[test]
fn listening() {
    let mut plain = Plain::new(0);
    let mut rule = |addr, verdict, number| {
        let mut net = NetEntry::default();
        net.ports[0] = ports(0, 65535, Protocol::TCP, verdict, number);
        plain.nets.insert(NetKey::new(NetKey::listening(P), addr), net);
    };
    rule(TO.addr, Verdict::ALLOW, 3);
    rule([0; 16], Verdict::ALLOW, 4);
    rule(mapped([0; 4]), Verdict::HOLD, 5);
    let at = |addr, protocol| {
        let at = Endpoint { addr, protocol, ..TO };
        listen(&plain, P, &at).map(|decision| (decision.verdict, decision.rule))
    };
    assert_eq!(at(TO.addr, Protocol::TCP), Ok((Verdict::ALLOW, 3)));
    assert_eq!(at(TO.addr, Protocol::UDP), Ok((Verdict::DENY, 0)));
    assert_eq!(at(mapped([0; 4]), Protocol::TCP), Ok((Verdict::HOLD, 5)));
    assert_eq!(at([0; 16], Protocol::TCP), Ok((Verdict::HOLD, 5)), "every address, of both families");
    assert_eq!(connect(&plain, P, N, &TO, 1).map(|decision| decision.verdict), Ok(Verdict::DENY));
}

#[test]
fn the_system() {
    let decided =
        |plain: &Plain, op| system(plain, P, op).map(|decision| (decision.verdict, decision.source));
    let mut plain = Plain::new(0);
    let hold = usize::from(Op::SETUID.0) & (Op::SYSTEM_COUNT - 1);
    plain.profiles.get_mut(&P).unwrap().system[hold] = Verdict::HOLD.0;
    for op in Op::SYSTEM {
        let verdict = if op == Op::SETUID { Verdict::HOLD } else { Verdict::DENY };
        assert_eq!(decided(&plain, op), Ok((verdict, Source::SYSTEM)), "{}", op.name());
    }
    assert_eq!(system(&plain, P + 1, Op::MOUNT), Err(Fault::PROFILE));
    // Slots that no operation has say nothing, which is a fault.
    plain.profiles.get_mut(&P).unwrap().system = [0; Op::SYSTEM_COUNT];
    assert_eq!(system(&plain, P, Op::MOUNT), Err(Fault::PROFILE));
    assert_eq!(decided(&Plain::new(Profile::REPORT_ONLY), Op::MOUNT), Ok((Verdict::REPORT, Source::SYSTEM)));
}

#[test]
fn capabilities() {
    let plain = Plain::new(0);
    let verdict = |number| capability(&plain, P, number).map(|decision| decision.verdict);
    assert_eq!((verdict(21), verdict(20)), (Ok(Verdict::ALLOW), Ok(Verdict::DENY)));
    assert_eq!(capability(&plain, P + 1, 21), Err(Fault::PROFILE));
}

#[test]
fn commands() {
    let mut tables = Plain::new(0);
    // The program, then `x`, and nothing behind it.
    let mut rows = [CommandState::DEAD; 4];
    rows[1].next = [2; 256];
    rows[2].next[usize::from(b'x')] = 3;
    rows[3].rule = Slot::new(Verdict::HOLD, 7);
    tables.commands.extend((0..).zip(rows));
    let whole = |tables: &Plain, text: &[u8], anonymous| {
        let mut read = Command::begin(tables, P, 5)?;
        for byte in text {
            if read.goes_on() {
                read.read(tables, *byte)?;
            }
        }
        command(tables, P, read, anonymous).map(|decision| (decision.verdict, decision.source, decision.rule))
    };
    let plain = Ok((Verdict::ALLOW, Source::EXEC, 0));
    assert_eq!(whole(&tables, b"x", false), plain);
    assert_eq!(whole(&tables, b"x", true), Ok((Verdict::DENY, Source::EXEC, 0)));
    tables.profiles.get_mut(&P).unwrap().commands = 1;
    assert_eq!(whole(&tables, b"x", false), Ok((Verdict::HOLD, Source::RULE, 7)));
    assert_eq!(whole(&tables, b"xx", false), plain);
    assert_eq!(whole(&tables, b"", false), plain);
    assert_eq!(whole(&tables, b"x", true), Ok((Verdict::DENY, Source::EXEC, 0)));
    tables.profiles.get_mut(&P).unwrap().flags |= Profile::REPORT_ONLY;
    assert_eq!(whole(&tables, b"x", false), Ok((Verdict::REPORT, Source::RULE, 7)));
    tables.commands.remove(&2);
    assert_eq!(whole(&tables, b"x", false), Err(Fault::GENERATION));
    assert_eq!(Command::begin(&tables, P + 1, 0), Err(Fault::PROFILE));
}

#[test]
fn abstract_names() {
    let mut plain = Plain::new(0);
    let mut key = AbstractKey {
        bits: 0,
        name: AbstractName { profile: [0; 4], whole: 0, bytes: [0; AbstractName::ROOM] },
    };
    let decide = |plain: &Plain, key: &mut AbstractKey, length| abstract_name(plain, P, key, length);
    let denied = Decision::new(Verdict::DENY, Source::NETWORK, 0);
    assert_eq!(decide(&plain, &mut key, 3), Ok(denied));
    plain.abstracts.insert((64, 0), AbstractEntry { verdict: Verdict::HOLD.0.into(), rule: 2 });
    assert_eq!(decide(&plain, &mut key, 3), Ok(Decision::new(Verdict::HOLD, Source::RULE, 2)));
    plain.abstracts.insert((64, 4), AbstractEntry { verdict: Verdict::ALLOW.0.into(), rule: 3 });
    assert_eq!(decide(&plain, &mut key, 3), Ok(Decision::new(Verdict::ALLOW, Source::RULE, 3)));
    assert_eq!(key.name.profile, P.to_be_bytes());
    assert_eq!(decide(&plain, &mut key, 108), Err(Fault::ADDRESS));
    plain.abstracts.insert((64, 4), AbstractEntry::default());
    assert_eq!(decide(&plain, &mut key, 3), Err(Fault::PROFILE));
}
