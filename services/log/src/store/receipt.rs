//! The outcome of an append.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::entry::SeqRange;

/// Where a batch is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Sequence number of the first entry.
    pub first: u64,
    /// Sequence number of the last entry.
    pub last: u64,
    /// A batch with the same key was stored earlier; this is its receipt.
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

/// Why a batch is not stored. The sender may retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
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

/// An append on its way: resolves to the receipt, or to `None` if the sender does not wait for one
/// ([`AckMode::Queued`](super::AckMode::Queued)).
#[derive(Debug)]
pub struct PendingAppend(Option<ReceiptReceiver>);

type ReceiptReceiver = oneshot::Receiver<Result<Receipt, AppendError>>;

impl PendingAppend {
    pub(super) fn new(receipt: Option<ReceiptReceiver>) -> Self {
        Self(receipt)
    }
}

impl Future for PendingAppend {
    type Output = Result<Option<Receipt>, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(receipt) = &mut self.0 else { return Poll::Ready(Ok(None)) };
        let receipt = Pin::new(receipt).poll(context);
        receipt.map(|receipt| receipt.unwrap_or(Err(AppendError::Closed)).map(Some))
    }
}
