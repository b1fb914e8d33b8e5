//! What happened: typed events, their one form on the outside (OCSF), the log that keeps them and
//! the sinks that they go to.

pub mod activity;
pub mod journal;
pub mod log;
pub mod ocsf;
pub mod query;
pub mod recover;
pub mod sink;
pub mod system;

pub use activity::{Activity, Event};
pub use log::{EventLog, LogError, Options};
