use std::collections::HashMap;

use super::*;
use crate::rules::{NetEntry, ObjectEntry, OpRules, PortRule, ProfileEntry};

#[derive(Default)]
struct Plain {
    objects: HashMap<ObjectKey, ObjectEntry>,
    entries: HashMap<ProfileKey, ProfileEntry>,
    profiles: HashMap<u32, Profile>,
    nets: HashMap<NetKey, NetEntry>,
}

impl Tables for Plain {
    fn object(&self, key: &ObjectKey) -> Option<&ObjectEntry> {
        self.objects.get(key)
    }
    fn profile_object(&self, key: &ProfileKey) -> Option<&ProfileEntry> {
        self.entries.get(key)
    }
    fn profile(&self, index: u32) -> Option<&Profile> {
        self.profiles.get(&index)
    }
    fn network(&self, key: &NetKey) -> Option<&NetEntry> {
        self.nets.get(key)
    }
}

const P: u32 = 3;

fn key(ino: u64) -> ObjectKey {
    ObjectKey::new(1, ino)
}

fn rules(op: Op, verdict: Verdict, rule: u32) -> OpRules {
    let mut rules = OpRules::default();
    rules.set(op, verdict, rule);
    rules
}

impl Plain {
    fn new(flags: u32) -> Self {
        let mut plain = Self::default();
        let profile = Profile {
            flags: Profile::PRESENT | flags,
            connect: Verdict::DENY.0,
            pad: [0; 3],
            outside: [Verdict::DENY.0; Op::COUNT],
        };
        plain.profiles.insert(P, profile);
        plain
    }

    fn critical(mut self, ino: u64, op: Op, verdict: Verdict, rule: u32) -> Self {
        self.objects.entry(key(ino)).or_default().critical = rules(op, verdict, rule);
        self
    }

    fn entry(&mut self, ino: u64) -> &mut ProfileEntry {
        self.objects.entry(key(ino)).or_default().profiles |= 1 << P;
        self.entries.entry(ProfileKey { ino, dev: 1, profile: P }).or_default()
    }

    fn rule(mut self, ino: u64, op: Op, verdict: Verdict, rule: u32) -> Self {
        self.entry(ino).rules = rules(op, verdict, rule);
        self
    }

    fn scope(mut self, ino: u64) -> Self {
        self.entry(ino).scope = 1;
        self
    }

    /// Walks objects 5, 4, 3, 2, 1 and answers for a delete.
    fn delete(&self) -> Result<Decision, Fault> {
        self.delete_through(&[])
    }

    fn delete_through(&self, mounts: &[u64]) -> Result<Decision, Fault> {
        let mut walk = Walk::new(P, Op::DELETE);
        for ino in [5, 4, 3, 2, 1] {
            let chain = if mounts.contains(&ino) { Chain::Mount } else { Chain::Tree };
            walk.step(self, &key(ino), chain);
        }
        walk.finish(self)
    }
}

#[test]
fn outside_decides_last() {
    let plain = Plain::new(0);
    assert_eq!(plain.delete(), Ok(Decision::new(Verdict::DENY, Source::OUTSIDE, 0)));
}

#[test]
fn scope_before_outside() {
    let plain = Plain::new(0).scope(3);
    assert_eq!(plain.delete(), Ok(Decision::new(Verdict::ALLOW, Source::SCOPE, 0)));
}

#[test]
fn a_device_node_in_scope_is_outside() {
    let plain = Plain::new(0).scope(3);
    let mut walk = Walk::new(P, Op::WRITE);
    for ino in [5, 4, 3, 2, 1] {
        walk.step(&plain, &key(ino), Chain::Tree);
    }
    walk.ignore_scope();
    assert_eq!(walk.finish(&plain), Ok(Decision::new(Verdict::DENY, Source::OUTSIDE, 0)));
}

#[test]
fn a_rule_at_any_depth_beats_scope() {
    let plain = Plain::new(0).scope(4).rule(2, Op::DELETE, Verdict::HOLD, 9);
    assert_eq!(plain.delete(), Ok(Decision::new(Verdict::HOLD, Source::RULE, 9)));
}

#[test]
fn the_deepest_rule_decides() {
    let plain = Plain::new(0).rule(2, Op::DELETE, Verdict::KILL, 1).rule(4, Op::DELETE, Verdict::ALLOW, 2);
    assert_eq!(plain.delete(), Ok(Decision::new(Verdict::ALLOW, Source::RULE, 2)));
}

#[test]
fn a_rule_for_another_operation_says_nothing() {
    let plain = Plain::new(0).rule(4, Op::WRITE, Verdict::ALLOW, 1);
    assert_eq!(plain.delete(), Ok(Decision::new(Verdict::DENY, Source::OUTSIDE, 0)));
}

