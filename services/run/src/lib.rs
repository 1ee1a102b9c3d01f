//! Runs any program as a member of a Hubspoke platform: `hub run`, `hub add`, `hub up -f`, `hub ps`, `hub stop` and
//! `hub ship`.
//!
//! A program gets a port and opens it itself. When it answers, it is registered under its own address, with a control
//! address here that answers its heartbeats. What it prints goes to the terminal and to the log service. Its end is
//! an immediate deregistration, and nothing of it outlives us ([`process`]).

mod check;
pub mod control;
mod existing;
pub mod file;
mod hint;
mod member;
mod order;
mod output;
mod pattern;
pub mod platform;
mod port;
pub mod process;
pub mod ps;
mod restart;
pub mod ship;
pub mod spec;
pub mod supervisor;
pub mod terminal;
mod watch;

pub use existing::{AddError, Existing, add};
