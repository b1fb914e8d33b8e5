//! Names: a session's questions go to the daemon's resolver, whomever they are sent to.
//!
//! An LSM hook sees the question first and notes, for the task, that it may be sent ([`ask`]). In the same system call a program
//! of the root control group finds that note and changes where it goes ([`redirect`]). So nobody's else questions are touched, and
//! no socket that others share takes them along. From which port the session asks is noted, too: that is how the daemon knows
//! whose question it is.

use agent_guard_common::{
    Protocol,
    net::{Asker, Question},
    rules::{Profile, Tables as _},
    subject::{Guard, Session},
};
use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_netns_cookie},
};

use crate::{
    judge::{Generation, Parity},
    kernel::{Address, Sock},
    maps::{ASKERS, ASKING, GUARD},
    sockets,
    tag::Subject,
};

/// Where names are asked for (RFC 1035, 4.2).
const PORT: u16 = 53;
/// `IPPROTO_TCP`, `IPPROTO_UDP` (`include/uapi/linux/in.h`).
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
/// `127.0.0.1`, as the kernel has it.
const LOOPBACK4: u32 = u32::from_ne_bytes([127, 0, 0, 1]);
/// `::ffff:127.0.0.1` and `::1`, in its words.
const MAPPED: [u32; 4] = [0, 0, 0xffff_u32.to_be(), LOOPBACK4];
const LOOPBACK6: [u32; 4] = [0, 0, 0, 1_u32.to_be()];

/// Whether what a session sends there is a question for a name that the daemon answers. Other kinds of UDP and TCP don't come by
/// [`redirect`] in all kernels, and are judged like everything else.
#[inline(always)]
pub fn are_ours(tables: &Generation, session: &Session, port: u16, protocol: u16) -> bool {
    are_those_of(tables.number, session, port, protocol)
}

/// The same, of a generation.
#[inline(always)]
pub fn are_those_of(generation: u32, session: &Session, port: u16, protocol: u16) -> bool {
    if port != PORT || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) {
        return false;
    }
    let tables = Parity(generation & 1);
    let profile = tables.profile(session.profile(generation));
    profile.is_some_and(|profile| profile.flags & Profile::NAMES != 0)
}

/// Notes a question that the current task is about to send. What can't be noted isn't sent.
#[inline(always)]
pub fn ask(sk: Sock, subject: &Subject, believed: &Address) -> bool {
    let session = subject.tag().session;
    ASKING.insert(bpf_get_current_pid_tgid(), session, 0).is_ok() && sockets::asks(sk, session, believed)
}

/// The current task ends: what it was about to ask isn't asked. Its number can come to somebody else.
#[inline(always)]
pub fn ends() {
    let _gone = ASKING.remove(bpf_get_current_pid_tgid());
}

/// Whether a socket is connected to the daemon's resolver.
#[inline(always)]
pub fn is_resolver(sk: Sock) -> bool {
    let (Some(guard), at) = (GUARD.get(0), sk.peer()) else { return false };
    let loopback = at.addr[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] && at.addr[12] == 127;
    (loopback && at.port == guard.resolver[0])
        || (u128::from_be_bytes(at.addr) == 1 && at.port == guard.resolver[1])
}

/// Whether a port is the resolver's, which nobody else listens at while the daemon is away.
#[inline(always)]
pub fn is_resolvers_port(port: u16) -> bool {
    GUARD.get(0).is_none_or(|guard| port != 0 && (port == guard.resolver[0] || port == guard.resolver[1]))
}

/// Notes from where the current task's session asks the resolver, through a socket that is connected to it. What can't be noted
/// isn't answered.
#[inline(always)]
pub fn asks_again(sk: Sock, subject: &Subject) {
    let Some(guard) = GUARD.get(0) else { return };
    if sk.namespace() == guard.namespace {
        note(sk.local().port, sk.protocol(), subject.tag().session, process());
    }
}

#[inline(always)]
fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Notes from where a process of a session asks the resolver.
#[inline(always)]
pub fn note(port: u16, protocol: u16, session: u64, tgid: u32) {
    if port == 0 {
        return;
    }
    let asker = Asker { port, protocol: Protocol(protocol as u8), pad: 0 };
    let _kept = ASKERS.insert(asker, Question { session, tgid, pad: 0 }, 0);
}

