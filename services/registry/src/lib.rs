//! The registry: who is there, who is alive, who must be told.

pub mod catalog;
