//! The registry over HTTP: real servers on loopback, with members that behave and members that do not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test names its place")]

mod fixture;
mod live_member;

mod access;
mod core_members;
mod decisions;
mod descriptors;
mod etcd;
mod faults;
mod heartbeats;
mod openapi;
mod operator;
mod page;
mod prometheus;
mod protocol;
mod pushes;
mod registration;
mod restart;
mod watch;
