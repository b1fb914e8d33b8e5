//! The guard itself.

use agent_guard_common::{
    Source, Verdict,
    decide::Decision,
    event::{Hook, count},
};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::{
    emit,
    enforce::{EPERM, Outcome},
    kernel::{key_of, unix_path},
    maps::GUARD,
    tag::Subject,
};

// int unix_stream_connect(struct sock *sock, struct sock *other, struct sock *newsk)
// A session doesn't talk to its guard. The daemon refuses tagged callers too, but on kernels before 6.5 it
// only learns a caller's number, which can be used again.
#[lsm(hook = "unix_stream_connect")]
pub fn unix_stream_connect(ctx: LsmContext) -> i32 {
    let Some(subject) = Subject::current() else { return 0 };
    let (Some(guard), Some(socket)) = (GUARD.get(0), unix_path(ctx.arg(1))) else { return -EPERM };
    if socket.dentry == 0 {
        return 0;
    }
    let Some(object) = key_of(socket.dentry) else { return -EPERM };
    if object.ino != guard.socket.ino || object.dev != guard.socket.dev {
        return 0;
    }
    emit::count(count::DENIED);
    let outcome = Outcome::fresh(Decision::new(Verdict::DENY, Source::BUILTIN, 0), -EPERM);
    emit::guard(subject, Hook::UNIX_STREAM_CONNECT, socket, &outcome);
    -EPERM
}
