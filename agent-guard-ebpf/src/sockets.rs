//! What is kept beside a socket: which session has made it, and where it went when it was last judged; and which operation it
//! is to make one at all.

use core::ptr;

use agent_guard_common::{
    Fault, Op, decide,
    object::AbstractName,
    subject::{Belonging, Session},
};
use aya_ebpf::{
    bindings::BPF_LOCAL_STORAGE_GET_F_CREATE,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_probe_read_kernel, bpf_sk_storage_get},
    },
};

use crate::{
    asked::More,
    judge::{Generation, Judgement, Parity, in_force},
    kernel::{self, AF_INET, AF_INET6, AF_UNIX, Address, Sock},
    maps::SOCKETS,
    tag::Subject,
    walk::scratch,
};

/// What is kept beside a socket. All zeroes if nobody has anything to say.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Mark {
    /// The number of the session that has made it. Never used twice.
    maker: u64,
    /// The number of the session whose policy was last asked where it may go.
    judged: u64,
    /// Where it went then.
    to: [u64; 2],
    /// The resolver that the session believes to talk to, while [`Mark::ASKS`].
    asked: [u64; 2],
    /// Its port, and that of `asked`, in host order.
    to_port: u16,
    asked_port: u16,
    /// The generation that was asked.
    generation: u32,
    /// [`Mark::ASKS`] and others.
    flags: u32,
    /// The slot of that session and the process, where LSM programs don't run.
    slot: u32,
    tgid: u32,
    pad: u32,
}

impl Mark {
    /// What it is connected to is the daemon's resolver.
    const ASKS: u32 = 1;
    /// It was accepted: what counts is where it listens.
    const ACCEPTED: u32 = 2;
    /// `to` and `generation` say where it went.
    const WENT: u32 = 4;
    /// The resolver is in the same network name space.
    const HERE: u32 = 8;
    /// It may not go on going there, says `generation`.
    const REFUSED: u32 = 16;

    #[inline(always)]
    fn goes_to(&self, sk: Sock) -> bool {
        let peer = sk.peer();
        self.flags & Self::WENT != 0 && self.to_port == peer.port && self.to == words(peer.addr)
    }

    /// Whether the policy in force has said already that the current task may go on sending there.
    #[inline(always)]
    pub fn is_still(&self, subject: &Subject, sk: Sock) -> bool {
        let tag = subject.tag();
        self.judged == tag.session
            && tag.hold == 0
            && self.goes_to(sk)
            && in_force().is_some_and(|generation| generation == self.generation)
            && subject.session().is_ok_and(|session| session.state == Session::LIVE)
    }

    /// Whether the session has gone there before with it, whatever the policy was.
    #[inline(always)]
    pub fn has_gone(&self, subject: &Subject, sk: Sock) -> bool {
        self.judged == subject.tag().session && self.goes_to(sk)
    }

    /// Whether the current task's session has accepted it.
    #[inline(always)]
    pub fn was_accepted(&self, subject: &Subject) -> bool {
        self.flags & Self::ACCEPTED != 0 && self.judged == subject.tag().session
    }

    /// Whether the session asks the daemon's resolver through it.
    #[inline(always)]
    pub fn asks(&self, subject: &Subject) -> bool {
        self.flags & Self::ASKS != 0 && self.judged == subject.tag().session
    }

    /// The session that asks the daemon's resolver through it, from a port that the daemon finds; none if none does.
    #[inline(always)]
    pub fn asks_from_here(&self) -> Option<u64> {
        const BOTH: u32 = Mark::ASKS | Mark::HERE;
        if self.flags & BOTH == BOTH { Some(self.judged) } else { None }
    }

    /// The process that has connected it, where LSM programs don't run.
    #[inline(always)]
    pub fn process(&self) -> u32 {
        self.tgid
    }

    /// Who has connected it, and to where, if another generation than the one in force was asked about that, or has refused it;
    /// where LSM programs don't run.
    #[inline(always)]
    pub fn judged_next(&self) -> Option<(Belonging, Address)> {
        let asked = in_force().is_some_and(|generation| generation == self.generation);
        if self.flags & Self::WENT == 0 || (asked && self.flags & Self::REFUSED == 0) {
            return None;
        }
        let who = Belonging { session: self.judged, slot: self.slot, pad: 0 };
        let [a, b] = self.to;
        let addr = (u128::from(a) | u128::from(b) << 64).to_ne_bytes();
        Some((who, Address { family: AF_INET6, port: self.to_port, addr }))
    }

