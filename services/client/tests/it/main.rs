//! The client against registries and log instances that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test names its place")]

mod copies;
mod log;
mod membership;
mod registries;
