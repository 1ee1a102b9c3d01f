//! The registry tracks every instance, health-checks it with heartbeats, and pushes every change to its dependents.
//!
//! From the bottom up:
//! - `catalog`: a pure state machine that makes all decisions
//! - `shared`: the catalogue behind its lock, with the epoch and the clock
//! - `heartbeat`, `notifier`, `watch`: send heartbeats, pushes to dependents, and events to watchers
//! - `dispatch`: applies events to the catalogue and hands its effects to those three
//! - `persist`: the snapshot file
//! - `store`, `peers`: with `store = "etcd"`, what several registries share, and what they tell each other
//! - `api`, `page`: HTTP
//!
//! The registry is not a member of itself. All that it knows comes from its members, so after a start with an empty
//! catalogue they are all back within one renewal interval.

mod access;
mod api;
mod catalog;
mod cluster;
pub mod config;
mod dispatch;
mod error;
mod event_stream;
mod exchange;
mod findings;
mod gauges;
mod heard;
mod heartbeat;
mod instruments;
mod memory;
mod notifier;
mod page;
mod peers;
mod persist;
mod proposals;
mod quotas;
mod server;
mod shared;
mod store;
mod unsaved;
mod view;
mod watch;

pub use config::Settings;
pub use memory::memory_bounds;
pub use server::{PROCESS, RegistryServer};
