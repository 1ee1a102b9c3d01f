//! The visit service from outside, with fakes of registry and log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test names its place")]

mod kill;
mod shared;
mod visit;
