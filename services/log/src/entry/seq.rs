//! Ranges of sequence numbers.

/// Sequence numbers of neighbouring entries of one instance, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeqRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl SeqRange {
    /// Every sequence number there can be.
    pub(crate) const ALL: Self = Self { first: 0, last: u64::MAX };

    pub(crate) fn contains(self, seq: u64) -> bool {
        (self.first..=self.last).contains(&seq)
    }
}
