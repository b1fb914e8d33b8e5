//! Sockets of all families, as they are made.

use agent_guard_common::event::Hook;
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    asked::More,
    enforce::enforce_more,
    judge::Call,
    kernel::Socket,
    sockets::{self, operation},
    tag::Subject,
};

// int socket_create(int family, int type, int protocol, int kern)
#[lsm(hook = "socket_create")]
pub fn socket_create(ctx: LsmContext) -> i32 {
    let (family, kind, protocol) = (ctx.arg::<u32>(0), ctx.arg::<u32>(1), ctx.arg::<u32>(2));
    let Some(op) = operation(family, kind, protocol) else { return 0 };
    // The kernel's own.
    if ctx.arg::<u32>(3) != 0 {
        return 0;
    }
    let Some(subject) = Subject::current() else { return 0 };
    let mut call = Call::new(subject, Hook::SOCKET_CREATE, op);
    call.asked.detail = family;
    call.asked.protocol = protocol as u16;
    let arguments = u64::from(kind) << 32 | u64::from(protocol);
    let judgement = call.system(op);
    enforce_more(call, judgement, More { arguments, ..More::NONE })
}

// int socket_post_create(struct socket *sock, int family, int type, int protocol, int kern)
#[lsm(hook = "socket_post_create")]
pub fn socket_post_create(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    if ctx.arg::<u32>(4) == 0
        && let Some(sk) = Socket(ctx.arg(0)).sk()
    {
        sockets::made(sk, &subject);
    }
    0
}
