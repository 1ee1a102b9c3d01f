//! `GET /log/tail`: entries as they come, as server-sent events.
//!
//! An event's id is `INSTANCE:SEQ`. A client that reconnects with `Last-Event-ID` (or `cursor=`) continues
//! after it, and `since=` begins in the past: both read the backlog from the files first, including what has
//! left memory meanwhile. Without either, `limit=N` begins with the matches among the last N entries. A
//! client that is too slow gets a `dropped` event with the number of entries it missed; the writer waits for
//! nobody.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use hubspoke_protocol::sse::{self, EventWriter};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::app::LogApp;
use super::stream::{BodyChunk, ChunkSink, FileStream, read_files};
use crate::entry::SeqRange;
use crate::error::ApiError;
use crate::query::scan::scan;
use crate::query::{Filter, Query, QueryError, SortOrder, parse_cursor};
use crate::store::Store;
use crate::store::ring::{CommittedLines, RingFollower};

/// Interval of comments that show client and proxies that the connection is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Entries that come within this time are sent together. A thousand followers, each woken for each write,
/// would leave the writer little of the processor.
const COALESCE: Duration = Duration::from_millis(10);
/// How often the files are read again for entries that left memory meanwhile. A client still behind after that
/// is slower than the senders.
const BACKLOG_ROUNDS: usize = 16;
/// Bytes of lines to look at before other tasks get their turn.
const TURN: usize = 256 << 10;

