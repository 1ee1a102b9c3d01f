//! Which visit gets which number, whatever happens to the writes that take them. Pure.
//!
//! One write takes a number for each visit that waits. It is guarded by the revision of the count that it builds upon, so
//! of several attempts upon one revision at most one is ever applied, however late. While the outcome of an attempt is
//! unknown, its visits keep their places, and further attempts are made upon the same revision: either one of these is
//! applied, and all others never will be, or the count has moved on, and its record tells which attempt did it.
//!
//! Numbers of visits that nobody waits for any more are not lost as long as no other replica has counted since: the next
//! write takes them again.

use tokio::sync::oneshot;

use super::record::Record;

/// A visit that waits for its number.
pub(super) type Slot = oneshot::Sender<u64>;

#[derive(Debug)]
pub(super) struct Ledger {
    writer: String,
    attempt: u64,
    base: Option<Base>,
    slots: Vec<Slot>,
    /// Attempts upon the base that may have been applied, or may be later.
    open: Vec<Attempt>,
    /// The last number given out by this replica.
    highest: u64,
}

/// The count that the next write builds upon.
#[derive(Debug, Clone)]
struct Base {
    record: Record,
    /// Of the key; 0 if there is none.
    revision: i64,
    /// How many of the last numbers were taken by this replica and not given out.
    spare: u64,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    number: u64,
    first: u64,
    /// It takes numbers for the first slots.
    slots: usize,
}

/// A write to be made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Put {
    /// The revision that the key must have.
    pub(super) revision: i64,
    pub(super) record: Record,
}

impl Ledger {
    /// `writer` must be different for each start of each replica.
    pub(super) fn new(writer: String) -> Self {
        Self { writer, attempt: 0, base: None, slots: Vec::new(), open: Vec::new(), highest: 0 }
    }

    pub(super) fn push(&mut self, slot: Slot) {
        self.slots.push(slot);
    }

    /// Whether there is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.slots.is_empty() && self.open.is_empty()
    }

    /// Whether the key must be read first.
    pub(super) fn needs_base(&self) -> bool {
        self.base.is_none()
    }

    /// The count, as far as is known.
    pub(super) fn count(&self) -> u64 {
        self.base
            .as_ref()
            .map_or(0, |base| base.record.count - base.spare.min(base.record.count))
            .max(self.highest)
    }

    /// The next write, if somebody waits. It counts as open until one of the other calls tells how it ended.
    pub(super) fn next(&mut self) -> Option<Put> {
        let held = self.open.first().map_or(0, |attempt| attempt.slots);
        let mut index = 0;
        self.slots.retain(|slot| {
            index += 1;
            index <= held || !slot.is_closed()
        });
        // Newcomers wait until the outcome is known, because the places of an attempt can't be given up.
        let slots = if held > 0 { held } else { self.slots.len() };
        let first = self.count() + 1;
        let base = self.base.as_ref().filter(|_| slots > 0)?;
        self.attempt += 1;
        self.open.push(Attempt { number: self.attempt, first, slots });
        let count = first + slots as u64 - 1;
        let record = base.record.after(&self.writer, self.attempt, count);
        Some(Put { revision: base.revision, record })
    }

    /// The last write was applied. Returns how many numbers were given out.
    pub(super) fn applied(&mut self, put: Put, revision: i64) -> u64 {
        let Some(attempt) = self.open.pop() else { return 0 };
        let (given, spare) = self.give(attempt);
        self.open.clear();
        self.base = Some(Base { record: put.record, revision, spare });
        given
    }

    /// The last write was not applied, and will not be.
    pub(super) fn not_applied(&mut self) {
        self.open.pop();
    }

    /// The key as it is: read, or found by a write that was not applied. Returns how many numbers were given out, and how
    /// many are lost.
    pub(super) fn found(&mut self, record: Record, revision: i64) -> (u64, u64) {
        if self.base.as_ref().is_some_and(|base| base.revision == revision) {
            return (0, 0);
        }
        let last = record.last_of(&self.writer).cloned();
        let own = last.and_then(|last| {
            let attempt = self.open.iter().find(|attempt| attempt.number == last.attempt)?;
            Some((*attempt, record.is_last(&last)))
        });
        let (mut given, mut spare, mut lost) = (0, 0, 0);
        if let Some((attempt, is_last)) = own {
            (given, spare) = self.give(attempt);
            if !is_last {
                (lost, spare) = (spare, 0);
            }
        } else if let Some(base) = &self.base {
            lost = base.spare; // somebody has counted on top
        }
        self.open.clear();
        self.base = Some(Base { record, revision, spare });
        (given, lost)
    }

    /// Gives an attempt's numbers to its visits, in their order. Returns how many were given, and how many are left.
    fn give(&mut self, attempt: Attempt) -> (u64, u64) {
        let mut given = 0;
        for slot in self.slots.drain(..attempt.slots.min(self.slots.len())) {
            given += u64::from(slot.send(attempt.first + given).is_ok());
        }
        if given > 0 {
            self.highest = attempt.first + given - 1;
        }
        (given, attempt.slots as u64 - given)
    }
}

#[cfg(test)]
mod tests;
