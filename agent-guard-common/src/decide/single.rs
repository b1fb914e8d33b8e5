//! Decisions that need no walk: one look at a table.

use super::{Decision, known, profile};
use crate::{
    net::{Endpoint, NamedKey, NetKey, mapped},
    object::{AbstractKey, AbstractName},
    op::Op,
    rules::{CommandState, PortRule, Profile, Slot, Tables},
    verdict::{Fault, Source, Verdict},
};

/// Decides about an operation on the system.
///
/// # Errors
///
/// [`Fault::PROFILE`] if the generation doesn't know the profile.
#[inline(always)]
pub fn system<T: Tables>(tables: &T, index: u32, op: Op) -> Result<Decision, Fault> {
    let profile = profile(tables, index)?;
    // VERIFIER: masked instead of compared, see [`crate::rules::OpRules::slot`].
    let verdict = profile.system.get(usize::from(op.0) & (Op::SYSTEM_COUNT - 1));
    let verdict = known(verdict.copied().map_or(Verdict::NONE, Verdict))?;
    Ok(Decision::new(verdict, Source::SYSTEM, 0).under(profile))
}

/// Decides about the use of a capability, by its number.
///
/// # Errors
///
/// [`Fault::PROFILE`] if the generation doesn't know the profile.
#[inline(always)]
pub fn capability<T: Tables>(tables: &T, index: u32, capability: u32) -> Result<Decision, Fault> {
    let profile = profile(tables, index)?;
    let may = profile.capabilities >> (capability & 63) & 1 != 0;
    let verdict = if may { Verdict::ALLOW } else { Verdict::DENY };
    Ok(Decision::new(verdict, Source::SYSTEM, 0).under(profile))
}

/// The first rule of a list that is about an endpoint.
#[inline(always)]
fn first(ports: &[PortRule], to: &Endpoint) -> Slot {
    for rule in ports {
        if rule.verdict == Verdict::NONE.0 {
            break;
        }
        if rule.is_about(to.port, to.protocol) {
            return rule.slot();
        }
    }
    Slot::NONE
}

/// Decides about a connection (or a message sent without one) to an address.
///
/// The address is the one that the kernel goes to ([`crate::net::effective`]). Of the rules of the longest prefix the first
/// that is about port and protocol counts; where the session has the address from asking for a name, `now` (nanoseconds since
/// boot) is before its end and a rule about the name is about the port, that one counts too, and the stricter decides: a name
/// doesn't make an address allowed that a rule denies. Else what the profile says of connections that nothing names. 0 for
/// `now` is for sockets that have gone there before.
///
/// # Errors
///
/// [`Fault::PROFILE`] if the generation doesn't know the profile.
#[inline(always)]
pub fn connect<T: Tables>(
    tables: &T,
    index: u32,
    session: u64,
    to: &Endpoint,
    now: u64,
) -> Result<Decision, Fault> {
    let entry = profile(tables, index)?;
    let mut rule = Slot::NONE;
    if let Some(net) = tables.network(&NetKey::new(index, to.addr)) {
        rule = first(&net.ports, to);
    }
    if entry.flags & Profile::NAMES != 0
        && let Some(named) = tables.named(&NamedKey::new(session, to.addr))
    {
        if now == 0 {
            rule = rule.stricter(first(&named.before, to));
        } else if now < named.until {
            rule = rule.stricter(first(&named.ports, to));
        }
    }
    by_rule(rule, entry.connect, entry)
}

/// Decides about listening at an address of the host's, or accepting there. The unspecified address is every address, of both
/// families for IPv6's: as strict as the stricter of both.
///
/// # Errors
///
/// [`Fault::PROFILE`] if the generation doesn't know the profile.
#[inline(always)]
pub fn listen<T: Tables>(tables: &T, index: u32, at: &Endpoint) -> Result<Decision, Fault> {
    let decision = listen_one(tables, index, at)?;
    if at.addr != [0; 16] {
        return Ok(decision);
    }
    Ok(decision.stricter(listen_one(tables, index, &Endpoint { addr: mapped([0; 4]), ..*at })?))
}

#[inline(always)]
fn listen_one<T: Tables>(tables: &T, index: u32, at: &Endpoint) -> Result<Decision, Fault> {
    let entry = profile(tables, index)?;
    let mut rule = Slot::NONE;
    if let Some(net) = tables.network(&NetKey::new(NetKey::listening(index), at.addr)) {
        rule = first(&net.ports, at);
    }
    by_rule(rule, entry.listen, entry)
}

