//! The `hub` command: the whole platform in one process, and views of a platform that runs.
//!
//! Each subcommand is a module of its own; they share nothing but the protocol and the way to the registry
//! ([`admin::Registry`], [`event_source`]). The only package that writes to stdout.

pub mod admin;
pub mod cli;
pub mod config;
pub mod demo;
pub mod event_source;
pub mod logs;
pub mod status;
pub mod table;
mod text;
pub mod up;
pub mod watch;

use std::io::Write;

/// Writes to stdout at once.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
