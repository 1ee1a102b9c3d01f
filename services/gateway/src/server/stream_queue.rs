//! The bytes of a response on an HTTP/2 stream that wait for its client: those that have yet to find room in the stream's
//! window, and those in the library's queue, which reports nothing but drops what it has written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;

use crate::gateway::Gateway;
use crate::memory::Charge;

/// The bytes of one response that wait.
pub(super) struct StreamQueue {
    gateway: Arc<Gateway>,
    /// Bytes without room in the window.
    waiting: AtomicUsize,
    /// Bytes in the library's queue.
    queued: AtomicUsize,
    charge: Charge,
    waker: AtomicWaker,
}

/// Bytes in the library's queue; they count until this is dropped.
pub(super) struct QueuedBytes {
    bytes: Bytes,
    len: usize,
    queue: Arc<StreamQueue>,
}

impl StreamQueue {
    pub(super) fn new(gateway: &Arc<Gateway>) -> Arc<Self> {
        Arc::new(Self {
            gateway: gateway.clone(),
            waiting: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            charge: gateway.memory.buffers.charge(),
            waker: AtomicWaker::new(),
        })
    }

    /// So many bytes wait for room in the window.
    pub(super) fn set_waiting(&self, bytes: usize) {
        self.waiting.store(bytes, Relaxed);
        self.update();
    }

    pub(super) fn push(self: &Arc<Self>, bytes: Bytes) -> QueuedBytes {
        let len = bytes.len();
        self.queued.fetch_add(len, Relaxed);
        QueuedBytes { bytes, len, queue: self.clone() }
    }

    /// Ready if more of the response may be read. If memory is short, not before everything has been written.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let is_full = || self.queued.load(Relaxed) > 0 && self.gateway.memory.buffers.is_short();
        if !is_full() {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        if is_full() { Poll::Pending } else { Poll::Ready(()) }
    }

    fn update(&self) {
        self.charge.waits(self.waiting.load(Relaxed) + self.queued.load(Relaxed));
    }
}

impl Buf for QueuedBytes {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for QueuedBytes {
    fn drop(&mut self) {
        self.bytes = Bytes::new();
        self.queue.queued.fetch_sub(self.len, Relaxed);
        self.queue.update();
        self.queue.waker.wake();
    }
}
