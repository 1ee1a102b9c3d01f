//! Puts the entries of several instances into the order of their times, each once. Pure.
//!
//! Streams are some milliseconds apart, so each entry waits for a moment for those that should come before
//! it. An entry that arrives later than that is printed late: none is dropped.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hubspoke_protocol::{CopyFilter, EntryIdentity, entry_content};

use super::entry::EntryLine;

/// How long an entry waits for others.
pub(super) const WAIT: Duration = Duration::from_millis(250);
/// Entries that may wait. Beyond that, the oldest don't wait any longer.
const MAX_WAITING: usize = 50_000;
/// Entries with a key that are remembered at least, to recognize a second copy.
const MAX_KEYS: usize = 50_000;

/// Time, instance, number: the order of entries.
type SortKey = (String, String, u64);

/// The waiting entries, and what identifies copies: numbers, and keys with their senders and contents.
#[derive(Debug)]
pub(super) struct ReorderBuffer {
    waiting: BTreeMap<SortKey, (Duration, EntryLine, String)>,
    /// The last number of each instance so far.
    last: HashMap<String, u64>,
    copies: CopyFilter,
}

impl Default for ReorderBuffer {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), last: HashMap::new(), copies: CopyFilter::new(MAX_KEYS) }
    }
}

impl ReorderBuffer {
    /// Notes an entry that was printed already.
    pub(super) fn mark_printed(&mut self, entry: &EntryLine, line: &str) {
        let last = self.last.entry(entry.instance.clone()).or_default();
        *last = entry.seq.max(*last);
        self.is_new(entry, line);
    }

    /// The last number of each instance so far.
    pub(super) fn last(&self) -> impl Iterator<Item = (&str, u64)> {
        self.last.iter().map(|(instance, seq)| (instance.as_str(), *seq))
    }

    /// Adds an entry that arrived `now`, by any monotonic clock.
    pub(super) fn add(&mut self, entry: EntryLine, line: String, now: Duration) {
        if self.last.get(&entry.instance).is_some_and(|last| entry.seq <= *last) {
            return;
        }
        self.last.insert(entry.instance.clone(), entry.seq);
        if self.is_new(&entry, &line) {
            let key = (entry.ts.clone(), entry.instance.clone(), entry.seq);
            self.waiting.insert(key, (now, entry, line));
        }
    }

    /// The next entry that has waited long enough.
    pub(super) fn next(&mut self, now: Duration) -> Option<(EntryLine, String)> {
        let first = self.waiting.first_entry()?;
        let due = first.get().0 + WAIT <= now;
        if !due && self.waiting.len() <= MAX_WAITING {
            return None;
        }
        let (_, (_, entry, line)) = self.waiting.pop_first()?;
        Some((entry, line))
    }

    /// When the next entry has waited long enough; `None` if none waits.
    pub(super) fn next_at(&self) -> Option<Duration> {
        self.waiting.first_key_value().map(|(_, (arrived, _, _))| *arrived + WAIT)
    }