/// A connection or a message of any task's: if it is a session's question, it goes to the daemon's resolver. False where nobody
/// knows where that is: then it goes nowhere.
#[inline(always)]
pub fn redirect<const V6: bool>(to: *mut bpf_sock_addr) -> bool {
    // SAFETY: the context of such a program; the verifier checks what is read and written.
    unsafe {
        let port = core::ptr::read_volatile(&raw const (*to).user_port) as u16;
        if port != PORT.to_be() {
            return true;
        }
        let task = bpf_get_current_pid_tgid();
        let Some(session) = ASKING.get(task).copied() else { return true };
        let _gone = ASKING.remove(task);
        let Some(guard) = GUARD.get(0) else { return false };
        let sk = core::ptr::read_volatile(&raw const (*to).__bindgen_anon_1.sk);
        let protocol = core::ptr::read_volatile(&raw const (*to).protocol) as u16;
        let from = core::ptr::read_volatile(&raw const (*sk).src_port) as u16;
        if bpf_get_netns_cookie(to.cast()) == guard.namespace {
            note(from, protocol, session, process());
        }
        send_to_resolver::<V6>(to, guard);
        true
    }
}

/// Brings a question of the current task's to the daemon's resolver, where LSM programs don't run: whoever it is sent to, `believed`.
/// False where that can't be noted, or nobody knows where the resolver is: then it goes nowhere.
#[inline(always)]
pub fn bring<const V6: bool>(to: *mut bpf_sock_addr, session: u64, believed: &Address) -> bool {
    // SAFETY: the context of such a program; the verifier checks what is read and written.
    unsafe {
        let Some(guard) = GUARD.get(0) else { return false };
        let sk = core::ptr::read_volatile(&raw const (*to).__bindgen_anon_1.sk);
        let protocol = core::ptr::read_volatile(&raw const (*to).protocol) as u16;
        let from = core::ptr::read_volatile(&raw const (*sk).src_port) as u16;
        let here = bpf_get_netns_cookie(to.cast()) == guard.namespace;
        if here {
            note(from, protocol, session, process());
        }
        if !sockets::asks_plainly(sk.cast(), session, believed, here) {
            return false;
        }
        send_to_resolver::<V6>(to, guard);
        true
    }
}

/// # Safety
///
/// The context of a program that may change where something goes.
#[inline(always)]
unsafe fn send_to_resolver<const V6: bool>(to: *mut bpf_sock_addr, guard: &Guard) {
    // SAFETY: the caller's; the verifier checks what is written. Words are written whole, which all kernels take.
    unsafe {
        if !V6 {
            core::ptr::write_volatile(&raw mut (*to).user_ip4, LOOPBACK4);
            core::ptr::write_volatile(&raw mut (*to).user_port, u32::from(guard.resolver[0].to_be()));
            return;
        }
        // A socket that goes to IPv4 may be bound to IPv4. Without IPv6 at the daemon those that can go to IPv4 as well.
        let mapped =
            core::ptr::read_volatile(&raw const (*to).user_ip6[2]) == MAPPED[2] || guard.resolver[1] == 0;
        let (addr, port) = if mapped { (MAPPED, guard.resolver[0]) } else { (LOOPBACK6, guard.resolver[1]) };
        core::ptr::write_volatile(&raw mut (*to).user_ip6[0], addr[0]);
        core::ptr::write_volatile(&raw mut (*to).user_ip6[1], addr[1]);
        core::ptr::write_volatile(&raw mut (*to).user_ip6[2], addr[2]);
        core::ptr::write_volatile(&raw mut (*to).user_ip6[3], addr[3]);
        core::ptr::write_volatile(&raw mut (*to).user_port, u32::from(port.to_be()));
    }
}

/// Where an answer comes from, or what a socket is connected to: if that is the daemon's resolver, it says what the session
/// believes to talk to.
#[inline(always)]
pub fn restore<const V6: bool>(from: *mut bpf_sock_addr) {
    // SAFETY: the context of such a program; the verifier checks what is read and written.
    unsafe {
        let Some(guard) = GUARD.get(0) else { return };
        let port = u16::from_be(core::ptr::read_volatile(&raw const (*from).user_port) as u16);
        if port == 0 || (port != guard.resolver[0] && port != guard.resolver[1]) {
            return;
        }
        let sk = core::ptr::read_volatile(&raw const (*from).__bindgen_anon_1.sk);
        let Some((addr, port)) = sockets::kept(sk.cast(), 0).and_then(|mark| mark.believed()) else { return };
        let words = [addr[0] as u32, (addr[0] >> 32) as u32, addr[1] as u32, (addr[1] >> 32) as u32];
        if V6 {
            core::ptr::write_volatile(&raw mut (*from).user_ip6[0], words[0]);
            core::ptr::write_volatile(&raw mut (*from).user_ip6[1], words[1]);
            core::ptr::write_volatile(&raw mut (*from).user_ip6[2], words[2]);
            core::ptr::write_volatile(&raw mut (*from).user_ip6[3], words[3]);
        } else {
            core::ptr::write_volatile(&raw mut (*from).user_ip4, words[3]);
        }
        core::ptr::write_volatile(&raw mut (*from).user_port, u32::from(port.to_be()));
    }
}
