//! The gateway as a whole: a real one on port 0, a small registry, and instances that behave well or badly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

#[path = "gateway/support.rs"]
mod support;

#[path = "gateway/access.rs"]
mod access;
#[path = "gateway/bodies.rs"]
mod bodies;
#[path = "gateway/desync.rs"]
mod desync;
#[path = "gateway/edge.rs"]
mod edge;
#[path = "gateway/eject.rs"]
mod eject;
#[path = "gateway/ends.rs"]
mod ends;
#[path = "gateway/faults.rs"]
mod faults;
#[path = "gateway/h2c.rs"]
mod h2c;
#[path = "gateway/lifecycle.rs"]
mod lifecycle;
#[path = "gateway/limits.rs"]
mod limits;
#[path = "gateway/routing.rs"]
mod routing;
#[path = "gateway/slow.rs"]
mod slow;
#[path = "gateway/streams.rs"]
mod streams;
