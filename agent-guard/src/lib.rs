//! agent-guard: a daemon and a command line for what the kernel side enforces.
//!
//! Data comes in as kernel records ([`kernel`]) and as policy text ([`policy`]), meets in [`guard`], and leaves as
//! events ([`events`]) and answers ([`api`]).

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dns;
pub mod doctor;
pub mod events;
pub mod guard;
pub mod hold;
pub mod kernel;
pub mod policy;
pub mod session;
pub mod sys;
