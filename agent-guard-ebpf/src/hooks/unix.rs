//! Unix sockets. What is judged is the socket that the kernel has found, by what it is bound to.

use agent_guard_common::{Fault, ObjectKey, Op, event::Hook};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    asked::More,
    enforce::{enforce, enforce_more},
    judge::{Call, Judgement},
    kernel::{AF_UNIX, Dentry, Sock, Socket, UnixSocket},
    maps::GUARD,
    sockets,
    tag::Subject,
    walk::{make_scratch, object_at},
    wherever::wherever,
};

/// Whether a file is the guard's own socket. A session doesn't talk to its guard: the daemon refuses tagged callers too, but
/// on kernels before 6.5 it only learns a caller's number, which can be used again.
#[inline(always)]
fn is_guard(dentry: Dentry) -> bool {
    let (Some(guard), Some(inode)) = (GUARD.get(0), dentry.inode()) else { return true };
    inode.number() == guard.socket.ino && dentry.device() == guard.socket.dev
}

/// Whether a file is the socket that the guard has for sessions, which needs no rule.
#[inline(always)]
fn is_for_sessions(dentry: Dentry) -> bool {
    let (Some(guard), Some(inode)) = (GUARD.get(0), dentry.inode()) else { return false };
    let ObjectKey { dev, ino, igen, .. } = guard.inside;
    ino != 0 && inode.number() == ino && inode.generation() == igen && dentry.device() == dev
}

/// Going to somebody's socket, which is locked meanwhile: what it is bound to stays.
#[inline(always)]
fn reach<const HOOK: u8>(subject: Subject, other: Option<Sock>) -> i32 {
    let mut call = Call::new(subject, Hook(HOOK), Op::CONNECT);
    call.asked.address.family = AF_UNIX;
    let Some((sk, socket)) = other.and_then(|sk| Some((sk, sk.unix()?))) else {
        return enforce(call, Judgement::fault(Fault::READ));
    };
    let path = socket.path();
    let dentry = path.dentry();
    if dentry.address() == 0 {
        return reach_name(call, sk, socket);
    }
    let mut call = call.on(path, dentry);
    let judgement = if is_guard(dentry) {
        Judgement::guarded()
    } else if is_for_sessions(dentry) || sockets::is_own(sk, &call.subject) {
        return 0;
    } else {
        // Who listens may have come to the file by a mount that the task doesn't have.
        call.judge(|session, tables| {
            let (judgement, _mount) = wherever(tables, session, Op::CONNECT, dentry);
            judgement.and(object_at(tables, session, Op::CONNECT, path.mount(), dentry))
        })
    };
    enforce(call, judgement)
}

/// One that has no file: an abstract name, or no name at all, as those that are made in pairs.
#[inline(always)]
fn reach_name(mut call: Call, sk: Sock, socket: UnixSocket) -> i32 {
    let (name, name_length) = match socket.abstract_name() {
        Ok(Some(name)) => name,
        Ok(None) => return 0,
        Err(fault) => return enforce(call, Judgement::fault(fault)),
    };
    if sockets::is_own(sk, &call.subject) {
        return 0;
    }
    let more = More { name, name_length, ..More::NONE };
    let Some(scratch) = make_scratch() else { return enforce(call, Judgement::fault(Fault::MEMORY)) };
    scratch.more = more;
    let judgement = call.judge(|session, tables| sockets::abstract_name(tables, session));
    enforce_more(call, judgement, more)
}

// int unix_stream_connect(struct sock *sock, struct sock *other, struct sock *newsk)
// For SOCK_SEQPACKET, too.
#[lsm(hook = "unix_stream_connect")]
pub fn unix_stream_connect(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    reach::<{ Hook::UNIX_STREAM_CONNECT.0 }>(subject, Some(Sock(ctx.arg(1))))
}

// int unix_may_send(struct socket *sock, struct socket *other)
// Datagrams: when a socket is connected, and for every message.
#[lsm(hook = "unix_may_send")]
pub fn unix_may_send(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    reach::<{ Hook::UNIX_MAY_SEND.0 }>(subject, Socket(ctx.arg(1)).sk())
}
