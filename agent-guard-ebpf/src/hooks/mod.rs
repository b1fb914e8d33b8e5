//! The hooks. Each names its LSM hook with the kernel's prototype (`include/linux/lsm_hook_defs.h`, the same
//! from 6.1 to 7.2 unless it says otherwise), the operation and the object; nothing else.

mod attributes;
mod capable;
mod descriptors;
mod enroll;
mod exec;
mod files;
mod mounts;
mod network;
mod network_only;
mod others;
mod process;
mod questions;
mod sockets;
mod system;
mod unix;
