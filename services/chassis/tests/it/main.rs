//! A service within the test's process, and the greeter of `examples` as a separate process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test names its place")]

mod config;
mod descriptors;
mod greeter;
mod metrics;
mod process;
mod rate_limit;
mod service;
mod telemetry;
mod telemetry_tls;
