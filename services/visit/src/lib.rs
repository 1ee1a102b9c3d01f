//! The visit counter: the example business service. It counts visits, and logs each one through a random log
//! instance.
//!
//! - [`counter`]: one number per visit, which a file can keep across restarts, or etcd for all replicas together;
//!   `rate`: visits per minute (pure)
//! - `api`: the routes; `error`: their failures; `metrics`
//! - [`VisitServer`]: from bind to shutdown
//!
//! Without etcd each instance has its own count; `Hub-Instance` shows which one answered.

mod api;
mod config;
pub mod counter;
mod error;
mod metrics;
mod rate;
mod server;

pub use self::config::{CountStorage, PROCESS, VisitConfig};
pub use self::server::{VisitServer, VisitServerError};
