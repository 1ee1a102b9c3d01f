//! The registry: who is there, who is alive, who must be told.
//!
//! - [`catalog`]: a pure state machine, with everything that is decided
//! - `core`: the catalogue behind its lock, and the way from its effects to those who act on them
//! - `heartbeat`: asks instances whether they are alive
//! - `notifier`: tells dependents what has changed
//! - `watch`: the stream of changes
//! - `page`: the web page at `/`
//! - `persist`: keeps the catalogue in a file, where there is a folder for it
//! - `api`: what is served
//!
//! The registry is no member of itself. It knows nothing but what members tell it, so one that starts empty has
//! everybody back within one renewal.

mod api;
pub mod catalog;
pub mod config;
mod core;
mod error;
mod heartbeat;
mod notifier;
mod page;
mod peer;
mod persist;
mod server;
mod stats;
mod view;
mod watch;

pub use config::Settings;
pub use server::{PROCESS, Server};
