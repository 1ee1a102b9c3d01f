//! The outcome of an append.

use crate::entry::SeqRange;

/// Where a batch is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Sequence number of the first entry.
    pub first: u64,
    /// Sequence number of the last entry.
    pub last: u64,
    /// The same batch was stored earlier, under the same key; this is its receipt.
    pub duplicate: bool,
}

impl Receipt {
    pub(super) fn new(range: SeqRange, duplicate: bool) -> Self {
        Self { first: range.first, last: range.last, duplicate }
    }

    pub(super) fn range(&self) -> SeqRange {
        SeqRange { first: self.first, last: self.last }
    }
}

/// Why a batch is not stored. Unless its key is at fault, the sender may retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The sender has used the key for something else.
    #[error("this sender has used the key for another content; a key belongs to one request and its retries")]
    KeyReused,
    /// The disk is slower than the senders.
    #[error("the write queue is full")]
    QueueFull,
    /// No space left on the disk.
    #[error("the disk is full")]
    DiskFull,
    /// The disk fails; the writer logs the cause.
    #[error("can't write to the disk")]
    Disk,
    /// The service is shutting down.
    #[error("the log is shutting down")]
    Closed,
}
