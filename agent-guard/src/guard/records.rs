//! From the kernel's records to events and holds.

use std::net::{IpAddr, Ipv6Addr};

use agent_guard_common::{
    Fault, ObjectKey, Op, Source, Verdict,
    event::{Hook, Judged, Seen},
};
use ulid::Ulid;

use super::{Error, Guard, State, lock};
use crate::{
    api::types::{HoldInfo, HoldState, Time},
    events::activity::{
        Activity, Actor, AddressRef, Answered, CommandRef, Decided, Event, FileRef, Held, Judged as Said,
        Object, Outcome, SocketRef, SystemRef,
    },
    events::system,
    hold::{self, Hold},
    kernel::record::{self, Record},
    session::{
        proc,
        processes::{Process, time_of},
    },
};

/// Answered holds that `approvals list --all` still shows.
const ANSWERED_KEPT: usize = 256;

impl Guard {
    /// Takes up the calls that wait. Their events come with their records, which may still be in the ring.
    pub(super) fn adopt_holds(&self) -> Result<(), Error> {
        let mut maps = lock(&self.maps);
        let holds = maps.holds()?;
        // Given to an earlier daemon and not used: nobody knows by whom any more, so people are asked again.
        for number in maps.answers()? {
            maps.unanswer(number)?;
        }
        drop(maps);
        let mut state = lock(&self.state);
        for (_, judged) in holds {
            let hold = self.hold_of(&state, &judged);
            state.holds.insert(hold.info.id, hold);
        }
        Ok(())
    }

    /// Takes in one record.
    pub fn record(&self, data: &[u8]) {
        let record = match record::decode(data) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(%error, "a record of the kernel side can't be read");
                return;
            }
        };
        let mut state = lock(&self.state);
        match record {
            Record::Fork(fork) => state.processes.forked(&fork),
            Record::Exec(exec) => {
                state.processes.executed(&exec);
                self.seated(&mut state, exec.header.session);
            }
            Record::Exit(exit) => state.processes.exited(&exit.header),
            Record::Judged(judged) if is_own_work(&judged) => {}
            Record::Judged(judged) => self.judged(&mut state, &judged),
        }
    }

    fn judged(&self, state: &mut State, judged: &Judged) {
        // The SIEM wants the time by the clock as it is now.
        let time = Time(proc::boot_time_ms().saturating_add(judged.header.time / 1_000_000));
        let hold = (judged.hold != 0).then(|| hold::id(judged));
        match judged.answer {
            Judged::ASKED => self.asked(state, judged, time),
            Judged::APPROVED | Judged::DENIED => self.answered(state, judged, time),
            _ => {
                let process = state.processes.of(&judged.header);
                let said = Said {
                    actor: state.actor(&process),
                    decision: decided(state, judged),
                    verdict: Verdict(judged.done),
                    hold,
                };
                self.log.append(&Event::at(time, Activity::Judged(said)));
            }
        }
    }

    /// A call is held: people are asked.
    pub(super) fn asked(&self, state: &mut State, judged: &Judged, time: Time) {
        let id = hold::id(judged);
        if !state.holds.contains_key(&id) {
            let hold = self.hold_of(state, judged);
            state.holds.insert(id, hold);
            forget_answered(state);
        }
        if let Some(hold) = state.holds.get(&id) {
            let held = Held { hold: id, actor: hold.actor.clone(), decision: hold.decided.clone() };
            self.log.append(&Event::at(time, Activity::Held(held)));
        }
    }

    /// A held call went on or failed.
    fn answered(&self, state: &mut State, judged: &Judged, time: Time) {
        let approved = judged.answer == Judged::APPROVED;
        let outcome = if approved { Outcome::Approved } else { Outcome::Denied };
        let known = state.holds.values().find(|hold| hold.number == judged.hold).map(|hold| hold.info.id);
        let process = state.processes.of(&judged.header);
        let (actor, decision) = (state.actor(&process), decided(state, judged));
        if let Some(id) = known {
            self.settle(state, id, outcome, time);
        }
        let said = Said { actor, decision, verdict: Verdict(judged.done), hold: known };
        self.log.append(&Event::at(time, Activity::Judged(said)));
    }

    /// Closes a hold and says so.
    pub(super) fn settle(&self, state: &mut State, id: Ulid, outcome: Outcome, time: Time) {
        let Some(hold) = state.holds.get_mut(&id) else { return };
        if hold.info.state != HoldState::Waiting && hold.answer.is_none() {
            return;
        }
        let given = hold.answer.take();
        hold.process = None;
        hold.info.state = match outcome {
            Outcome::Approved => HoldState::Approved,
            Outcome::Denied => HoldState::Denied,
            Outcome::Withdrawn => HoldState::Withdrawn,
        };
        // Who answered something that then never came to pass has answered nothing.
        let given = given.filter(|_| outcome != Outcome::Withdrawn);
        hold.info.answered = Some(given.as_ref().map_or(time, |given| given.at));
        hold.info.answered_by = given.as_ref().map(|given| given.by.clone());
        hold.info.comment = given.as_ref().and_then(|given| given.comment.clone());
        hold.info.waited_ms = hold.waited_ms();
        let answered = Answered {
            hold: id,
            asked: hold.info.asked,
            actor: hold.actor.clone(),
            decision: hold.decided.clone(),
            outcome,
            by: hold.info.answered_by.clone(),
            comment: hold.info.comment.clone(),
            held_ms: hold.info.waited_ms,
        };
        self.log.append(&Event::at(time, Activity::Answered(answered)));
    }

    fn hold_of(&self, state: &State, judged: &Judged) -> Hold {
        let process = state.processes.of(&judged.header);
        let actor = state.actor(&process);
        let decided = decided(state, judged);
        let info = self.hold_info(state, judged, &process, &actor, &decided);
        // Who froze the call is the process that waits; if it has gone, the next sweep withdraws the hold.
        let fd = proc::open_started(judged.header.tgid, judged.header.start).ok();
        Hold { number: judged.hold, info, process: fd, actor, decided, answer: None, missed: 0 }
    }

    fn hold_info(
        &self,
        state: &State,
        judged: &Judged,
        process: &Process,
        actor: &Actor,
        decided: &Decided,
    ) -> HoldInfo {
        let (path, target_path, address, port) = match &decided.object {
            Object::File(first, second) => {
                (Some(first.path.clone()), second.as_ref().map(|file| file.path.clone()), None, None)
            }
            Object::Address(address) => (None, None, Some(address.ip.to_string()), Some(address.port)),
            Object::Socket(SocketRef::File(file)) => (Some(file.path.clone()), None, None, None),
            Object::Socket(socket) => (None, None, Some(socket.text()), None),
            Object::Command(command) => (Some(command.file.path.clone()), None, None, None),
            Object::System(_) | Object::Name(_) => (None, None, None, None),
        };
        let command_line = match &decided.object {
            Object::Command(command) => Some(command.line()),
            _ => None,
        };
        let rule = state.rule(judged.generation, judged.rule);
        let session = actor.session.as_ref();
        HoldInfo {
            id: hold::id(judged),
            session: session.map_or(Ulid::nil(), |session| session.id),
            session_name: session.and_then(|session| session.name.clone()),
            profile: session.map(|session| session.profile.clone()).unwrap_or_default(),
            process: process.info(),
            operation: decided.operation.name().to_owned(),
            path,
            target_path,
            command_line,
            address,
            port,
            rule: rule.map(|rule| crate::api::convert::rule(rule, self.hooks_of(rule))),
            asked: time_of(judged.header.time),
            state: HoldState::Waiting,
            answered_by: None,
            answered: None,
            comment: None,
            waited_ms: 0,
        }
    }
}

