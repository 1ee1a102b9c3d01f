//! The `hub` command: the whole platform in one process, and views of a platform that runs.
//!
//! Each subcommand is a module of its own; they share nothing but the protocol. The only package that writes to
//! stdout.

pub mod config;
pub mod status;
pub mod table;
pub mod up;
