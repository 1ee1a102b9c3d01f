//! The `hub` command: the whole platform in one process, and commands that watch and operate a running one.
//!
//! [`cli`] reads the arguments and calls one module per subcommand. The subcommands don't know each other.
//! They share the modules below them: the client for the registry, the stream of its changes, and the words
//! and the layout of what they print.

mod admin_client;
mod catalog_update;
mod cause;
mod cert;
pub mod cli;
pub mod config;
mod data_dir;
mod demo;
mod describe;
mod event_source;
mod files;
mod invocation;
mod logs;
mod outage;
mod output;
mod programs;
mod registry_error;
mod shell;
mod status;
mod table;
mod text;
mod token;
pub mod up;
mod watch;
