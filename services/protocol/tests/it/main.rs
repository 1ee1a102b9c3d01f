//! The protocol as members in other languages see it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test names its place")]

mod json;
mod names;
mod problem;
mod sse;
