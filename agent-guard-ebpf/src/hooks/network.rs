//! Sockets of the Internet's families: where they go, and where they listen.
//!
//! VERIFIER: what is asked for is written where it stays, into the task's scratch: the stack is short.

use agent_guard_common::{Fault, Op, event::Hook};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    asked::More,
    enforce::{enforce_noted, no_memory},
    judge::{AGAIN, ASKS, Judgement, judge_noted},
    kernel::{AF_INET, AF_INET6, AF_UNIX, Message, Sock, Socket},
    maps::Scratch,
    questions,
    sockets::{self, SOCK_STREAM},
    tag::Subject,
    walk::make_scratch,
};

/// Begins to judge what a socket is used for.
#[inline(always)]
fn begin<const HOOK: u8>(op: Op, protocol: u16) -> Option<&'static mut Scratch> {
    let scratch = make_scratch()?;
    scratch.asked.begin(op, Hook(HOOK), protocol);
    scratch.more = More::NONE;
    Some(scratch)
}

/// What can't be found out.
#[inline(always)]
fn fault<const HOOK: u8>(subject: &Subject, op: Op, fault: Fault) -> i32 {
    match begin::<HOOK>(op, 0) {
        Some(_) => enforce_noted(subject, Judgement::fault(fault)),
        None => no_memory(),
    }
}

/// A socket that wants to go somewhere. None if the address says nowhere.
#[inline(always)]
fn go<const HOOK: u8>(subject: &Subject, sk: Sock, at: u64, length: u32) -> Option<i32> {
    let Some(scratch) = begin::<HOOK>(Op::CONNECT, sk.protocol()) else { return Some(no_memory()) };
    let sending = HOOK == Hook::SOCKET_SENDMSG.0;
    match sk.destination(at, length, sending, &mut scratch.asked.address) {
        Ok(true) => {}
        Ok(false) => return None,
        Err(fault) => return Some(enforce_noted(subject, Judgement::fault(fault))),
    }
    let mut judgement = Judgement(judge_noted(ASKS));
    if judgement.is_question() {
        if questions::ask(sk, subject, &scratch.asked.address) {
            return Some(0);
        }
        judgement = Judgement::fault(Fault::MEMORY);
    }
    let code = enforce_noted(subject, judgement);
    // A message that names where it goes says nothing of where the socket goes.
    if code == 0 && (!sending || u32::from(sk.kind()) == SOCK_STREAM) {
        sockets::went(sk, subject, scratch.asked.generation, &scratch.asked.address);
    }
    Some(code)
}

// int socket_connect(struct socket *sock, struct sockaddr *address, int addrlen)
#[lsm(hook = "socket_connect")]
pub fn socket_connect(ctx: LsmContext) -> i32 {
    const HOOK: u8 = Hook::SOCKET_CONNECT.0;
    let Some(subject) = Subject::current() else { return 0 };
    match Socket(ctx.arg(0)).sk() {
        Some(sk) => go::<HOOK>(&subject, sk, ctx.arg(1), ctx.arg(2)).unwrap_or(0),
        None => fault::<HOOK>(&subject, Op::CONNECT, Fault::READ),
    }
}

// int socket_sendmsg(struct socket *sock, struct msghdr *msg, int size)
// A stream that is connected goes where it is connected to, whatever address a message has.
#[lsm(hook = "socket_sendmsg")]
pub fn socket_sendmsg(ctx: LsmContext) -> i32 {
    const HOOK: u8 = Hook::SOCKET_SENDMSG.0;
    let Some(subject) = Subject::current() else { return 0 };
    let Some(sk) = Socket(ctx.arg(0)).sk() else { return fault::<HOOK>(&subject, Op::CONNECT, Fault::READ) };
    if let Some((at, length)) = Message(ctx.arg(1)).name() {
        match go::<HOOK>(&subject, sk, at, length) {
            Some(0) if u32::from(sk.kind()) != SOCK_STREAM => return 0,
            None | Some(0) => {}
            Some(code) => return code,
        }
    }
    send::<HOOK>(&subject, sk)
}

