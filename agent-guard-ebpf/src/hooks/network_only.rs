//! The network where no LSM programs run: programs of the root control group, which see everybody's calls.

use agent_guard_common::{
    Op, Source, Verdict, decide::Decision, event::Hook, net::mapped, subject::Belonging,
};
use aya_ebpf::{
    bindings::bpf_sock_addr,
    macros::{cgroup_skb, cgroup_sock, cgroup_sock_addr},
    programs::{SkBuffContext, SockAddrContext, SockContext},
};

use crate::{
    judge::Judgement,
    kernel::{AF_INET, AF_INET6, Address},
    network_only::{self, Inquiry, current, enforce, say_why},
    questions, sockets,
};

/// The call goes on; the packet leaves.
const GO_ON: i32 = 1;
/// It doesn't.
const REFUSE: i32 = 0;

/// Where a call goes, or binds to.
///
/// # Safety
///
/// The context of such a program.
#[inline(always)]
unsafe fn address<const V6: bool>(at: *mut bpf_sock_addr) -> Address {
    // SAFETY: the caller's; the verifier checks what is read. Words are read whole, which all kernels take.
    unsafe {
        let port = u16::from_be(core::ptr::read_volatile(&raw const (*at).user_port) as u16);
        if !V6 {
            let addr = core::ptr::read_volatile(&raw const (*at).user_ip4);
            return Address { family: AF_INET, port, addr: mapped(addr.to_ne_bytes()) };
        }
        let words = [
            core::ptr::read_volatile(&raw const (*at).user_ip6[0]),
            core::ptr::read_volatile(&raw const (*at).user_ip6[1]),
            core::ptr::read_volatile(&raw const (*at).user_ip6[2]),
            core::ptr::read_volatile(&raw const (*at).user_ip6[3]),
        ];
        // An array of the same size, and bytes can be anything.
        Address { family: AF_INET6, port, addr: core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
    }
}

/// The protocol of the socket.
///
/// # Safety
///
/// The context of such a program.
#[inline(always)]
unsafe fn protocol(at: *mut bpf_sock_addr) -> u16 {
    // SAFETY: the caller's; the verifier checks what is read.
    unsafe { core::ptr::read_volatile(&raw const (*at).protocol) as u16 }
}

/// A connection, or a message that names where it goes.
#[inline(always)]
fn go<const V6: bool, const HOOK: u8>(ctx: &SockAddrContext) -> i32 {
    let Some(who) = current() else { return GO_ON };
    // SAFETY: the context of such a program.
    let (to, protocol) = unsafe { (address::<V6>(ctx.sock_addr), protocol(ctx.sock_addr)) };
    if asks(&who, to.port, protocol) {
        return i32::from(questions::bring::<V6>(ctx.sock_addr, who.session, &to));
    }
    let mut inquiry = Inquiry::new(who, Op::CONNECT, &to, protocol);
    let judgement = inquiry.judge();
    if !enforce(&inquiry, Hook(HOOK), to.family, judgement) {
        say_why(&inquiry);
        return REFUSE;
    }
    if HOOK == Hook::CONNECT4.0 || HOOK == Hook::CONNECT6.0 {
        // SAFETY: the context of such a program; the verifier checks what is read.
        let sk = unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).__bindgen_anon_1.sk) };
        return i32::from(sockets::goes(sk.cast(), &who, inquiry.generation, &to));
    }
    GO_ON
}

/// Whether it is a question for a name that the daemon answers.
#[inline(always)]
fn asks(who: &Belonging, port: u16, protocol: u16) -> bool {
    let (Ok(session), Some(generation)) = (network_only::session(who), crate::judge::in_force()) else {
        return false;
    };
    questions::are_those_of(generation, session, port, protocol)
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    go::<false, { Hook::CONNECT4.0 }>(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    go::<true, { Hook::CONNECT6.0 }>(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    go::<false, { Hook::SENDMSG4.0 }>(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    go::<true, { Hook::SENDMSG6.0 }>(&ctx)
}

/// Binding to a port, which servers do.
#[inline(always)]
fn bind<const V6: bool, const HOOK: u8>(ctx: &SockAddrContext) -> i32 {
    let Some(who) = current() else { return GO_ON };
    // SAFETY: the context of such a program.
    let (at, protocol) = unsafe { (address::<V6>(ctx.sock_addr), protocol(ctx.sock_addr)) };
    if at.port == 0 {
        return GO_ON;
    }
    let mut inquiry = Inquiry::new(who, Op::LISTEN, &at, protocol);
    let mut judgement = inquiry.judge();
    if questions::is_resolvers_port(at.port) {
        judgement = Judgement::decided(Decision::new(Verdict::DENY, Source::GUARD, 0));
    }
    i32::from(enforce(&inquiry, Hook(HOOK), at.family, judgement))
}

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    bind::<false, { Hook::BIND4.0 }>(&ctx)
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    bind::<true, { Hook::BIND6.0 }>(&ctx)
}

/// `IPPROTO_TCP`, `IPPROTO_UDP`, `IPPROTO_UDPLITE` (`include/uapi/linux/in.h`).
const fn is_judged(protocol: u32) -> bool {
    matches!(protocol, 6 | 17 | 136)
}

// Sockets of the Internet's families, as they are made. Where those of other protocols than TCP's and UDP's go isn't seen here, so they
// are judged as those of other families.
#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    let Some(who) = current() else { return GO_ON };
    // SAFETY: the context of such a program; the verifier checks what is read.
    let (family, kind, protocol) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*ctx.sock).family),
            core::ptr::read_volatile(&raw const (*ctx.sock).type_),
            core::ptr::read_volatile(&raw const (*ctx.sock).protocol),
        )
    };
    let op = match sockets::operation(family, kind, protocol) {
        Some(op) => op,
        None if is_judged(protocol) => return GO_ON,
        None => Op::SOCKETS,
    };
    let mut inquiry = Inquiry::new(who, op, &Address::NONE, protocol as u16);
    let judgement = inquiry.judge();
    i32::from(enforce(&inquiry, Hook::SOCK_CREATE, 0, judgement))
}

// What leaves a socket. Whoever's turn it is: the current task has nothing to do with it.
#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    // SAFETY: the context of such a program; the verifier checks what is read.
    let sk = unsafe { core::ptr::read_volatile(&raw const (*ctx.skb.skb).__bindgen_anon_2.sk) };
    if sk.is_null() {
        return GO_ON;
    }
    let Some(mark) = sockets::kept(sk.cast(), 0) else { return GO_ON };
    // SAFETY: the socket of a packet, which the verifier checks.
    let sk = unsafe { aya_ebpf::helpers::generated::bpf_sk_fullsock(sk) };
    if sk.is_null() {
        return GO_ON;
    }
    // SAFETY: the verifier checks what is read.
    let (port, protocol) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*sk).src_port),
            core::ptr::read_volatile(&raw const (*sk).protocol),
        )
    };
    if let Some(session) = mark.asks_from_here() {
        questions::note(port as u16, protocol as u16, session, mark.process());
        return GO_ON;
    }
    let Some((who, to)) = mark.judged_next() else { return GO_ON };
    let mut inquiry = Inquiry::new(who, Op::CONNECT, &to, protocol as u16);
    inquiry.again = 1;
    inquiry.tgid = mark.process();
    let judgement = inquiry.judge();
    if mark.is_refused(inquiry.generation) {
        return REFUSE;
    }
    let goes_on = enforce(&inquiry, Hook::EGRESS, to.family, judgement);
    mark.judged_again(inquiry.generation, goes_on);
    if goes_on { GO_ON } else { REFUSE }
}
