//! The last committed lines in memory, for those who follow the log.
//!
//! Bounded by bytes, so a follower who is slow misses lines (and learns how many from the numbers) but never slows
//! the writer. Kept only while somebody follows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// What a chunk takes beside its lines, roughly, in bytes: many small ones must not take more than the bound says.
const OVERHEAD: usize = 100;

/// Lines that were committed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) lines: Bytes,
}

pub(crate) struct Ring {
    state: Mutex<State>,
    limit: usize,
}

#[derive(Default)]
struct State {
    followers: usize,
    /// The newest entry, whether it was kept or not.
    last: u64,
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

/// Keeps the ring filled while it lives.
pub(crate) struct Follower {
    ring: Arc<Ring>,
    first: u64,
}

impl Chunk {
    fn weight(&self) -> usize {
        self.lines.len() + OVERHEAD
    }
}

impl Ring {
    /// After entry `last`.
    pub(crate) fn new(limit: usize, last: u64) -> Self {
        Self { state: Mutex::new(State { last, ..State::default() }), limit }
    }

    /// Called by the writer, in the order of the numbers.
    pub(crate) fn push(&self, first: u64, last: u64, lines: &[u8]) {
        let mut state = self.lock();
        state.last = last;
        if state.followers == 0 {
            return;
        }
        let chunk = Chunk { first, last, lines: Bytes::copy_from_slice(lines) };
        state.bytes += chunk.weight();
        state.chunks.push_back(chunk);
        // The newest stays, however large.
        while state.bytes > self.limit && state.chunks.len() > 1 {
            if let Some(oldest) = state.chunks.pop_front() {
                state.bytes -= oldest.weight();
            }
        }
    }

    /// The oldest entry that is kept; `None` where none is.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.lock().chunks.front().map(|chunk| chunk.first)
    }

    pub(crate) fn follow(self: &Arc<Self>) -> Follower {
        let mut state = self.lock();
        state.followers += 1;
        Follower { first: state.last + 1, ring: Arc::clone(self) }
    }

    /// Number of those who follow.
    pub(crate) fn followers(&self) -> usize {
        self.lock().followers
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// The first entry that this follower can get here; those before it are in the files, or are about to be.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The chunks that hold `next` and later entries: some `budget` bytes of them, since the writer waits meanwhile.
    /// The first may start before `next`, or after it where what lay between is gone.
    pub(crate) fn since(&self, next: u64, budget: usize) -> Vec<Chunk> {
        let state = self.ring.lock();
        let from = state.chunks.partition_point(|chunk| chunk.last < next);
        let mut bytes = 0;
        let within = |chunk: &&Chunk| {
            let more = bytes < budget;
            bytes += chunk.weight();
            more
        };
        state.chunks.range(from..).take_while(within).cloned().collect()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.ring.lock();
        state.followers -= 1;
        if state.followers == 0 {
            state.chunks = VecDeque::new();
            state.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_follower_misses_the_oldest_and_nobody_costs_nothing() {
        let ring = Arc::new(Ring::new(2 * OVERHEAD + 10, 0));
        ring.push(1, 1, b"unseen");
        let follower = ring.follow();
        assert_eq!(follower.first(), 2);
        assert!(follower.since(1, 9_999).is_empty());
        assert_eq!(ring.oldest(), None);
        ring.push(2, 3, b"2\n3\n");
        ring.push(4, 4, b"4\n");
        let firsts = |next| follower.since(next, 9_999).iter().map(|chunk| chunk.first).collect::<Vec<_>>();
        assert_eq!(firsts(1), [2, 4]);
        assert_eq!(firsts(3), [2, 4]);
        assert_eq!(firsts(4), [4]);
        assert!(firsts(5).is_empty());
        ring.push(5, 5, &[b'x'; 150]);
        assert_eq!((firsts(3), ring.oldest()), (vec![5], Some(5)));
        drop(follower);
        assert!(ring.lock().chunks.is_empty());
    }

    #[test]
    fn many_small_chunks_count_for_what_they_take_and_are_handed_out_by_turns() {
        let ring = Arc::new(Ring::new(100_000, 0));
        let follower = ring.follow();
        for seq in 1..=5_000 {
            ring.push(seq, seq, b"x\n");
        }
        assert!(ring.lock().chunks.len() <= 1_000);
        let oldest = ring.oldest().unwrap();
        let turn = follower.since(1, 10 * OVERHEAD);
        assert_eq!((turn[0].first, turn.len()), (oldest, 10));
        assert_eq!(follower.since(turn[9].last + 1, 1).len(), 1, "at least one");
    }
}
