//! The log service over HTTP: real servers on free ports.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

#[path = "api/append.rs"]
mod append;
#[path = "api/fixture.rs"]
mod fixture;
#[path = "api/load.rs"]
mod load;
#[path = "api/peers.rs"]
mod peers;
#[path = "api/read.rs"]
mod read;
#[path = "api/tail.rs"]
mod tail;