#[test]
fn critical_first_and_always() {
    let plain = Plain::new(0)
        .critical(1, Op::DELETE, Verdict::HOLD, 7)
        .rule(5, Op::DELETE, Verdict::ALLOW, 2)
        .scope(5);
    assert_eq!(plain.delete(), Ok(Decision::new(Verdict::HOLD, Source::CRITICAL, 7)));
}

#[test]
fn report_mode_blocks_nothing_but_critical() {
    let plain = Plain::new(Profile::REPORT_ONLY);
    let decision = plain.delete().unwrap();
    assert_eq!((decision.verdict, decision.policy), (Verdict::REPORT, Verdict::DENY));
    let plain = plain.critical(2, Op::DELETE, Verdict::DENY, 1);
    assert_eq!(plain.delete().unwrap().verdict, Verdict::DENY);
}

#[test]
fn a_mount_point_makes_nothing_milder() {
    let plain = Plain::new(0).scope(2).rule(1, Op::DELETE, Verdict::ALLOW, 4);
    assert_eq!(plain.delete_through(&[2, 1]), Ok(Decision::new(Verdict::DENY, Source::OUTSIDE, 0)));
    let plain = Plain::new(0).scope(4).rule(1, Op::DELETE, Verdict::KILL, 4);
    assert_eq!(plain.delete_through(&[2, 1]), Ok(Decision::new(Verdict::KILL, Source::RULE, 4)));
}

#[test]
fn a_rule_through_a_mount_point_hides_nothing_stricter() {
    // Mounted below a place with a milder rule: what the object's own place says stays.
    let plain = Plain::new(0).rule(1, Op::DELETE, Verdict::REPORT, 4);
    assert_eq!(plain.delete_through(&[2, 1]), Ok(Decision::new(Verdict::DENY, Source::OUTSIDE, 0)));
    let plain = Plain::new(0).critical(1, Op::DELETE, Verdict::HOLD, 4);
    assert_eq!(plain.delete_through(&[2, 1]).unwrap().verdict, Verdict::DENY);
    // In report mode a critical hold stays one, although the rest is only reported.
    let plain = Plain::new(Profile::REPORT_ONLY).critical(1, Op::DELETE, Verdict::HOLD, 4);
    assert_eq!(plain.delete_through(&[2, 1]).unwrap().verdict, Verdict::HOLD);
}

#[test]
fn a_rule_of_the_own_tree_is_deeper_than_any_mount() {
    let plain = Plain::new(0).rule(4, Op::DELETE, Verdict::ALLOW, 3).rule(1, Op::DELETE, Verdict::DENY, 4);
    assert_eq!(plain.delete_through(&[2, 1]), Ok(Decision::new(Verdict::ALLOW, Source::RULE, 3)));
}

#[test]
fn an_unknown_profile_is_a_fault() {
    let mut plain = Plain::new(0);
    plain.profiles.clear();
    assert_eq!(plain.delete(), Err(Fault::PROFILE));
    assert_eq!(connect(&plain, P, [0; 16], 1), Err(Fault::PROFILE));
    plain.profiles.insert(P, Profile::default());
    assert_eq!(plain.delete(), Err(Fault::PROFILE));
}

#[test]
fn an_empty_slot_is_a_fault() {
    let mut plain = Plain::new(0);
    plain.profiles.insert(P, Profile { flags: Profile::PRESENT, ..Profile::default() });
    assert_eq!(plain.delete(), Err(Fault::PROFILE));
    assert_eq!(connect(&plain, P, [0; 16], 1), Err(Fault::PROFILE));
}

#[test]
fn the_first_port_rule_decides() {
    let mut plain = Plain::new(0);
    let addr = crate::object::mapped([10, 0, 0, 1]);
    let mut net = NetEntry::default();
    net.ports[0] = PortRule { low: 443, high: 443, verdict: Verdict::ALLOW.0, pad: [0; 3], rule: 5 };
    net.ports[1] = PortRule { low: 0, high: 1023, verdict: Verdict::HOLD.0, pad: [0; 3], rule: 6 };
    plain.nets.insert(NetKey::new(P, addr), net);
    let at = |port| connect(&plain, P, addr, port).unwrap();
    assert_eq!(at(443), Decision::new(Verdict::ALLOW, Source::RULE, 5));
    assert_eq!(at(22), Decision::new(Verdict::HOLD, Source::RULE, 6));
    assert_eq!(at(5432), Decision::new(Verdict::DENY, Source::NETWORK, 0));
    assert_eq!(connect(&plain, P, [9; 16], 443), Ok(Decision::new(Verdict::DENY, Source::NETWORK, 0)));
}
