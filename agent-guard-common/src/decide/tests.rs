use std::collections::HashMap;

use super::*;
use crate::{
    names::Shapes,
    net::{Endpoint, NamedKey, NetKey, Protocol},
    object::{AbstractKey, NameKey, ObjectKey},
    rules::{AbstractEntry, CommandState, Named, NetEntry, OpRules, Side},
};

#[derive(Default)]
struct Plain {
    places: HashMap<u32, Place>,
    sides: HashMap<SideKey, Side>,
    profiles: HashMap<u32, Profile>,
    nets: HashMap<NetKey, NetEntry>,
    named: HashMap<NamedKey, Named>,
    /// By bits, and what says whether the name is a whole one: of one name only.
    abstracts: HashMap<(u32, u8), AbstractEntry>,
    commands: HashMap<u32, CommandState>,
}

impl Tables for Plain {
    fn may_have(&self, _bit: u32) -> bool {
        true
    }
    fn object(&self, _key: &ObjectKey) -> Option<u32> {
        None
    }
    fn name(&self, _key: &NameKey) -> Option<u32> {
        None
    }
    fn shapes(&self, _name: u64) -> Option<&Shapes> {
        None
    }
    fn place(&self, number: u32) -> Option<&Place> {
        self.places.get(&number)
    }
    fn side(&self, key: &SideKey) -> Option<&Side> {
        self.sides.get(key)
    }
    fn profile(&self, index: u32) -> Option<&Profile> {
        self.profiles.get(&index)
    }
    fn command(&self, number: u32) -> Option<&CommandState> {
        self.commands.get(&number)
    }
    fn program(&self, _key: &ObjectKey) -> u8 {
        0
    }
    fn network(&self, key: &NetKey) -> Option<&NetEntry> {
        self.nets.get(key)
    }
    fn named(&self, key: &NamedKey) -> Option<&Named> {
        self.named.get(key)
    }
    fn abstract_name(&self, key: &AbstractKey) -> Option<&AbstractEntry> {
        self.abstracts.get(&(key.bits, key.name.whole))
    }
}

mod single;

const P: u32 = 3;
/// The binding of a session.
const S: u32 = 9;

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
            judged: u64::MAX,
            anonymous: Verdict::DENY.0,
            listen: Verdict::DENY.0,
            pad: 0,
            commands: 0,
            pad2: 0,
            capabilities: 1 << 21,
            outside: [Verdict::DENY.0; Op::COUNT],
            system: [Verdict::DENY.0; Op::SYSTEM_COUNT],
        };
        plain.profiles.insert(P, profile);
        for number in 1..=5 {
            plain.places.insert(number, Place::default());
        }
        plain
    }

    fn place_mut(&mut self, number: u32) -> &mut Place {
        self.places.entry(number).or_default()
    }

    fn critical(mut self, place: u32, op: Op, verdict: Verdict, rule: u32) -> Self {
        self.place_mut(place).critical = rules(op, verdict, rule);
        self
    }

    fn side_mut(&mut self, place: u32) -> &mut Side {
        self.place_mut(place).profiles |= 1 << P;
        self.sides.entry(SideKey { place, side: P }).or_default()
    }

    fn rule(mut self, place: u32, op: Op, verdict: Verdict, rule: u32) -> Self {
        self.side_mut(place).rules = rules(op, verdict, rule);
        self
    }

    fn scope(mut self, place: u32) -> Self {
        self.side_mut(place).scope = 1;
        self
    }

    fn session(mut self, place: u32, side: Side) -> Self {
        self.place_mut(place).flags |= Place::SESSIONS;
        self.sides.insert(SideKey { place, side: SideKey::session(S) }, side);
        self
    }

    fn below(mut self, place: u32, below: u32) -> Self {
        self.place_mut(place).below = below;
        self
    }

    /// Walks places 5, 4, 3, 2, 1 and answers for a delete.
    fn delete(&self) -> Result<Decision, Fault> {
        self.delete_through(&[])
    }

    /// The same where some levels are beyond a mount point.
    fn delete_through(&self, mounts: &[u32]) -> Result<Decision, Fault> {
        self.delete_of(S, &[5, 4, 3, 2, 1].map(|place| (vec![place], mounts.contains(&place))))
    }

    /// A walk over levels with these places; true for those beyond a mount point.
    fn delete_of(&self, binding: u32, levels: &[(Vec<u32>, bool)]) -> Result<Decision, Fault> {
        let mut walk = Walk::new(P, binding, Op::DELETE);
        let mut left = false;
        for (places, mount) in levels {
            if *mount && !left {
                walk.leave_file_system();
                left = true;
            }
            let chain = if *mount { Chain::Mount } else { Chain::Tree };
            for place in places {
                walk.meet(self, *place, chain);
            }
            walk.up(chain);
        }
        walk.finish(self)
    }
}