pub(super) async fn tail(
    State(app): State<Arc<LogApp>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let mut query = Query::parse(query.as_deref().unwrap_or(""), Timestamp::now())?;
    if let Some(id) = headers.get(sse::LAST_EVENT_ID) {
        let cursor = id.to_str().ok().and_then(|id| parse_cursor(id).ok());
        let invalid = || ApiError::Header { name: "Last-Event-ID", reason: "not INSTANCE:SEQ".to_owned() };
        query.cursor = cursor.ok_or_else(invalid)?;
    }
    if query.explicit_order == Some(SortOrder::Desc) {
        return Err(QueryError::new("order", "must be asc: a tail is in the order of arrival").into());
    }
    query.order = SortOrder::Asc;
    query.limit = None;
    // From here on everything new goes to the ring, and everything older is in the files.
    let follower = app.store.follow();
    let next = follower.first();
    let mut last_seq = app.store.last_seq();
    last_seq.wait_for(|last| *last + 1 >= next).await.map_err(|_| ApiError::Internal)?;
    let mut range = SeqRange { last: next - 1, ..query.seq_range(app.store.instance()) };
    let mut from_files = query.since.is_some() || query.cursor_of(app.store.instance()).is_some();
    if let Some(limit) = query.explicit_limit
        && !from_files
    {
        from_files = limit > 0;
        range.first = next.saturating_sub(limit);
    }
    let backlog = if from_files && range.first < next {
        let read_up_to = Arc::new(AtomicU64::new(range.last));
        let (query, up_to) = (query.clone(), Arc::clone(&read_up_to));
        let read =
            move |store: &Store, sink: &mut ChunkSink<'_>| read_backlog(store, &query, range, sink, &up_to);
        Some(Backlog { stream: read_files(&app, render_event, read)?, read_up_to })
    } else {
        None
    };
    let tail = TailStream {
        filter: query.filter,
        instance: app.store.instance().to_owned(),
        follower,
        last_seq,
        next,
        backlog,
        closing: app.closing.clone(),
        is_new: true,
        sent: Instant::now(),
    };
    let body = Body::from_stream(futures_util::stream::unfold(tail, TailStream::step));
    let headers = [(header::CONTENT_TYPE, sse::CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// Reads `range`, and then the entries that have come meanwhile and are no longer in memory.
fn read_backlog(
    store: &Store,
    query: &Query,
    mut range: SeqRange,
    sink: &mut ChunkSink<'_>,
    read_up_to: &AtomicU64,
) -> io::Result<()> {
    for _ in 0..BACKLOG_ROUNDS {
        scan(store.snapshot(), query, range, sink)?;
        read_up_to.store(range.last, Ordering::Relaxed);
        // Whatever precedes the entries in memory is committed, so the files have it.
        match store.oldest_in_memory() {
            Some(oldest) if oldest > range.last + 1 && !sink.closed() => {
                range = SeqRange { first: range.last + 1, last: oldest - 1 };
            }
            _ => break,
        }
    }
    Ok(())
}

/// Entries from the files.
struct Backlog {
    stream: FileStream,
    /// Last sequence number that was read; final once the stream ends.
    read_up_to: Arc<AtomicU64>,
}

struct TailStream {
    filter: Filter,
    instance: String,
    follower: RingFollower,
    last_seq: watch::Receiver<u64>,
    /// The first entry to look at next.
    next: u64,
    /// Sent before anything from memory.
    backlog: Option<Backlog>,
    closing: watch::Receiver<bool>,
    /// Nothing is sent yet: a first comment will show the client that it is connected.
    is_new: bool,
    /// When new entries were last sent.
    sent: Instant,
}

impl TailStream {
    /// The next chunk of the reply; `None` ends it.
    async fn step(mut self) -> Option<(BodyChunk, Self)> {
        if std::mem::take(&mut self.is_new) {
            return Some((Ok(sse::comment("connected").into()), self));
        }
        let mut closing = self.closing.clone();
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => None,
            chunk = self.next_chunk() => Some((chunk, self)),
        }
    }

    async fn next_chunk(&mut self) -> BodyChunk {
        let keep_alive = Instant::now() + KEEP_ALIVE;
        if let Some(backlog) = &mut self.backlog {
            // Matches may be rare: the client must see that the search continues.
            match timeout_at(keep_alive, backlog.stream.next()).await {
                Ok(Some(chunk)) => return chunk,
                Ok(None) => {}
                Err(_) => return Ok(sse::comment("alive").into()),
            }
            self.next = backlog.read_up_to.load(Ordering::Relaxed) + 1;
            self.backlog = None;
        }
        loop {
            tokio::select! {
                biased;
                // The store, which has the sender, lives as long as this service serves.
                Ok(_) = self.last_seq.wait_for(|last| *last >= self.next) => {}
                () = sleep_until(keep_alive) => return Ok(sse::comment("alive").into()),
            }
            sleep_until(self.sent + COALESCE).await;
            self.sent = Instant::now();
            let chunk = self.render_new();
            if !chunk.is_empty() {
                return Ok(chunk.into());
            }
        }
    }

    /// The events for a turn's worth of new entries.
    fn render_new(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for CommittedLines { first, last, lines } in self.follower.since(self.next, TURN) {
            if first > self.next {
                let dropped = format!("{{\"dropped\":{}}}", first - self.next);
                let event = EventWriter::new(&mut out).id(format_args!("{}:{}", self.instance, first - 1));
                event.name("dropped").data(dropped.as_bytes());
            }
            for line in self.filter.candidates(&lines) {
                if let Some(head) = self.filter.matching(line)
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

fn render_event(store: &Store, seq: u64, line: &[u8], out: &mut Vec<u8>) {
    write_event(store.instance(), seq, line, out);
}

fn write_event(instance: &str, seq: u64, line: &[u8], out: &mut Vec<u8>) {
    EventWriter::new(out).id(format_args!("{instance}:{seq}")).data(line);
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use tokio::sync::mpsc;

    use super::*;
    use crate::store::StoreOptions;

    #[tokio::test(start_paused = true)]
    async fn a_long_search_through_the_backlog_sends_keep_alives() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("services.log")), "log-1").unwrap();
        let (found, chunks) = mpsc::channel(1);
        let (_open, closing) = watch::channel(false);
        let mut tail = TailStream {
            filter: Filter::default(),
            instance: "log-1".to_owned(),
            follower: store.follow(),
            last_seq: store.last_seq(),
            next: 1,
            backlog: Some(Backlog { stream: FileStream::of(chunks), read_up_to: Arc::default() }),
            closing,
            is_new: false,
            sent: Instant::now(),
        };
        for _ in 0..3 {
            let asked = Instant::now();
            assert_eq!(tail.next_chunk().await.unwrap(), ": alive\n\n");
            assert_eq!(asked.elapsed().as_secs(), KEEP_ALIVE.as_secs());
        }
        found.send(Ok(Bytes::from_static(b"found"))).await.unwrap();
        assert_eq!(tail.next_chunk().await.unwrap(), "found");
        drop(found);
        assert_eq!(tail.next_chunk().await.unwrap(), ": alive\n\n");
    }
}
