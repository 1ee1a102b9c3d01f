#![doc = include_str!("../README.md")]

pub use self::batches::Change;
pub use self::client::{Etcd, Listing};
pub use self::config::{Config, InvalidConfig};
pub use self::error::{Cause, Error};
pub use self::lease::{Lease, LeaseState};
pub use self::proto::KeyValue;
pub use self::txn::{Compare, MAX_OPS, Op, OpResult, Txn, TxnReply};
pub use self::update::{Snapshot, Update};
pub use self::watch::Watch;

mod auth;
mod batches;
mod client;
mod config;
mod connection;
mod endpoints;
mod error;
mod history;
mod lease;
mod proto;
mod rpc;
mod txn;
mod update;
mod watch;
