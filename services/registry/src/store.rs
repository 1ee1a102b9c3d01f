//! The store: etcd holds what several registries share. It decides what is in the catalogue.
//!
//! - `keys`, `record`, `ops`, `read`, `drains`: what is in etcd, and how it is written, read and forgotten; pure
//! - `writer`: writes that wait go to etcd together
//! - `sync`: what changes in etcd changes the catalogue
//! - `requests`: what the catalogue asks for
//!
//! A call writes, and is answered once this registry has seen its own write. Without etcd nothing is written, and
//! everything that needs no write goes on from memory.

pub(crate) use self::calls::Store;
pub(crate) use self::error::StoreError;
pub(crate) use self::tasks::{StoreTasks, run};

mod calls;
mod drains;
mod error;
mod janitor;
mod keys;
mod ops;
mod read;
mod record;
mod requests;
mod sync;
mod tasks;
mod writer;
