//! Tests across packages: the platform as a whole, and what the files around the code promise.
//!
//! `telemetry` and `docs` are binaries of their own: the first because a process has one tracer, the second because
//! `UPDATE_DOCS` makes it write.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failed test names its place"
)]

mod arrows;
mod circles;
mod config_files;
mod conformance;
mod high_availability;
mod hosts;
mod manifests;
mod mtls;
mod platform;
mod policies;
mod registries;
mod rights;
mod series;
mod tls_overrides;
mod web_pages;
