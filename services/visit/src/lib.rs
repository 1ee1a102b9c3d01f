//! The visit counter: the example business service. It counts visits, and logs each through a random log instance.
//!
//! - [`counter`]: one number per visit, kept across restarts where asked to; [`rate`]: visits per minute (pure)
//! - `api`: the routes; `error`: their failures
//! - [`Server`]: from bind to shutdown
//!
//! Each instance has a count of its own, and says by `Hub-Instance` which one answered. Left out: a count shared by
//! all instances, which needs a shared store.

mod api;
mod config;
pub mod counter;
mod error;
pub mod rate;
mod server;

use hubspoke_chassis::Process;

pub use self::config::{State, VisitConfig};
pub use self::server::{Server, ServerError};

/// What is fixed about the visit service.
pub const PROCESS: Process = Process::new("visit", env!("CARGO_PKG_VERSION")).with_listen("127.0.0.1:20003");
