//! A name server that says what it is told to, a guard that keeps all in memory, and a client.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, Metadata, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{
            A, AAAA, CNAME, MX, NS, PTR, SOA, TXT,
            opt::{EdnsCode, EdnsOption},
        },
    },
};
use hickory_server::{
    Server,
    net::{runtime::Time, xfer::Protocol},
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    time::timeout,
};

use crate::dns::{
    AdmitError, Client, Config, NameLimits, Outcome, Resolver, Ruling, Scope, Told, Transport, Zone,
};

/// After which a test fails instead of waiting on.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A record: name, TTL, type and data, as in a zone file.
pub(super) fn record(line: &str) -> Record {
    let words: Vec<_> = line.split(' ').collect();
    let [owner, ttl, kind, data] = words[..] else { panic!("{line:?} has other than four words") };
    let data = match kind {
        "A" => RData::A(A(data.parse().unwrap())),
        "AAAA" => RData::AAAA(AAAA(data.parse().unwrap())),
        "CNAME" => RData::CNAME(CNAME(name(data))),
        "MX" => RData::MX(MX::new(10, name(data))),
        "NS" => RData::NS(NS(name(data))),
        "PTR" => RData::PTR(PTR(name(data))),
        "SOA" => RData::SOA(SOA::new(name(data), name(data), 1, 60, 60, 60, 60)),
        "TXT" => RData::TXT(TXT::new(vec![data.to_owned()])),
        _ => panic!("a record of type {kind}"),
    };
    Record::from_rdata(name(owner), ttl.parse().unwrap(), data)
}

/// What the name server says.
#[derive(Clone)]
pub(super) enum Says {
    Records(Vec<Record>),
    Code(ResponseCode),
    Nothing,
}

#[derive(Default)]
struct Script {
    says: BTreeMap<(Name, RecordType), Says>,
    asked: Vec<(Name, RecordType, Protocol)>,
    wait: Duration,
}

/// A name server on loopback, which is gone with this.
pub(super) struct Upstream {
    pub address: SocketAddr,
    script: Arc<Mutex<Script>>,
    _server: Server<Handler>,
}

struct Handler(Arc<Mutex<Script>>);

impl Upstream {
    pub(super) async fn start() -> Self {
        let script = Arc::<Mutex<Script>>::default();
        let mut server = Server::new(Handler(Arc::clone(&script)));
        let (socket, listener) = loop {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()).await {
                break (socket, listener);
            }
        };
        let address = socket.local_addr().unwrap();
        server.register_socket(socket);
        server.register_listener(listener, PATIENCE, 16);
        Self { address, script, _server: server }
    }

    pub(super) fn says(&self, owner: &str, kind: RecordType, says: Says) -> &Self {
        self.script.lock().unwrap().says.insert((name(owner), kind), says);
        self
    }

    /// All these records, in this order, in answer to a question.
    pub(super) fn answers(&self, owner: &str, kind: RecordType, records: &[&str]) -> &Self {
        self.says(owner, kind, Says::Records(records.iter().map(|line| record(line)).collect()))
    }

    pub(super) fn waits(&self, time: Duration) {
        self.script.lock().unwrap().wait = time;
    }

    /// How often it was asked about a name.
    pub(super) fn asked(&self, owner: &str) -> usize {
        self.asked_over(owner).len()
    }

    pub(super) fn asked_over(&self, owner: &str) -> Vec<Protocol> {
        let script = self.script.lock().unwrap();
        let its = script.asked.iter().filter(|(asked, ..)| *asked == name(owner));
        its.map(|(.., protocol)| *protocol).collect()
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut to: R,
    ) -> ResponseInfo {
        let info = request.request_info().unwrap();
        let (asked, kind) = (Name::from(info.query.name()), info.query.query_type());
        let (says, wait) = {
            let mut script = self.0.lock().unwrap();
            script.asked.push((asked.clone(), kind, request.protocol()));
            (script.says.get(&(asked, kind)).cloned(), script.wait)
        };
        tokio::time::sleep(wait).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let (mut records, mut soa) = (Vec::new(), Vec::new());
        match says {
            Some(Says::Records(all)) => {
                (soa, records) = all.into_iter().partition(|record| record.record_type() == RecordType::SOA);
                if kind == RecordType::SOA {
                    std::mem::swap(&mut soa, &mut records);
                }
            }
            Some(Says::Code(code)) => metadata.response_code = code,
            Some(Says::Nothing) => std::future::pending().await,
            None => {
                metadata.response_code = ResponseCode::NXDomain;
                soa.push(record(". 60 SOA ns."));
            }
        }
        let edns = request.edns.clone();
        let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        to.send_response(builder.build(metadata, &records, [], &soa, [])).await.unwrap()
    }
}

