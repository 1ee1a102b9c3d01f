//! `GET /log/tail`: the entries of all log instances as they are written, merged into one stream, for the page.
//!
//! The registry relays them because the page may connect to its own origin only, and because a browser often can't
//! reach the addresses that log instances register (in containers, for example). Only registered addresses are
//! contacted, with the caller's query. Events are passed on unchanged, except that an entry which is stored on several
//! instances comes once. If the registry knows tokens, the relay requires one for reading entries, which may contain
//! what the catalogue does not. It does not pass that on: a log instance knows the registry by its own push key.
//!
//! Everything is bounded: relays, log instances per relay, and bytes in flight. A reader that is slow slows down its
//! log instances' streams, which then send `dropped`; one that takes nothing is disconnected
//! (`hubspoke_chassis::server`). A log instance that is silent is reconnected. The relay adds `sources` events of its
//! own: `{"Open":2,"Known":3}`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hubspoke_chassis::rights::{AccessControl, Right};
use hubspoke_chassis::server::ConnectionHandle;
use hubspoke_chassis::{Problem, ProblemType};
use hubspoke_client::log::LOG_SERVICE;
use hubspoke_protocol::{CopyFilter, sse};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::InstanceKey;
use crate::event_stream::{self, event};
use crate::exchange::{Callee, MemberDialer};
use crate::shared::SharedCatalog;

/// Most relays at once.
pub(crate) const MAX_RELAYS: usize = 8;
/// Most log instances per relay.
pub(crate) const MAX_SOURCES: usize = 32;
/// Longest event, in bytes. A longer one is dropped, which the page shows: `hub logs` has it.
pub(crate) const MAX_EVENT: usize = 256 << 10;
/// Most events of a relay in flight, and most bytes of those of log instances.
const MAX_IN_FLIGHT: usize = 64;
pub(crate) const MAX_BYTES_IN_FLIGHT: usize = 2 << 20;
/// Entries with a key that a relay remembers at least, to recognize a second copy.
const MAX_KEYS: usize = 10_000;
/// A log instance must answer within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// A stream on which nothing has come for this long is dead. Log instances send a comment every 15 s.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before reconnecting to a log instance.
const RECONNECT_PAUSE: Duration = Duration::from_secs(2);
/// How often the list of log instances and the number of open streams are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// A comment is sent after this many checks without a change, so that both sides notice a dead connection.
const KEEP_ALIVE_CHECKS: u32 = 20;

/// The state of the relay's route.
#[derive(Debug, Clone)]
pub(crate) struct RelayState {
    catalog: Arc<SharedCatalog>,
    dialer: MemberDialer,
    access: Arc<AccessControl>,
    shutdown: CancellationToken,
    slots: Arc<Semaphore>,
}

impl RelayState {
    pub(crate) fn new(
        catalog: Arc<SharedCatalog>,
        dialer: MemberDialer,
        access: Arc<AccessControl>,
        shutdown: CancellationToken,
    ) -> Self {
        Self { catalog, dialer, access, shutdown, slots: Arc::new(Semaphore::new(MAX_RELAYS)) }
    }
}

/// The route of the relay.
pub(super) fn routes(state: RelayState) -> Router {
    Router::new().route("/log/tail", get(tail)).with_state(state)
}

async fn tail(
    State(RelayState { catalog, dialer, access, shutdown, slots }): State<RelayState>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    Extension(connection): Extension<ConnectionHandle>,
) -> Result<Response, Problem> {
    access.require(Right::ReadEntries(LOG_SERVICE), &headers, Some(&connection)).await?;
    let slot = slots.try_acquire_owned().map_err(|_| {
        let detail = format!("{MAX_RELAYS} clients follow the log already");
        Problem::new(ProblemType::TooManyStreams, detail).retry_after(10)
    })?;
    let (to, events) = mpsc::channel(MAX_IN_FLIGHT);
    let relay = LogRelay {
        catalog,
        dialer,
        target: format!("/{LOG_SERVICE}/tail?{}", query.unwrap_or_default()),
        to,
        budget: Arc::new(Semaphore::new(MAX_BYTES_IN_FLIGHT)),
        open: AtomicUsize::new(0),
        copies: Mutex::new(CopyFilter::new(MAX_KEYS)),
        silence_timeout: SILENCE_TIMEOUT,
        _slot: Some(slot),
    };
    let task = AbortOnDropHandle::new(tokio::spawn(Arc::new(relay).run()));
    Ok(event_stream::response(events, task, connection, shutdown))
}

/// The stream to one page.
struct LogRelay {
    catalog: Arc<SharedCatalog>,
    dialer: MemberDialer,
    target: String,
    to: mpsc::Sender<Bytes>,
    /// One permit per byte that may still be in flight.
    budget: Arc<Semaphore>,
    /// The number of open streams from log instances.
    open: AtomicUsize,
    /// What has been passed on.
    copies: Mutex<CopyFilter>,
    silence_timeout: Duration,
    _slot: Option<OwnedSemaphorePermit>,
}