/// Something is sent to where a socket is connected.
#[inline(always)]
fn send<const HOOK: u8>(subject: &Subject, sk: Sock) -> i32 {
    let family = sk.family();
    if family == AF_UNIX {
        return 0;
    }
    if family != AF_INET && family != AF_INET6 {
        return use_other::<HOOK>(subject, sk);
    }
    if sk.is_nowhere() {
        // The kernel refuses it, but for SCTP, which finds one of its associations by a number. The session's own were judged as
        // they were made, and where others go nobody knows.
        let judged = !sk.has_many() || sockets::is_own(sk, subject);
        return if judged { 0 } else { fault::<HOOK>(subject, Op::CONNECT, Fault::ADDRESS) };
    }
    if let Some(mark) = sockets::mark(sk) {
        if mark.is_still(subject, sk) {
            return 0;
        }
        if mark.asks(subject) && questions::is_resolver(sk) {
            questions::asks_again(sk, subject);
            return 0;
        }
    }
    go_on::<HOOK>(subject, sk)
}

/// A socket that is connected already goes on going there.
#[inline(always)]
fn go_on<const HOOK: u8>(subject: &Subject, sk: Sock) -> i32 {
    let Some(scratch) = begin::<HOOK>(Op::CONNECT, sk.protocol()) else { return no_memory() };
    let judgement = judge_going_on(subject, sk, scratch);
    let code = enforce_noted(subject, judgement);
    if code == 0 {
        sockets::went(sk, subject, scratch.asked.generation, &sk.peer());
    }
    code
}

/// One that the session has accepted is judged by where it listens.
#[inline(always)]
fn judge_going_on(subject: &Subject, sk: Sock, scratch: &mut Scratch) -> Judgement {
    let mut how = 0;
    scratch.asked.address = sk.peer();
    if let Some(mark) = sockets::mark(sk) {
        if mark.was_accepted(subject) {
            scratch.asked.op = Op::LISTEN;
            scratch.asked.address = sk.local();
        } else if mark.has_gone(subject, sk) {
            how = AGAIN;
        }
    }
    Judgement(judge_noted(how))
}

/// A socket of a family that rules aren't about: if it isn't the session's own, as making it is.
#[inline(always)]
fn use_other<const HOOK: u8>(subject: &Subject, sk: Sock) -> i32 {
    let Some(op) = operation(sk) else { return 0 };
    if sockets::is_own(sk, subject) {
        return 0;
    }
    let Some(scratch) = begin::<HOOK>(op, sk.protocol()) else { return no_memory() };
    scratch.asked.detail = sk.family().into();
    enforce_noted(subject, Judgement(judge_noted(0)))
}

#[inline(always)]
fn operation(sk: Sock) -> Option<Op> {
    sockets::operation(sk.family().into(), sk.kind().into(), sk.protocol().into())
}

/// The judgement of a socket that comes from elsewhere, as one that is received, noted as such: there is no call to start again.
///
/// VERIFIER: not a part of who calls it, whose stack is shared with walks.
#[inline(never)]
pub fn receive(sk: Sock) -> u64 {
    let fine = Judgement::builtin().0;
    let (Some(subject), family) = (Subject::current(), sk.family()) else { return fine };
    let op = match operation(sk) {
        Some(_) if sockets::is_own(sk, &subject) => return fine,
        Some(op) => op,
        None if family != AF_INET && family != AF_INET6 => return fine,
        None if sk.has_many() && !sockets::is_own(sk, &subject) => return judge_many(sk),
        None if sk.listens() => Op::LISTEN,
        None if sk.is_nowhere() => return fine,
        None => Op::CONNECT,
    };
    let Some(scratch) = begin::<{ Hook::FILE_RECEIVE.0 }>(op, sk.protocol()) else {
        return Judgement::fault(Fault::MEMORY).0;
    };
    scratch.asked.restarts = 0;
    if op.0 == Op::CONNECT.0 {
        return judge_going_on(&subject, sk, scratch).0;
    }
    if op.0 == Op::LISTEN.0 {
        scratch.asked.address = sk.local();
        return judge_listening(scratch).0;
    }
    scratch.asked.detail = family.into();
    judge_noted(0)
}

/// The judgement of a socket of somebody else's that may be connected to anybody.
#[inline(always)]
fn judge_many(sk: Sock) -> u64 {
    let fault = match begin::<{ Hook::FILE_RECEIVE.0 }>(Op::CONNECT, sk.protocol()) {
        Some(scratch) => {
            scratch.asked.restarts = 0;
            Fault::ADDRESS
        }
        None => Fault::MEMORY,
    };
    Judgement::fault(fault).0
}

