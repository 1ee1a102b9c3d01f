//! `GET /log/tail`: entries as they come, as server-sent events.
//!
//! An event's id is `INSTANCE:SEQ`. A client that reconnects with `Last-Event-ID` (or `cursor=`) continues
//! after it, and `since=` begins in the past: both read the backlog from the files first, including what has
//! left memory meanwhile. If the id is another instance's, as through the gateway, which picks one for each
//! connection, the stream begins with a `gap` event: `{"after":"A:17","instance":"B"}`. What the other instance has
//! stored since is not here, but in `/log/all`. Without either, `limit=N` begins with the matches among the last N entries. A
//! client that is too slow gets a `dropped` event with the number of entries it missed; the writer waits for
//! nobody.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use hubspoke_chassis::Problem;
use hubspoke_chassis::server::ConnectionHandle;
use hubspoke_protocol::sse::{self, EventWriter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::app::LogApp;
use super::request::{off_thread, parse_query};
use super::stream::{BodyChunk, ChunkSink, FileStream, body, read_files};
use crate::entry::SeqRange;
use crate::error::ApiError;
use crate::query::scan::{EntrySink as _, scan};
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
/// How long the entries of one turn may be searched for a pattern. A follower whose pattern takes longer is aborted.
const MAX_TURN: Duration = Duration::from_secs(1);
/// Bytes of lines to look at before other tasks get their turn.
const TURN: usize = 16 << 10;

pub(super) async fn tail(
    State(app): State<Arc<LogApp>>,
    connection: Option<Extension<ConnectionHandle>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    app.require_reader(&headers, connection.as_deref()).await?;
    let text = query.unwrap_or_default();
    let pattern = if Query::asks_for_pattern(&text) {
        Some(Arc::clone(&app.pattern_tails).try_acquire_owned().map_err(|_| ApiError::Busy)?)
    } else {
        None
    };
    let mut query = parse_query(&app, &text).await?;
    if let Some(id) = headers.get(sse::LAST_EVENT_ID) {
        let cursor = id.to_str().ok().and_then(|id| parse_cursor(id).ok());
        let invalid = || ApiError::Header { name: "Last-Event-ID", reason: "not INSTANCE:SEQ".to_owned() };
        query.cursor = cursor.ok_or_else(invalid)?;
    }
    if query.explicit_order == Some(SortOrder::Desc) {
        return Err(QueryError::new("order", "must be asc: a tail is in the order of arrival").into());
    }
    query.order = SortOrder::Asc;
    query.sorts = false;
    query.limit = None;
    let resumes = headers.contains_key(sse::LAST_EVENT_ID);
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
        let query_has_pattern = query.filter.has_pattern();
        let read =
            move |store: &Store, sink: &mut ChunkSink<'_>| read_backlog(store, &query, range, sink, &up_to);
        let admitted = app.queries.admit(query_has_pattern).ok_or(ApiError::Busy)?;
        Some(Backlog { stream: read_files(&app, admitted, render_event, read), read_up_to })
    } else {
        None
    };
    let tail = TailStream {
        opening: opening(&app.store, &query, resumes, next),
        filter: query.filter,
        instance: app.store.instance().into(),
        pattern_turns: Arc::clone(&app.pattern_turns),
        long_events: Arc::clone(&app.long_events),
        rest: Bytes::new(),
        _pattern: pattern,
        follower,
        last_seq,
        next,
        backlog,
        closing: app.closing.clone(),
        sent: Instant::now(),
        caught_up: true,
    };
    let events = futures_util::stream::unfold(tail, TailStream::step);
    let headers = [(header::CONTENT_TYPE, sse::CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body(events, problem_event)).into_response())
}

