//! From a query to its answer: who asks, whether they may, what there is, and what of it the kernel lets through.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, RecordType, rdata::PTR},
    serialize::binary::{BinDecodable as _, BinDecoder},
};
use tokio::time::Instant;

use super::{
    Client, Config, Failure, GRACE, LONGEST, Limit, Outcome, Rates, Ruling, Scope, Told, Transport,
    books::{Books, Place},
    chain::{Chain, Found, Step},
    hosts::{Hosts, special},
    name,
    reply::{Extended, Reply},
    upstream::Upstreams,
};

/// Addresses of a name that are handed out. More would only fill the session's table.
const MOST_ADDRESSES: usize = 64;
/// How long who asks may keep the name of an address that they have been given, in seconds.
const REVERSE_TTL: u32 = 60;

/// What answers are made from; all of it is exchanged at once.
pub(super) struct State {
    pub config: Config,
    pub upstreams: Arc<Upstreams>,
    pub hosts: Arc<Hosts>,
}

/// Answers queries.
pub(super) struct Answerer {
    scope: Arc<dyn Scope>,
    state: RwLock<Arc<State>>,
    books: Arc<Books>,
}

/// What has been decided, and what becomes known of it.
type Decided = (Reply, Outcome);

impl Answerer {
    pub(super) fn new(scope: Arc<dyn Scope>, state: State) -> Self {
        Self { scope, state: RwLock::new(Arc::new(state)), books: Arc::default() }
    }

    pub(super) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_state(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }

    pub(super) fn books(&self) -> &Books {
        &self.books
    }

    /// Whether somebody may open a connection: a place for it if it is a client's, and an error if there is none.
    pub(super) fn connection(&self, from: SocketAddr) -> Result<Option<Place>, Limit> {
        let Some(client) = self.scope.client(Transport::Tcp, from) else { return Ok(None) };
        let rates = self.state().config.rates;
        self.books.connection(client.session, rates, std::time::Instant::now()).map(Some)
    }

    /// Tells of a connection that was closed at once.
    pub(super) fn no_connection(&self, from: SocketAddr) {
        let client = self.scope.client(Transport::Tcp, from);
        let outcome = Outcome::Limited(Limit::Connections);
        self.scope.told(&Told { client, transport: Transport::Tcp, from, name: None, record: None, outcome });
    }