/// What a rule says, or else what the profile says of everything that none is about.
#[inline(always)]
fn by_rule(rule: Slot, otherwise: u8, entry: &Profile) -> Result<Decision, Fault> {
    let decision = if rule.is_some() {
        Decision::new(known(rule.verdict())?, Source::RULE, rule.rule())
    } else {
        Decision::new(known(Verdict(otherwise))?, Source::NETWORK, 0)
    };
    Ok(decision.under(entry))
}

/// Decides about a connection (or a message sent without one) to a Unix socket with an abstract name, whose bytes are in the
/// key already: a rule of the whole name, else of the longest that it begins with, else what the profile says of
/// connections that nothing names.
///
/// # Errors
///
/// [`Fault::PROFILE`] if the generation doesn't know the profile, [`Fault::ADDRESS`] for a name longer than any.
#[inline(always)]
pub fn abstract_name<T: Tables>(
    tables: &T,
    index: u32,
    key: &mut AbstractKey,
    length: u32,
) -> Result<Decision, Fault> {
    let entry = profile(tables, index)?;
    if length > AbstractName::MAX {
        return Err(Fault::ADDRESS);
    }
    key.bits = AbstractName::bits(length);
    key.name.profile = index.to_be_bytes();
    key.name.whole = length as u8 + 1;
    let mut found = tables.abstract_name(key);
    if found.is_none() {
        key.name.whole = 0;
        found = tables.abstract_name(key);
    }
    let decision = match found {
        Some(rule) => Decision::new(known(Verdict(rule.verdict as u8))?, Source::RULE, rule.rule),
        None => Decision::new(known(Verdict(entry.connect))?, Source::NETWORK, 0),
    };
    Ok(decision.under(entry))
}

/// What a program is executed with, as it is read byte by byte: which rules about commands can still come true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command {
    /// The state of the profile's automaton, see [`CommandState`].
    pub state: u32,
}

impl Command {
    /// Begins with the program, by the number that the tables have for it; 0 for one that they don't know.
    ///
    /// # Errors
    ///
    /// [`Fault::PROFILE`] if the generation doesn't know the profile, [`Fault::GENERATION`] if its tables are wrong.
    #[inline(always)]
    pub fn begin<T: Tables>(tables: &T, index: u32, program: u8) -> Result<Self, Fault> {
        let mut command = Self { state: profile(tables, index)?.commands };
        if command.goes_on() {
            command.read(tables, program)?;
        }
        Ok(command)
    }

    /// Whether any rule can still come true.
    #[inline(always)]
    #[must_use]
    pub const fn goes_on(self) -> bool {
        self.state != 0
    }

    /// Reads one byte of the arguments, of which each ends with a zero byte.
    ///
    /// # Errors
    ///
    /// [`Fault::GENERATION`] if the tables are wrong.
    #[inline(always)]
    pub fn read<T: Tables>(&mut self, tables: &T, byte: u8) -> Result<(), Fault> {
        self.state = state(tables, self.state)?.after(byte);
        Ok(())
    }
}

#[inline(always)]
fn state<T: Tables>(tables: &T, number: u32) -> Result<&CommandState, Fault> {
    tables.command(number).ok_or(Fault::GENERATION)
}

/// Decides about the execution of a program with arguments, of which [`Command`] has read all. `anonymous` where no path leads
/// to it.
///
/// # Errors
///
/// [`Fault::PROFILE`] if the generation doesn't know the profile, [`Fault::GENERATION`] if its tables are wrong.
#[inline(always)]
pub fn command<T: Tables>(
    tables: &T,
    index: u32,
    command: Command,
    anonymous: bool,
) -> Result<Decision, Fault> {
    let entry = profile(tables, index)?;
    let mut decision = Decision::new(Verdict::ALLOW, Source::EXEC, 0);
    if anonymous {
        decision = Decision::new(known(Verdict(entry.anonymous))?, Source::EXEC, 0);
    }
    if command.goes_on() {
        let rule = state(tables, command.state)?.rule;
        if rule.is_some() {
            let rule = Decision::new(known(rule.verdict())?, Source::RULE, rule.rule());
            // Of two that are as strict the rule is the one to be told of.
            decision = rule.stricter(decision);
        }
    }
    Ok(decision.under(entry))
}
