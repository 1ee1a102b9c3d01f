//! Streams the matches that a thread finds in the files.
//!
//! The thread reads no faster than its client accepts. The number of such threads is bounded, so a client
//! that accepts nothing for `max_stall` has its reply aborted.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::{SendTimeoutError, TrySendError};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::app::LogApp;
use crate::error::ApiError;
use crate::query::Query;
use crate::query::scan::{EntrySink, scan};
use crate::store::Store;

pub(super) const NDJSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/x-ndjson");
/// Approximate size of a chunk, in bytes.
const CHUNK: usize = 64 << 10;
/// Chunks that may wait for a slow client; then the thread pauses.
const MAX_CHUNKS: usize = 4;

/// A chunk of a reply. An error aborts the reply, so that no client mistakes a part for the whole.
pub(super) type BodyChunk = io::Result<Bytes>;

/// Writes one entry to a chunk.
pub(super) type RenderEntry = fn(&Store, u64, &[u8], &mut Vec<u8>);

/// The chunks that the thread has sent.
pub(super) struct FileStream {
    chunks: mpsc::Receiver<BodyChunk>,
    stalled: Arc<AtomicBool>,
}

impl FileStream {
    #[cfg(test)]
    pub(super) fn of(chunks: mpsc::Receiver<BodyChunk>) -> Self {
        Self { chunks, stalled: Arc::default() }
    }

    pub(super) async fn next(&mut self) -> Option<BodyChunk> {
        match self.chunks.recv().await {
            None if self.stalled.swap(false, Ordering::Relaxed) => Some(Err(io::ErrorKind::TimedOut.into())),
            chunk => chunk,
        }
    }
}

/// Finds the matches of a query in this instance's files, as NDJSON.
pub(super) fn query_files(app: &LogApp, query: Query) -> Result<FileStream, ApiError> {
    let range = query.seq_range(app.store.instance());
    let ndjson: RenderEntry = |_, _, line, out| {
        out.extend_from_slice(line);
        out.push(b'\n');
    };
    read_files(app, ndjson, move |store, sink| scan(store.snapshot(), &query, range, sink))
}

/// Runs `read` on a thread; the stream gets the entries that it gives to the sink. It ends when the stream is dropped.
pub(super) fn read_files(
    app: &LogApp,
    render: RenderEntry,
    read: impl FnOnce(&Store, &mut ChunkSink<'_>) -> io::Result<()> + Send + 'static,
) -> Result<FileStream, ApiError> {
    let permit = Arc::clone(&app.queries).try_acquire_owned().map_err(|_| ApiError::Busy)?;
    let (chunks, receiver) = mpsc::channel(MAX_CHUNKS);
    let stalled = Arc::new(AtomicBool::new(false));
    let (store, max_stall) = (Arc::clone(&app.store), app.max_stall);
    let sender = ChunkSender { chunks, stalled: Arc::clone(&stalled), max_stall, runtime: Handle::current() };
    // Not joined: it ends at the latest after the block that it is reading, or when the client stalls.
    tokio::task::spawn_blocking(move || {
        let mut sink = ChunkSink { store: &store, render, sender, chunk: Vec::new(), _permit: permit };
        if let Err(error) = read(&store, &mut sink) {
            let cause = &error as &dyn std::error::Error;
            tracing::error!(error = cause, "can't read the log files; aborting a reply");
            let _ = sink.sender.send(Err(error));
        }
    });
    Ok(FileStream { chunks: receiver, stalled })
}

pub(super) fn body(stream: FileStream) -> Body {
    Body::from_stream(futures_util::stream::unfold(stream, |mut stream| async move {
        Some((stream.next().await?, stream))
    }))
}

struct ChunkSender {
    chunks: mpsc::Sender<BodyChunk>,
    /// The client accepted nothing for `max_stall`.
    stalled: Arc<AtomicBool>,
    max_stall: Duration,
    runtime: Handle,
}

impl ChunkSender {
    fn send(&self, chunk: BodyChunk) -> ControlFlow<()> {
        if self.stalled.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        let chunk = match self.chunks.try_send(chunk) {
            Ok(()) => return ControlFlow::Continue(()),
            Err(TrySendError::Closed(_)) => return ControlFlow::Break(()),
            Err(TrySendError::Full(chunk)) => chunk,
        };
        match self.runtime.block_on(self.chunks.send_timeout(chunk, self.max_stall)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(SendTimeoutError::Closed(_)) => ControlFlow::Break(()),
            Err(SendTimeoutError::Timeout(_)) => {
                tracing::warn!(max_stall = ?self.max_stall, "a reader accepted nothing for max_stall; aborting its reply");
                self.stalled.store(true, Ordering::Relaxed);
                ControlFlow::Break(())
            }
        }
    }
}

/// Collects entries into chunks and sends them.
pub(super) struct ChunkSink<'a> {
    store: &'a Store,
    render: RenderEntry,
    sender: ChunkSender,
    chunk: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl ChunkSink<'_> {
    /// Whether the client is gone or stalled.
    pub(super) fn closed(&self) -> bool {
        self.sender.chunks.is_closed() || self.sender.stalled.load(Ordering::Relaxed)
    }

    fn flush(&mut self) -> ControlFlow<()> {
        let chunk = std::mem::take(&mut self.chunk);
        self.sender.send(Ok(chunk.into()))
    }
}

impl EntrySink for ChunkSink<'_> {
    fn entry(&mut self, seq: u64, line: &[u8]) -> ControlFlow<()> {
        (self.render)(self.store, seq, line, &mut self.chunk);
        if self.chunk.len() >= CHUNK { self.flush() } else { ControlFlow::Continue(()) }
    }

    fn end_of_block(&mut self) -> ControlFlow<()> {
        if self.closed() {
            return ControlFlow::Break(());
        }
        if self.chunk.is_empty() { ControlFlow::Continue(()) } else { self.flush() }
    }
}

impl Drop for ChunkSink<'_> {
    fn drop(&mut self) {
        // The last matches before the limit or the end.
        if !self.chunk.is_empty() {
            let _ = self.flush();
        }
    }
}
