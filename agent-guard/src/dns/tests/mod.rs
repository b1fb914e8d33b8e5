//! The resolver as a whole, over loopback, with real servers behind it.

mod names;
mod protocol;
mod support;
mod upstreams;
