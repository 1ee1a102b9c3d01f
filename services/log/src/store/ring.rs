//! The last committed lines in memory, for followers.
//!
//! It is bounded by bytes: a slow follower misses lines, and learns from the sequence numbers how many, but never
//! slows the writer down. It is filled only while the log has followers.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Approximate memory of a commit apart from its lines, in bytes. Counted, so that many small commits stay
/// within the bound.
const OVERHEAD: usize = 100;
/// Approximate size of the pieces that followers get, in bytes. A thousand of them may each be sending one.
const PIECE: usize = 16 << 10;

/// Lines that were committed together, or a part of many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommittedLines {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) lines: Bytes,
}

pub(crate) struct Ring {
    state: Mutex<RingState>,
    max_bytes: usize,
}

#[derive(Default)]
struct RingState {
    followers: usize,
    /// Sequence number of the newest entry, in memory or not.
    last: u64,
    commits: VecDeque<CommittedLines>,
    bytes: usize,
}

/// A reader of the ring. The ring is filled while it has one.
pub(crate) struct RingFollower {
    ring: Arc<Ring>,
    first: u64,
}

impl CommittedLines {
    fn weight(&self) -> usize {
        self.lines.len() + OVERHEAD
    }
}

/// Cuts a commit between its lines, so that a slow follower holds up little memory.
fn pieces_of(mut first: u64, last: u64, mut lines: &[u8]) -> Vec<CommittedLines> {
    let mut pieces = Vec::new();
    while lines.len() > PIECE {
        let end = memchr::memrchr(b'\n', &lines[..PIECE]).or_else(|| memchr::memchr(b'\n', lines));
        let Some(end) = end.filter(|end| end + 1 < lines.len()) else { break };
        let (piece, rest) = lines.split_at(end + 1);
        let next = first + memchr::memchr_iter(b'\n', piece).count() as u64;
        pieces.push(CommittedLines { first, last: next - 1, lines: Bytes::copy_from_slice(piece) });
        (first, lines) = (next, rest);
    }
    pieces.push(CommittedLines { first, last, lines: Bytes::copy_from_slice(lines) });
    pieces
}

impl Ring {
    /// An empty ring; the next entry is `last` + 1.
    pub(crate) fn new(max_bytes: usize, last: u64) -> Self {
        Self { state: Mutex::new(RingState { last, ..RingState::default() }), max_bytes }
    }

    /// Adds a commit. The writer calls this in the order of the sequence numbers.
    pub(crate) fn push(&self, first: u64, last: u64, lines: &[u8]) {
        let mut state = self.state.lock();
        state.last = last;
        if state.followers == 0 {
            return;
        }
        let mut pieces = 0;
        for commit in pieces_of(first, last, lines) {
            state.bytes += commit.weight();
            state.commits.push_back(commit);
            pieces += 1;
        }
        // The newest commit stays, however large.
        while state.bytes > self.max_bytes && state.commits.len() > pieces {
            if let Some(oldest) = state.commits.pop_front() {
                state.bytes -= oldest.weight();
            }
        }
    }

    /// The oldest entry in memory.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.state.lock().commits.front().map(|commit| commit.first)
    }

    pub(crate) fn follow(self: &Arc<Self>) -> RingFollower {
        let mut state = self.state.lock();
        state.followers += 1;
        RingFollower { first: state.last + 1, ring: Arc::clone(self) }
    }

    /// Number of followers.
    pub(crate) fn followers(&self) -> usize {
        self.state.lock().followers
    }
}

impl RingFollower {
    /// The first entry that this follower can get here. Older ones are in the files, or are about to be.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The commits from entry `next` on, about `max_bytes` of them, since the writer waits for the lock. The
    /// first one may begin before `next`, or after it if what was between has left the ring.
    pub(crate) fn since(&self, next: u64, max_bytes: usize) -> Vec<CommittedLines> {
        let state = self.ring.state.lock();
        let from = state.commits.partition_point(|commit| commit.last < next);
        let mut bytes = 0;
        let within = |commit: &&CommittedLines| {
            let more = bytes < max_bytes;
            bytes += commit.weight();
            more
        };
        state.commits.range(from..).take_while(within).cloned().collect()
    }
}

impl Drop for RingFollower {
    fn drop(&mut self) {
        let mut state = self.ring.state.lock();
        state.followers -= 1;
        if state.followers == 0 {
            state.commits = VecDeque::new();
            state.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_follower_misses_the_oldest_and_no_follower_means_no_memory() {
        let ring = Arc::new(Ring::new(2 * OVERHEAD + 10, 0));
        ring.push(1, 1, b"unseen");
        let follower = ring.follow();
        assert_eq!(follower.first(), 2);
        assert!(follower.since(1, 9_999).is_empty());
        assert_eq!(ring.oldest(), None);
        ring.push(2, 3, b"2\n3\n");
        ring.push(4, 4, b"4\n");
        let firsts = |next| follower.since(next, 9_999).iter().map(|commit| commit.first).collect::<Vec<_>>();
        assert_eq!(firsts(1), [2, 4]);
        assert_eq!(firsts(3), [2, 4]);
        assert_eq!(firsts(4), [4]);
        assert!(firsts(5).is_empty());
        ring.push(5, 5, &[b'x'; 150]);
        assert_eq!((firsts(3), ring.oldest()), (vec![5], Some(5)));
        drop(follower);
        assert!(ring.state.lock().commits.is_empty());
    }

    #[test]
    fn a_large_commit_is_handed_out_in_pieces_of_whole_lines() {
        let ring = Arc::new(Ring::new(10, 0));
        let follower = ring.follow();
        let line = |seq: u64| format!("{seq} {}\n", "x".repeat(if seq == 50 { 3 * PIECE } else { 1_000 }));
        let lines: String = (1..=100).map(line).collect();
        ring.push(1, 100, lines.as_bytes());
        let (mut next, mut seen) = (1, String::new());
        while next <= 100 {
            let pieces = follower.since(next, 1);
            assert!(pieces.len() == 1 && pieces[0].first == next, "none is missing");
            assert!(pieces[0].lines.len() <= PIECE || pieces[0].first == pieces[0].last);
            seen += std::str::from_utf8(&pieces[0].lines).unwrap();
            next = pieces[0].last + 1;
        }
        assert!(seen == lines);
    }

    #[test]
    fn small_commits_count_with_their_overhead_and_are_handed_out_in_turns() {
        let ring = Arc::new(Ring::new(100_000, 0));
        let follower = ring.follow();
        for seq in 1..=5_000 {
            ring.push(seq, seq, b"x\n");
        }
        assert!(ring.state.lock().commits.len() <= 1_000);
        let oldest = ring.oldest().unwrap();
        let turn = follower.since(1, 10 * OVERHEAD);
        assert_eq!((turn[0].first, turn.len()), (oldest, 10));
        assert_eq!(follower.since(turn[9].last + 1, 1).len(), 1, "at least one");
    }
}