fn deny(rule: u32) -> Result<Decision, Fault> {
    Ok(Decision::new(Verdict::DENY, Source::RULE, rule))
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
    let mut walk = Walk::new(P, 0, Op::WRITE);
    for place in [5, 4, 3, 2, 1] {
        walk.meet(&plain, place, Chain::Tree);
        walk.up(Chain::Tree);
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

/// Objects and names at one level: the strictest counts, of equals the first rule, in whatever order they are found.
#[test]
fn a_level_is_as_strict_as_the_strictest() {
    let plain = Plain::new(0)
        .rule(2, Op::DELETE, Verdict::ALLOW, 1)
        .rule(3, Op::DELETE, Verdict::DENY, 7)
        .rule(4, Op::DELETE, Verdict::DENY, 5)
        .rule(5, Op::DELETE, Verdict::KILL, 9);
    for places in [vec![2, 3, 4], vec![4, 3, 2], vec![3, 4, 2]] {
        assert_eq!(plain.delete_of(0, &[(vec![], false), (places, false), (vec![5], false)]), deny(5));
    }
}

#[test]
fn a_session_has_sides_of_its_own() {
    let side = |rules, scope| Side { rules, scope, pad: 0 };
    let plain = Plain::new(0)
        .session(4, side(OpRules::default(), 1))
        .session(2, side(rules(Op::DELETE, Verdict::DENY, 3), 0))
        .rule(2, Op::DELETE, Verdict::HOLD, 2);
    let levels = |places: &[u32]| places.iter().map(|&place| (vec![place], false)).collect::<Vec<_>>();
    assert_eq!(plain.delete_of(S, &levels(&[5, 4])), Ok(Decision::new(Verdict::ALLOW, Source::SCOPE, 0)));
    assert_eq!(plain.delete_of(S + 1, &levels(&[5, 4])).unwrap().source, Source::OUTSIDE);
    assert_eq!(plain.delete_of(S, &levels(&[5, 2])), deny(3));
    assert_eq!(plain.delete_of(S + 1, &levels(&[5, 2])), Ok(Decision::new(Verdict::HOLD, Source::RULE, 2)));
}

#[test]
fn everything_in_a_directory() {
    let plain = Plain::new(0).rule(9, Op::DELETE, Verdict::KILL, 4).below(3, 9);
    // The directory itself isn't in it.
    let levels = |places: &[u32]| places.iter().map(|&place| (vec![place], false)).collect::<Vec<_>>();
    assert_eq!(plain.delete_of(0, &levels(&[3, 2, 1])).unwrap().source, Source::OUTSIDE);
    for places in [&[4, 3, 2][..], &[5, 4, 3, 2], &[4, 3]] {
        assert_eq!(plain.delete_of(0, &levels(places)), Ok(Decision::new(Verdict::KILL, Source::RULE, 4)));
    }
    // It is one level with what is said of the thing itself, and deeper than what is said of the directory.
    let plain = plain.rule(4, Op::DELETE, Verdict::DENY, 2).rule(3, Op::DELETE, Verdict::DENY, 1);
    assert_eq!(plain.delete_of(0, &levels(&[4, 3])).unwrap().rule, 4);
    let plain = plain.rule(9, Op::DELETE, Verdict::REPORT, 4);
    assert_eq!(plain.delete_of(0, &levels(&[4, 3])), deny(2));
    assert_eq!(plain.delete_of(0, &levels(&[5, 3])).unwrap().rule, 4);
    let plain = Plain::new(0).below(3, 9);
    assert_eq!(plain.delete_of(0, &levels(&[4, 3])), Err(Fault::GENERATION));
    let plain = Plain::new(0).scope(9).below(3, 9);
    assert_eq!(plain.delete_of(0, &levels(&[4, 3])).unwrap().source, Source::SCOPE);
    assert_eq!(plain.delete_of(0, &levels(&[3])).unwrap().source, Source::OUTSIDE);
}

/// The root of a file system and the directory it is mounted on are one level.
#[test]
fn everything_in_a_mount_point() {
    let plain = Plain::new(0).rule(9, Op::DELETE, Verdict::KILL, 4).below(2, 9);
    // The object is the root itself.
    assert_eq!(plain.delete_of(0, &[(vec![2], true)]).unwrap().source, Source::OUTSIDE);
    // An object in the root.
    let walk = |plain: &Plain, at_root: &[u32]| {
        let mut walk = Walk::new(P, 0, Op::DELETE);
        walk.up(Chain::Tree);
        for place in at_root {
            walk.meet(plain, *place, Chain::Tree);
        }
        walk.leave_file_system();
        walk.meet(plain, 2, Chain::Mount);
        walk.up(Chain::Mount);
        walk.finish(plain)
    };
    assert_eq!(walk(&plain, &[]).unwrap().rule, 4);
    let plain = plain.rule(3, Op::DELETE, Verdict::REPORT, 1);
    assert_eq!(walk(&plain, &[3]), Ok(Decision::new(Verdict::REPORT, Source::RULE, 1)));
}

/// A chain of names that climbs over a mount point is found at a level of the tree, and counts as found beyond.
#[test]
fn a_chain_over_a_mount_point_makes_nothing_milder() {
    let over = |plain: &Plain| {
        let mut walk = Walk::new(P, 0, Op::DELETE);
        walk.meet(plain, 5, Chain::Mount);
        walk.up(Chain::Tree);
        walk.meet(plain, 4, Chain::Tree);
        walk.leave_file_system();
        walk.meet(plain, 3, Chain::Mount);
        walk.up(Chain::Mount);
        walk.finish(plain)
    };
    let plain = Plain::new(0).rule(5, Op::DELETE, Verdict::ALLOW, 1).scope(5);
    assert_eq!(over(&plain).unwrap().source, Source::OUTSIDE);
    let plain = Plain::new(0).rule(5, Op::DELETE, Verdict::KILL, 1);
    assert_eq!(over(&plain), Ok(Decision::new(Verdict::KILL, Source::RULE, 1)));
    // The deepest of what is found beyond counts.
    let plain = Plain::new(0).rule(5, Op::DELETE, Verdict::ALLOW, 1).rule(3, Op::DELETE, Verdict::KILL, 2);
    assert_eq!(over(&plain).unwrap().source, Source::OUTSIDE);
    // What the own tree says stays.
    let plain = plain.rule(4, Op::DELETE, Verdict::REPORT, 3);
    assert_eq!(over(&plain), Ok(Decision::new(Verdict::REPORT, Source::RULE, 3)));
}

#[test]
fn what_the_own_tree_says() {
    let plain = Plain::new(0)
        .critical(5, Op::DELETE, Verdict::HOLD, 1)
        .rule(4, Op::DELETE, Verdict::ALLOW, 2)
        .scope(4)
        .rule(1, Op::DELETE, Verdict::KILL, 3);
    let mut walk = Walk::new(P, 0, Op::DELETE);
    for place in [5, 4, 1] {
        walk.meet(&plain, place, Chain::Tree);
        walk.up(Chain::Tree);
    }
    let (critical, rule, scope) = walk.own();
    assert_eq!((critical.rule(), rule.rule(), scope), (1, 2, true));
    let (critical, rule, scope) = Walk::new(P, 0, Op::DELETE).own();
    assert_eq!((critical.is_some(), rule.is_some(), scope), (false, false, false));
}

#[test]
fn a_place_that_is_not_there_is_a_fault() {
    assert_eq!(Plain::new(0).delete_of(0, &[(vec![77], false)]), Err(Fault::GENERATION));
    assert_eq!(Plain::new(0).delete_of(0, &[(vec![77], true)]), Err(Fault::GENERATION));
}

#[test]
fn an_unknown_profile_is_a_fault() {
    let mut plain = Plain::new(0);
    plain.profiles.clear();
    assert_eq!(plain.delete(), Err(Fault::PROFILE));
    let to = Endpoint { addr: [0; 16], port: 1, protocol: Protocol::TCP };
    assert_eq!(connect(&plain, P, 1, &to, 0), Err(Fault::PROFILE));
    assert_eq!(listen(&plain, P, &to), Err(Fault::PROFILE));
    plain.profiles.insert(P, Profile::default());
    assert_eq!(plain.delete(), Err(Fault::PROFILE));
}

#[test]
fn an_empty_slot_is_a_fault() {
    let mut plain = Plain::new(0);
    plain.profiles.insert(P, Profile { flags: Profile::PRESENT, ..Profile::default() });
    assert_eq!(plain.delete(), Err(Fault::PROFILE));
    let to = Endpoint { addr: [0; 16], port: 1, protocol: Protocol::TCP };
    assert_eq!(connect(&plain, P, 1, &to, 0), Err(Fault::PROFILE));
    assert_eq!(listen(&plain, P, &to), Err(Fault::PROFILE));
}

/// Whoever listens at a socket is somebody, also where a session may change all files.
#[test]
fn scopes_are_not_about_sockets() {
    let plain = Plain::new(0).scope(1);
    let connect = |plain: &Plain| {
        let mut walk = Walk::new(P, S, Op::CONNECT);
        walk.meet(plain, 1, Chain::Tree);
        walk.finish(plain).unwrap()
    };
    assert_eq!(connect(&plain), Decision::new(Verdict::DENY, Source::NETWORK, 0));
    assert_eq!(connect(&plain.rule(1, Op::CONNECT, Verdict::ALLOW, 4)).source, Source::RULE);
}