    /// The answer to a message; none to what isn't a query at all.
    pub(super) async fn answer(
        &self,
        bytes: &[u8],
        transport: Transport,
        from: SocketAddr,
    ) -> Option<Vec<u8>> {
        let read = read(bytes);
        if matches!(read, Read::Nothing) {
            return None;
        }
        let client = self.scope.client(transport, from);
        let (state, now) = (self.state(), std::time::Instant::now());
        let place = client.map(|client| self.books.query(client.session, state.config.rates, now));
        let (request, query) = match read {
            Read::Query(request, query) => (request, query),
            Read::Malformed(header, what) => {
                let (code, outcome) = match place {
                    None => (ResponseCode::Refused, Outcome::Stranger),
                    Some(Err(limit)) => (ResponseCode::ServFail, Outcome::Limited(limit)),
                    Some(Ok(_)) => (ResponseCode::FormErr, Outcome::Unsupported(what)),
                };
                self.scope.told(&Told { client, transport, from, name: None, record: None, outcome });
                return bare(&header, code);
            }
            Read::Nothing => return None,
        };
        let (reply, mut outcome) = match (&client, &place) {
            (Some(client), Some(Ok(_))) => self.decide(&state, client, &request, &query).await,
            (_, Some(Err(limit))) => limited(*limit),
            _ => (Reply::code(ResponseCode::Refused), Outcome::Stranger),
        };
        let bytes = match reply.encode(&request, transport) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                outcome = Outcome::Failed(Failure::Encode(error.to_string()));
                bare(&Header { metadata: request.metadata, counts: <_>::default() }, ResponseCode::ServFail)
            }
        };
        let (name, record) = (name::shown(query.name()), Some(query.query_type()));
        self.scope.told(&Told { client, transport, from, name: Some(&name), record, outcome });
        bytes
    }

    /// What a client is answered, and why.
    async fn decide(&self, state: &State, client: &Client, request: &Message, query: &Query) -> Decided {
        if let Some((code, what)) = unsupported(request, query) {
            return (Reply::code(code), Outcome::Unsupported(what));
        }
        let Some(text) = name::plain(query.name()) else { return limited(Limit::Characters) };
        let address = name::address(query.name());
        if query.query_type() == RecordType::PTR
            && let Some(known) = address.and_then(|address| self.reverse(client, query.name(), address))
        {
            return known;
        }
        match self.scope.judge(client, &text) {
            Ruling::Refuse => return refused(),
            Ruling::Allow => {}
            Ruling::Below { base, limits, names } => {
                // An address can't spell anything else, however many labels it has.
                let exceeded = if address.is_some() { None } else { limits.exceeded(&text, base) };
                if let Some(limit) = exceeded {
                    return limited(limit);
                }
                let now = std::time::Instant::now();
                let usual = state.config.rates;
                let rates = Rates { names: names.unwrap_or(usual.names), ..usual };
                if let Err(limit) = self.books.name(client.session, &text, rates, now) {
                    return limited(limit);
                }
            }
        }
        self.look_up(state, client, query, &text).await
    }

    /// The name of an address that the session has been given, without asking anybody.
    fn reverse(&self, client: &Client, name: &Name, address: IpAddr) -> Option<Decided> {
        let known = self.scope.reverse(client, address)?;
        let mut target = Name::from_ascii(&known)
            .inspect_err(|error| tracing::warn!(%error, known, "the name of an address is none"))
            .ok()?;
        target.set_fqdn(true);
        Some((Reply::records(name, REVERSE_TTL, [RData::PTR(PTR(target))]), Outcome::HandedOn(1)))
    }

    /// What there is of a name that may be asked for.
    async fn look_up(&self, state: &State, client: &Client, query: &Query, text: &str) -> Decided {
        let (name, kind) = (query.name(), query.query_type());
        let addresses = matches!(kind, RecordType::A | RecordType::AAAA);
        if !addresses && !handed_on(kind) {
            // HTTPS and SVCB have addresses and keys that nobody has admitted; of others nobody knows what they have.
            return (Reply::empty(), Outcome::Nothing { exists: true });
        }
        let deadline = Instant::now() + state.config.timeout;
        let found = match state.find(name, kind, deadline).await {
            Ok(found) => found,
            Err(failure) => return failed(failure),
        };
        if found.records.is_empty() {
            let code = if found.exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
            return (Reply::code(code), Outcome::Nothing { exists: found.exists });
        }
        let longest = u32::try_from(LONGEST.as_secs()).unwrap_or(u32::MAX);
        let found = Found { ttl: found.ttl.min(longest), ..found };
        if addresses {
            return self.admit(client, name, text, &found);
        }
        let outcome = Outcome::HandedOn(found.records.len());
        (Reply::records(name, found.ttl, found.records), outcome)
    }

    /// Has addresses put into the session's table, and hands out what may be.
    fn admit(&self, client: &Client, name: &Name, text: &str, found: &Found) -> Decided {
        let (mut asked, mut withheld) = (Vec::new(), Vec::new());
        for address in found.records.iter().filter_map(RData::ip_addr) {
            // An address of the other family in disguise, or one that the kernel takes for loopback: no honest name has it.
            let disguised = address.to_canonical() != address || address.is_unspecified();
            let list = if disguised { &mut withheld } else { &mut asked };
            if !list.contains(&address) && list.len() < MOST_ADDRESSES {
                list.push(address);
            }
        }
        let usable = Duration::from_secs(found.ttl.into()) + GRACE;
        let wanted: Vec<_> = asked.iter().map(|address| (*address, usable)).collect();
        let admitted =
            if wanted.is_empty() { Ok(Vec::new()) } else { self.scope.admit(client, text, &wanted) };
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(error) => return failed(error.into()),
        };
        let (addresses, rebinding): (Vec<_>, Vec<_>) =
            asked.into_iter().partition(|address| admitted.contains(address));
        withheld.extend(rebinding);
        if addresses.is_empty() {
            let reply = Reply::extended(ResponseCode::NoError, Extended::Blocked, "addresses not allowed");
            return (reply, Outcome::Rebinding(withheld));
        }
        let reply = Reply::records(name, found.ttl, addresses.iter().copied().map(RData::from));
        (reply, Outcome::Answered { addresses, withheld })
    }
}

impl State {
    /// Follows a name to its records.
    async fn find(&self, name: &Name, kind: RecordType, deadline: Instant) -> Result<Found, Failure> {
        if let Some(found) = self.hosts.lookup(name, kind) {
            return Ok(found);
        }
        let mut chain = Chain::new(name.clone(), kind);
        loop {
            let at = chain.name().clone();
            if let Some(found) = special(&at, kind) {
                return Ok(chain.end_with(found));
            }
            let answer = self.upstreams.ask(&at, kind, deadline).await?;
            match chain.follow(&answer, |name| self.upstreams.same(&at, name))? {
                Step::End(found) => return Ok(found),
                Step::Ask => {}
            }
        }
    }
}