/// While the daemon is away, questions for names would come to whoever listens at the resolver's port.
#[inline(always)]
fn judge_listening(scratch: &Scratch) -> Judgement {
    if questions::is_resolvers_port(scratch.asked.address.port) {
        Judgement::guarded()
    } else {
        Judgement(judge_noted(0))
    }
}

/// A socket that is waited at.
#[inline(always)]
fn wait<const HOOK: u8>(socket: Socket) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let Some(sk) = socket.sk() else { return fault::<HOOK>(&subject, Op::LISTEN, Fault::READ) };
    if !matches!(sk.family(), AF_INET | AF_INET6) {
        return 0;
    }
    let Some(scratch) = begin::<HOOK>(Op::LISTEN, sk.protocol()) else { return no_memory() };
    scratch.asked.address = sk.local();
    enforce_noted(&subject, judge_listening(scratch))
}

#[inline(always)]
fn bind<const HOOK: u8>(subject: &Subject, sk: Sock, at: u64, length: u32) -> i32 {
    let Some(scratch) = begin::<HOOK>(Op::LISTEN, sk.protocol()) else { return no_memory() };
    match sk.binding(at, length, &mut scratch.asked.address) {
        Ok(false) => 0,
        Ok(true) => enforce_noted(subject, judge_listening(scratch)),
        Err(fault) => enforce_noted(subject, Judgement::fault(fault)),
    }
}

// int socket_bind(struct socket *sock, struct sockaddr *address, int addrlen)
#[lsm(hook = "socket_bind")]
pub fn socket_bind(ctx: LsmContext) -> i32 {
    const HOOK: u8 = Hook::SOCKET_BIND.0;
    let Some(subject) = Subject::current() else { return 0 };
    match Socket(ctx.arg(0)).sk() {
        Some(sk) => bind::<HOOK>(&subject, sk, ctx.arg(1), ctx.arg(2)),
        None => fault::<HOOK>(&subject, Op::LISTEN, Fault::READ),
    }
}

// int socket_listen(struct socket *sock, int backlog)
#[lsm(hook = "socket_listen")]
pub fn socket_listen(ctx: LsmContext) -> i32 {
    wait::<{ Hook::SOCKET_LISTEN.0 }>(Socket(ctx.arg(0)))
}

// int socket_accept(struct socket *sock, struct socket *newsock)
#[lsm(hook = "socket_accept")]
pub fn socket_accept(ctx: LsmContext) -> i32 {
    wait::<{ Hook::SOCKET_ACCEPT.0 }>(Socket(ctx.arg(0)))
}

// void sock_graft(struct sock *sk, struct socket *parent)
// A connection is accepted.
#[lsm(hook = "sock_graft")]
pub fn sock_graft(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let sk = Sock(ctx.arg(0));
    if matches!(sk.family(), AF_INET | AF_INET6) {
        sockets::accepted(sk, &subject);
    }
    0
}

/// What `sctp_bind_connect` is asked for that is no connection (`include/uapi/linux/sctp.h`: `SCTP_SET_PEER_PRIMARY_ADDR`,
/// `SCTP_PRIMARY_ADDR`, `SCTP_SOCKOPT_BINDX_ADD`).
const fn binds(option: u32) -> bool {
    matches!(option, 5 | 6 | 100)
}

/// `struct sockaddr_in6`, the longest of the Internet's.
const ONE_ADDRESS: u32 = 28;

// int sctp_bind_connect(struct sock *sk, int optname, struct sockaddr *address, int addrlen)
// Addresses behind the first aren't judged, so there must be none.
#[lsm(hook = "sctp_bind_connect")]
pub fn sctp_bind_connect(ctx: LsmContext) -> i32 {
    const HOOK: u8 = Hook::SCTP_BIND_CONNECT.0;
    let Some(subject) = Subject::current() else { return 0 };
    let (sk, at, length) = (Sock(ctx.arg(0)), ctx.arg::<u64>(2), ctx.arg::<u32>(3));
    if length > ONE_ADDRESS {
        let Some(scratch) = begin::<HOOK>(Op::CONNECT, sk.protocol()) else { return no_memory() };
        // The first is told.
        let _told = sk.destination(at, ONE_ADDRESS, false, &mut scratch.asked.address);
        return enforce_noted(&subject, Judgement::fault(Fault::ADDRESS));
    }
    if binds(ctx.arg(1)) {
        return bind::<HOOK>(&subject, sk, at, length);
    }
    go::<HOOK>(&subject, sk, at, length).unwrap_or(0)
}