/// Whether the daemon itself has done it, before it had told the kernel side which process it is.
fn is_own_work(judged: &Judged) -> bool {
    judged.header.session == 0 && judged.header.tgid == std::process::id() && judged.hook == Hook::BPF.0
}

/// Drops the oldest answered holds.
fn forget_answered(state: &mut State) {
    let settled: Vec<Ulid> = state.holds.iter().filter(|(_, hold)| !hold.open()).map(|(id, _)| *id).collect();
    let surplus = settled.len().saturating_sub(ANSWERED_KEPT);
    for id in settled.into_iter().take(surplus) {
        state.holds.remove(&id);
    }
}

/// A decision, as events say it.
fn decided(state: &State, judged: &Judged) -> Decided {
    let [first, second] = &judged.path;
    let object = if judged.family == AF_UNIX {
        Object::Socket(socket(judged))
    } else if judged.family != 0 {
        let ip = Ipv6Addr::from(judged.addr);
        let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
        Object::Address(AddressRef {
            ip,
            port: judged.port,
            protocol: judged.protocol,
            names: state.names_of(judged.header.session, &judged.addr),
            local: judged.op == Op::LISTEN.0,
        })
    } else if judged.op == Op::EXEC.0 {
        let arguments = second.get(..usize::from(judged.second.path_len)).unwrap_or(second);
        Object::Command(CommandRef {
            file: file(&judged.first, first),
            arguments: record::arguments(arguments),
            cut: judged.second.cut != 0,
        })
    } else if Op(judged.op).is_system() && judged.first.mode == 0 {
        let target = (judged.target != 0).then(|| state.processes.by_number(judged.target).info());
        Object::System(SystemRef { what: system::what(judged), target })
    } else {
        let two = [Hook::PATH_RENAME, Hook::PATH_LINK, Hook::SB_PIVOTROOT, Hook::MOVE_MOUNT];
        let two = two.iter().any(|hook| hook.0 == judged.hook);
        Object::File(file(&judged.first, first), two.then(|| file(&judged.second, second)))
    };
    Decided {
        policy: state.generation_ref(judged.generation),
        operation: Op(judged.op),
        object,
        policy_verdict: Verdict(judged.policy),
        source: Source(judged.source),
        rule: state.rule_ref(judged.generation, judged.rule),
        fault: Fault(judged.fault),
        hook: Hook(judged.hook),
        errno: judged.errno,
    }
}

/// `AF_UNIX` (`include/linux/socket.h`).
const AF_UNIX: u16 = 1;

fn socket(judged: &Judged) -> SocketRef {
    let [text, _] = &judged.path;
    if judged.first.object.ino != 0 {
        return SocketRef::File(file(&judged.first, text));
    }
    let name = text.get(..usize::from(judged.first.path_len)).unwrap_or_default();
    SocketRef::Abstract(name.utf8_chunks().fold(String::new(), |mut all, chunk| {
        all.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| all.push_str(&format!("\\x{byte:02x}")));
        all
    }))
}

fn file(seen: &Seen, text: &[u8]) -> FileRef {
    let ObjectKey { dev, ino, .. } = seen.object;
    FileRef {
        path: record::path(seen, text).unwrap_or_default().to_string_lossy().into_owned(),
        cut: seen.cut != 0,
        dev: format!("{}:{}", dev >> 20, dev & 0x000f_ffff),
        ino,
        mode: seen.mode,
    }
}
