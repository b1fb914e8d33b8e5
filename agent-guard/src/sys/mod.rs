//! All of user space's unsafe code: system calls that no well-kept library has.

pub mod bpf;
pub mod descriptors;
mod pidfd;
mod users;

pub use pidfd::{peer_pidfd, pid_of};
pub use users::{home_of, homes, in_group, user_name};
