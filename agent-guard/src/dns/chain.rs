//! From a name to its records, over the names that it stands for.
//!
//! An answer may hold anything. What counts are the records of the name that was asked for, and if there are none, those of the
//! name that its CNAME leads to, and so on (RFC 1034, section 3.6.2). Everything else is somebody's who wasn't asked.

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};

/// The most CNAMEs from the name that was asked for to its records.
const MOST_LINKS: usize = 8;

/// What was found.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Found {
    /// Whether the name exists; so it may without records of the type.
    pub exists: bool,
    /// How long all of it is valid, in seconds.
    pub ttl: u32,
    /// The records' data, in the order in which they came.
    pub records: Vec<RData>,
}

/// Why a chain leads nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    /// It comes back to where it has been.
    #[error("its CNAMEs lead in a circle")]
    Circle,
    /// It has more links than are followed.
    #[error("its CNAMEs lead over more than {MOST_LINKS} names")]
    TooLong,
}

/// A chain that is being followed.
pub(super) struct Chain {
    kind: RecordType,
    /// The name whose records are wanted now.
    at: Name,
    /// Those before it.
    before: Vec<Name>,
    /// The shortest time that a link is valid.
    ttl: u32,
}

/// Where an answer has brought a chain.
pub(super) enum Step {
    /// To its end.
    End(Found),
    /// To another name, which has to be asked for.
    Ask,
}

impl Chain {
    /// One that begins at a name.
    pub(super) fn new(name: Name, kind: RecordType) -> Self {
        Self { kind, at: name, before: Vec::new(), ttl: u32::MAX }
    }

    /// The name that has to be asked for next.
    pub(super) fn name(&self) -> &Name {
        &self.at
    }

    /// Goes on with an answer to what was asked about [`Self::name`]. `theirs` says of a name whether who has answered would be
    /// asked about it, too; what they say of others doesn't count.
    pub(super) fn follow(
        &mut self,
        answer: &Message,
        theirs: impl Fn(&Name) -> bool,
    ) -> Result<Step, Broken> {
        let links = self.before.len();
        while theirs(self.name()) {
            let (records, ttl) = self.records(&answer.answers);
            if !records.is_empty() {
                return Ok(self.end(true, ttl, records));
            }
            let Some((target, ttl)) = self.target(&answer.answers) else { break };
            self.link(target, ttl)?;
        }
        // They would say the same again, unless it was to somebody else that they have led.
        let asked = self.before.len() == links;
        let exists = answer.metadata.response_code != ResponseCode::NXDomain;
        if asked || theirs(self.name()) && (!exists || authority(answer, self.name())) {
            return Ok(self.end(exists, 0, Vec::new()));
        }
        Ok(Step::Ask)
    }

    /// Goes on with what is known without asking.
    pub(super) fn end_with(&self, found: Found) -> Found {
        Found { ttl: found.ttl.min(self.ttl), ..found }
    }

    fn end(&self, exists: bool, ttl: u32, records: Vec<RData>) -> Step {
        Step::End(Found { exists, ttl: ttl.min(self.ttl), records })
    }

    /// Records of the wanted type of the name, and how long all of them are valid.
    fn records(&self, answers: &[Record]) -> (Vec<RData>, u32) {
        let its = answers.iter().filter(|record| record.name == *self.name());
        let wanted: Vec<_> = its.filter(|record| record.record_type() == self.kind).collect();
        let ttl = wanted.iter().map(|record| record.ttl).min().unwrap_or(0);
        (wanted.into_iter().map(|record| record.data.clone()).collect(), ttl)
    }

    /// What the name stands for. If CNAMEs themselves are wanted, there is nothing to follow.
    fn target(&self, answers: &[Record]) -> Option<(Name, u32)> {
        if self.kind == RecordType::CNAME {
            return None;
        }
        answers.iter().filter(|record| record.name == *self.name()).find_map(|record| match &record.data {
            RData::CNAME(target) => Some((target.0.clone(), record.ttl)),
            _ => None,
        })
    }

    fn link(&mut self, mut target: Name, ttl: u32) -> Result<(), Broken> {
        target.set_fqdn(true);
        if target == self.at || self.before.contains(&target) {
            return Err(Broken::Circle);
        }
        if self.before.len() >= MOST_LINKS {
            return Err(Broken::TooLong);
        }
        self.ttl = self.ttl.min(ttl);
        self.before.push(std::mem::replace(&mut self.at, target));
        Ok(())
    }
}

