//! `GET /log/tail`: the entries of all log instances as they come, merged into one stream, for the page.
//!
//! Why the registry passes them on: the page may speak to its own origin only, and the addresses that log instances
//! register are often out of a browser's reach (those of containers). Only registered addresses are asked, with the
//! caller's query, and what they answer is passed on event by event, unread but for its ids. Where the registry has
//! a token, this takes it too: log entries can hold what the catalogue does not.
//!
//! Bounded: so many relays, each with so many log instances and bytes on their way; one that reads slowly slows down
//! its log instances' streams, which then say `dropped`, and one that takes nothing loses its connection
//! (`hubspoke_chassis::server`). A log instance that says nothing, not even a comment, is asked anew. Beside their events
//! there is `sources`: `{"Open":2,"Known":3}`.

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
use hubspoke_chassis::server::Connection;
use hubspoke_chassis::{Problem, ProblemType};
use hubspoke_client::log::LOG_SERVICE;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::blocks::{Blocks, id};
use crate::api::Api;
use crate::api::watching::stream;
use crate::watch::Task;

/// Relays at once.
const MOST_RELAYS: usize = 16;
/// Log instances that one relay follows.
const MOST_SOURCES: usize = 32;
/// Longest event; a log entry is far shorter.
const LONGEST_EVENT: usize = 2 << 20;
/// Events on their way to the page, and the bytes of those of log instances together.
const ON_THE_WAY: usize = 64;
const BYTES_ON_THE_WAY: usize = 4 << 20;
/// A log instance must answer within this time.
const ANSWER: Duration = Duration::from_secs(3);
/// A log instance's stream on which nothing comes for so long is dead: ours send a comment every 15 s.
const SILENCE: Duration = Duration::from_secs(30);
/// Pause before a log instance is asked again.
const PAUSE: Duration = Duration::from_secs(2);
/// How often to look which log instances there are, and how many streams are open.
const LOOK: Duration = Duration::from_millis(500);
/// A comment is sent after this many looks without anything else, so that both sides notice a dead connection.
const QUIET_LOOKS: u32 = 20;

#[derive(Clone)]
struct Relays {
    api: Arc<Api>,
    slots: Arc<Semaphore>,
}

/// The relay's route.
pub(super) fn routes(api: &Arc<Api>) -> Router {
    let relays = Relays { api: api.clone(), slots: Arc::new(Semaphore::new(MOST_RELAYS)) };
    Router::new().route("/log/tail", get(tail)).with_state(relays)
}

async fn tail(
    State(relays): State<Relays>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    Extension(connection): Extension<Connection>,
) -> Result<Response, Problem> {
    let Relays { api, slots } = relays;
    api.access.check_token(headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes))?;
    let slot = slots.try_acquire_owned().map_err(|_| {
        Problem::new(ProblemType::TooManyStreams, format!("{MOST_RELAYS} follow the log already"))
            .retry_after(10)
    })?;
    let (to, events) = mpsc::channel(ON_THE_WAY);
    let relay = Relay {
        api: api.clone(),
        target: format!("/{LOG_SERVICE}/tail?{}", query.unwrap_or_default()).into(),
        to,
        budget: Arc::new(Semaphore::new(BYTES_ON_THE_WAY)),
        open: Arc::default(),
        _slot: slot,
    };
    Ok(stream(&api, connection, events, Task::spawn(relay.run())))
}

/// One page's stream.
struct Relay {
    api: Arc<Api>,
    target: Arc<str>,
    to: mpsc::Sender<Bytes>,
    /// Bytes that may be on their way yet.
    budget: Arc<Semaphore>,
    /// Streams that are open.
    open: Arc<AtomicUsize>,
    _slot: OwnedSemaphorePermit,
}

impl Relay {
    async fn run(self) {
        let mut sources: HashMap<Arc<str>, JoinSet<()>> = HashMap::new();
        let mut said = None;
        let mut quiet = 0;
        loop {
            let known = self.known();
            sources.retain(|addr, _| known.contains(addr));
            for addr in known.iter().take(MOST_SOURCES) {
                if sources.len() < MOST_SOURCES && !sources.contains_key(addr) {
                    sources.insert(addr.clone(), self.start(addr.clone()));
                }
            }
            let now = (self.open.load(Relaxed), known.len());
            let text = if said != Some(now) {
                said = Some(now);
                Bytes::from(format!("event: sources\ndata: {{\"Open\":{},\"Known\":{}}}\n\n", now.0, now.1))
            } else if quiet >= QUIET_LOOKS {
                Bytes::from_static(b":\n\n")
            } else {
                Bytes::new()
            };
            quiet = if text.is_empty() { quiet + 1 } else { 0 };
            if !text.is_empty() && self.to.send(text).await.is_err() {
                return;
            }
            sleep(LOOK).await;
        }
    }

    fn known(&self) -> Vec<Arc<str>> {
        let list = self.api.core.read(|catalog, _| catalog.list(LOG_SERVICE));
        list.instances().iter().map(|one| Arc::from(one.addr())).collect()
    }