/// The first chunk of a stream: a comment, which shows the client that it is connected, and a `gap` event if the stream
/// does not continue where the client wants to. `next` is the first entry that is not stored yet.
fn opening(store: &Store, query: &Query, resumes: bool, next: u64) -> Bytes {
    let mut out = sse::comment("connected").into_bytes();
    // Each of several cursors is for the instance that it names, and `since` is for the others.
    let continues = match query.cursor_of(store.instance()) {
        Some(seq) => seq < next,
        None => query.cursor.is_empty() || !resumes && query.since.is_some(),
    };
    if !continues {
        let cursors = query.cursor.iter().map(|(instance, seq)| format!("{instance}:{seq}"));
        let after = cursors.collect::<Vec<_>>().join(",");
        let gap = serde_json::json!({"after": after, "instance": store.instance()}).to_string();
        // Without an id: the client can still resume where it was.
        EventWriter::new(&mut out).name("gap").data(gap.as_bytes());
    }
    out.into()
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
            Some(oldest) if oldest > range.last + 1 && sink.goes_on() => {
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
    instance: Arc<str>,
    pattern_turns: Arc<Semaphore>,
    long_events: Arc<Semaphore>,
    /// Events that are rendered, but not sent yet.
    rest: Bytes,
    _pattern: Option<OwnedSemaphorePermit>,
    follower: RingFollower,
    last_seq: watch::Receiver<u64>,
    /// The first entry to look at next.
    next: u64,
    /// Sent before anything from memory.
    backlog: Option<Backlog>,
    closing: watch::Receiver<bool>,
    /// Sent first.
    opening: Bytes,
    /// When new entries were last sent.
    sent: Instant,
    /// There was nothing more then.
    caught_up: bool,
}

impl TailStream {
    /// The next chunk of the reply; `None` ends it.
    async fn step(mut self) -> Option<(BodyChunk, Self)> {
        if !self.opening.is_empty() {
            return Some((Ok(std::mem::take(&mut self.opening)), self));
        }
        let mut closing = self.closing.clone();
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => None,
            chunk = self.next_chunk() => Some((chunk, self)),
        }
    }

    async fn next_chunk(&mut self) -> BodyChunk {
        if !self.rest.is_empty() {
            return Ok(self.next_piece());
        }
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
            if self.caught_up {
                sleep_until(self.sent + COALESCE).await;
            } else {
                tokio::task::yield_now().await;
            }
            self.sent = Instant::now();
            let chunk = self.render_new().await?;
            self.caught_up = *self.last_seq.borrow() < self.next;
            if !chunk.is_empty() {
                self.rest = chunk;
                return Ok(self.next_piece());
            }
        }
    }

    /// The next piece of what is rendered. The server buffers no more than a piece for a client that reads nothing.
    fn next_piece(&mut self) -> Bytes {
        self.rest.split_to(self.rest.len().min(TURN))
    }

    /// The events for a turn's worth of new entries.
    async fn render_new(&mut self) -> io::Result<Bytes> {
        let mut commits = self.follower.since(self.next, TURN);
        let until = commits.last().map_or(self.next, |commit| commit.last + 1);
        let long: usize = commits.iter().map(|commit| commit.lines.len()).sum();
        let mut memory = None;
        if long > 2 * TURN {
            let bytes = u32::try_from(long).unwrap_or(u32::MAX);
            memory = Arc::clone(&self.long_events).try_acquire_many_owned(bytes).ok();
            // Without room for them long entries count as dropped.
            commits.retain(|commit| memory.is_some() || commit.lines.len() <= TURN);
        }
        let events = self.render(commits, until).await?;
        Ok(match memory {
            Some(memory) => Bytes::from_owner(LongEvents { events, _memory: memory }),
            None => events.into(),
        })
    }

    /// The events of these commits, and what is missing before entry `until`.
    async fn render(&mut self, commits: Vec<CommittedLines>, until: u64) -> io::Result<Vec<u8>> {
        let next = self.next;
        self.next = until;
        let range = SeqRange { first: next, last: until.saturating_sub(1) };
        if !self.filter.has_pattern() {
            return Ok(render(&self.instance, &self.filter, &commits, range, &mut || true));
        }
        let (instance, filter) = (Arc::clone(&self.instance), self.filter.clone());
        let left = CancellationToken::new();
        let _leaves = left.clone().drop_guard();
        let search = move || {
            let began = std::time::Instant::now();
            let mut goes_on = || !left.is_cancelled() && began.elapsed() < MAX_TURN;
            let events = render(&instance, &filter, &commits, range, &mut goes_on);
            if goes_on() { Ok(events) } else { Err(ApiError::QueryTime { limit: MAX_TURN }) }
        };
        off_thread(&self.pattern_turns, search).await.map_err(io::Error::other)
    }
}

/// Events with their share of the memory for long ones.
struct LongEvents {
    events: Vec<u8>,
    _memory: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for LongEvents {
    fn as_ref(&self) -> &[u8] {
        &self.events
    }
}

/// The events for these entries. Incomplete if `goes_on` ends the search.
fn render(
    instance: &str,
    filter: &Filter,
    commits: &[CommittedLines],
    range: SeqRange,
    goes_on: &mut dyn FnMut() -> bool,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut next = range.first;
    for CommittedLines { first, last, lines } in commits {
        write_dropped(instance, next, *first, &mut out);
        for line in filter.candidates(lines) {
            if let Some(head) = filter.matching(line, goes_on)
                && head.seq >= next
            {
                write_event(instance, head.seq, line, &mut out);
            }
        }
        next = last + 1;
    }
    write_dropped(instance, next, range.last + 1, &mut out);
    out
}

/// Says how many entries are missing from `next` up to `first`, if any.
fn write_dropped(instance: &str, next: u64, first: u64, out: &mut Vec<u8>) {
    if first > next {
        let dropped = format!("{{\"dropped\":{}}}", first - next);
        let event = EventWriter::new(out).id(format_args!("{instance}:{}", first - 1));
        event.name("dropped").data(dropped.as_bytes());
    }
}

/// The problem as the last event of an aborted reply.
fn problem_event(problem: &Problem) -> Vec<u8> {
    let mut out = Vec::new();
    EventWriter::new(&mut out).name("problem").data(problem.to_json().as_bytes());
    out
}

fn render_event(store: &Store, seq: u64, line: &[u8], out: &mut Vec<u8>) {
    write_event(store.instance(), seq, line, out);
}

fn write_event(instance: &str, seq: u64, line: &[u8], out: &mut Vec<u8>) {
    EventWriter::new(out).id(format_args!("{instance}:{seq}")).data(line);
}

#[cfg(test)]
mod tests {
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
            instance: "log-1".into(),
            pattern_turns: Arc::new(Semaphore::new(1)),
            long_events: Arc::new(Semaphore::new(1)),
            rest: Bytes::new(),
            _pattern: None,
            follower: store.follow(),
            last_seq: store.last_seq(),
            next: 1,
            backlog: Some(Backlog { stream: FileStream::of(chunks), read_up_to: Arc::default() }),
            closing,
            opening: Bytes::new(),
            sent: Instant::now(),
            caught_up: true,
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