/// Who has asked, for which name, and with what result.
pub(super) type Heard = (Option<Client>, Option<String>, Outcome);

/// A guard without a kernel.
#[derive(Default)]
pub(super) struct World {
    clients: Mutex<HashMap<(Transport, SocketAddr), Client>>,
    names: Mutex<HashSet<String>>,
    below: Mutex<Vec<String>>,
    private: Mutex<HashSet<IpAddr>>,
    pub table: Mutex<BTreeMap<(u64, String), BTreeMap<IpAddr, Duration>>>,
    pub full: AtomicBool,
    pub told: Mutex<Vec<Heard>>,
}

impl World {
    pub(super) fn new(names: &[&str]) -> Arc<Self> {
        let world = Self::default();
        for name in names {
            world.allow(name);
        }
        Arc::new(world)
    }

    pub(super) fn allow(&self, name: &str) {
        match name.strip_prefix("*.") {
            Some(base) => self.below.lock().unwrap().push(base.to_owned()),
            None => drop(self.names.lock().unwrap().insert(name.to_owned())),
        }
    }

    pub(super) fn allow_private(&self, address: &str) {
        self.private.lock().unwrap().insert(ip(address));
    }

    pub(super) fn last(&self) -> Outcome {
        self.told.lock().unwrap().last().expect("something was told").2.clone()
    }

    pub(super) fn usable(&self, session: u64, name: &str) -> BTreeMap<IpAddr, Duration> {
        self.table.lock().unwrap().get(&(session, name.to_owned())).cloned().unwrap_or_default()
    }
}

impl Scope for World {
    fn client(&self, transport: Transport, from: SocketAddr) -> Option<Client> {
        self.clients.lock().unwrap().get(&(transport, from)).copied()
    }

    fn judge(&self, _client: &Client, name: &str) -> Ruling {
        if self.names.lock().unwrap().contains(name) {
            return Ruling::Allow;
        }
        let below = self.below.lock().unwrap();
        match below.iter().find(|base| name.ends_with(&format!(".{base}"))) {
            Some(base) => {
                Ruling::Below { base: base.split('.').count(), limits: NameLimits::default(), names: None }
            }
            None => Ruling::Refuse,
        }
    }

    fn admit(
        &self,
        client: &Client,
        name: &str,
        addresses: &[(IpAddr, Duration)],
    ) -> Result<Vec<IpAddr>, AdmitError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(AdmitError("the table is full".to_owned()));
        }
        let private = self.private.lock().unwrap();
        let public = |address: IpAddr| match address {
            IpAddr::V4(address) => !address.is_private() && !address.is_loopback(),
            IpAddr::V6(address) => !address.is_unique_local() && !address.is_loopback(),
        };
        let mut table = self.table.lock().unwrap();
        let its = table.entry((client.session, name.to_owned())).or_default();
        let may = addresses.iter().filter(|(address, _)| public(*address) || private.contains(address));
        let mut admitted = Vec::new();
        for (address, time) in may {
            its.insert(*address, *time);
            admitted.push(*address);
        }
        Ok(admitted)
    }

    fn reverse(&self, client: &Client, address: IpAddr) -> Option<String> {
        let table = self.table.lock().unwrap();
        let mut its = table.iter().filter(|((session, _), _)| *session == client.session);
        its.find(|(_, addresses)| addresses.contains_key(&address)).map(|((_, name), _)| name.clone())
    }

    fn told(&self, told: &Told<'_>) {
        let told = (told.client, told.name.map(ToOwned::to_owned), told.outcome.clone());
        self.told.lock().unwrap().push(told);
    }
}

