//! Entries of several instances, as they come, in the order of their times, each once. Pure.
//!
//! Instances tell of an entry some milliseconds apart, so each is held back a little for those that should stand
//! before it. One that comes later still is shown when it comes: nothing is dropped for being late.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hubspoke_protocol::DedupWindow;

use super::entry::Entry;

/// How long an entry waits for others.
pub(super) const HOLD: Duration = Duration::from_millis(250);
/// Entries that may wait; more, and the first ones go out at once.
const MAX_HELD: usize = 50_000;
/// Keys that are remembered, to know the second copy of an entry by.
const MAX_KEYS: usize = 50_000;

/// Time, instance, number: the order in which entries are shown.
type Place = (String, String, u64);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Merge {
    held: BTreeMap<Place, (Duration, Entry, String)>,
    /// The last number of each instance that has come.
    last: HashMap<String, u64>,
    keys: DedupWindow<(Arc<str>, u64)>,
}

impl Default for Merge {
    fn default() -> Self {
        Self { held: BTreeMap::new(), last: HashMap::new(), keys: DedupWindow::new(MAX_KEYS) }
    }
}

impl Merge {
    /// Takes note of an entry that is shown already.
    pub(super) fn seen(&mut self, entry: &Entry) {
        let last = self.last.entry(entry.instance.clone()).or_default();
        *last = entry.seq.max(*last);
        self.is_new(entry);
    }

    /// The last number of each instance that has come.
    pub(super) fn last(&self) -> impl Iterator<Item = (&str, u64)> {
        self.last.iter().map(|(instance, seq)| (instance.as_str(), *seq))
    }

    /// Takes in an entry as it comes; `now` is the time since anything.
    pub(super) fn add(&mut self, entry: Entry, line: String, now: Duration) {
        if self.last.get(&entry.instance).is_some_and(|last| entry.seq <= *last) {
            return;
        }
        self.last.insert(entry.instance.clone(), entry.seq);
        if self.is_new(&entry) {
            let place = (entry.ts.clone(), entry.instance.clone(), entry.seq);
            self.held.insert(place, (now, entry, line));
        }
    }

    /// The next entry whose time has come.
    pub(super) fn next(&mut self, now: Duration) -> Option<(Entry, String)> {
        let first = self.held.first_entry()?;
        let due = first.get().0 + HOLD <= now;
        if !due && self.held.len() <= MAX_HELD {
            return None;
        }
        let (_, (_, entry, line)) = self.held.pop_first()?;
        Some((entry, line))
    }

    /// When to ask for the next entry; nothing where none waits.
    pub(super) fn next_at(&self) -> Option<Duration> {
        self.held.first_key_value().map(|(_, (came, _, _))| *came + HOLD)
    }

    /// Whether no other instance has told of the entry; a sender's retry may leave it on two.
    fn is_new(&mut self, entry: &Entry) -> bool {
        entry.key.as_deref().is_none_or(|key| self.keys.insert((key.into(), entry.part), ()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(ts: u32, instance: &str, seq: u64) -> Entry {
        Entry {
            ts: format!("{ts:06}"),
            seq,
            instance: instance.to_owned(),
            source: None,
            level: None,
            key: None,
            part: 0,
            msg: String::new(),
        }
    }

    fn keyed(ts: u32, instance: &str, seq: u64, key: &str, part: u64) -> Entry {
        Entry { key: Some(key.to_owned()), part, ..entry(ts, instance, seq) }
    }

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn out(merge: &mut Merge, now: Duration) -> Vec<String> {
        let name = |(entry, _): (Entry, String)| format!("{}:{}", entry.instance, entry.seq);
        std::iter::from_fn(|| merge.next(now)).map(name).collect()
    }

    #[test]
    fn entries_wait_for_those_that_stand_before_them() {
        let mut merge = Merge::default();
        merge.add(entry(20, "a", 1), String::new(), millis(0));
        merge.add(entry(10, "b", 1), String::new(), millis(100));
        assert_eq!(merge.next_at(), Some(millis(350)));
        assert_eq!(out(&mut merge, millis(349)), [""; 0]);
        assert_eq!(out(&mut merge, millis(350)), ["b:1", "a:1"]);
        // Too late for its place, and shown all the same.
        merge.add(entry(5, "b", 2), String::new(), millis(400));
        assert_eq!(out(&mut merge, millis(700)), ["b:2"]);
        assert_eq!(merge.next_at(), None);
    }

    #[test]
    fn copies_are_shown_once() {
        let mut merge = Merge::default();
        merge.seen(&entry(1, "a", 7));
        merge.seen(&keyed(1, "b", 3, "shown", 0));
        for entry in [
            entry(1, "a", 7),             // told again after a reconnection
            entry(2, "a", 6),             // the same
            entry(3, "a", 8),             // new
            keyed(4, "a", 9, "shown", 0), // a sender's retry
            keyed(5, "a", 10, "k", 0),
            keyed(6, "b", 4, "k", 0), // a sender's retry
            keyed(7, "b", 5, "k", 1), // another one of the same batch
        ] {
            merge.add(entry, String::new(), millis(0));
        }
        assert_eq!(out(&mut merge, millis(1000)), ["a:8", "a:10", "b:5"]);
        let mut last: Vec<_> = merge.last().collect();
        last.sort_unstable();
        assert_eq!(last, [("a", 10), ("b", 5)]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut merge = Merge::default();
        let mut shown = 0;
        for seq in 1..=120_000 {
            merge.add(keyed(1, "a", seq, &seq.to_string(), 0), String::new(), millis(0));
            shown += out(&mut merge, millis(0)).len();
            assert!(merge.held.len() <= MAX_HELD && merge.keys.len() <= MAX_KEYS);
        }
        assert_eq!(shown + merge.held.len(), 120_000);
    }

    proptest! {
        /// Whatever the delays below the hold, what comes out is by time and complete.
        #[test]
        fn small_delays_leave_the_order_as_it_was(delays in prop::collection::vec((0_u64..3, 0_u64..200), 1..60)) {
            let mut next = [0; 3];
            let mut due = [0_u64; 3];
            let mut coming: Vec<(u64, Entry)> = Vec::new();
            for (ts, (instance, delay)) in delays.iter().enumerate() {
                let at = *instance as usize;
                next[at] += 1;
                // An instance tells of its entries in order.
                due[at] = due[at].max(ts as u64 * 20 + delay);
                coming.push((due[at], entry(ts as u32, &instance.to_string(), next[at])));
            }
            let expected: Vec<_> = coming.iter().map(|(_, e)| format!("{}:{}", e.instance, e.seq)).collect();
            coming.sort_by_key(|(at, _)| *at);
            let mut merge = Merge::default();
            let mut got = Vec::new();
            let mut queue = coming.into_iter().peekable();
            for now in 0..2000 {
                while let Some((_, entry)) = queue.next_if(|(at, _)| *at <= now) {
                    merge.add(entry, String::new(), millis(now));
                }
                got.extend(out(&mut merge, millis(now)));
            }
            prop_assert_eq!(got, expected);
        }
    }
}
