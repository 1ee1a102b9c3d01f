//! The log service from outside: real servers on free ports, real processes, real disks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test names its place")]

mod append;
mod copies;
mod fixture;
mod kill;
mod load;
mod read;
mod search;
mod senders;
mod siblings;
mod store;
mod tail;
