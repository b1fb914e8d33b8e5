//! The control socket: HTTP and JSON between the daemon and whoever the kernel says is calling.

pub mod backend;
pub mod convert;
pub mod error;
mod routes;
pub mod server;
pub mod time;
pub mod types;

pub use backend::{Backend, EventLines, Peer};
pub use error::{ApiError, Code, ErrorItem, Problem};
