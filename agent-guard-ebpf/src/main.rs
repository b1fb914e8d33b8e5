//! The kernel side of agent-guard: hooks that judge what tagged tasks do.
//!
//! Reading order: `hooks/` says which hook names which operation on which object, `judge` finds session and tables, `walk`
//! and `names` go from the object to the decision in `agent-guard-common`, `enforce` turns it into a return code. `kernel` is the only place that
//! knows kernel structures, `maps` the only one that declares maps.
#![no_std]
#![no_main]
#![allow(unreachable_pub, reason = "a binary: pub means for the other modules")]
#![allow(missing_docs, reason = "hooks say what they are by their kernel prototype")]

mod arguments;
mod asked;
mod attach;
mod emit;
mod enforce;
mod enroll;
mod hold;
mod hooks;
mod identity;
mod judge;
mod kernel;
mod known;
mod maps;
mod names;
mod network_only;
mod own;
mod questions;
mod sockets;
mod tag;
mod walk;
mod wherever;

/// Helpers that this program calls are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// No code path may panic: a reachable panic is an endless loop, which the verifier refuses at load.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
