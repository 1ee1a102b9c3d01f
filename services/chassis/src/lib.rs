#![doc = include_str!("../README.md")]
//! # Modules
//!
//! - [`Service`] (module [`service`]): builder, start and stop, middleware
//! - [`boot()`] (module [`boot`](mod@boot)): command line, signals, exit codes
//! - [`config`]: defaults, file, environment; errors that name the file or variable
//! - [`telemetry`]: lines on stderr, OTLP; [`metrics`]: `/metrics`; [`trace`]: a span per request
//! - [`server`]: the accept loop; [`health`]: `/livez`, `/readyz`
//! - [`site`]: which requests web pages may make; [`rights`]: which tokens may do what
//! - [`tls`]: mutual TLS inside
//! - [`problem`]: error responses (RFC 9457); [`json`]: lenient JSON bodies
//! - [`rate_limit`]: a rate with a burst, per client; [`memory`]: what others can make a process hold

pub mod boot;
pub mod config;
pub mod health;
pub mod json;
pub mod memory;
pub mod metrics;
pub mod problem;
pub mod rate_limit;
pub mod rights;
pub mod server;
pub mod service;
pub mod site;
pub mod telemetry;
pub mod tls;
pub mod trace;

pub use boot::{Shutdown, boot};
pub use config::{Config, Process, Table};
pub use health::Readiness;
pub use hubspoke_client::{LogClient, with_causes};
pub use hubspoke_protocol::problem::ProblemType;
pub use json::Json;
pub use metrics::Metrics;
pub use problem::Problem;
pub use server::Drain;
pub use service::{BindError, RunError, Service, ServiceBuilder};
