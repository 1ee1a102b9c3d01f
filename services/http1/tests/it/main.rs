//! The engine through its public interface: heads, connections, and the comparison with a second parser.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing test should say where")]

mod client;
mod properties;
mod reference;
mod request_heads;
mod response_heads;
mod server;
#[allow(unreachable_pub, reason = "the library of `fuzz/` exports them")]
mod targets;
