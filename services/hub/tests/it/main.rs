//! The `hub` command: its arguments and configuration, and as people run it, real processes with their output
//! and exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test names its place")]

mod cert;
mod cli;
mod config;
mod demo;
mod local_tls;
mod logs;
mod mtls;
mod operate;
mod platform;
mod programs;
mod pty;
mod token;
mod up;
mod watch;
