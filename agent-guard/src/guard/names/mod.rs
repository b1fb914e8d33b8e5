//! Names: what sessions may ask the resolver for, and where they may go then.
//!
//! The kernel knows addresses. The resolver asks here whose question it is and whether it is answered, and before an answer leaves,
//! its addresses are in the kernel's table, each with what the rules about its names say ([`Learned`]). What was learned is looked
//! at anew with each policy, and goes with the session.

mod kept;
mod learned;
mod private;
mod said;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use agent_guard_common::{
    NetKey, Protocol, Verdict,
    net::{Asker, NamedKey, effective},
    rules::{Named, Tables as _},
};

pub(super) use {kept::Kept, learned::Learned};

use super::{Guard, InForce, State, lock};
use crate::{
    api::types::SessionState,
    dns::{
        Addresses, AdmitError, Client, Config, NameLimits, Rate, Resolver, Ruling, Scope, Told, Transport,
        Zone,
    },
    kernel,
    policy::model,
    session::{Session, proc},
};

/// The guard, as the resolver asks it.
pub(super) struct Names {
    guard: Arc<Guard>,
    /// What was told last of a name, and when.
    told: Mutex<HashMap<said::Key, Instant>>,
}

impl Names {
    /// What the resolver is to ask.
    #[must_use]
    fn new(guard: Arc<Guard>) -> Self {
        Self { guard, told: Mutex::default() }
    }
}

/// Why sessions can't ask for names.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The resolver doesn't start.
    #[error(transparent)]
    Resolver(#[from] crate::dns::Error),
    /// The kernel can't be told where it is.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// Questions of one kind would be lost.
    #[error("no port is free for both datagrams and connections: {0} and {1}")]
    Ports(SocketAddr, SocketAddr),
}

/// The port of both sockets of a family.
fn port((datagrams, connections): (SocketAddr, SocketAddr)) -> Result<u16, Error> {
    let same = datagrams.port() == connections.port();
    same.then_some(datagrams.port()).ok_or(Error::Ports(datagrams, connections))
}

impl Guard {
    /// Starts the resolver, and has sessions' questions brought to it.
    ///
    /// # Errors
    ///
    /// If it can't listen, or the kernel can't be told.
    pub fn start_resolver(self: &Arc<Self>) -> Result<(), Error> {
        let config = lock(&self.state).in_force.as_ref().map(|in_force| config(&in_force.policy.resolver));
        let names = Arc::new(Names::new(Arc::clone(self)));
        let resolver = Resolver::start(config.unwrap_or_default(), names)?;
        let Addresses { v4, v6 } = resolver.addresses();
        let ports = [port(v4)?, v6.map_or(Ok(0), port)?];
        self.set_resolver(ports)?;
        *lock(&self.resolver) = Some(resolver);
        Ok(())
    }

    /// Whether it still works; also if it was never started.
    pub fn resolver_runs(&self) -> bool {
        lock(&self.resolver).as_ref().is_none_or(Resolver::is_running)
    }

    /// Ends the resolver. Questions stay unanswered until the next daemon.
    pub fn stop_resolver(&self) {
        drop(lock(&self.resolver).take());
    }

    /// Has the resolver work by the policy in force.
    pub(super) fn reconfigure_resolver(&self, state: &State) {
        let (Some(in_force), Some(resolver)) = (&state.in_force, &*lock(&self.resolver)) else { return };
        if let Err(error) = resolver.reconfigure(config(&in_force.policy.resolver)) {
            tracing::error!(%error, "names are asked for as the policy before had it");
        }
    }

    /// Tells the kernel where the resolver is: its ports for IPv4 and IPv6, 0 for none. From then on questions go there.
    ///
    /// # Errors
    ///
    /// If the map can't be written, or the daemon's network name space can't be told.
    fn set_resolver(&self, resolver: [u16; 2]) -> Result<(), kernel::Error> {
        let namespace = crate::sys::network_namespace()
            .map_err(kernel::Error::call("getsockopt(SO_NETNS_COOKIE)", "the network name space"))?;
        let mut maps = lock(&self.maps);
        let told = maps.guard()?;
        maps.set_guard(&agent_guard_common::subject::Guard { namespace, resolver, ..told })
    }

