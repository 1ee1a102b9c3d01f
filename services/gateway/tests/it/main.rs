//! The gateway end to end: a real one on port 0, a fake registry, and instances that behave well or badly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

mod access;
mod acme;
mod bodies;
mod callers;
mod clients;
mod config;
mod conformance;
mod desync;
mod edge;
mod eject;
mod ends;
mod extras;
mod faults;
mod forward_auth;
mod h2c;
mod h2c_instance;
mod heads;
mod hosts;
mod https;
mod interim;
mod lifecycle;
mod limits;
mod memory;
mod pebble;
mod routing;
mod slow;
mod streams;
mod support;
mod tls;
mod tls_attacks;
mod tls_rsa;
mod tls_streams;
mod tls_support;
mod waiting;
