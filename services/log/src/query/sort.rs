//! Sorts entries by their times while they are read in the order of their arrival. Pure, in bounded memory.
//!
//! An entry's time is that of its event if its sender gave one, and never after its arrival. So backwards, an entry can
//! be passed on once its time is not before the arrival of what is still to come. Forwards it waits for what arrives in
//! the next minute.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::SortOrder;
use crate::entry::line::EntryHead;
use crate::entry::timestamp;

/// Bytes of entries that may wait. Beyond it those that should come first don't wait any longer.
const MAX_WAITING: usize = 512 << 10;
/// How long the entries of an ascending scan wait for others.
const WAIT: SignedDuration = SignedDuration::from_secs(60);

/// The entries that wait.
#[derive(Debug)]
pub(super) struct TimeSorter {
    order: SortOrder,
    /// By time and sequence number.
    waiting: BTreeMap<(Vec<u8>, u64), Vec<u8>>,
    bytes: usize,
    /// No entry with a time beyond this will be added.
    reached: Vec<u8>,
}

impl TimeSorter {
    pub(super) fn new(order: SortOrder) -> Self {
        Self { order, waiting: BTreeMap::new(), bytes: 0, reached: Vec::new() }
    }

    /// Whether an entry can be passed on at once.
    pub(super) fn passes(&self, head: &EntryHead<'_>) -> bool {
        self.order == SortOrder::Desc && self.waiting.is_empty() && head.received.is_none()
    }

    pub(super) fn add(&mut self, head: &EntryHead<'_>, line: &[u8]) {
        self.bytes += line.len();
        self.waiting.insert((head.ts.to_vec(), head.seq), line.to_vec());
        if self.order == SortOrder::Desc {
            self.reached = head.arrival().to_vec();
        }
    }

    /// Notes how far the scan is: the entry that has arrived first, or last, of those that it has read.
    pub(super) fn reach(&mut self, head: &EntryHead<'_>) {
        let arrival = head.arrival();
        self.reached = match self.order {
            SortOrder::Desc => arrival.to_vec(),
            SortOrder::Asc => {
                let arrival =
                    std::str::from_utf8(arrival).ok().and_then(|text| text.parse::<Timestamp>().ok());
                let Some(until) = arrival.and_then(|arrival| arrival.checked_sub(WAIT).ok()) else { return };
                timestamp(until).into_bytes()
            }
        };
    }

    /// The next entry that need not wait any longer.
    pub(super) fn next_due(&mut self) -> Option<(u64, Vec<u8>)> {
        let (ts, _) = match self.order {
            SortOrder::Asc => self.waiting.first_key_value()?.0,
            SortOrder::Desc => self.waiting.last_key_value()?.0,
        };
        let due = match self.order {
            SortOrder::Asc => *ts <= self.reached,
            SortOrder::Desc => *ts >= self.reached,
        };
        if due || self.bytes > MAX_WAITING { self.next() } else { None }
    }

    /// The next entry, due or not.
    pub(super) fn next(&mut self) -> Option<(u64, Vec<u8>)> {
        let ((_, seq), line) = match self.order {
            SortOrder::Asc => self.waiting.pop_first()?,
            SortOrder::Desc => self.waiting.pop_last()?,
        };
        self.bytes -= line.len();
        Some((seq, line))
    }
}