    /// Takes up what sessions have learned under an earlier daemon.
    pub(super) fn adopt_names(&self) {
        let (mut state, now) = (lock(&self.state), proc::boot_clock());
        let sessions: Vec<u64> = state.running().map(|session| session.number).collect();
        for number in sessions {
            let learned = lock(&self.names).read(number, now);
            if learned.len() > 0 {
                state.learned.insert(number, learned);
            }
        }
    }

    /// What another policy says of all that sessions have learned. Under the rules that they will have with it.
    pub(super) fn named(
        state: &State,
        compiled: &crate::policy::Compiled,
        index: impl Fn(&Session) -> u32,
    ) -> Vec<(NamedKey, Named)> {
        let now = proc::boot_clock();
        let mut entries = Vec::new();
        for session in state.running() {
            let Some(learned) = state.learned.get(&session.number) else { continue };
            let index = index(session);
            for addr in learned.addresses() {
                let named = learned.named(addr, now, |name| compiled.hosts.name(index, name).rules);
                let named = named.unwrap_or_else(|error| {
                    tracing::warn!(%error, session = %session.id, "nothing goes to an address any more");
                    learned::nothing()
                });
                entries.push((NamedKey::new(session.number, *addr), named));
            }
        }
        entries
    }

    /// Takes back what names allowed that may not be connected to any more, and all of sessions that have ended.
    pub(super) fn end_names(&self, state: &mut State) {
        let now = proc::boot_clock();
        let ended: Vec<_> = state
            .learned
            .iter_mut()
            .flat_map(|(session, learned)| learned.ended(now).into_iter().map(|addr| (*session, addr)))
            .collect();
        for (number, addr) in ended {
            if let Err(error) = self.say_named(state, number, &addr, now) {
                tracing::error!(%error, "the time of a name is over and the kernel can't be told");
            }
        }
    }

    /// Forgets what a session has learned. From where it has asked stays noted until another session asks from there: nobody is
    /// answered in the name of a session that has ended.
    pub(super) fn forget_names(&self, state: &mut State, number: u64) {
        lock(&self.names).forget(number);
        let Some(learned) = state.learned.remove(&number) else { return };
        let keys: Vec<_> = learned.addresses().map(|addr| NamedKey::new(number, *addr)).collect();
        if let Err(error) = lock(&self.maps).outer.remove_named(&keys) {
            tracing::error!(%error, "the addresses of a session that has ended");
        }
    }

    /// Tells the kernel what the rules say of an address that a session has learned.
    fn say_named(&self, state: &State, number: u64, addr: &[u8; 16], now: u64) -> Result<(), AdmitError> {
        let refused = |error: &dyn std::fmt::Display| AdmitError(error.to_string());
        let (session, in_force) = asking(state, number).ok_or_else(|| refused(&"no policy is in force"))?;
        let Some(learned) = state.learned.get(&number) else { return Ok(()) };
        let index = session.rules().index;
        let named = learned
            .named(addr, now, |name| in_force.compiled.hosts.name(index, name).rules)
            .map_err(|error| refused(&error))?;
        let key = NamedKey::new(number, *addr);
        lock(&self.maps).outer.set_named(&key, &named).map_err(|error| refused(&error))
    }
}

/// A session that may ask, and the policy in force.
fn asking(state: &State, number: u64) -> Option<(&Session, &InForce)> {
    let session = state.sessions.get(&number).filter(|session| session.state == SessionState::Running)?;
    Some((session, state.in_force.as_ref()?))
}

/// Whether a name may lead to an address. To a private one only where a rule about addresses lets anything go there, or
/// everything goes anywhere.
fn may_lead(in_force: &InForce, index: u32, addr: IpAddr) -> bool {
    if !private::is_private(addr) {
        return true;
    }
    let passes = |verdict: u8| verdict != Verdict::NONE.0 && Verdict(verdict) < Verdict::DENY;
    let rules = in_force.compiled.network(&NetKey::new(index, effective(private::octets(addr))));
    let named = rules.is_some_and(|rules| rules.ports.iter().any(|rule| passes(rule.verdict)));
    named || in_force.compiled.profile(index).is_some_and(|profile| passes(profile.connect))
}

/// The limits of a policy, as the resolver has them.
fn limits(limits: model::NameLimits) -> NameLimits {
    NameLimits {
        length: limits.length.into(),
        labels: limits.labels.into(),
        label: limits.label.into(),
        long: limits.long.into(),
        entropy: f64::from(limits.entropy) / 1000.0,
    }
}

