//! Group commit: renders the submissions that wait into one write, and numbers their entries.

use std::collections::HashMap;
use std::collections::VecDeque;

use hubspoke_protocol::DedupWindow;

use super::queue::Submission;
use super::receipt::{AppendError, Receipt};
use crate::entry::{BatchId, SeqRange, Stamp, TimestampFormatter};

/// The last batches with a key that were stored. Those of members are kept apart, so that no stranger can make it forget
/// them by sending many.
pub(super) struct KeyWindow {
    members: DedupWindow<u128, StoredBatch>,
    clients: DedupWindow<u128, StoredBatch>,
}

/// A batch with a key, once it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredBatch {
    pub(super) range: SeqRange,
    /// [`BatchId::content`].
    pub(super) content: u128,
}

impl KeyWindow {
    /// A window of at most `capacity` keys of members, and as many of others.
    pub(super) fn new(capacity: usize) -> Self {
        Self { members: DedupWindow::new(capacity), clients: DedupWindow::new(capacity) }
    }

    /// The batch that was stored under the same key of the same sender.
    pub(super) fn get(&self, id: &BatchId) -> Option<&StoredBatch> {
        let window = if id.member { &self.members } else { &self.clients };
        window.get(&id.key)
    }

    /// Adds a batch, unless its key is known.
    pub(super) fn insert(&mut self, id: BatchId, range: SeqRange) {
        let window = if id.member { &mut self.members } else { &mut self.clients };
        if window.get(&id.key).is_none() {
            window.insert(id.key, StoredBatch { range, content: id.content });
        }
    }
}

/// Submissions rendered for one write.
#[derive(Default)]
pub(super) struct RenderedGroup {
    pub(super) bytes: Vec<u8>,
    /// Where each submission ends in `bytes`.
    pub(super) ends: Vec<usize>,
    /// What each submission gets once the group is written.
    pub(super) outcomes: Vec<Result<Receipt, AppendError>>,
    timestamps: TimestampFormatter,
}

impl RenderedGroup {
    /// Renders submissions from the front until there are `size` bytes, at least one. Batches that are in
    /// `stored`, or occur earlier in the group, are not rendered again.
    pub(super) fn render(
        &mut self,
        submissions: &VecDeque<Submission>,
        size: usize,
        last_seq: u64,
        stored: &KeyWindow,
        instance: &[u8],
    ) {
        self.bytes.clear();
        self.ends.clear();
        self.outcomes.clear();
        let mut numbering = Numbering::new(last_seq);
        for submission in submissions {
            let (batch, id) = (&submission.batch, submission.id);
            let known = id.and_then(|id| Some((stored.get(&id).or_else(|| numbering.get(id.key))?, id)));
            let outcome = match known {
                Some((first, BatchId { content, .. })) if first.content == content => {
                    Ok(Receipt::new(first.range, true))
                }
                // A sender that has its answer relies on it that the batch will be stored.
                Some(_) if submission.reply.is_some() => Err(AppendError::KeyReused),
                _ => Ok(numbering.assign(id, batch.len() as u64)),
            };
            if let Ok(Receipt { first, duplicate: false, .. }) = outcome {
                let ts = self.timestamps.format(submission.at);
                batch.render(&mut self.bytes, &Stamp { ts, instance }, first);
            }
            self.outcomes.push(outcome);
            self.ends.push(self.bytes.len());
            if self.bytes.len() >= size {
                break;
            }
        }
    }

    /// Gives back the memory of an unusually large batch.
    pub(super) fn shrink(&mut self, usual: usize) {
        if self.bytes.capacity() > 2 * usual {
            self.bytes = Vec::with_capacity(usual);
        }
    }
}

/// Gives sequence numbers to the batches of a group, and remembers those with a key: a group has tens of thousands.
struct Numbering {
    last_seq: u64,
    keys: HashMap<u128, StoredBatch>,
}

impl Numbering {
    fn new(last_seq: u64) -> Self {
        Self { last_seq, keys: HashMap::new() }
    }

    /// The first batch of this group with a key.
    fn get(&self, key: u128) -> Option<&StoredBatch> {
        self.keys.get(&key)
    }

    fn assign(&mut self, id: Option<BatchId>, entries: u64) -> Receipt {
        let range = SeqRange { first: self.last_seq + 1, last: self.last_seq + entries };
        if let Some(BatchId { key, content, .. }) = id {
            self.keys.entry(key).or_insert(StoredBatch { range, content });
        }
        self.last_seq = range.last;
        Receipt::new(range, false)
    }
}