/// A configuration that knows nothing of the host.
pub(super) fn config(upstreams: &[&Upstream]) -> Config {
    Config {
        upstreams: upstreams.iter().map(|upstream| upstream.address).collect(),
        resolv_conf: "/nonexistent/resolv.conf".into(),
        hosts: "/nonexistent/hosts".into(),
        ..Config::default()
    }
}

pub(super) fn zone(name: &str, upstream: &Upstream) -> Zone {
    Zone { name: name.to_owned(), upstreams: vec![upstream.address] }
}

/// A resolver, and somebody of session 7 who asks it.
pub(super) struct Setting {
    pub resolver: Resolver,
    pub world: Arc<World>,
    pub socket: UdpSocket,
}

/// What a client gets: code, addresses, and the shortest TTL.
pub(super) type Got = (ResponseCode, Vec<IpAddr>, Option<u32>);

pub(super) fn got(answer: &Message) -> Got {
    let addresses = answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    (answer.metadata.response_code, addresses, answer.answers.iter().map(|record| record.ttl).min())
}

/// Code of the extended error (RFC 8914) of an answer.
pub(super) fn extended(answer: &Message) -> Option<u16> {
    match answer.edns.as_ref()?.option(EdnsCode::from(15))? {
        EdnsOption::Unknown(15, data) => Some(u16::from_be_bytes(*data.first_chunk().unwrap())),
        _ => None,
    }
}

pub(super) fn question(owner: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(name(owner), kind));
    message.metadata.recursion_desired = true;
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message
}

impl Setting {
    pub(super) async fn new(config: Config, world: &Arc<World>) -> Self {
        let resolver = Resolver::start(config, Arc::clone(world) as Arc<dyn Scope>).unwrap();
        let setting = Self { resolver, world: Arc::clone(world), socket: Self::socket().await };
        setting.know(Transport::Udp, setting.socket.local_addr().unwrap(), 7);
        setting
    }

    pub(super) async fn socket() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
    }

    pub(super) fn know(&self, transport: Transport, from: SocketAddr, session: u64) {
        let client = Client { session, process: Some(1) };
        self.world.clients.lock().unwrap().insert((transport, from), client);
    }

    /// Asks over a datagram, and checks that the answer is one.
    pub(super) async fn exchange(&self, socket: &UdpSocket, question: &Message) -> Message {
        let to = if socket.local_addr().unwrap().is_ipv4() {
            self.resolver.addresses().v4.0
        } else {
            self.resolver.addresses().v6.unwrap().0
        };
        socket.send_to(&question.to_vec().unwrap(), to).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let (length, from) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(from, to, "an answer comes from where the question went");
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(answer.metadata.id, question.metadata.id);
        answer
    }

    pub(super) async fn ask(&self, owner: &str, kind: RecordType) -> Got {
        got(&self.exchange(&self.socket, &question(owner, kind)).await)
    }

    pub(super) async fn ask_a(&self, owner: &str) -> Got {
        self.ask(owner, RecordType::A).await
    }

    /// A connection; of the session, if one is given.
    pub(super) async fn connect(&self, session: Option<u64>) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        if let Some(session) = session {
            self.know(Transport::Tcp, socket.local_addr().unwrap(), session);
        }
        socket.connect(self.resolver.addresses().v4.1).await.unwrap()
    }

    pub(super) async fn ipv6(&self) -> Option<UdpSocket> {
        self.resolver.addresses().v6?;
        let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        self.know(Transport::Udp, socket.local_addr().unwrap(), 7);
        Some(socket)
    }
}

/// Asks over a connection; `None` if it was closed.
pub(super) async fn over(stream: &mut TcpStream, question: &Message) -> Option<Message> {
    let bytes = question.to_vec().unwrap();
    let mut message = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    message.extend(bytes);
    stream.write_all(&message).await.ok()?;
    let length = timeout(PATIENCE, stream.read_u16()).await.unwrap().ok()?;
    let mut answer = vec![0; length.into()];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().ok()?;
    Some(Message::from_vec(&answer).unwrap())
}