/// How many different names in a time: at once twice as many.
fn rate(rate: model::Rate) -> Rate {
    Rate { count: rate.count, per: rate.per, burst: rate.count.saturating_mul(2) }
}

/// How the resolver is to work by a policy.
pub(super) fn config(resolver: &model::Resolver) -> Config {
    let zone = |zone: &model::Zone| Zone { name: zone.name.clone(), upstreams: zone.upstream.clone() };
    Config {
        upstreams: resolver.upstream.clone(),
        zones: resolver.zones.iter().map(zone).collect(),
        timeout: resolver.timeout,
        ..Config::default()
    }
}

impl Scope for Names {
    fn client(&self, transport: Transport, from: SocketAddr) -> Option<Client> {
        let protocol = match transport {
            Transport::Udp => Protocol::UDP,
            Transport::Tcp => Protocol::TCP,
        };
        let asker = Asker { port: from.port(), protocol, pad: 0 };
        let question = match lock(&self.guard.maps).question(&asker) {
            Ok(question) => question?,
            Err(error) => {
                tracing::error!(%error, "nobody knows whose question for a name it is");
                return None;
            }
        };
        let state = lock(&self.guard.state);
        asking(&state, question.session)
            .map(|_| Client { session: question.session, process: Some(question.tgid) })
    }

    fn judge(&self, client: &Client, name: &str) -> Ruling {
        let state = lock(&self.guard.state);
        let Some((session, in_force)) = asking(&state, client.session) else { return Ruling::Refuse };
        let said = in_force.compiled.hosts.name(session.rules().index, name);
        match said.wildcard {
            _ if !said.answer => Ruling::Refuse,
            Some(wildcard) => Ruling::Below {
                base: wildcard.base,
                limits: limits(wildcard.limits),
                names: Some(rate(wildcard.limits.rate)),
            },
            None => Ruling::Allow,
        }
    }

    fn admit(
        &self,
        client: &Client,
        name: &str,
        addresses: &[(IpAddr, Duration)],
    ) -> Result<Vec<IpAddr>, AdmitError> {
        let now = proc::boot_clock();
        let mut state = lock(&self.guard.state);
        let state = &mut *state;
        let (session, in_force) =
            asking(state, client.session).ok_or_else(|| AdmitError("the session has ended".to_owned()))?;
        let index = session.rules().index;
        let allowed: Vec<_> = addresses.iter().filter(|(addr, _)| may_lead(in_force, index, *addr)).collect();
        let learned = state.learned.entry(client.session).or_default();
        for (addr, time) in &allowed {
            let until = now.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            let addr = effective(private::octets(*addr));
            let old = learned.learn(name, addr, until, now).map_err(|full| AdmitError(full.to_string()))?;
            if let Some(old) = old {
                let key = NamedKey::new(client.session, old);
                let gone = lock(&self.guard.maps).outer.remove_named(&[key]);
                gone.map_err(|error| AdmitError(error.to_string()))?;
            }
            if let Err(error) = lock(&self.guard.names).note(client.session, (name, addr, until), learned) {
                tracing::warn!(%error, "the next daemon will not know what a session has asked for");
            }
        }
        for (addr, _) in &allowed {
            self.guard.say_named(state, client.session, &effective(private::octets(*addr)), now)?;
        }
        Ok(allowed.into_iter().map(|(addr, _)| *addr).collect())
    }

    fn reverse(&self, client: &Client, address: IpAddr) -> Option<String> {
        let state = lock(&self.guard.state);
        let learned = state.learned.get(&client.session)?;
        let addr = effective(private::octets(address));
        learned.live(&addr, proc::boot_clock()).next().map(str::to_owned)
    }

    fn told(&self, told: &Told<'_>) {
        self.say(told);
    }
}

impl State {
    /// The names by which a session knows an address, those first that it may still be connected to by: of others it can't be
    /// told by which it goes there.
    pub(super) fn names_of(&self, session: u64, addr: &[u8; 16]) -> Vec<String> {
        let Some(learned) = self.learned.get(&session) else { return Vec::new() };
        let addr = effective(agent_guard_common::net::inner(*addr));
        let live: Vec<_> = learned.live(&addr, proc::boot_clock()).map(str::to_owned).collect();
        if live.is_empty() { learned.names(&addr).map(str::to_owned).collect() } else { live }
    }
}
