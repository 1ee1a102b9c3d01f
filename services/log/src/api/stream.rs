//! Streams the matches that a thread finds in the files.
//!
//! The thread reads no faster than its client accepts, and ends soon after the client has left. The number of such
//! threads is bounded, and so is their time: a client that accepts nothing for `max_stall`, and a query that searches
//! for longer than `max_query_time`, has its reply aborted.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use futures_util::StreamExt as _;
use futures_util::stream::{Stream, try_unfold, unfold};
use hubspoke_chassis::Problem;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep, timeout};

use super::admission::AdmittedQuery;
use super::app::LogApp;
use crate::error::ApiError;
use crate::query::Query;
use crate::query::scan::{EntrySink, scan};
use crate::store::Store;

pub(super) const NDJSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/x-ndjson");
/// Approximate size of a chunk, in bytes.
const CHUNK: usize = 64 << 10;
/// Chunks that may wait for a slow client; then the thread pauses.
const MAX_CHUNKS: usize = 2;
/// How long the head of a reply waits for the first chunk, so that an early failure has a status. Less than a log
/// instance that asks this one waits for a head.
const FIRST_CHUNK: Duration = Duration::from_secs(1);
/// Time for the last line of an aborted reply to be sent.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// A chunk of a reply. An error aborts the reply, so that no client mistakes a part for the whole.
pub(super) type BodyChunk = io::Result<Bytes>;

/// Writes one entry to a chunk.
pub(super) type RenderEntry = fn(&Store, u64, &[u8], &mut Vec<u8>);

/// The chunks that the thread has sent.
pub(super) struct FileStream {
    chunks: mpsc::Receiver<BodyChunk>,
    first: Option<BodyChunk>,
    end: Arc<EarlyEnd>,
}

/// Why the thread has ended early, if it can't send that, since its client accepts nothing.
#[derive(Default)]
struct EarlyEnd(parking_lot::Mutex<Option<io::Error>>);

impl FileStream {
    #[cfg(test)]
    pub(super) fn of(chunks: mpsc::Receiver<BodyChunk>) -> Self {
        Self { chunks, first: None, end: Arc::default() }
    }

    pub(super) fn chunks(self) -> impl Stream<Item = BodyChunk> + Send {
        unfold(self, |mut stream| async move { Some((stream.next().await?, stream)) })
    }

    pub(super) async fn next(&mut self) -> Option<BodyChunk> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        match self.chunks.recv().await {
            None => self.end.0.lock().take().map(Err),
            chunk => chunk,
        }
    }

    /// Waits a moment for the first chunk. Returns the error if the query fails before it.
    pub(super) async fn begin(mut self) -> Result<Self, ApiError> {
        match timeout(FIRST_CHUNK, self.next()).await {
            Ok(Some(Err(error))) => return Err(failure(error)),
            Ok(first) => self.first = first,
            Err(_) => {}
        }
        Ok(self)
    }
}

/// The cause of an aborted reply.
pub(super) fn failure(error: io::Error) -> ApiError {
    error.downcast().unwrap_or(ApiError::Internal)
}

/// Finds the matches of a query in this instance's files, as NDJSON.
pub(super) fn query_files(app: &LogApp, admitted: Arc<AdmittedQuery>, query: Query) -> FileStream {
    let range = query.seq_range(app.store.instance());
    let ndjson: RenderEntry = |_, _, line, out| {
        out.extend_from_slice(line);
        out.push(b'\n');
    };
    read_files(app, admitted, ndjson, move |store, sink| scan(store.snapshot(), &query, range, sink))
}