#[cfg(test)]
mod tests {
    use hubspoke_protocol::KeyedHash;
    use tokio::sync::oneshot;

    use super::*;
    use crate::entry::{Batch, EntryMeta};

    #[test]
    fn a_large_batch_does_not_keep_its_memory() {
        let usual = 1 << 20;
        let mut group = RenderedGroup { bytes: vec![0; 2 * usual + 1], ..RenderedGroup::default() };
        group.shrink(usual);
        assert_eq!(group.bytes.capacity(), usual);
        group.bytes.resize(usual + 1, 0);
        let before = group.bytes.capacity();
        group.shrink(usual);
        assert_eq!(group.bytes.capacity(), before);
    }

    #[test]
    fn sequence_numbers_have_no_gaps_and_a_key_has_one_range() {
        let mut numbering = Numbering::new(7);
        let id = |key, content| Some(BatchId { member: true, key, content });
        let mut assigned = |id, entries| numbering.assign(id, entries).range();
        assert_eq!(assigned(id(1, 10), 3), SeqRange { first: 8, last: 10 });
        assert_eq!(assigned(None, 1), SeqRange { first: 11, last: 11 });
        assert_eq!(assigned(id(1, 20), 2), SeqRange { first: 12, last: 13 });
        let first = StoredBatch { range: SeqRange { first: 8, last: 10 }, content: 10 };
        assert_eq!((numbering.get(1), numbering.get(2)), (Some(&first), None));
    }

    fn submission(key: &str, text: &str, answered: bool, hash: &KeyedHash) -> Submission {
        let meta = EntryMeta { client: Some("10.0.0.7"), ..EntryMeta::default() };
        let batch = Batch::one(&meta, text.as_bytes(), Some(key.to_owned()));
        let reply = (!answered).then(|| oneshot::channel().0);
        Submission { id: batch.id(hash), batch, at: jiff::Timestamp::UNIX_EPOCH, reply }
    }

    #[test]
    fn a_key_is_refused_for_other_content_unless_the_sender_has_its_answer() {
        let hash = KeyedHash::default();
        let batches =
            [("k", "a", false), ("k", "b", false), ("k", "a", false), ("k", "b", true), ("l", "b", false)];
        let waiting = batches.map(|(key, text, answered)| submission(key, text, answered, &hash)).into();
        let mut group = RenderedGroup::default();
        group.render(&waiting, usize::MAX, 0, &KeyWindow::new(9), b",\"instance\":\"log-1\"");
        let stored = |seq, duplicate| Ok(Receipt { first: seq, last: seq, duplicate });
        assert_eq!(
            group.outcomes,
            [
                stored(1, false),
                Err(AppendError::KeyReused),
                stored(1, true),
                stored(2, false),
                stored(3, false)
            ]
        );
        assert_eq!(memchr::memchr_iter(b'\n', &group.bytes).count(), 3);
    }

    #[test]
    fn strangers_cannot_push_members_out_of_the_window() {
        let mut window = KeyWindow::new(10);
        let id = |member, key| BatchId { member, key, content: 0 };
        let range = SeqRange { first: 7, last: 7 };
        window.insert(id(true, 1), range);
        (0..1_000).for_each(|key| window.insert(id(false, key), range));
        assert!(window.get(&id(true, 1)).is_some() && window.get(&id(false, 1)).is_none());
        assert_eq!((window.members.len(), window.clients.len()), (1, 10));
        // The first batch stays.
        window.insert(BatchId { content: 9, ..id(true, 1) }, SeqRange { first: 9, last: 9 });
        assert_eq!(window.get(&id(true, 1)), Some(&StoredBatch { range, content: 0 }));
    }

    /// A 4 MiB group holds some 30,000 keyed batches; searching them one by one took 450 million comparisons.
    #[test]
    fn the_keys_of_a_group_are_found_without_searching() {
        let hash = KeyedHash::default();
        let waiting: VecDeque<_> =
            (0..30_000).map(|n| submission(&n.to_string(), "x", false, &hash)).collect();
        let began = std::time::Instant::now();
        let mut group = RenderedGroup::default();
        group.render(&waiting, usize::MAX, 0, &KeyWindow::new(9), b"");
        assert_eq!(group.outcomes.len(), 30_000);
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    }
}
