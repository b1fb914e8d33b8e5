//! Unix sockets: which of them a session has made itself, so that it may always go there, and what is said of abstract names.

use core::ptr;

use agent_guard_common::{Fault, decide, object::AbstractName, subject::Session};
use aya_ebpf::{
    bindings::BPF_LOCAL_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_probe_read_kernel, bpf_sk_storage_get},
};

use crate::{
    asked::More,
    judge::{Generation, Judgement, Parity},
    kernel::Sock,
    maps::SOCKETS,
    tag::Subject,
    walk::scratch,
};

/// Notes that the current task's session has made a socket. Where there is no memory for that, it is nobody's own.
#[inline(always)]
pub fn made(sk: Sock, subject: &Subject) {
    let mut session = subject.tag().session;
    // SAFETY: map, socket and value are what the helper takes, which the verifier checks.
    let _kept = unsafe {
        bpf_sk_storage_get(
            (&raw const SOCKETS).cast_mut().cast(),
            sk.0.cast_mut().cast(),
            ptr::from_mut(&mut session).cast(),
            u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE),
        )
    };
}

/// Whether the current task's session has made a socket. Sessions' numbers are never used twice.
#[inline(always)]
pub fn is_own(sk: Sock, subject: &Subject) -> bool {
    // SAFETY: map and socket are what the helper takes, which the verifier checks; no value to create from.
    let session = unsafe {
        bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), sk.0.cast_mut().cast(), ptr::null_mut(), 0)
    };
    // SAFETY: storage of a socket that is there as long as the hook runs; it is written when the socket is made.
    let session = unsafe { session.cast::<u64>().as_ref() };
    session.is_some_and(|session| *session == subject.tag().session)
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