/// Runs `read` on a thread; the stream gets the entries that it gives to the sink. It ends when the stream is dropped.
pub(super) fn read_files(
    app: &LogApp,
    admitted: Arc<AdmittedQuery>,
    render: RenderEntry,
    read: impl FnOnce(&Store, &mut ChunkSink<'_>) -> io::Result<()> + Send + 'static,
) -> FileStream {
    let (chunks, receiver) = mpsc::channel(MAX_CHUNKS);
    let end = Arc::new(EarlyEnd::default());
    let sender = ChunkSender {
        chunks,
        max_stall: app.max_stall,
        max_time: app.max_query_time,
        waited: Duration::ZERO,
        ended: None,
        admitted,
        runtime: Handle::current(),
    };
    let (store, early_end) = (Arc::clone(&app.store), Arc::clone(&end));
    // Not joined: it ends soon after its client leaves, at the latest when the client stalls.
    tokio::task::spawn_blocking(move || {
        let mut sink = ChunkSink { store: &store, render, sender, chunk: Vec::new() };
        if let Err(error) = read(&store, &mut sink) {
            let cause = &error as &dyn std::error::Error;
            tracing::error!(error = cause, "can't read the log files; aborting a reply");
            sink.sender.ended.get_or_insert(ApiError::Internal);
        } else {
            // The last matches before the limit or the end.
            let _ = sink.flush();
        }
        *early_end.0.lock() = sink.sender.ended.take().map(io::Error::other);
    });
    FileStream { chunks: receiver, first: None, end }
}

/// A reply's body. One that is aborted ends with the reason, which `last_words` makes of the problem.
pub(super) fn body(
    chunks: impl Stream<Item = BodyChunk> + Send + 'static,
    last_words: fn(&Problem) -> Vec<u8>,
) -> Body {
    let state = (Box::pin(chunks), None::<io::Error>);
    Body::from_stream(try_unfold(state, move |(mut chunks, ended)| async move {
        if let Some(error) = ended {
            // Otherwise the connection is closed with the last words unsent.
            sleep(LAST_WORDS).await;
            return Err(error);
        }
        match chunks.next().await {
            None => Ok(None),
            Some(Ok(chunk)) => Ok(Some((chunk, (chunks, None)))),
            Some(Err(error)) => {
                let cause = failure(error);
                let aborted = io::Error::other(cause.to_string());
                Ok(Some((last_words(&cause.into()).into(), (chunks, Some(aborted)))))
            }
        }
    }))
}

/// The problem as the last line of an aborted reply.
pub(super) fn last_line(problem: &Problem) -> Vec<u8> {
    format!("{}\n", problem.to_json()).into()
}

struct ChunkSender {
    chunks: mpsc::Sender<BodyChunk>,
    max_stall: Duration,
    max_time: Duration,
    /// For the client, so far.
    waited: Duration,
    /// Why the search has ended early.
    ended: Option<ApiError>,
    admitted: Arc<AdmittedQuery>,
    runtime: Handle,
}

impl ChunkSender {
    /// Whether the search goes on. Sets the reason if it does not although the client is there.
    fn goes_on(&mut self) -> bool {
        if self.ended.is_some() || self.chunks.is_closed() {
            return false;
        }
        if self.admitted.displaced().is_cancelled() {
            self.ended = Some(ApiError::Displaced);
        } else if self.admitted.since().elapsed().saturating_sub(self.waited) > self.max_time {
            self.ended = Some(ApiError::QueryTime { limit: self.max_time });
        }
        self.ended.is_none()
    }

    fn send(&mut self, chunk: Bytes) -> ControlFlow<()> {
        if self.ended.is_some() {
            return ControlFlow::Break(());
        }
        let chunk = match self.chunks.try_send(Ok(chunk)) {
            Ok(()) => return ControlFlow::Continue(()),
            Err(TrySendError::Closed(_)) => return ControlFlow::Break(()),
            Err(TrySendError::Full(chunk)) => chunk,
        };
        let began = Instant::now();
        let sent = self.runtime.block_on(async {
            tokio::select! {
                sent = timeout(self.max_stall, self.chunks.send(chunk)) => sent.map_err(|_| ApiError::Stalled),
                () = self.admitted.displaced().cancelled() => Err(ApiError::Displaced),
            }
        });
        self.waited += began.elapsed();
        match sent {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) => ControlFlow::Break(()),
            Err(cause) => {
                if matches!(cause, ApiError::Stalled) {
                    let max_stall = self.max_stall;
                    tracing::warn!(?max_stall, "a reader accepted nothing for max_stall; aborting its reply");
                }
                self.ended = Some(cause);
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
}

impl ChunkSink<'_> {
    fn flush(&mut self) -> ControlFlow<()> {
        if self.chunk.is_empty() {
            return ControlFlow::Continue(());
        }
        let chunk = std::mem::take(&mut self.chunk);
        if chunk.len() <= 2 * CHUNK {
            return self.sender.send(chunk.into());
        }
        // A long entry in pieces, so that no client has several of them waiting.
        chunk.chunks(2 * CHUNK).try_for_each(|piece| self.sender.send(Bytes::copy_from_slice(piece)))
    }
}

impl EntrySink for ChunkSink<'_> {
    fn entry(&mut self, seq: u64, line: &[u8]) -> ControlFlow<()> {
        (self.render)(self.store, seq, line, &mut self.chunk);
        if self.chunk.len() >= CHUNK { self.flush() } else { ControlFlow::Continue(()) }
    }

    fn end_of_block(&mut self) -> ControlFlow<()> {
        self.flush()
    }

    fn goes_on(&mut self) -> bool {
        self.sender.goes_on()
    }
}
