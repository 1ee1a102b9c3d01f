//! The gateway: the first path segment to a random healthy instance.
//!
//! - pure: `route`, `edge` (what a request must be), `headers`, `balance`, `retry`, `eject`
//! - `upstream`: the services behind it, their instances, and the connections to them
//! - `proxy`: one request from its head to the last byte of its reply
//! - `server`: accept loop, workers, clients' connections
//! - `http1`: what both sides of HTTP/1 have in common
//!
//! The data plane has no framework: each worker is a thread with its own event loop, and a connection to an instance is
//! driven by the request that uses it, so that a request is one task from end to end. HTTP/1 is its own, HTTP/2 hyper's.

mod balance;
mod client_conn;
pub mod config;
mod edge;
mod eject;
mod error;
mod gateway;
mod headers;
mod http1;
mod limits;
mod metrics;
mod proxy;
mod retry;
mod route;
mod server;
mod stats;
mod upstream;

pub use config::GatewayConfig;
pub use server::{PROCESS, Server};
