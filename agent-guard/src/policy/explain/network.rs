//! Connections, and addresses to listen at.

use std::net::IpAddr;

use agent_guard_common::{
    Endpoint, Fault, NameKey, NetKey, ObjectKey, decide,
    names::Shapes,
    net::{NamedKey, effective, inner, mapped},
    object::{AbstractKey, SideKey},
    rules::{AbstractEntry, CommandState, Named, NetEntry, Place, Profile, Side, Tables},
};

use super::{ExplainError, Explanation, Service, explanation};
use crate::policy::{merge, sockets, tables::View};

/// Explains a connection to an address. What a session has it from isn't known here: a rule about its name can make it stricter, or
/// be what allows it.
///
/// # Errors
///
/// [`ExplainError`]
pub fn explain_connect<T: Tables>(
    view: &View<'_, T>,
    profile: u32,
    address: IpAddr,
    service: Service,
) -> Result<Explanation, ExplainError> {
    let to = service.at(effective(bytes(address)));
    let decision = decide::connect(view.tables, profile, 0, &to, 0);
    decision.map(|decision| explanation(view, decision)).map_err(ExplainError::Fault)
}

/// Explains a connection to what names stand for, all of which have the same address: with an address what rules about that say, too.
///
/// # Errors
///
/// [`ExplainError`]
pub fn explain_names<T: Tables>(
    view: &View<'_, T>,
    profile: u32,
    names: &[&str],
    address: Option<IpAddr>,
    service: Service,
) -> Result<Explanation, ExplainError> {
    let rulings: Vec<_> = names.iter().map(|name| view.hosts.name(profile, name)).collect();
    let lists: Vec<_> = rulings.iter().map(|ruling| ruling.rules.as_slice()).collect();
    let ports = merge(&lists)?;
    let tables = Asked {
        tables: view.tables,
        named: Named { until: u64::MAX, ports, before: ports },
        addresses: address.is_some(),
    };
    let to = service.at(address.map_or([0; 16], |address| effective(bytes(address))));
    let decision = decide::connect(&tables, profile, 0, &to, 0);
    decision.map(|decision| explanation(view, decision)).map_err(ExplainError::Fault)
}

/// Explains listening at an address of the host's.
///
/// # Errors
///
/// [`ExplainError`]
pub fn explain_listen<T: Tables>(
    view: &View<'_, T>,
    profile: u32,
    address: IpAddr,
    service: Service,
) -> Result<Explanation, ExplainError> {
    let decision = decide::listen(view.tables, profile, &service.at(inner(bytes(address))));
    decision.map(|decision| explanation(view, decision)).map_err(ExplainError::Fault)
}

/// Explains a connection to a Unix socket by its abstract name.
///
/// # Errors
///
/// [`ExplainError`]
pub fn explain_abstract<T: Tables>(
    view: &View<'_, T>,
    profile: u32,
    name: &[u8],
) -> Result<Explanation, ExplainError> {
    let decision = match sockets::key(name) {
        Some((mut key, length)) => decide::abstract_name(view.tables, profile, &mut key, length),
        None => Err(Fault::ADDRESS),
    };
    decision.map(|decision| explanation(view, decision)).map_err(ExplainError::Fault)
}

impl Service {
    const fn at(self, addr: [u8; 16]) -> Endpoint {
        Endpoint { addr, port: self.port, protocol: self.protocol }
    }
}

fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Tables as they are for a session that has every address from asking for one name.
struct Asked<'t, T> {
    tables: &'t T,
    named: Named,
    /// Whether rules about addresses count.
    addresses: bool,
}

impl<T: Tables> Tables for Asked<'_, T> {
    fn may_have(&self, bit: u32) -> bool {
        self.tables.may_have(bit)
    }

    fn object(&self, key: &ObjectKey) -> Option<u32> {
        self.tables.object(key)
    }

    fn name(&self, key: &NameKey) -> Option<u32> {
        self.tables.name(key)
    }

    fn shapes(&self, name: u64) -> Option<&Shapes> {
        self.tables.shapes(name)
    }

    fn place(&self, number: u32) -> Option<&Place> {
        self.tables.place(number)
    }

    fn side(&self, key: &SideKey) -> Option<&Side> {
        self.tables.side(key)
    }

    fn profile(&self, index: u32) -> Option<&Profile> {
        self.tables.profile(index)
    }

    fn command(&self, number: u32) -> Option<&CommandState> {
        self.tables.command(number)
    }

    fn program(&self, key: &ObjectKey) -> u8 {
        self.tables.program(key)
    }

    fn network(&self, key: &NetKey) -> Option<&NetEntry> {
        if self.addresses { self.tables.network(key) } else { None }
    }

    fn named(&self, _key: &NamedKey) -> Option<&Named> {
        Some(&self.named)
    }

    fn abstract_name(&self, key: &AbstractKey) -> Option<&AbstractEntry> {
        self.tables.abstract_name(key)
    }
}