    /// Whether a generation has refused already that it goes on going there.
    #[inline(always)]
    pub fn is_refused(&self, generation: u32) -> bool {
        self.flags & Self::REFUSED != 0 && self.generation == generation
    }

    /// Notes what a generation has said of going on going there.
    #[inline(always)]
    pub fn judged_again(&mut self, generation: u32, goes_on: bool) {
        self.generation = generation;
        self.flags = if goes_on { Self::WENT } else { Self::WENT | Self::REFUSED };
    }

    /// The session that has made it.
    #[inline(always)]
    pub fn made_by(&self, subject: &Subject) -> bool {
        self.maker == subject.tag().session
    }

    /// The resolver that whoever uses it believes to talk to, and its port; none if they talk to nobody's.
    #[inline(always)]
    pub fn believed(&self) -> Option<([u64; 2], u16)> {
        if self.flags & Self::ASKS != 0 { Some((self.asked, self.asked_port)) } else { None }
    }
}

#[inline(always)]
fn words(addr: [u8; 16]) -> [u64; 2] {
    let whole = u128::from_ne_bytes(addr);
    [whole as u64, (whole >> 64) as u64]
}

/// What is kept beside a socket, given any pointer to one that the verifier takes for that.
#[inline(always)]
pub fn kept(sk: *mut core::ffi::c_void, flags: u64) -> Option<&'static mut Mark> {
    // SAFETY: map and socket are what the helper takes, which the verifier checks; without a value it begins with zeroes.
    let mark =
        unsafe { bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), sk, ptr::null_mut(), flags) };
    // SAFETY: storage of a socket that is there as long as the program runs. Threads that share one write whole words.
    unsafe { mark.cast::<Mark>().as_mut() }
}

/// What is kept beside a socket.
#[inline(always)]
pub fn mark(sk: Sock) -> Option<&'static mut Mark> {
    kept(sk.0.cast_mut().cast(), 0)
}

#[inline(always)]
fn make_mark(sk: Sock) -> Option<&'static mut Mark> {
    kept(sk.0.cast_mut().cast(), u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE))
}

/// Notes that the current task's session has made a socket. Where there is no memory for that, it is nobody's own.
#[inline(always)]
pub fn made(sk: Sock, subject: &Subject) {
    if let Some(mark) = make_mark(sk) {
        mark.maker = subject.tag().session;
    }
}

/// Whether the current task's session has made a socket.
#[inline(always)]
pub fn is_own(sk: Sock, subject: &Subject) -> bool {
    mark(sk).is_some_and(|mark| mark.made_by(subject))
}

/// Notes that the policy lets a session go there with a socket. Where there is no memory for that, it is judged at every use.
#[inline(always)]
pub fn went(sk: Sock, subject: &Subject, generation: u32, to: &Address) {
    if let Some(mark) = make_mark(sk) {
        mark.judged = subject.tag().session;
        mark.to = words(to.addr);
        mark.to_port = to.port;
        mark.generation = generation;
        mark.flags = mark.flags & Mark::ACCEPTED | Mark::WENT;
    }
}

/// The same where LSM programs don't run: it is judged anew there when it is used under another policy. Where there is no memory for
/// that, it isn't; so it doesn't go there at all.
#[inline(always)]
pub fn goes(sk: *mut core::ffi::c_void, who: &Belonging, generation: u32, to: &Address) -> bool {
    let Some(mark) = kept(sk, u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE)) else { return false };
    mark.judged = who.session;
    mark.slot = who.slot;
    mark.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    mark.to = words(to.addr);
    mark.to_port = to.port;
    mark.generation = generation;
    mark.flags = Mark::WENT;
    true
}

/// Notes that a session asks a resolver through a socket, where LSM programs don't run; and whether the daemon can find the port that it
/// asks from. False where there is no memory for that.
#[inline(always)]
pub fn asks_plainly(sk: *mut core::ffi::c_void, session: u64, believed: &Address, here: bool) -> bool {
    let Some(mark) = kept(sk, u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE)) else { return false };
    mark.judged = session;
    mark.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    mark.asked = words(believed.addr);
    mark.asked_port = believed.port;
    mark.generation = 0;
    mark.flags = if here { Mark::ASKS | Mark::HERE } else { Mark::ASKS };
    true
}

