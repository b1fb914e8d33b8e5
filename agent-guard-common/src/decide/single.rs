//! Decisions that need no walk: one look at a table.

use super::{Decision, known, profile};
use crate::{
    object::{AbstractKey, AbstractName, NetKey},
    op::Op,
    rules::{CommandState, Tables},
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

/// Decides about a connection (or a message sent without one) to an address.
///
/// `addr` is the address that the kernel goes to ([`crate::object::effective`]), IPv4 mapped;
/// `port` is in host order. Of the rules of the longest prefix the first with the port decides, else what
/// the profile says of connections that nothing names.
///
/// # Errors
///
/// [`Fault::PROFILE`] if the generation doesn't know the profile.
#[inline(always)]
pub fn connect<T: Tables>(tables: &T, index: u32, addr: [u8; 16], port: u16) -> Result<Decision, Fault> {
    let entry = profile(tables, index)?;
    if let Some(net) = tables.network(&NetKey::new(index, addr)) {
        for rule in &net.ports {
            if rule.verdict == Verdict::NONE.0 {
                break;
            }
            if rule.low <= port && port <= rule.high {
                let verdict = known(Verdict(rule.verdict))?;
                return Ok(Decision::new(verdict, Source::RULE, rule.rule).under(entry));
            }
        }
    }
    Ok(Decision::new(known(Verdict(entry.connect))?, Source::NETWORK, 0).under(entry))
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