/// Whether the answer says by the name's SOA that it has no more of it (RFC 2308, section 2.2).
fn authority(answer: &Message, name: &Name) -> bool {
    answer
        .authorities
        .iter()
        .any(|record| record.record_type() == RecordType::SOA && record.name.zone_of(name))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::rdata::{A, CNAME, SOA};
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn a(owner: &str, last: u8, ttl: u32) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A(Ipv4Addr::new(10, 0, 0, last))))
    }

    fn cname(owner: &str, target: &str, ttl: u32) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    fn answer(records: Vec<Record>) -> Message {
        let mut message = Message::query().into_response();
        message.answers = records;
        message
    }

    fn follow(records: Vec<Record>) -> (Chain, Result<Step, Broken>) {
        let mut chain = Chain::new(name("a."), RecordType::A);
        let step = chain.follow(&answer(records), |_| true);
        (chain, step)
    }

    fn ends(step: &Result<Step, Broken>, ttl: u32, last: &[u8]) {
        let Ok(Step::End(found)) = step else { panic!("it doesn't end") };
        let records: Vec<_> = last.iter().map(|last| RData::A(A::new(10, 0, 0, *last))).collect();
        assert_eq!(*found, Found { exists: true, ttl, records });
    }

    #[test]
    fn only_the_chain_counts() {
        ends(&follow(vec![a("a.", 1, 60), a("A.", 2, 50), a("b.", 3, 5)]).1, 50, &[1, 2]);
        ends(
            &follow(vec![a("c.", 3, 60), cname("b.", "c.", 40), cname("a.", "b.", 50), a("x.", 9, 1)]).1,
            40,
            &[3],
        );
        ends(
            &follow(vec![cname("x.", "a.", 1), cname("a.", "b.", 50), a("b.", 1, 40), a("x.", 2, 9)]).1,
            40,
            &[1],
        );
        ends(&follow(vec![a("b.", 1, 60), cname("x.", "b.", 50)]).1, 0, &[]);
    }

    #[test]
    fn a_chain_that_the_answer_does_not_end() {
        let (mut chain, step) = follow(vec![cname("a.", "b.", 50), cname("b.", "c.", 60)]);
        assert!(matches!(step, Ok(Step::Ask)));
        assert_eq!(*chain.name(), name("c."));
        ends(&chain.follow(&answer(vec![a("c.", 1, 70), a("a.", 2, 70)]), |_| true), 50, &[1]);
        // It is known to end.
        let mut message = answer(vec![cname("a.", "b.", 50)]);
        let soa = SOA::new(name("ns."), name("x."), 1, 2, 3, 4, 5);
        message.authorities = vec![Record::from_rdata(name("b."), 60, RData::SOA(soa))];
        ends(&Chain::new(name("a."), RecordType::A).follow(&message, |_| true), 0, &[]);
        message.authorities.clear();
        message.metadata.response_code = ResponseCode::NXDomain;
        let step = Chain::new(name("a."), RecordType::A).follow(&message, |_| true);
        assert!(matches!(step, Ok(Step::End(Found { exists: false, .. }))));
    }

    #[test]
    fn others_are_asked_themselves() {
        let records = vec![cname("a.", "b.other.", 50), a("b.other.", 1, 60), cname("b.other.", "c.", 5)];
        let theirs = |asked: &Name| !name("other.").zone_of(asked);
        let mut message = answer(records);
        for code in [ResponseCode::NoError, ResponseCode::NXDomain] {
            message.metadata.response_code = code;
            let mut chain = Chain::new(name("a."), RecordType::A);
            assert!(matches!(chain.follow(&message, theirs), Ok(Step::Ask)));
            assert_eq!(*chain.name(), name("b.other."));
            ends(&chain.follow(&answer(vec![a("b.other.", 2, 60)]), |asked| !theirs(asked)), 50, &[2]);
        }
    }

    #[test]
    fn circles_and_long_ways() {
        assert_eq!(follow(vec![cname("a.", "a.", 1)]).1.err(), Some(Broken::Circle));
        assert_eq!(follow(vec![cname("a.", "b.", 1), cname("b.", "A.", 1)]).1.err(), Some(Broken::Circle));
        let way = |links: u8| {
            let link = |at: u8| cname(&format!("a{at}."), &format!("a{}.", at + 1), 9);
            let mut records: Vec<_> = (1..links).map(link).collect();
            records.push(cname("a.", "a1.", 9));
            records.push(a(&format!("a{links}."), 1, 9));
            follow(records).1
        };
        ends(&way(8), 9, &[1]);
        assert_eq!(way(9).err(), Some(Broken::TooLong));
    }

    #[test]
    fn cnames_themselves() {
        let mut chain = Chain::new(name("a."), RecordType::CNAME);
        let step = chain.follow(&answer(vec![cname("a.", "b.", 7), cname("b.", "c.", 8)]), |_| true);
        let Ok(Step::End(found)) = step else { panic!("it ends") };
        assert_eq!(found, Found { exists: true, ttl: 7, records: vec![RData::CNAME(CNAME(name("b.")))] });
    }

    proptest! {
        /// Whatever an answer holds: what is found can be reached from the name, and its time is no longer than the way's.
        #[test]
        fn nothing_but_what_is_reached(
            links in proptest::collection::vec((0_u8..12, 0_u8..12, 0_u32..100), 0..20),
            addresses in proptest::collection::vec((0_u8..12, 0_u32..100), 0..12),
        ) {
            let owner = |at: u8| if at == 0 { "a.".to_owned() } else { format!("a{at}.") };
            let mut records: Vec<_> =
                links.iter().map(|(from, to, ttl)| cname(&owner(*from), &owner(*to), *ttl)).collect();
            records.extend(addresses.iter().map(|(at, ttl)| a(&owner(*at), *at, *ttl)));
            // Followed once more, by hand: the first CNAME of a name counts.
            let (mut at, mut shortest, mut seen) = (0, u32::MAX, vec![0]);
            let expected = loop {
                let its: Vec<_> = addresses.iter().filter(|(owner, _)| *owner == at).collect();
                if !its.is_empty() {
                    let ttl = its.iter().map(|(_, ttl)| *ttl).min().unwrap().min(shortest);
                    break Some((its.len(), ttl));
                }
                let Some((_, to, ttl)) = links.iter().find(|(from, ..)| *from == at) else { break None };
                if seen.contains(to) || seen.len() > MOST_LINKS {
                    break None;
                }
                seen.push(*to);
                (at, shortest) = (*to, shortest.min(*ttl));
            };
            match follow(records).1 {
                Ok(Step::End(found)) if !found.records.is_empty() => {
                    prop_assert_eq!(expected, Some((found.records.len(), found.ttl)));
                    let its = RData::A(A::new(10, 0, 0, at));
                    prop_assert!(found.records.iter().all(|data| *data == its));
                }
                _ => prop_assert_eq!(expected, None),
            }
        }
    }
}
