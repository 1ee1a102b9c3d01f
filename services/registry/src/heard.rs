//! The heartbeats that were answered lately, for the other registries that share the store: in batches, each rendered
//! once for all of them. Without other registries nothing is kept.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use hubspoke_protocol::Load;
use parking_lot::Mutex;

use crate::catalog::{InstanceKey, Time};
use crate::findings::HeardEntry;

/// Least time that a batch takes.
pub(crate) const BATCH_TIME: Duration = Duration::from_millis(500);
/// Batches that are kept: whoever does not ask for so long misses some heartbeats, and gets the next ones.
const MAX_BATCHES: usize = 16;

/// The heartbeats of a batch: when the latest was answered, and its load.
pub(crate) type HeardMap = HashMap<InstanceKey, (Time, Option<Load>)>;

/// The latest heartbeats.
#[derive(Debug, Default)]
pub(crate) struct HeardLog {
    /// Whether anybody asks.
    wanted: AtomicBool,
    current: Mutex<HeardMap>,
    batches: Mutex<Batches>,
}

#[derive(Debug, Default)]
struct Batches {
    /// The number of the next batch.
    next: u64,
    made: VecDeque<(Time, Bytes)>,
}

impl HeardLog {
    /// Others want to know what is heard from now on.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Relaxed);
    }

    pub(crate) fn note(&self, key: &InstanceKey, load: Option<Load>, at: Time) {
        if self.wanted.load(Relaxed) {
            self.current.lock().insert(key.clone(), (at, load));
        }
    }

    /// The [`Findings`](crate::findings::Findings) from this batch on. `cut` makes entries of what was heard.
    pub(crate) fn render(
        &self,
        from: u64,
        failing: usize,
        now: Time,
        cut: impl FnOnce(HeardMap) -> Vec<HeardEntry>,
    ) -> Bytes {
        self.want();
        let mut batches = self.batches.lock();
        if batches.made.back().is_none_or(|(at, _)| now.since(*at) >= BATCH_TIME / 2) {
            let entries = cut(std::mem::take(&mut *self.current.lock()));
            let text = serde_json::to_vec(&entries).unwrap_or_default(); // entries are always valid JSON
            batches.made.push_back((now, text.into()));
            batches.next += 1;
            if batches.made.len() > MAX_BATCHES {
                batches.made.pop_front();
            }
        }
        let first = batches.next - batches.made.len() as u64;
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut text = format!(r#"{{"Next":{},"Failing":{failing},"Batches":["#, batches.next).into_bytes();
        for (i, (at, entries)) in batches.made.iter().skip(skip).enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let age = now.since(*at).as_millis();
            text.extend_from_slice(format!(r#"{comma}{{"AgeMs":{age},"Heard":"#).as_bytes());
            text.extend_from_slice(entries);
            text.push(b'}');
        }
        text.extend_from_slice(b"]}");
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::Findings;

    #[test]
    fn whoever_asks_gets_each_heartbeat_once_and_what_is_kept_is_bounded() {
        let log = HeardLog::default();
        let key = |n: u64| InstanceKey::new("log", &format!("10.0.0.1:{n}"));
        let at = |ms: i64| Time::from_millis(ms);
        log.note(&key(1), None, at(0)); // nobody wants it
        let cut = |heard: HeardMap| {
            let entry = |(key, (_, _)): (InstanceKey, _)| {
                HeardEntry(key.name.to_string(), key.addr.to_string(), "id".to_owned(), 0, Some(1), None)
            };
            heard.into_iter().map(entry).collect()
        };
        let ask =
            |from, ms| -> Findings { serde_json::from_slice(&log.render(from, 3, at(ms), cut)).unwrap() };
        let mut next = ask(0, 0).next;
        let mut heard = 0;
        for n in 1..=40 {
            log.note(&key(n), None, at(0));
            let findings = ask(next, i64::try_from(n).unwrap() * 500);
            assert_eq!(findings.failing, 3);
            heard += findings.batches.iter().map(|batch| batch.heard.len()).sum::<usize>();
            next = findings.next;
        }
        assert_eq!(heard, 40);
        assert_eq!(ask(0, 20_001).batches.len(), MAX_BATCHES);
        assert!(ask(next, 20_002).batches.is_empty(), "a batch takes a while");
    }
}