/// Notes that the current task's session has accepted a connection. Where there is no memory for that, it is judged as one that
/// the session makes.
#[inline(always)]
pub fn accepted(sk: Sock, subject: &Subject) {
    if let Some(mark) = make_mark(sk) {
        mark.judged = subject.tag().session;
        mark.flags = Mark::ACCEPTED;
        mark.generation = 0;
    }
}

/// Notes that a session asks a resolver through a socket: the daemon's, whomever it believes to talk to. False where there is
/// no memory for that.
#[inline(always)]
pub fn asks(sk: Sock, session: u64, believed: &Address) -> bool {
    let Some(mark) = make_mark(sk) else { return false };
    mark.judged = session;
    mark.asked = words(believed.addr);
    mark.asked_port = believed.port;
    mark.generation = 0;
    mark.flags = Mark::ASKS;
    true
}

/// `AF_NETLINK`, `AF_PACKET`, `AF_BLUETOOTH`, `AF_ALG`, `AF_VSOCK`, `AF_XDP` (`include/linux/socket.h`).
const AF_NETLINK: u32 = 16;
const AF_PACKET: u32 = 17;
const AF_BLUETOOTH: u32 = 31;
const AF_ALG: u32 = 38;
const AF_VSOCK: u32 = 40;
const AF_XDP: u32 = 44;
/// `SOCK_STREAM`, `SOCK_DGRAM`, `SOCK_RAW`, `SOCK_PACKET` (`include/linux/net.h`).
pub const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const SOCK_RAW: u32 = 3;
const SOCK_SEQPACKET: u32 = kernel::SOCK_SEQPACKET as u32;
const SOCK_PACKET: u32 = 10;
/// `NETLINK_ROUTE` (`include/uapi/linux/netlink.h`): libraries ask for the host's addresses by it.
const NETLINK_ROUTE: u32 = 0;

/// Which operation on the system it is to make, or to use, a socket: none for those that rules are about.
#[inline(always)]
pub fn operation(family: u32, kind: u32, protocol: u32) -> Option<Op> {
    if family == u32::from(AF_UNIX) {
        return None;
    }
    if family == AF_NETLINK {
        return if protocol == NETLINK_ROUTE { None } else { Some(Op::NETLINK) };
    }
    if kind == SOCK_RAW && family != AF_BLUETOOTH
        || kind == SOCK_PACKET
        || family == AF_PACKET
        || family == AF_XDP
    {
        return Some(Op::RAW_NETWORK);
    }
    if family == u32::from(AF_INET) || family == u32::from(AF_INET6) {
        let known = matches!(kind, SOCK_STREAM | SOCK_DGRAM | SOCK_SEQPACKET)
            // Whichever fits; ICMP, TCP, UDP, ICMPv6, SCTP, UDP-Lite, MPTCP.
            && matches!(protocol, 0 | 1 | 6 | 17 | 58 | 132 | 136 | 262);
        return if known { None } else { Some(Op::SOCKETS) };
    }
    Some(match family {
        AF_VSOCK => Op::VSOCK,
        AF_ALG => Op::CRYPTO,
        AF_BLUETOOTH => Op::BLUETOOTH,
        _ => Op::SOCKETS,
    })
}

/// The decision about the Unix socket whose abstract name [`crate::maps::Scratch`] has.
#[inline(always)]
pub fn abstract_name(tables: &Generation, session: &Session) -> Judgement {
    Judgement(sockets_abstract(session.profile(tables.number), tables.parity().0)).forget(session.pad)
}

/// The same in plain numbers.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sockets_abstract(profile: u32, parity: u32) -> u64 {
    let Some(scratch) = scratch() else { return Judgement::fault(Fault::MEMORY).0 };
    let More { name, name_length, .. } = scratch.more;
    let key = &mut scratch.abstract_key;
    // VERIFIER: the bound has to be on the very value that is passed on.
    let length = name_length & AbstractName::ROOM as u32;
    // SAFETY: there is room for as much; the helper checks the source.
    let code = unsafe {
        bpf_probe_read_kernel(
            key.name.bytes.as_mut_ptr().cast(),
            length,
            ptr::with_exposed_provenance(name as usize),
        )
    };
    if code != 0 {
        return Judgement::fault(Fault::READ).0;
    }
    Judgement::from(decide::abstract_name(&Parity(parity & 1), profile, key, length)).0
}
