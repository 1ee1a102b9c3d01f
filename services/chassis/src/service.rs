//! A bound service: its listeners, its membership, its health and metrics, and the order of start and stop.
//!
//! Start: bind, serve, register, ready. Stop: not ready, deregister, drain.

pub use self::bound::Service;
pub use self::builder::ServiceBuilder;
pub use self::error::{BindError, RunError};

mod bound;
mod builder;
mod error;
mod listen;
mod membership;
mod middleware;
