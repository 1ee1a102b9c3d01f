//! Whether a cluster still has the history that a watch has seen. After it was restored from an older backup, the same
//! revisions mean other changes, and a watch that went on would never know. Pure.
//!
//! etcd's own way out, `etcdutl snapshot restore --bump-revision --mark-compacted`, makes every watch list anew. Not
//! everybody uses it, so what is known of the last revision is compared with what the cluster knows of it: how many keys
//! there were, which was written last, and that none was written later.

use bytes::Bytes;

use crate::batches::{Batch, Change};
use crate::client::Listing;
use crate::proto::RangeRequest;
use crate::txn::{Op, OpResult, Txn, TxnReply, prefix_end};

/// How far a watch has come.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Position {
    /// All changes up to this revision are delivered.
    pub(crate) revision: i64,
    pub(crate) cluster_id: u64,
    keys: usize,
    /// The last write.
    newest: Option<Newest>,
}

#[derive(Debug, Clone, PartialEq)]
struct Newest {
    key: Bytes,
    revision: i64,
    deleted: bool,
}

impl Position {
    pub(crate) fn of_list(listing: &Listing) -> Self {
        let newest = listing.kvs.iter().max_by_key(|kv| kv.mod_revision);
        let newest =
            newest.map(|kv| Newest { key: kv.key.clone(), revision: kv.mod_revision, deleted: false });
        Self { revision: listing.revision, cluster_id: listing.cluster_id, keys: listing.kvs.len(), newest }
    }

    pub(crate) fn apply(&mut self, batch: &Batch) {
        self.revision = batch.revision;
        for change in &batch.changes {
            match change {
                Change::Put(kv) => {
                    self.keys += usize::from(kv.version == 1);
                    let (key, revision) = (kv.key.clone(), kv.mod_revision);
                    self.newest = Some(Newest { key, revision, deleted: false });
                }
                Change::Deleted { key } => {
                    self.keys = self.keys.saturating_sub(1);
                    if let Some(newest) = self.newest.as_mut().filter(|newest| newest.key == key) {
                        newest.deleted = true;
                    }
                }
            }
        }
    }

    /// Asks for what [`Position::agrees_with`] compares.
    pub(crate) fn question(&self, prefix: &Bytes) -> Txn {
        let later = RangeRequest {
            key: prefix.clone(),
            range_end: prefix_end(prefix),
            revision: self.revision,
            min_mod_revision: self.newest.as_ref().map_or(0, |newest| newest.revision) + 1,
            keys_only: true,
            limit: 1,
        };
        let txn = Txn::new().then(Op::range(later));
        match &self.newest {
            None => txn,
            Some(newest) => txn.then(Op::range(RangeRequest {
                key: newest.key.clone(),
                revision: self.revision,
                keys_only: true,
                ..RangeRequest::default()
            })),
        }
    }

    pub(crate) fn agrees_with(&self, reply: &TxnReply) -> bool {
        let mut reads = reply.results.iter().filter_map(|result| match result {
            OpResult::Read { kvs, count } => Some((kvs, *count)),
            _ => None,
        });
        let later = reads.next().is_some_and(|(kvs, count)| {
            kvs.is_empty() && usize::try_from(count).is_ok_and(|count| count == self.keys)
        });
        let newest = self.newest.as_ref().is_none_or(|newest| {
            let found = reads.next().and_then(|(kvs, _)| kvs.first().map(|kv| kv.mod_revision));
            found == (!newest.deleted).then_some(newest.revision)
        });
        later && newest && reply.revision >= self.revision
    }
}
