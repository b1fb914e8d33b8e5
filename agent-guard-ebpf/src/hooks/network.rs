//! Sockets.

use agent_guard_common::{Op, event::Hook};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    enforce::enforce,
    judge::{Call, Judgement},
    kernel::{Message, Socket},
    tag::Subject,
};

/// A socket that wants to go somewhere.
#[inline(always)]
fn go(subject: Subject, hook: Hook, socket: Socket, at: u64, length: u32) -> i32 {
    let mut call = Call::new(subject, hook, Op::CONNECT);
    call.asked.protocol = socket.protocol();
    let sending = hook.0 == Hook::SOCKET_SENDMSG.0;
    let judgement = match socket.destination(at, length, sending, &mut call.asked.address) {
        Ok(true) => call.connect(),
        Ok(false) => return 0,
        Err(fault) => Judgement::fault(fault),
    };
    enforce(call, judgement)
}

// int socket_connect(struct socket *sock, struct sockaddr *address, int addrlen)
#[lsm(hook = "socket_connect")]
pub fn socket_connect(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    go(subject, Hook::SOCKET_CONNECT, Socket(ctx.arg(0)), ctx.arg(1), ctx.arg(2))
}

// int socket_sendmsg(struct socket *sock, struct msghdr *msg, int size)
#[lsm(hook = "socket_sendmsg")]
pub fn socket_sendmsg(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let Some((at, length)) = Message(ctx.arg(1)).name() else { return 0 };
    go(subject, Hook::SOCKET_SENDMSG, Socket(ctx.arg(0)), at, length)
}
