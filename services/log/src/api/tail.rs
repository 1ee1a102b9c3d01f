//! `GET /log/tail`: entries as they come, as server-sent events.
//!
//! An event's id is `INSTANCE:SEQ`, so a reader that comes back with `Last-Event-ID` (or `cursor=`) goes on behind
//! it, and `since=` begins in the past: both are first read from the files. Without either, `limit=N` begins with
//! what is wanted of the last N entries. A reader too slow to keep up gets an
//! event `dropped` with the number of entries it missed; the writer waits for nobody.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::App;
use super::read::{Piece, start};
use crate::error::ApiError;
use crate::query::scan::Range;
use crate::query::{Filter, Order, Query, QueryError, cursor};
use crate::store::Store;
use crate::store::ring::{Chunk, Follower};

/// What shows a reader, and everything in between, that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Entries that come within this time go out together: a thousand readers, each woken for each write, would leave
/// the writer little of the processor.
const GATHER: Duration = Duration::from_millis(10);
/// Lines looked at before others get their turn, in bytes.
const TURN: usize = 256 << 10;

pub(super) async fn tail(
    State(app): State<App>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let mut query = Query::parse(query.as_deref().unwrap_or(""), Timestamp::now())?;
    if let Some(id) = headers.get("last-event-id") {
        let id = id.to_str().ok().and_then(|id| cursor(id).ok());
        let wrong = || ApiError::Header("Last-Event-ID", "not INSTANCE:SEQ".to_owned());
        query.cursor = id.ok_or_else(wrong)?;
    }
    if query.given.1 == Some(Order::Desc) {
        let why = "what comes is followed in the order in which it comes".to_owned();
        return Err(QueryError { key: "order".to_owned(), why }.into());
    }
    query.order = Order::Asc;
    query.limit = None;
    // From here on everything new is in the ring, and everything older in the files.
    let follower = app.store.follow();
    let next = follower.first();
    let mut last_seq = app.store.last_seq();
    last_seq.wait_for(|last| *last + 1 >= next).await.map_err(|_| ApiError::Internal)?;
    let mut range = Range { last: next - 1, ..Range::of(&query, app.store.instance()) };
    let mut from_file = query.since.is_some() || query.cursor_of(app.store.instance()).is_some();
    if let Some(limit) = query.given.0
        && !from_file
    {
        from_file = limit > 0;
        range.first = next.saturating_sub(limit);
    }
    let past =
        if from_file && range.first < next { Some(start(&app, query.clone(), range, event)?) } else { None };
    let tail = Tail {
        filter: query.filter,
        instance: app.store.instance().to_owned(),
        follower,
        last_seq,
        next,
        past,
        closing: app.closing.clone(),
        began: true,
        sent: Instant::now(),
    };
    let body = Body::from_stream(futures_util::stream::unfold(tail, Tail::step));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

struct Tail {
    filter: Filter,
    instance: String,
    follower: Follower,
    last_seq: watch::Receiver<u64>,
    /// The first entry not yet looked at.
    next: u64,
    /// Entries from the files, which come first.
    past: Option<mpsc::Receiver<Piece>>,
    closing: watch::Receiver<bool>,
    /// Nothing is sent yet: a first comment tells the reader that it is connected.
    began: bool,
    sent: Instant,
}

impl Tail {
    /// The next piece of the reply; `None` ends it.
    async fn step(mut self) -> Option<(Piece, Self)> {
        if std::mem::take(&mut self.began) {
            return Some((Ok(Bytes::from_static(b": connected\n\n")), self));
        }
        let mut closing = self.closing.clone();
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => None,
            piece = self.piece() => Some((piece, self)),
        }
    }

    async fn piece(&mut self) -> Piece {
        if let Some(past) = &mut self.past {
            if let Some(piece) = past.recv().await {
                return piece;
            }
            self.past = None;
        }
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            tokio::select! {
                biased;
                // The store, which sends, lives as long as this service serves.
                Ok(_) = self.last_seq.wait_for(|last| *last >= self.next) => {}
                () = sleep_until(heartbeat) => return Ok(Bytes::from_static(b": alive\n\n")),
            }
            sleep_until(self.sent + GATHER).await;
            self.sent = Instant::now();
            let piece = self.look();
            if !piece.is_empty() {
                return Ok(piece.into());
            }
        }
    }

    /// Looks at what has come, a turn's worth of it.
    fn look(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut looked = 0;
        for Chunk { first, last, lines } in self.follower.since(self.next) {
            if first > self.next {
                let dropped = first - self.next;
                let id = (&self.instance, first - 1);
                out.extend_from_slice(
                    format!("id: {}:{}\nevent: dropped\ndata: {{\"dropped\":{dropped}}}\n\n", id.0, id.1)
                        .as_bytes(),
                );
            }
            for line in self.filter.candidates(&lines) {
                if let Some(head) = self.filter.wanted(line)
                    && head.seq >= self.next
                {
                    write_event(&self.instance, head.seq, line, &mut out);
                }
            }
            self.next = last + 1;
            looked += lines.len();
            if looked >= TURN {
                break;
            }
        }
        out
    }
}

fn event(store: &Store, seq: u64, line: &[u8], out: &mut Vec<u8>) {
    write_event(store.instance(), seq, line, out);
}

/// A line is JSON on one line, so it is one `data` field.
fn write_event(instance: &str, seq: u64, line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(instance.as_bytes());
    out.push(b':');
    out.extend_from_slice(itoa::Buffer::new().format(seq).as_bytes());
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(line);
    out.extend_from_slice(b"\n\n");
}
