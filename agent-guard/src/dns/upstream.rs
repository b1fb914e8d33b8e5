//! The name servers that are asked, and what they have said lately.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::{DnsRequestOptions, DnsResponse, Message, Query, ResponseCode},
    rr::{Name, RecordType},
};
use hickory_resolver::{
    NameServerPool, PoolContext, ResponseCache, TlsConfig, TtlConfig,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverOpts},
    net::{
        DnsError, NetError, NoRecords,
        runtime::TokioRuntimeProvider,
        xfer::{DnsHandle as _, FirstAnswer as _},
    },
};
use tokio::{
    sync::{OnceCell, Semaphore},
    time::Instant,
};

use super::{AdmitError, Config, Error, LONGEST, Zone, chain::Broken, config};

/// Questions that are put to servers at the same time; each takes a socket, and some more if it has to be repeated.
const MOST_QUESTIONS: usize = 512;
/// Bytes of an answer that is kept. Few are longer, and whoever owns a name that is allowed could fill the memory with them.
const LONGEST_KEPT: usize = 4096;
/// The longest time that a name is taken not to exist for.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(900);

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody has answered in time: which servers were asked.
    #[error("no answer in time from {0}")]
    Silent(String),
    /// A server couldn't be talked to.
    #[error("name server {server}: {error}")]
    Network {
        /// The last one that was tried.
        server: SocketAddr,
        /// What has happened.
        error: String,
    },
    /// A server has answered that it can't, or doesn't want to.
    #[error("name server {server} has answered: {code}")]
    Code {
        /// The last one that was tried.
        server: SocketAddr,
        /// The response code.
        code: String,
    },
    /// The name's CNAMEs lead nowhere.
    #[error(transparent)]
    Chain(#[from] Broken),
    /// The addresses aren't in the session's table.
    #[error("its addresses can't be let through: {0}")]
    Admit(#[from] AdmitError),
    /// The answer can't be made.
    #[error("the answer can't be written: {0}")]
    Encode(String),
}

/// All servers, and the cache.
pub(super) struct Upstreams {
    /// Those of zones, the longest name first, and of the root.
    groups: Vec<Group>,
    cache: ResponseCache,
    questions: Semaphore,
    /// What is being asked: who asks the same waits for it.
    flights: Mutex<HashMap<Query, Arc<Flight>>>,
}

type Flight = OnceCell<Result<Message, Failure>>;

/// The servers of a zone.
struct Group {
    zone: Name,
    servers: Vec<Server>,
    /// The one that has answered last, and is asked first.
    preferred: AtomicUsize,
}

struct Server {
    address: SocketAddr,
    pool: NameServerPool<TokioRuntimeProvider>,
}

impl Upstreams {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let context = Arc::new(PoolContext::new(options(config), TlsConfig::new().map_err(Error::Client)?));
        let mut groups = Vec::new();
        for Zone { name, upstreams } in &config.zones {
            let mut zone = Name::from_ascii(name)
                .map_err(|error| Error::Zone { name: name.clone(), error: error.to_string() })?;
            zone.set_fqdn(true);
            if upstreams.is_empty() {
                return Err(Error::Zone { name: name.clone(), error: "it has no name servers".to_owned() });
            }
            groups.push(Group::new(zone, upstreams, &context));
        }
        let root = if config.upstreams.is_empty() {
            config::servers(&config.resolv_conf)
        } else {
            config.upstreams.clone()
        };
        groups.push(Group::new(Name::root(), &root, &context));
        groups.sort_by_key(|group| std::cmp::Reverse(group.zone.num_labels()));
        Ok(Self {
            groups,
            cache: ResponseCache::new(config.cache, TtlConfig::from_opts(&context.options)),
            questions: Semaphore::new(MOST_QUESTIONS),
            flights: Mutex::default(),
        })
    }

    /// Whether the same servers are asked about both names.
    pub(super) fn same(&self, one: &Name, other: &Name) -> bool {
        match (self.group(one), self.group(other)) {
            (Some(one), Some(other)) => std::ptr::eq(one, other),
            _ => false,
        }
    }

    fn group(&self, name: &Name) -> Option<&Group> {
        self.groups.iter().find(|group| group.zone.zone_of(name))
    }

    /// What the servers of a name's zone say of it. That there is nothing is an answer, too: one without records.
    pub(super) async fn ask(
        &self,
        name: &Name,
        kind: RecordType,
        deadline: Instant,
    ) -> Result<Message, Failure> {
        let query = Query::query(name.clone(), kind);
        if let Some(known) = self.known(&query) {
            return Ok(known);
        }
        loop {
            let flight = Boarded::new(&self.flights, &query);
            let mut mine = false;
            // If who asks for all gives up, the next one who waits begins anew.
            let asked = flight.cell.get_or_init(|| {
                mine = true;
                self.ask_servers(&query, deadline)
            });
            let answer = asked.await.clone();
            // Who asked may have had less time.
            if mine || !matches!(answer, Err(Failure::Silent(_))) || Instant::now() >= deadline {
                return answer;
            }
        }
    }

    async fn ask_servers(&self, query: &Query, deadline: Instant) -> Result<Message, Failure> {
        // The answer may have come just before this flight.
        if let Some(known) = self.known(query) {
            return Ok(known);
        }
        let silent = |group: &Group| Failure::Silent(group.shown());
        let Some(group) = self.group(query.name()) else { return Err(Failure::Silent("nobody".to_owned())) };
        let turn = tokio::time::timeout_at(deadline, self.questions.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(silent(group)) };
        let answer = group.ask(query, deadline).await?;
        let (kept, answer) = match answer {
            Answer::Records(response) => {
                let small = response.as_buffer().len() <= LONGEST_KEPT;
                let mut message = response.into_message();
                message.additionals.clear();
                (small.then(|| Ok(message.clone())), message)
            }
            Answer::Nothing(nothing) => (Some(Err(nothing.clone().into())), negative(&nothing)),
        };
        if let Some(kept) = kept {
            self.cache.insert(query.clone(), kept, std::time::Instant::now());
        }
        Ok(answer)
    }

    fn known(&self, query: &Query) -> Option<Message> {
        match self.cache.get(query, std::time::Instant::now())? {
            Ok(message) => Some(message),
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => Some(negative(&nothing)),
            // The cache keeps no others.
            Err(_) => None,
        }
    }
}

