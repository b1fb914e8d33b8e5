//! Where questions for names go. Programs of the root control group, which see everybody's.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::questions::{redirect, restore};

/// The call goes on. What is none, ends with `EPERM`.
const GO_ON: i32 = 1;

#[cgroup_sock_addr(connect4)]
pub fn names_connect4(ctx: SockAddrContext) -> i32 {
    i32::from(redirect::<false>(ctx.sock_addr))
}

#[cgroup_sock_addr(connect6)]
pub fn names_connect6(ctx: SockAddrContext) -> i32 {
    i32::from(redirect::<true>(ctx.sock_addr))
}

// Messages that a socket isn't connected for.
#[cgroup_sock_addr(sendmsg4)]
pub fn names_sendmsg4(ctx: SockAddrContext) -> i32 {
    i32::from(redirect::<false>(ctx.sock_addr))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn names_sendmsg6(ctx: SockAddrContext) -> i32 {
    i32::from(redirect::<true>(ctx.sock_addr))
}

// Who looks from where an answer comes finds the server that was asked.
#[cgroup_sock_addr(recvmsg4)]
pub fn names_recvmsg4(ctx: SockAddrContext) -> i32 {
    restore::<false>(ctx.sock_addr);
    GO_ON
}

#[cgroup_sock_addr(recvmsg6)]
pub fn names_recvmsg6(ctx: SockAddrContext) -> i32 {
    restore::<true>(ctx.sock_addr);
    GO_ON
}

#[cgroup_sock_addr(getpeername4)]
pub fn names_getpeername4(ctx: SockAddrContext) -> i32 {
    restore::<false>(ctx.sock_addr);
    GO_ON
}

#[cgroup_sock_addr(getpeername6)]
pub fn names_getpeername6(ctx: SockAddrContext) -> i32 {
    restore::<true>(ctx.sock_addr);
    GO_ON
}
