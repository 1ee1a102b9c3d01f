//! Group commit: renders the submissions that wait into one write, and numbers their entries.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use hubspoke_protocol::DedupWindow;

use super::queue::Submission;
use super::receipt::Receipt;
use crate::entry::{SeqRange, Stamp, TimestampFormatter};

/// The keys of stored batches.
pub(super) type KeyWindow = DedupWindow<Arc<str>, SeqRange>;

/// Submissions rendered for one write.
#[derive(Default)]
pub(super) struct RenderedGroup {
    pub(super) bytes: Vec<u8>,
    /// Where each submission ends in `bytes`.
    pub(super) ends: Vec<usize>,
    pub(super) receipts: Vec<Receipt>,
    timestamps: TimestampFormatter,
}

impl RenderedGroup {
    /// Renders submissions from the front until there are `size` bytes, at least one. Batches whose key is in
    /// `stored`, or occurs earlier in the group, are not rendered again.
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
        self.receipts.clear();
        let mut numbering = Numbering::new(last_seq);
        for submission in submissions {
            let batch = &submission.batch;
            let known = batch.key().and_then(|key| stored.get(key));
            let receipt = match known {
                Some(range) => Receipt::new(*range, true),
                None => numbering.assign(batch.key(), batch.len() as u64),
            };
            if !receipt.duplicate {
                let ts = self.timestamps.format(submission.at);
                batch.render(&mut self.bytes, &Stamp { ts, instance }, receipt.first);
            }
            self.receipts.push(receipt);
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

/// Gives sequence numbers to the batches of a group. Batches with one key share those of the first.
struct Numbering<K> {
    last_seq: u64,
    keys: HashMap<K, SeqRange>,
}

impl<K: Eq + Hash> Numbering<K> {
    fn new(last_seq: u64) -> Self {
        Self { last_seq, keys: HashMap::new() }
    }

    fn assign(&mut self, key: Option<K>, entries: u64) -> Receipt {
        let next = SeqRange { first: self.last_seq + 1, last: self.last_seq + entries };
        match key.map(|key| self.keys.entry(key)) {
            Some(Entry::Occupied(first)) => return Receipt::new(*first.get(), true),
            Some(Entry::Vacant(key)) => drop(key.insert(next)),
            None => {}
        }
        self.last_seq = next.last;
        Receipt::new(next, false)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hash::Hasher;

    use super::*;

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
        let mut assign = |key, entries| {
            let Receipt { first, last, duplicate } = numbering.assign(key, entries);
            (first, last, duplicate)
        };
        assert_eq!(assign(Some("a"), 3), (8, 10, false));
        assert_eq!(assign(None, 1), (11, 11, false));
        assert_eq!(assign(Some("a"), 3), (8, 10, true));
        assert_eq!(assign(Some("b"), 2), (12, 13, false));
    }

    /// A key that counts comparisons.
    struct CountedKey<'a>(u64, &'a Cell<u64>);

    impl Hash for CountedKey<'_> {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    impl PartialEq for CountedKey<'_> {
        fn eq(&self, other: &Self) -> bool {
            self.1.set(self.1.get() + 1);
            self.0 == other.0
        }
    }

    impl Eq for CountedKey<'_> {}

    /// A 4 MiB group holds some 30,000 keyed batches; searching them one by one took 450 million comparisons.
    #[test]
    fn finding_the_keys_of_a_group_takes_linear_work() {
        for keys in [1_000, 30_000] {
            let comparisons = Cell::new(0);
            let mut numbering = Numbering::new(0);
            for round in 0..2 {
                for key in 0..keys {
                    let receipt = numbering.assign(Some(CountedKey(key, &comparisons)), 1);
                    assert_eq!((receipt.first, receipt.duplicate), (key + 1, round == 1));
                }
            }
            assert!(comparisons.get() <= 4 * keys, "{} comparisons for {keys} keys", comparisons.get());
        }
    }
}