/// What a server says that answers.
enum Answer {
    Records(DnsResponse),
    Nothing(NoRecords),
}

impl Group {
    fn new(zone: Name, addresses: &[SocketAddr], context: &Arc<PoolContext>) -> Self {
        let server = |address: &SocketAddr| {
            let with_port = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let connections = vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
            let server = NameServerConfig::new(address.ip(), true, connections);
            let provider = TokioRuntimeProvider::default();
            Server {
                address: *address,
                pool: NameServerPool::from_config([server], Arc::clone(context), provider),
            }
        };
        Self { zone, servers: addresses.iter().map(server).collect(), preferred: AtomicUsize::new(0) }
    }

    /// Asks one server after the other until one answers, each for its share of the time that is left.
    async fn ask(&self, query: &Query, deadline: Instant) -> Result<Answer, Failure> {
        let first = self.preferred.load(Ordering::Relaxed);
        let order = self.servers.iter().enumerate().cycle().skip(first).take(self.servers.len());
        let mut failure = None;
        for ((index, server), left) in order.zip((1..=self.servers.len()).rev()) {
            let share = deadline.saturating_duration_since(Instant::now());
            let share = share.checked_div(left.try_into().unwrap_or(u32::MAX)).unwrap_or(share);
            let asked = server.pool.lookup(query.clone(), DnsRequestOptions::default());
            let failed = match tokio::time::timeout(share, asked.first_answer()).await {
                Ok(Ok(response)) if answers(&response) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(Answer::Records(response));
                }
                Ok(Err(NetError::Dns(DnsError::NoRecordsFound(nothing)))) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(Answer::Nothing(nothing));
                }
                Ok(Ok(response)) => Some(server.code(response.metadata.response_code)),
                Ok(Err(NetError::Dns(DnsError::ResponseCode(code)))) => Some(server.code(code)),
                Ok(Err(NetError::Timeout)) | Err(_) => None,
                Ok(Err(error)) => Some(Failure::Network { server: server.address, error: error.to_string() }),
            };
            tracing::debug!(server = %server.address, name = %query.name(), ?failed, "no answer");
            failure = failed.or(failure);
        }
        Err(failure.unwrap_or_else(|| Failure::Silent(self.shown())))
    }

    fn shown(&self) -> String {
        let mut shown = String::new();
        for server in &self.servers {
            let comma = if shown.is_empty() { "" } else { ", " };
            // Writing to a string doesn't fail.
            let _written = write!(shown, "{comma}{}", server.address);
        }
        shown
    }
}

impl Server {
    fn code(&self, code: ResponseCode) -> Failure {
        Failure::Code { server: self.address, code: code.to_str().to_owned() }
    }
}

/// Whether this is an answer to the question, be it that there is nothing.
fn answers(response: &DnsResponse) -> bool {
    matches!(response.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
        && !response.metadata.truncation
}

/// The answer that there is nothing.
fn negative(nothing: &NoRecords) -> Message {
    let mut message = Message::query().into_response();
    message.metadata.response_code = nothing.response_code;
    message.authorities = nothing.authorities.iter().flat_map(|records| records.iter().cloned()).collect();
    message
}

fn options(config: &Config) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    // What really ends a question is its deadline.
    options.timeout = config.timeout;
    options.positive_max_ttl = Some(LONGEST);
    options.negative_max_ttl = Some(LONGEST_NEGATIVE);
    options.use_hosts_file = ResolveHosts::Never;
    // Over one connection.
    options.max_active_requests = MOST_QUESTIONS;
    options
}

/// Somebody who waits for a flight, which is forgotten with the last of them.
struct Boarded<'a> {
    flights: &'a Mutex<HashMap<Query, Arc<Flight>>>,
    query: &'a Query,
    cell: Arc<Flight>,
}

impl<'a> Boarded<'a> {
    fn new(flights: &'a Mutex<HashMap<Query, Arc<Flight>>>, query: &'a Query) -> Self {
        let cell = Arc::clone(lock(flights).entry(query.clone()).or_default());
        Self { flights, query, cell }
    }
}

impl Drop for Boarded<'_> {
    fn drop(&mut self) {
        let mut flights = lock(self.flights);
        // Once it has landed nobody boards it any more: they would be told what was said before they asked.
        let landed = self.cell.initialized() || Arc::strong_count(&self.cell) <= 2;
        if landed && flights.get(self.query).is_some_and(|flight| Arc::ptr_eq(flight, &self.cell)) {
            flights.remove(self.query);
        }
    }
}

/// The map is whole after each step, so it can be used on after a panic.
fn lock<'a>(flights: &'a Mutex<HashMap<Query, Arc<Flight>>>) -> MutexGuard<'a, HashMap<Query, Arc<Flight>>> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}
