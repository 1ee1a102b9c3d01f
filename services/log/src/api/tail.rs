//! `GET /log/tail`: entries as they come, as server-sent events.
//!
//! An event's id is `INSTANCE:SEQ`, so a reader that comes back with `Last-Event-ID` (or `cursor=`) goes on behind
//! it, and `since=` begins in the past: both are first read from the files, and so is what memory could not keep
//! meanwhile. Without either, `limit=N` begins with what is wanted of the last N entries. A reader too slow to keep up
//! gets an event `dropped` with the number of entries it missed; the writer waits for nobody.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::App;
use super::read::{Piece, Pieces, Send, start_with};
use crate::entry::SeqRange;
use crate::error::ApiError;
use crate::query::scan::scan;
use crate::query::{Filter, Order, Query, QueryError, cursor};
use crate::store::Store;
use crate::store::ring::{Chunk, Follower};

/// What shows a reader, and everything in between, that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
const ALIVE: Bytes = Bytes::from_static(b": alive\n\n");
/// Entries that come within this time go out together: a thousand readers, each woken for each write, would leave
/// the writer little of the processor.
const GATHER: Duration = Duration::from_millis(10);
/// How often files are read for what memory could not keep while they were read. A reader who is behind after that is
/// slower than the senders, and hears so.
const ROUNDS: usize = 16;
/// Lines looked at before others get their turn, in bytes.
const TURN: usize = 256 << 10;

pub(super) async fn tail(
    State(app): State<Arc<App>>,
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
    let mut range = SeqRange { last: next - 1, ..query.seq_range(app.store.instance()) };
    let mut from_file = query.since.is_some() || query.cursor_of(app.store.instance()).is_some();
    if let Some(limit) = query.given.0
        && !from_file
    {
        from_file = limit > 0;
        range.first = next.saturating_sub(limit);
    }
    let past = if from_file && range.first < next {
        let read_up_to = Arc::new(AtomicU64::new(range.last));
        let (query, up_to) = (query.clone(), Arc::clone(&read_up_to));
        let work = move |store: &Store, send: &mut Send<'_>| read_past(store, &query, range, send, &up_to);
        Some(Past { pieces: start_with(&app, event, work)?, read_up_to })
    } else {
        None
    };
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

/// Reads `range`, and then what has come meanwhile and is in memory no more.
fn read_past(
    store: &Store,
    query: &Query,
    mut range: SeqRange,
    send: &mut Send<'_>,
    read_up_to: &AtomicU64,
) -> io::Result<()> {
    for _ in 0..ROUNDS {
        scan(store.snapshot(), query, range, send)?;
        read_up_to.store(range.last, Ordering::Relaxed);
        // Committed before anything that is in memory after it.
        match store.oldest_in_memory() {
            Some(oldest) if oldest > range.last + 1 && !send.over() => {
                range = SeqRange { first: range.last + 1, last: oldest - 1 };
            }
            _ => break,
        }
    }
    Ok(())
}

/// Entries from the files.
struct Past {
    pieces: Pieces,
    /// The last entry that was looked at; final once the pieces end.
    read_up_to: Arc<AtomicU64>,
}

struct Tail {
    filter: Filter,
    instance: String,
    follower: Follower,
    last_seq: watch::Receiver<u64>,
    /// The first entry not yet looked at.
    next: u64,
    /// Entries from the files, which come first.
    past: Option<Past>,
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
        let heartbeat = Instant::now() + HEARTBEAT;
        if let Some(past) = &mut self.past {
            // What is wanted may be rare: the reader hears that it is looked for.
            match timeout_at(heartbeat, past.pieces.next()).await {
                Ok(Some(piece)) => return piece,
                Ok(None) => {}
                Err(_) => return Ok(ALIVE),
            }
            self.next = past.read_up_to.load(Ordering::Relaxed) + 1;
            self.past = None;
        }
        loop {
            tokio::select! {
                biased;
                // The store, which sends, lives as long as this service serves.
                Ok(_) = self.last_seq.wait_for(|last| *last >= self.next) => {}
                () = sleep_until(heartbeat) => return Ok(ALIVE),
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
        for Chunk { first, last, lines } in self.follower.since(self.next, TURN) {
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

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::store::{Ack, Limits, Options};

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_something_rare_in_the_past_hears_that_it_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            file: dir.path().join("services.log"),
            ack: Ack::Written,
            queue_bytes: 1 << 20,
            keys: 0,
            ring_bytes: 1 << 20,
            limits: Limits::default(),
        };
        let store = Store::open(options, "log-1").unwrap();
        let (found, pieces) = mpsc::channel(1);
        let (_open, closing) = watch::channel(false);
        let mut tail = Tail {
            filter: Filter::default(),
            instance: "log-1".to_owned(),
            follower: store.follow(),
            last_seq: store.last_seq(),
            next: 1,
            past: Some(Past { pieces: Pieces::of(pieces), read_up_to: Arc::default() }),
            closing,
            began: false,
            sent: Instant::now(),
        };
        for _ in 0..3 {
            let asked = Instant::now();
            assert_eq!(tail.piece().await.unwrap(), ALIVE);
            assert_eq!(asked.elapsed().as_secs(), HEARTBEAT.as_secs());
        }
        found.send(Ok(Bytes::from_static(b"found"))).await.unwrap();
        assert_eq!(tail.piece().await.unwrap(), "found");
        drop(found);
        assert_eq!(tail.piece().await.unwrap(), ALIVE);
    }
}
