//! The commands that look at a platform, operate it and put load on it: real processes against a real platform.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

#[path = "terminal/admin.rs"]
mod admin;
#[path = "terminal/demo.rs"]
mod demo;
#[path = "terminal/logs.rs"]
mod logs;
#[path = "terminal/platform.rs"]
mod platform;
#[path = "terminal/pty.rs"]
mod pty;
#[path = "terminal/watch.rs"]
mod watch;
