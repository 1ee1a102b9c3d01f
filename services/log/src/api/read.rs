//! `GET /log`: entries of this instance as NDJSON, streamed as they are found.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::App;
use crate::error::ApiError;
use crate::query::Query;
use crate::query::scan::{Range, Sink, scan};
use crate::store::Store;

pub(super) const NDJSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/x-ndjson");
/// Found lines are passed on in pieces of about this size.
const PIECE: usize = 64 << 10;
/// Pieces that may wait for a slow reader; then the files are read no further.
const PIECES: usize = 4;

pub(super) async fn read(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let query = Query::parse(query.as_deref().unwrap_or(""), Timestamp::now())?;
    let range = Range::of(&query, app.store.instance());
    let pieces = start(&app, query, range, plain)?;
    Ok(([NDJSON], stream(pieces)).into_response())
}

/// A piece of a reply; an error breaks the reply off, so that nobody takes half of it for the whole.
pub(super) type Piece = Result<Bytes, std::io::Error>;

/// Reads the files on a thread of its own; ends when the receiver is dropped. `render` writes one entry.
pub(super) fn start(
    app: &App,
    query: Query,
    range: Range,
    render: fn(&Store, u64, &[u8], &mut Vec<u8>),
) -> Result<mpsc::Receiver<Piece>, ApiError> {
    let permit = Arc::clone(&app.readers).try_acquire_owned().map_err(|_| ApiError::Busy)?;
    let (pieces, receiver) = mpsc::channel(PIECES);
    let store = Arc::clone(&app.store);
    // Not waited for: it ends with its receiver, at the latest after the block it is reading.
    tokio::task::spawn_blocking(move || {
        let snapshot = store.snapshot();
        let mut send = Send { store: &store, render, pieces, piece: Vec::new(), _permit: permit };
        if let Err(error) = scan(snapshot, &query, range, &mut send) {
            tracing::error!(%error, "the log file can't be read");
            let _ = send.pieces.blocking_send(Err(error));
        }
    });
    Ok(receiver)
}

pub(super) fn stream(pieces: mpsc::Receiver<Piece>) -> Body {
    Body::from_stream(futures_util::stream::unfold(pieces, |mut pieces| async move {
        Some((pieces.recv().await?, pieces))
    }))
}

pub(super) fn plain(_: &Store, _: u64, line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(line);
    out.push(b'\n');
}

struct Send<'a> {
    store: &'a Store,
    render: fn(&Store, u64, &[u8], &mut Vec<u8>),
    pieces: mpsc::Sender<Piece>,
    piece: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl Send<'_> {
    fn flush(&mut self) -> ControlFlow<()> {
        let piece = std::mem::take(&mut self.piece);
        match self.pieces.blocking_send(Ok(piece.into())) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

impl Sink for Send<'_> {
    fn entry(&mut self, seq: u64, line: &[u8]) -> ControlFlow<()> {
        (self.render)(self.store, seq, line, &mut self.piece);
        if self.piece.len() >= PIECE { self.flush() } else { ControlFlow::Continue(()) }
    }

    fn block(&mut self) -> ControlFlow<()> {
        if self.pieces.is_closed() {
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