    /// Follows one log instance until what this gives back is dropped.
    fn start(&self, addr: Arc<str>) -> JoinSet<()> {
        let mut source = Source {
            addr,
            target: self.target.clone(),
            to: self.to.clone(),
            budget: self.budget.clone(),
            open: self.open.clone(),
            silence: SILENCE,
            last: None,
        };
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                if let Err(error) = source.follow().await {
                    let error = &*error as &dyn std::error::Error;
                    tracing::debug!(addr = &*source.addr, error, "a log instance's tail ended");
                }
                sleep(PAUSE).await;
            }
        });
        task
    }
}

/// The stream of one log instance.
struct Source {
    addr: Arc<str>,
    target: Arc<str>,
    to: mpsc::Sender<Bytes>,
    budget: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
    silence: Duration,
    /// The last id that was passed on: where to go on.
    last: Option<HeaderValue>,
}

/// Counts a stream for as long as it is open.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// An event that counts as on its way until it is dropped, which is when it has been written.
struct OnTheWay {
    event: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for OnTheWay {
    fn as_ref(&self) -> &[u8] {
        &self.event
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Source {
    /// Passes on events until the stream ends.
    async fn follow(&mut self) -> Result<(), Failure> {
        let mut driver = JoinSet::new(); // ends with this call
        let mut body = timeout(ANSWER, self.ask(&mut driver)).await??;
        self.open.fetch_add(1, Relaxed);
        let _open = Open(self.open.clone());
        let mut blocks = Blocks::new(LONGEST_EVENT);
        while let Some(frame) = timeout(self.silence, body.frame()).await? {
            let Ok(piece) = frame?.into_data() else { continue };
            blocks.push(&piece);
            while let Some(block) = blocks.next() {
                if let Some(id) = id(&block) {
                    self.last = HeaderValue::from_bytes(id).ok();
                }
                let size = block.len().min(BYTES_ON_THE_WAY);
                let room = self.budget.clone().acquire_many_owned(u32::try_from(size)?).await?;
                self.to.send(Bytes::from_owner(OnTheWay { event: block, _room: room })).await?;
            }
            let left_out = std::mem::take(&mut blocks.left_out);
            if left_out > 0 {
                let text = format!("event: dropped\ndata: {{\"dropped\":{left_out}}}\n\n");
                self.to.send(text.into()).await?;
            }
        }
        Ok(())
    }

    async fn ask(&self, driver: &mut JoinSet<hyper::Result<()>>) -> Result<hyper::body::Incoming, Failure> {
        let stream = TcpStream::connect(&*self.addr).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        driver.spawn(connection);
        let mut request = http::Request::get(&*self.target)
            .header(header::HOST, &*self.addr)
            .header(header::ACCEPT, "text/event-stream")
            .body(Empty::<Bytes>::new())?;
        if let Some(last) = &self.last {
            request.headers_mut().insert("last-event-id", last.clone());
        }
        let reply = sender.send_request(request).await?;
        let kind = reply.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if reply.status() != StatusCode::OK || !kind.starts_with(b"text/event-stream") {
            return Err(format!("it answered {}", reply.status()).into());
        }
        Ok(reply.into_body())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A log instance that sends so many events of 8 bytes and then nothing.
    async fn instance(events: usize) -> (Arc<str>, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string().into();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_owned();
            let text = head + &"data:a\n\n".repeat(events);
            stream.write_all(text.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        });
        (addr, task)
    }

    fn source(addr: Arc<str>, budget: usize) -> (Source, mpsc::Receiver<Bytes>) {
        let (to, events) = mpsc::channel(ON_THE_WAY);
        let budget = Arc::new(Semaphore::new(budget));
        let (target, open, silence) = ("/log/tail".into(), Arc::default(), Duration::from_millis(50));
        (Source { addr, target, to, budget, open, silence, last: None }, events)
    }

    #[tokio::test]
    async fn a_silent_log_instance_is_given_up() {
        let (addr, _instance) = instance(1).await;
        let (mut source, mut events) = source(addr, 100);
        let ended = timeout(Duration::from_secs(10), source.follow()).await.unwrap();
        assert!(ended.unwrap_err().is::<tokio::time::error::Elapsed>());
        assert_eq!(events.try_recv().unwrap(), "data:a\n\n");
        assert_eq!(source.open.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn no_more_is_on_its_way_than_there_is_room_for() {
        let (addr, _instance) = instance(10).await;
        let (mut source, mut events) = source(addr, 30);
        let budget = source.budget.clone();
        let mut follows = JoinSet::new();
        follows.spawn(async move { drop(source.follow().await) });
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(events.recv().await.unwrap());
        }
        // Six bytes are left, and the fourth event waits for eight.
        while budget.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(events.try_recv().is_err());
        held.pop();
        assert_eq!(events.recv().await.unwrap(), "data:a\n\n");
    }
}