/// What a message is.
enum Read {
    /// A message with one question.
    Query(Message, Query),
    /// It has a header, but isn't what it should be: what is wrong.
    Malformed(Header, &'static str),
    /// No query.
    Nothing,
}

fn read(bytes: &[u8]) -> Read {
    let Ok(header) = Header::read(&mut BinDecoder::new(bytes)) else { return Read::Nothing };
    // Answering an answer could go on forever.
    if header.metadata.message_type == MessageType::Response {
        return Read::Nothing;
    }
    // RFC 9619, section 4. Room for as many as the header says would be made before one of them is read.
    if header.counts.queries != 1 {
        return Read::Malformed(header, "not exactly one question");
    }
    let Ok(message) = Message::from_vec(bytes) else { return Read::Malformed(header, "malformed") };
    match message.queries.first().cloned() {
        Some(query) => Read::Query(message, query),
        None => Read::Malformed(header, "not exactly one question"),
    }
}

/// A header and nothing else, for what can't be answered better.
fn bare(header: &Header, code: ResponseCode) -> Option<Vec<u8>> {
    let mut message = Message::error_msg(header.metadata.id, header.metadata.op_code, code);
    message.metadata.recursion_desired = header.metadata.recursion_desired;
    message.to_vec().inspect_err(|error| tracing::error!(%error, "a header can't be written")).ok()
}

/// Why nobody is answered such a question.
fn unsupported(request: &Message, query: &Query) -> Option<(ResponseCode, &'static str)> {
    if request.metadata.op_code != OpCode::Query {
        return Some((ResponseCode::NotImp, "an opcode other than QUERY"));
    }
    // RFC 6891, section 6.1.3.
    if request.edns.as_ref().is_some_and(|edns: &Edns| edns.version() > 0) {
        return Some((ResponseCode::BADVERS, "a later version of EDNS"));
    }
    if query.query_class() != DNSClass::IN {
        return Some((ResponseCode::Refused, "a class other than IN"));
    }
    match query.query_type() {
        // RFC 8482 leaves it to the server; that there is nothing else would be a lie.
        RecordType::ANY => Some((ResponseCode::NotImp, "ANY")),
        // RFC 5936, section 2.2.1: of no zone is this an authority.
        RecordType::AXFR | RecordType::IXFR => Some((ResponseCode::Refused, "a transfer of a zone")),
        _ => None,
    }
}

/// Types whose records are handed out as they are: no program takes an address from them and connects to it.
fn handed_on(kind: RecordType) -> bool {
    matches!(
        kind,
        RecordType::CAA
            | RecordType::CNAME
            | RecordType::MX
            | RecordType::NAPTR
            | RecordType::NS
            | RecordType::PTR
            | RecordType::SOA
            | RecordType::SRV
            | RecordType::TXT
    )
}

/// The name doesn't exist, for this client. REFUSED would be the truth, but the C library takes it for a server that is out of
/// order: it goes on to the next one, and in the end speaks of a temporary failure (EAI_AGAIN), upon which programs try again.
/// That a name doesn't exist is said at once, and final (EAI_NONAME).
fn refused() -> Decided {
    (
        Reply::extended(ResponseCode::NXDomain, Extended::Blocked, "not allowed by the session's policy"),
        Outcome::Refused,
    )
}

/// A name that carries too much is refused like one that isn't allowed. What was only too much at this time may be tried again.
fn limited(limit: Limit) -> Decided {
    let reply = if limit.passes() {
        Reply::extended(ResponseCode::ServFail, Extended::Prohibited, limit.as_str())
    } else {
        Reply::extended(ResponseCode::NXDomain, Extended::Blocked, limit.as_str())
    };
    (reply, Outcome::Limited(limit))
}

fn failed(failure: Failure) -> Decided {
    let (extended, text) = match &failure {
        Failure::Silent(_) => (Extended::NoReachableAuthority, "no name server answers"),
        Failure::Network { .. } => (Extended::NetworkError, "a name server can't be talked to"),
        Failure::Code { .. } => (Extended::NoReachableAuthority, "the name server can't answer"),
        Failure::Chain(_) => (Extended::Other, "CNAMEs lead nowhere"),
        Failure::Admit(_) => (Extended::Other, "addresses can't be let through"),
        Failure::Encode(_) => (Extended::Other, "the answer can't be written"),
    };
    (Reply::extended(ResponseCode::ServFail, extended, text), Outcome::Failed(failure))
}
