//! The log service: stores entries from any service in a file, and lets readers query and follow them.
//!
//! - [`entry`]: the stored form of an entry (pure)
//! - [`store`]: the files: group commit, recovery, rotation, retention
//! - `ingest`: from a request's body to entries (pure); `query`: which entries a reader gets
//! - `api`: the routes; `error`: their failures
//! - [`LogServer`]: from bind to shutdown

mod api;
mod config;
pub mod entry;
mod error;
mod ingest;
mod memory;
mod metrics;
mod query;
mod server;
pub mod store;

pub use self::config::{LogConfig, PROCESS, RetainConfig, RotateConfig};
pub use self::memory::memory_bounds;
pub use self::server::{LogServer, LogServerError};
