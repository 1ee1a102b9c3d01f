//! The log service: takes entries from any service, keeps them in a file, and shows them again.

pub mod entry;
pub mod store;
