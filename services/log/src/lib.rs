//! The log service: takes entries from any service, keeps them in a file, and shows them again.
//!
//! - [`entry`]: the line that is kept of an entry (pure)
//! - [`store`]: the file: group commit, recovery, rotation, retention
//! - `ingest`: from a request's body to entries (pure); `query`: which entries a reader wants
//! - `api`: the routes; `error`: their failures
//! - [`Server`]: from bind to shutdown

mod api;
mod config;
pub mod entry;
mod error;
mod ingest;
mod metrics;
mod query;
mod server;
pub mod store;

use hubspoke_chassis::Process;

pub use self::config::{LogConfig, Retain, Rotate};
pub use self::server::{Server, ServerError};

/// What is fixed about the log service.
pub const PROCESS: Process = Process {
    name: "log",
    listen: "127.0.0.1:20002",
    control_listen: None,
    version: env!("CARGO_PKG_VERSION"),
};