impl LogRelay {
    async fn run(self: Arc<Self>) {
        let mut sources: HashMap<Arc<str>, AbortOnDropHandle<()>> = HashMap::new();
        let mut reported = None;
        let mut quiet_checks = 0;
        loop {
            let list = self.catalog.with(|catalog, _| catalog.list(LOG_SERVICE));
            sources.retain(|addr, _| list.contains(addr));
            for addr in list.instances.iter().take(MAX_SOURCES).map(|instance| instance.addr()) {
                if sources.len() < MAX_SOURCES && !sources.contains_key(addr) {
                    let addr: Arc<str> = addr.into();
                    let source = LogSource { relay: self.clone(), addr: addr.clone(), last_id: None };
                    sources.insert(addr, AbortOnDropHandle::new(tokio::spawn(source.run())));
                }
            }
            let (open, known) = (self.open.load(Relaxed), list.instances.len());
            let text = if reported != Some((open, known)) {
                reported = Some((open, known));
                event("sources", None, format!(r#"{{"Open":{open},"Known":{known}}}"#).as_bytes())
            } else if quiet_checks >= KEEP_ALIVE_CHECKS {
                sse::comment("").into()
            } else {
                Bytes::new()
            };
            quiet_checks = if text.is_empty() { quiet_checks + 1 } else { 0 };
            if !text.is_empty() && self.to.send(text).await.is_err() {
                return;
            }
            sleep(CHECK_INTERVAL).await;
        }
    }
}

impl LogRelay {
    /// Whether no other log instance has sent the entry in an event.
    fn is_first_copy(&self, event: &[u8]) -> bool {
        let line = sse::fields(event).find(|(name, _)| *name == b"data");
        let line = line.and_then(|(_, line)| std::str::from_utf8(line).ok());
        line.is_none_or(|line| self.copies.lock().is_first_line(line))
    }
}

/// The stream from one log instance.
struct LogSource {
    relay: Arc<LogRelay>,
    addr: Arc<str>,
    /// The id of the last event that was passed on; a reconnect resumes after it.
    last_id: Option<HeaderValue>,
}

/// Counts a stream while it is open.
struct OpenStream<'a>(&'a AtomicUsize);

impl Drop for OpenStream<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// An event that takes its bytes from the budget until it is dropped, which is when it has been written.
struct BudgetedEvent {
    event: Bytes,
    _permits: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for BudgetedEvent {
    fn as_ref(&self) -> &[u8] {
        &self.event
    }
}

type SourceError = Box<dyn std::error::Error + Send + Sync>;

impl LogSource {
    /// Follows the log instance, reconnecting forever.
    async fn run(mut self) {
        loop {
            if let Err(error) = self.follow().await {
                let error = &*error as &dyn std::error::Error;
                tracing::debug!(addr = &*self.addr, error, "the tail of a log instance ended");
            }
            sleep(RECONNECT_PAUSE).await;
        }
    }

    /// Passes on events until the stream ends.
    async fn follow(&mut self) -> Result<(), SourceError> {
        let relay = self.relay.clone();
        let (mut body, _driver) = timeout(ANSWER_TIMEOUT, self.connect()).await??;
        relay.open.fetch_add(1, Relaxed);
        let _open = OpenStream(&relay.open);
        let mut blocks = sse::Splitter::new(MAX_EVENT);
        while let Some(frame) = timeout(relay.silence_timeout, body.frame()).await? {
            let Ok(piece) = frame?.into_data() else { continue };
            blocks.push(&piece);
            let mut dropped = 0_u64;
            while let Some(block) = blocks.next_block() {
                let Ok(block) = block else {
                    dropped += 1;
                    continue;
                };
                if let Some((_, id)) = sse::fields(block).find(|(name, _)| *name == b"id") {
                    self.last_id = HeaderValue::from_bytes(id).ok();
                }
                if !relay.is_first_copy(block) {
                    continue;
                }
                let block = Bytes::copy_from_slice(block);
                let size = block.len().min(MAX_BYTES_IN_FLIGHT);
                let permits = relay.budget.clone().acquire_many_owned(u32::try_from(size)?).await?;
                relay.to.send(Bytes::from_owner(BudgetedEvent { event: block, _permits: permits })).await?;
            }
            if dropped > 0 {
                let text = format!(r#"{{"dropped":{dropped}}}"#);
                relay.to.send(event("dropped", None, text.as_bytes())).await?;
            }
        }
        Ok(())
    }

    /// Requests the tail; returns its body, and the task that drives the connection.
    async fn connect(&self) -> Result<(Incoming, AbortOnDropHandle<()>), SourceError> {
        let callee = Callee { name: LOG_SERVICE, addr: &self.addr };
        let stream = self.relay.dialer.connect(callee).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(async { drop(connection.await) }));
        let mut request = http::Request::get(&*self.relay.target)
            .header(header::HOST, &*self.addr)
            .header(header::ACCEPT, sse::CONTENT_TYPE)
            .body(Empty::<Bytes>::new())?;
        if let Some(id) = &self.last_id {
            request.headers_mut().insert(sse::LAST_EVENT_ID, id.clone());
        }
        let key = InstanceKey::new(LOG_SERVICE, &self.addr);
        let key = self
            .relay
            .catalog
            .with(|catalog, _| catalog.registered(&key).and_then(|info| info.push_key.clone()));
        if let Some(key) = key.and_then(|key| HeaderValue::try_from(format!("Bearer {key}")).ok()) {
            request.headers_mut().insert(header::AUTHORIZATION, key);
        }
        let reply = sender.send_request(request).await?;
        let kind = reply.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if reply.status() != StatusCode::OK || !kind.starts_with(sse::CONTENT_TYPE.as_bytes()) {
            return Err(format!("answered {}, not with an event stream", reply.status()).into());
        }
        Ok((reply.into_body(), driver))
    }
}

#[cfg(test)]
mod tests {
    use hubspoke_testkit::{RawConn, TestServer};
    use tokio::task::JoinSet;

