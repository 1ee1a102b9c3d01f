//! What every member of a Hubspoke platform needs, and nothing more:
//!
//! - [`directory`]: the last-known instances of each required service, and the random pick
//! - [`membership`]: register, renew, deregister; answer heartbeats; take pushes
//! - [`load`]: what a process counts of its own requests, for its heartbeat
//! - [`log`]: send an entry to a random log instance
//! - [`trace`]: carry a trace's context from request to request
//!
//! The wire types are in [`hubspoke_protocol`]. No other Hubspoke package is used here, so a service may depend
//! on these two alone.

pub mod directory;
pub mod load;
pub mod log;
pub mod membership;
pub mod trace;

pub use directory::Directory;
pub use load::LoadCounters;
pub use log::LogClient;
pub use membership::Member;
