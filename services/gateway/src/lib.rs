//! The gateway: an HTTP reverse proxy that routes a request by its first path segment to a random healthy instance of
//! that service.
//!
//! - pure: `route`, `host_name`, `https`, `edge` (checks on requests), `headers`, `caller`, `balance`, `retry`, `eject`, `limits`,
//!   `clients`, `memory`, `extras` (what a service has beside its routes)
//! - `upstream`: the services, their instances, and the connections to them
//! - `proxy`: one request from its head to the last byte of its response
//! - `server`: the accept loop, the workers and the client connections (`client_conn`)
//! - `gateway`: the state that all workers share; `stats`: its counters; `metrics`: the instruments that read them;
//!   `refusal_log`: requests that were refused unread
//!
//! There is no framework in the data plane. Each worker is a thread with its own event loop, and the request that uses
//! a connection to an instance drives it, so a request is one task from end to end. HTTP/1 is `hubspoke_http1`, HTTP/2
//! the h2 crate's.

mod balance;
mod caller;
mod client_body;
mod client_conn;
mod client_socket;
mod clients;
pub mod config;
mod edge;
mod eject;
mod error;
mod extras;
mod gateway;
mod h2_stream;
mod headers;
mod host_name;
mod https;
mod limits;
mod memory;
mod metrics;
mod proxy;
mod refusal_log;
mod replay;
mod retry;
mod route;
mod server;
mod stats;
mod task_waker;
mod upstream;
mod upstream_counts;

pub use config::GatewayConfig;
pub use memory::memory_bounds;
pub use server::{GatewayServer, PROCESS};
