//! The reports of a watch.

use crate::batches::Change;
use crate::error::Error;
use crate::proto::KeyValue;

/// A report of a [`Watch`](crate::Watch).
#[derive(Debug, Clone)]
pub enum Update {
    /// All keys. What was known before is void.
    Snapshot(Snapshot),
    /// One revision's changes.
    Changes {
        /// The revision.
        revision: i64,
        /// The changes, in the transaction's order.
        changes: Vec<Change>,
    },
    /// The watch works: it was just opened, or was silent and has answered.
    Alive {
        /// All changes up to this revision have been reported.
        revision: i64,
    },
    /// The watch is broken; what was reported is getting old. It is opened again; each failure is reported.
    Lost {
        /// Why.
        error: Error,
    },
}

/// All keys below a watched prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The revision at which they were so.
    pub revision: i64,
    /// The cluster. A restored one may have the same.
    pub cluster_id: u64,
    /// The keys, in order.
    pub kvs: Vec<KeyValue>,
    /// Whether the cluster has another history than what was reported before: it was restored from an older backup,
    /// emptied by exchanging its data, or is another cluster. Revisions from before mean nothing.
    pub other_history: bool,
}