    use super::*;
    use crate::config::Settings;

    /// A log instance that sends this many events of 8 bytes, and then nothing.
    async fn instance(events: usize) -> TestServer {
        TestServer::script(move |mut conn: RawConn| async move {
            conn.request().await;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_owned();
            conn.write(head + &"data:a\n\n".repeat(events)).await;
            std::future::pending().await
        })
        .await
    }

    fn source(instance: &TestServer, budget: usize) -> (LogSource, mpsc::Receiver<Bytes>) {
        let (to, events) = mpsc::channel(MAX_IN_FLIGHT);
        let relay = LogRelay {
            catalog: Arc::new(SharedCatalog::new(Settings::default(), 1)),
            dialer: MemberDialer::default(),
            target: "/log/tail".to_owned(),
            to,
            budget: Arc::new(Semaphore::new(budget)),
            open: AtomicUsize::new(0),
            copies: Mutex::new(CopyFilter::new(MAX_KEYS)),
            silence_timeout: Duration::from_millis(50),
            _slot: None,
        };
        let addr = instance.addr.to_string().into();
        (LogSource { relay: Arc::new(relay), addr, last_id: None }, events)
    }

    #[tokio::test]
    async fn a_silent_stream_is_given_up() {
        let instance = instance(1).await;
        let (mut source, mut events) = source(&instance, 100);
        let ended = timeout(Duration::from_secs(10), source.follow()).await.unwrap();
        assert!(ended.unwrap_err().is::<tokio::time::error::Elapsed>());
        assert_eq!(events.try_recv().unwrap(), "data:a\n\n");
        assert_eq!(source.relay.open.load(Relaxed), 0);
    }

    #[test]
    fn an_entry_on_two_instances_is_passed_on_once() {
        let relay = LogRelay {
            catalog: Arc::new(SharedCatalog::new(Settings::default(), 1)),
            dialer: MemberDialer::default(),
            target: String::new(),
            to: mpsc::channel(1).0,
            budget: Arc::new(Semaphore::new(1)),
            open: AtomicUsize::new(0),
            copies: Mutex::new(CopyFilter::new(MAX_KEYS)),
            silence_timeout: SILENCE_TIMEOUT,
            _slot: None,
        };
        let event = |instance: &str, key: &str| {
            format!(
                "id: {instance}:1\ndata: {{\"ts\":\"T\",\"seq\":1,\"instance\":\"{instance}\"{key},\"msg\":\"a\"}}\n\n"
            )
        };
        let key = ",\"key\":\"k\",\"source\":\"visit\"";
        let events = [event("log-1", key), event("log-2", key), event("log-1", ""), event("log-2", "")];
        assert_eq!(events.map(|event| relay.is_first_copy(event.as_bytes())), [true, false, true, true]);
        assert!(relay.is_first_copy(b"event: dropped\ndata: {\"dropped\":1}\n\n"));
    }

    #[tokio::test]
    async fn bytes_in_flight_are_bounded() {
        let instance = instance(10).await;
        let (mut source, mut events) = source(&instance, 30);
        let budget = source.relay.budget.clone();
        let mut follows = JoinSet::new();
        follows.spawn(async move { drop(source.follow().await) });
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(events.recv().await.unwrap());
        }
        // Six bytes are left; the fourth event waits for eight.
        while budget.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(events.try_recv().is_err());
        held.pop();
        assert_eq!(events.recv().await.unwrap(), "data:a\n\n");
    }
}
