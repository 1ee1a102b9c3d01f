//! The watch stream: every change to every watcher, and once a second the loads that heartbeats reported and, with a
//! store, the registries that share it.
//!
//! A change is published once, rendered once, and shared by all watchers. The last changes are kept for watchers that
//! reconnect with the revision that they saw last. A watcher that falls too far behind is disconnected, so that slow
//! watchers cost no memory.

pub(crate) use self::event::WatchFilter;
pub(crate) use self::feed::ChangeFeed;
pub(crate) use self::watcher::start;

mod event;
mod feed;
mod watcher;
