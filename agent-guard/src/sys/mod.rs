//! All of user space's unsafe code: system calls that no well-kept library has.

pub mod bpf;
mod pidfd;

pub use pidfd::{PeerError, peer_pidfd, pid_of};
