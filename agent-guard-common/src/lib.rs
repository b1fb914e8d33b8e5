//! The vocabulary and the decision of agent-guard.
//!
//! Everything here is `no_std`, has no dependencies and means the same in the kernel and in user
//! space: what can be done ([`Op`]), what can be answered ([`Verdict`]), how objects are named in
//! maps ([`ObjectKey`], [`NameKey`], [`NetKey`]), how names are found ([`names`]), the compiled tables ([`rules`]), the one decision
//! ([`decide`]) and the record that crosses the ring buffer ([`event`]).
//!
//! Values that cross between kernel and user space are integers in `#[repr(transparent)]` newtypes,
//! never Rust enums: a number outside an enum's range would be undefined behaviour.
#![cfg_attr(not(any(test, feature = "user")), no_std)]

pub mod attach;
pub mod decide;
pub mod digest;
pub mod enroll;
pub mod event;
pub mod layout;
pub mod names;
pub mod net;
pub mod object;
pub mod op;
pub mod rules;
pub mod subject;
pub mod system;
pub mod verdict;

pub use net::{Endpoint, NetKey, Protocol};
pub use object::{Chain, NameKey, ObjectKey};
pub use op::Op;
pub use verdict::{Fault, Source, Verdict};

/// Version of everything that is shared through pinned maps and the ring buffer. A daemon adopts
/// pins of its own version only. Raise it with every change to a shared struct or map.
pub const ABI: u32 = 7;
