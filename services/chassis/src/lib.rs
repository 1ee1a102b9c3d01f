//! What every Hubspoke process boots with, so that the services hold only what is theirs:
//!
//! - [`boot()`]: the command line, signals and exit codes
//! - [`config`]: defaults, file, environment; errors that name the file or variable
//! - [`telemetry`]: lines on stderr, OTLP; [`metrics`]: what `/metrics` shows; [`trace`]: a span per request
//! - [`service`]: a bound member of the platform: serve, join, drain
//! - [`server`]: the accept loop; [`health`]: `/livez`, `/readyz`
//! - [`problem`]: error replies (RFC 9457); [`json`]: lenient JSON bodies
//! - [`rate_limit`]: a rate with a burst, per client

pub mod boot;
pub mod config;
pub mod health;
pub mod json;
pub mod metrics;
pub mod problem;
pub mod rate_limit;
pub mod server;
pub mod service;
pub mod telemetry;
pub mod trace;

pub use boot::{Shutdown, boot};
pub use config::{Config, Process, Table};
pub use health::Readiness;
pub use hubspoke_protocol::problem::ProblemType;
pub use json::Json;
pub use metrics::Metrics;
pub use problem::Problem;
pub use server::Drain;
pub use service::{BindError, RunError, Service};