    /// Whether no other instance has sent the entry. A sender may store it on two, and a retry may leave it there.
    fn is_new(&mut self, entry: &EntryLine, line: &str) -> bool {
        let (Some(key), Some(content)) = (&entry.key, entry_content(line)) else { return true };
        self.copies.is_first(&EntryIdentity {
            source: (entry.source.as_deref(), entry.source_id.as_deref()),
            client: entry.client.as_deref(),
            key,
            part: (entry.part, entry.of),
            time: entry.received.as_ref().map(|_| entry.ts.as_str()),
            content,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(ts: u32, instance: &str, seq: u64) -> EntryLine {
        EntryLine {
            ts: format!("{ts:06}"),
            seq,
            instance: instance.to_owned(),
            received: None,
            source: Some("visit".to_owned()),
            source_id: Some("visit-1".to_owned()),
            client: None,
            level: None,
            key: None,
            part: 0,
            of: 2,
            msg: String::new(),
        }
    }

    /// The parts of an entry's content that a stored line with this text has.
    fn line(msg: &str) -> String {
        format!("{{\"ts\":\"\",\"msg\":\"{msg}\"}}")
    }

    fn keyed(ts: u32, instance: &str, seq: u64, key: &str, part: u64) -> EntryLine {
        EntryLine { key: Some(key.to_owned()), part, ..entry(ts, instance, seq) }
    }

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn drain(buffer: &mut ReorderBuffer, now: Duration) -> Vec<String> {
        let name = |(entry, _): (EntryLine, String)| format!("{}:{}", entry.instance, entry.seq);
        std::iter::from_fn(|| buffer.next(now)).map(name).collect()
    }

    #[test]
    fn entries_wait_for_earlier_ones() {
        let mut buffer = ReorderBuffer::default();
        buffer.add(entry(20, "a", 1), String::new(), millis(0));
        buffer.add(entry(10, "b", 1), String::new(), millis(100));
        assert_eq!(buffer.next_at(), Some(millis(350)));
        assert_eq!(drain(&mut buffer, millis(349)), [""; 0]);
        assert_eq!(drain(&mut buffer, millis(350)), ["b:1", "a:1"]);
        // Too late for its place, but printed.
        buffer.add(entry(5, "b", 2), String::new(), millis(400));
        assert_eq!(drain(&mut buffer, millis(700)), ["b:2"]);
        assert_eq!(buffer.next_at(), None);
    }

    #[test]
    fn copies_are_printed_once() {
        let mut buffer = ReorderBuffer::default();
        buffer.mark_printed(&entry(1, "a", 7), &line("x"));
        buffer.mark_printed(&keyed(1, "b", 3, "shown", 0), &line("x"));
        for entry in [
            entry(1, "a", 7),             // sent again after a reconnection
            entry(2, "a", 6),             // the same
            entry(3, "a", 8),             // new
            keyed(4, "a", 9, "shown", 0), // a sender's retry
            keyed(5, "a", 10, "k", 0),
            keyed(6, "b", 4, "k", 0), // a sender's retry
            keyed(7, "b", 5, "k", 1), // another part of the same batch
        ] {
            buffer.add(entry, line("x"), millis(0));
        }
        assert_eq!(drain(&mut buffer, millis(1000)), ["a:8", "a:10", "b:5"]);
        let mut last: Vec<_> = buffer.last().collect();
        last.sort_unstable();
        assert_eq!(last, [("a", 10), ("b", 5)]);
    }

    #[test]
    fn a_key_hides_neither_another_senders_entry_nor_another_content() {
        let mut buffer = ReorderBuffer::default();
        let first = keyed(1, "a", 1, "k", 0);
        buffer.mark_printed(&first, &line("x"));
        let stranger = |seq, client: Option<&str>| EntryLine {
            source: None,
            source_id: None,
            client: client.map(str::to_owned),
            ..keyed(2, "b", seq, "k", 0)
        };
        buffer.add(stranger(1, Some("10.0.0.7")), line("x"), millis(0));
        buffer.add(stranger(2, Some("10.0.0.8")), line("x"), millis(0));
        buffer.add(stranger(3, None), line("x"), millis(0));
        buffer.add(keyed(2, "b", 4, "k", 0), line("y"), millis(0));
        buffer.add(EntryLine { of: 3, ..keyed(2, "b", 5, "k", 0) }, line("x"), millis(0));
        buffer.add(keyed(2, "b", 6, "k", 0), line("x"), millis(0)); // the only copy
        buffer.add(stranger(7, Some("10.0.0.8")), line("x"), millis(0)); // a copy too
        assert_eq!(drain(&mut buffer, millis(1000)), ["b:1", "b:2", "b:3", "b:4", "b:5"]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut buffer = ReorderBuffer::default();
        let mut printed = 0;
        for seq in 1..=120_000 {
            buffer.add(keyed(1, "a", seq, &seq.to_string(), 0), line("x"), millis(0));
            printed += drain(&mut buffer, millis(0)).len();
            assert!(buffer.waiting.len() <= MAX_WAITING && buffer.copies.len() <= 2 * MAX_KEYS);
        }
        assert_eq!(printed + buffer.waiting.len(), 120_000);
    }

    proptest! {
        /// Delays shorter than the wait neither reorder nor lose entries.
        #[test]
        fn short_delays_do_not_reorder(delays in prop::collection::vec((0_u64..3, 0_u64..200), 1..60)) {
            let mut next = [0; 3];
            let mut due = [0_u64; 3];
            let mut coming: Vec<(u64, EntryLine)> = Vec::new();
            for (ts, (instance, delay)) in delays.iter().enumerate() {
                let at = *instance as usize;
                next[at] += 1;
                // An instance sends its entries in order.
                due[at] = due[at].max(ts as u64 * 20 + delay);
                coming.push((due[at], entry(ts as u32, &instance.to_string(), next[at])));
            }
            let expected: Vec<_> = coming.iter().map(|(_, e)| format!("{}:{}", e.instance, e.seq)).collect();
            coming.sort_by_key(|(at, _)| *at);
            let mut buffer = ReorderBuffer::default();
            let mut got = Vec::new();
            let mut queue = coming.into_iter().peekable();
            for now in 0..2000 {
                while let Some((_, entry)) = queue.next_if(|(at, _)| *at <= now) {
                    buffer.add(entry, String::new(), millis(now));
                }
                got.extend(drain(&mut buffer, millis(now)));
            }
            prop_assert_eq!(got, expected);
        }
    }
}
