//! Answers, as they leave.

use hickory_proto::{
    ProtoError,
    op::{Edns, Message, Metadata, ResponseCode},
    rr::{Name, RData, Record, rdata::opt::EdnsOption},
};

use super::Transport;

/// What a datagram has room for if the client doesn't say (RFC 1035, section 4.2.1).
const PLAIN_SIZE: u16 = 512;
/// The largest datagram that is sent. Loopback would take more, a session's network needn't.
const LARGEST: u16 = 4096;
/// What this resolver would take in a datagram; no larger than goes over any link in one piece (RFC 9715, section 3.2).
const OUR_SIZE: u16 = 1232;
/// The option that says more about an error (RFC 8914, section 2).
pub(super) const EXTENDED_ERROR: u16 = 15;

/// Codes of RFC 8914, section 4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(super) enum Extended {
    /// None of the others.
    Other = 0,
    /// The operator of the server doesn't allow the name.
    Blocked = 15,
    /// Who asks may not.
    Prohibited = 18,
    /// No server answers.
    NoReachableAuthority = 22,
    /// A server can't be talked to.
    NetworkError = 23,
}

/// What a query is answered with.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Reply {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub extended: Option<(Extended, &'static str)>,
}

impl Reply {
    /// No records, and no error.
    pub(super) fn empty() -> Self {
        Self::code(ResponseCode::NoError)
    }

    /// Just a code.
    pub(super) fn code(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), extended: None }
    }

    /// A code, and more about it for clients that read that.
    pub(super) fn extended(code: ResponseCode, extended: Extended, text: &'static str) -> Self {
        Self { extended: Some((extended, text)), ..Self::code(code) }
    }

    /// Records of a name.
    pub(super) fn records(name: &Name, ttl: u32, records: impl IntoIterator<Item = RData>) -> Self {
        let record = |data| Record::from_rdata(name.clone(), ttl, data);
        Self { answers: records.into_iter().map(record).collect(), ..Self::empty() }
    }

    /// The message to send. If it is too long for a datagram, nothing is left of its records, and the client is told to ask
    /// over a connection (RFC 2181, section 9).
    pub(super) fn encode(self, request: &Message, transport: Transport) -> Result<Vec<u8>, ProtoError> {
        let mut message =
            Message::new(request.metadata.id, request.metadata.message_type, request.metadata.op_code);
        message.metadata = Metadata::response_from_request(&request.metadata);
        message.metadata.recursion_available = true;
        message.metadata.response_code = self.code;
        message.queries.clone_from(&request.queries);
        message.answers = self.answers;
        message.edns = request.edns.as_ref().map(|_| edns(self.extended));
        let bytes = message.to_vec()?;
        let room = match (transport, &request.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => PLAIN_SIZE.into(),
            (Transport::Udp, Some(edns)) => edns.max_payload().clamp(PLAIN_SIZE, LARGEST).into(),
        };
        if bytes.len() <= room {
            return Ok(bytes);
        }
        message.answers.clear();
        message.metadata.truncation = true;
        message.to_vec()
    }
}

fn edns(extended: Option<(Extended, &'static str)>) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(OUR_SIZE);
    if let Some((code, text)) = extended {
        let mut data = (code as u16).to_be_bytes().to_vec();
        data.extend_from_slice(text.as_bytes());
        edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, data));
    }
    edns
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::Query,
        rr::{RecordType, rdata::A},
    };
    use proptest::prelude::*;

    use super::*;

    fn request(size: Option<u16>) -> Message {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii("www.example.com.").unwrap(), RecordType::A));
        message.metadata.recursion_desired = true;
        message.edns = size.map(|size| {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            edns
        });
        message
    }

    fn records(count: u8) -> Reply {
        let name = Name::from_ascii("www.example.com.").unwrap();
        Reply::records(&name, 60, (0..count).map(|last| RData::A(A::new(10, 0, 0, last))))
    }

    #[test]
    fn more_about_an_error_only_for_who_reads_it() {
        let reply = || Reply::extended(ResponseCode::NXDomain, Extended::Blocked, "no");
        for size in [None, Some(1232)] {
            let request = request(size);
            let bytes = reply().encode(&request, Transport::Udp).unwrap();
            let answer = Message::from_vec(&bytes).unwrap();
            assert_eq!(answer.metadata.id, request.metadata.id);
            assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
            assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
            assert!(!answer.metadata.authentic_data && !answer.metadata.truncation);
            assert_eq!(answer.queries, request.queries);
            assert_eq!(answer.edns.is_some(), size.is_some());
            // OPT's option 15, 4 bytes: 15 and the text.
            let option = [0, 15, 0, 4, 0, 15, b'n', b'o'];
            assert_eq!(bytes.ends_with(&option), size.is_some());
        }
    }

    proptest! {
        #[test]
        fn datagrams_fit(count: u8, size in proptest::option::of(0_u16..6000)) {
            let request = request(size);
            let bytes = records(count).encode(&request, Transport::Udp).unwrap();
            let room = size.map_or(512, |size| size.clamp(512, 4096));
            prop_assert!(bytes.len() <= usize::from(room));
            let answer = Message::from_vec(&bytes).unwrap();
            prop_assert_eq!(answer.metadata.truncation, answer.answers.len() != usize::from(count));
            prop_assert!(!answer.metadata.truncation || answer.answers.is_empty());
            let whole = records(count).encode(&request, Transport::Tcp).unwrap();
            prop_assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), usize::from(count));
        }
    }
}
