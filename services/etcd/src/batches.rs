//! Joins what etcd cuts up: the events of one revision are delivered together. Pure.

use bytes::Bytes;

use crate::proto::{Event, EventType, KeyValue};

/// Most events in one response; one of more is cut off by an error.
const MAX_EVENTS: usize = 1_000_000;

/// A change to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key was written.
    Put(KeyValue),
    /// The key was deleted, or its lease has ended.
    Deleted {
        /// The key.
        key: Bytes,
    },
}

impl Change {
    /// The key that has changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put(kv) => &kv.key,
            Self::Deleted { key } => key,
        }
    }
}

/// The changes of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) revision: i64,
    pub(crate) changes: Vec<Change>,
}

/// Fragments of a response that is not complete yet.
#[derive(Debug, Default)]
pub(crate) struct Fragments(Vec<Event>);

/// A response of so many events that it is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManyEvents;

impl Fragments {
    /// Adds a part of a response. Returns its batches, in order, once the last part is there.
    pub(crate) fn add(&mut self, events: Vec<Event>, more: bool) -> Result<Vec<Batch>, TooManyEvents> {
        if self.0.len() + events.len() > MAX_EVENTS {
            return Err(TooManyEvents);
        }
        self.0.extend(events);
        Ok(if more { Vec::new() } else { batches(std::mem::take(&mut self.0)) })
    }
}

fn batches(events: Vec<Event>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for event in events {
        let deleted = event.kind == EventType::Delete as i32;
        let Some(kv) = event.kv else { continue };
        let revision = kv.mod_revision;
        let change = if deleted { Change::Deleted { key: kv.key } } else { Change::Put(kv) };
        match batches.last_mut() {
            Some(batch) if batch.revision == revision => batch.changes.push(change),
            _ => batches.push(Batch { revision, changes: vec![change] }),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, revision: i64) -> Event {
        let kv = KeyValue { key: key.into(), mod_revision: revision, ..KeyValue::default() };
        Event { kind: EventType::Put.into(), kv: Some(kv) }
    }

    fn keys(batches: &[Batch]) -> Vec<(i64, Vec<&[u8]>)> {
        let mut keys = Vec::new();
        for batch in batches {
            keys.push((batch.revision, batch.changes.iter().map(|change| &change.key()[..]).collect()));
        }
        keys
    }

    #[test]
    fn a_revision_is_delivered_whole_however_it_is_cut() {
        let events = || vec![put("a", 1), put("b", 2), put("c", 2), put("d", 2), put("e", 5)];
        let whole = Fragments::default().add(events(), false).unwrap();
        assert_eq!(keys(&whole), [(1, vec![&b"a"[..]]), (2, vec![b"b", b"c", b"d"]), (5, vec![b"e"])]);
        for cut in 0..=events().len() {
            let mut fragments = Fragments::default();
            let mut head = events();
            let tail = head.split_off(cut);
            assert_eq!(fragments.add(head, true).unwrap(), []);
            assert_eq!(fragments.add(tail, false).unwrap(), whole, "{cut}");
            assert_eq!(fragments.add(vec![], false).unwrap(), [], "nothing is left");
        }
    }

    #[test]
    fn a_response_without_end_is_refused() {
        let mut fragments = Fragments::default();
        let many = || vec![put("a", 1); 400_000];
        fragments.add(many(), true).unwrap();
        fragments.add(many(), true).unwrap();
        assert_eq!(fragments.add(many(), true), Err(TooManyEvents));
    }
}
