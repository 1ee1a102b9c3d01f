//! The visit counter: the example business service. It counts visits, and logs each one through a random log
//! instance.
//!
//! - [`counter`]: one number per visit, which a file can keep across restarts; `rate`: visits per minute
//!   (pure)
//! - `api`: the routes; `error`: their failures
//! - [`VisitServer`]: from bind to shutdown
//!
//! Each instance has its own count; `Hub-Instance` shows which one answered. Left out: a count shared by all
//! instances, which needs a shared store.

mod api;
mod config;
pub mod counter;
mod error;
mod rate;
mod server;

pub use self::config::{CountStorage, PROCESS, VisitConfig};
pub use self::server::{VisitServer, VisitServerError};
