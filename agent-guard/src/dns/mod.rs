//! The daemon's own resolver, which all DNS of sessions ends up at.
//!
//! A policy names hosts, the kernel knows addresses. So whatever a tagged process sends to port 53 is turned to this resolver,
//! which answers only names that the session's policy allows, and has the addresses put into the session's table in the kernel
//! *before* the answer leaves. What a process hasn't learned here it can't connect to.
//!
//! ```text
//! datagram, connection ─ serve ─▶ answer: who? may they? how often? ─▶ hosts, upstream ─ chain ─▶ admit ─▶ reply
//! ```
//!
//! Nothing of what an upstream server sends is passed on as it is: what leaves is made anew from the records that count
//! (`chain.rs`), under the name that was asked for. Every failure is an answer without addresses, and is told ([`Scope::told`]).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

mod answer;
mod books;
mod chain;
mod config;
mod hosts;
mod limits;
mod name;
mod reply;
mod resolver;
mod serve;
mod upstream;

#[cfg(test)]
mod tests;

pub use chain::Broken;
pub use config::{Config, Zone};
pub use hickory_proto::rr::RecordType;
pub use limits::{Limit, NameLimits, Rate, Rates};
pub use resolver::{Addresses, Error, Resolver};
pub use upstream::Failure;

/// How much longer an address may be used than the client was told. Clients keep what they have looked up a little longer
/// than they should, and connect a little after they have looked it up.
pub const GRACE: Duration = Duration::from_secs(60);

/// The longest time that an answer may be kept by who asked, and so the time after which a policy's or an owner's change is seen.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// How a query came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// Over a connection (RFC 7766).
    Tcp,
}

/// Whose query it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Client {
    /// Number of the session, which is also what is limited.
    pub session: u64,
    /// The process that has sent it, as far as it is known; for events.
    pub process: Option<u32>,
}

/// What a policy says of a name.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Ruling {
    /// No rule allows it.
    Refuse,
    /// A rule has this very name.
    Allow,
    /// Only a rule like `*.example.com` allows it.
    Below {
        /// How many labels the rule has behind its `*`: two.
        base: usize,
        /// How such a name may look.
        limits: NameLimits,
        /// How many different ones the session may ask for; none for what the resolver's configuration says.
        names: Option<Rate>,
    },
}

/// What the guard knows and decides. Called from tasks: nothing of it may wait for long.
pub trait Scope: Send + Sync + 'static {
    /// Whose address this is. `None` if nobody's whose queries are turned here: they are refused.
    fn client(&self, transport: Transport, from: SocketAddr) -> Option<Client>;

    /// What the policy says of a name: lower case, without the final dot, letters, digits, `-` and `_` only. The root is empty.
    fn judge(&self, client: &Client, name: &str) -> Ruling;

    /// Puts addresses of a name into the session's table, each for the time that it may be used from now on, and says which
    /// ones may be handed out. The others would be rebinding: private addresses, say, that no rule allows for this name. The
    /// addresses of both families come one after the other, and again each time that somebody asks.
    ///
    /// # Errors
    ///
    /// If not all that may be handed out are in the table: none of them is.
    fn admit(
        &self,
        client: &Client,
        name: &str,
        addresses: &[(IpAddr, Duration)],
    ) -> Result<Vec<IpAddr>, AdmitError>;

    /// The name that this address was admitted under for the session, without the final dot; `None` if it wasn't.
    fn reverse(&self, client: &Client, address: IpAddr) -> Option<String>;

    /// What has become of a query. Each is told; to make one event of many is up to who is told.
    fn told(&self, told: &Told<'_>);
}

/// Why addresses weren't put into a session's table.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct AdmitError(pub String);

/// A query, and what has become of it. For events of OCSF's class DNS Activity (4003).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told<'a> {
    /// Who has asked; `None` if nobody knows.
    pub client: Option<Client>,
    /// How.
    pub transport: Transport,
    /// From where.
    pub from: SocketAddr,
    /// For which name: lower case, without the final dot. Characters other than printable ones of ASCII are escaped (RFC 1035,
    /// section 5.1). `None` if there is none: in what can't be read, and for a connection.
    pub name: Option<&'a str>,
    /// For which type of records.
    pub record: Option<RecordType>,
    /// With what result.
    pub outcome: Outcome,
}

/// What has become of a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// These addresses were handed out.
    Answered {
        /// In the order in which they were.
        addresses: Vec<IpAddr>,
        /// Those that the name has, too, and that may not be.
        withheld: Vec<IpAddr>,
    },
    /// So many records were handed out that aren't addresses.
    HandedOn(usize),
    /// There are no such records, or none that are ever handed out, as those of type HTTPS.
    Nothing {
        /// Whether the name exists.
        exists: bool,
    },
    /// The policy doesn't allow the name.
    Refused,
    /// It was too much.
    Limited(Limit),
    /// The name has only addresses that may not be handed out: these.
    Rebinding(Vec<IpAddr>),
    /// No answer could be had, or none could be given.
    Failed(Failure),
    /// It was nobody's whose queries are turned here.
    Stranger,
    /// It was no question that this resolver answers to anybody: what it was.
    Unsupported(&'static str),
}
