//! `GET /log`: entries of this instance as NDJSON, streamed as they are found.
//!
//! A thread reads the files, no faster than its reader takes what it finds; one that takes nothing for `max_stall` is
//! given up, since only so many may read at a time.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::{SendTimeoutError, TrySendError};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::App;
use crate::entry::SeqRange;
use crate::error::ApiError;
use crate::query::Query;
use crate::query::scan::{Sink, scan};
use crate::store::Store;

pub(super) const NDJSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/x-ndjson");
/// Found lines are passed on in pieces of about this size.
const PIECE: usize = 64 << 10;
/// Pieces that may wait for a slow reader; then the files are read no further.
const PIECES: usize = 4;

pub(super) async fn read(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = Query::parse(query.as_deref().unwrap_or(""), Timestamp::now())?;
    let range = query.seq_range(app.store.instance());
    let pieces = start(&app, query, range, plain)?;
    Ok(([NDJSON], stream(pieces)).into_response())
}

/// A piece of a reply; an error breaks the reply off, so that nobody takes half of it for the whole.
pub(super) type Piece = Result<Bytes, std::io::Error>;

/// What a reading thread finds.
pub(super) struct Pieces {
    pieces: mpsc::Receiver<Piece>,
    /// The thread has given up on its reader, with pieces unsent.
    gave_up: Arc<AtomicBool>,
}

impl Pieces {
    #[cfg(test)]
    pub(super) fn of(pieces: mpsc::Receiver<Piece>) -> Self {
        Self { pieces, gave_up: Arc::default() }
    }

    pub(super) async fn next(&mut self) -> Option<Piece> {
        match self.pieces.recv().await {
            None if self.gave_up.swap(false, Ordering::Relaxed) => Some(Err(io::ErrorKind::TimedOut.into())),
            piece => piece,
        }
    }
}

/// Reads the files on a thread of its own; ends when the receiver is dropped. `render` writes one entry.
pub(super) fn start(app: &App, query: Query, range: SeqRange, render: Render) -> Result<Pieces, ApiError> {
    start_with(app, render, move |store, send| scan(store.snapshot(), &query, range, send))
}

/// The same for any way of reading the files.
pub(super) fn start_with(
    app: &App,
    render: Render,
    work: impl FnOnce(&Store, &mut Send<'_>) -> io::Result<()> + std::marker::Send + 'static,
) -> Result<Pieces, ApiError> {
    let permit = Arc::clone(&app.readers).try_acquire_owned().map_err(|_| ApiError::Busy)?;
    let (pieces, receiver) = mpsc::channel(PIECES);
    let gave_up = Arc::new(AtomicBool::new(false));
    let (store, max_stall) = (Arc::clone(&app.store), app.max_stall);
    let out = Out { pieces, gave_up: Arc::clone(&gave_up), max_stall, runtime: Handle::current() };
    // Not waited for: it ends with its receiver, at the latest after the block it is reading, and where its receiver
    // takes nothing any more.
    tokio::task::spawn_blocking(move || {
        let mut send = Send { store: &store, render, out, piece: Vec::new(), _permit: permit };
        if let Err(error) = work(&store, &mut send) {
            tracing::error!(%error, "the log file can't be read");
            let _ = send.out.send(Err(error));
        }
    });
    Ok(Pieces { pieces: receiver, gave_up })
}

pub(super) fn stream(pieces: Pieces) -> Body {
    Body::from_stream(futures_util::stream::unfold(pieces, |mut pieces| async move {
        Some((pieces.next().await?, pieces))
    }))
}

/// Writes one entry.
pub(super) type Render = fn(&Store, u64, &[u8], &mut Vec<u8>);

pub(super) fn plain(_: &Store, _: u64, line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(line);
    out.push(b'\n');
}

/// The way to the reader.
struct Out {
    pieces: mpsc::Sender<Piece>,
    gave_up: Arc<AtomicBool>,
    max_stall: Duration,
    runtime: Handle,
}

impl Out {
    fn send(&self, piece: Piece) -> ControlFlow<()> {
        if self.gave_up.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        let piece = match self.pieces.try_send(piece) {
            Ok(()) => return ControlFlow::Continue(()),
            Err(TrySendError::Closed(_)) => return ControlFlow::Break(()),
            Err(TrySendError::Full(piece)) => piece,
        };
        match self.runtime.block_on(self.pieces.send_timeout(piece, self.max_stall)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(SendTimeoutError::Closed(_)) => ControlFlow::Break(()),
            Err(SendTimeoutError::Timeout(_)) => {
                tracing::warn!("a reader takes nothing any more; its reply is broken off");
                self.gave_up.store(true, Ordering::Relaxed);
                ControlFlow::Break(())
            }
        }
    }
}

/// Takes what is found, and sends it in pieces.
pub(super) struct Send<'a> {
    store: &'a Store,
    render: Render,
    out: Out,
    piece: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl Send<'_> {
    /// Nobody waits for more.
    pub(super) fn over(&self) -> bool {
        self.out.pieces.is_closed() || self.out.gave_up.load(Ordering::Relaxed)
    }

    fn flush(&mut self) -> ControlFlow<()> {
        let piece = std::mem::take(&mut self.piece);
        self.out.send(Ok(piece.into()))
    }
}

impl Sink for Send<'_> {
    fn entry(&mut self, seq: u64, line: &[u8]) -> ControlFlow<()> {
        (self.render)(self.store, seq, line, &mut self.piece);
        if self.piece.len() >= PIECE { self.flush() } else { ControlFlow::Continue(()) }
    }

    fn block(&mut self) -> ControlFlow<()> {
        if self.over() {
            return ControlFlow::Break(());
        }
        if self.piece.is_empty() { ControlFlow::Continue(()) } else { self.flush() }
    }
}

impl Drop for Send<'_> {
    fn drop(&mut self) {
        // What was found before the limit was reached.
        if !self.piece.is_empty() {
            let _ = self.flush();
        }
    }
}
