//! A stream of server-sent events that outlives its connections: it reconnects with a growing backoff and
//! resumes after the last event's id, so a server that keeps some history need not start over.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hubspoke_client::HttpClient;
use hubspoke_protocol::sse;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, StatusCode};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::cause::Cause;

/// Longest event, in bytes: a catalogue of ten thousand instances takes some ten megabytes.
const MAX_EVENT: usize = 64 << 20;
/// Bytes of an answer that is not an event stream that are read.
const MAX_REFUSAL: usize = 64 << 10;
/// Updates that may be queued for the reader.
const QUEUED: usize = 256;
/// How long a server may take to begin its response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream on which nothing arrives for this long, not even a comment, is dead.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The first backoff; each later one is twice as long.
const MIN_BACKOFF: Duration = Duration::from_millis(200);
/// The longest backoff.
const MAX_BACKOFF: Duration = Duration::from_secs(3);
/// A connection that lasts this long begins the backoff anew. A server that stops accepts connections and ends
/// them at once.
const LASTING: Duration = Duration::from_secs(5);

/// An answer that is not an event stream, in words.
type Refusal = dyn Fn(StatusCode, &HeaderMap, &[u8]) -> String + Send + Sync;

/// An update of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamUpdate {
    /// It is connected.
    Connected,
    /// An event arrived.
    Event(sse::Event),
    /// It failed to connect, or was disconnected. It reconnects by itself.
    Disconnected {
        /// Why, for people.
        reason: String,
    },
}

/// A stream that reconnects. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct EventSource {
    updates: mpsc::Receiver<StreamUpdate>,
    reader: AbortOnDropHandle<()>,
}

impl EventSource {
    /// Opens the stream at the first of `urls` that has it; all have the same. `request` makes a request with a client that
    /// has no timeout for whole responses. `refusal` puts an answer that is not an event stream into words.
    pub(crate) fn open(
        http: HttpClient,
        request: impl Fn(&str) -> RequestBuilder + Send + Sync + 'static,
        urls: Vec<String>,
        refusal: impl Fn(StatusCode, &HeaderMap, &[u8]) -> String + Send + Sync + 'static,
    ) -> Self {
        let (sender, updates) = mpsc::channel(QUEUED);
        let reader = tokio::spawn(async move { read_forever(&http, &request, urls, &refusal, sender).await });
        Self { updates, reader: AbortOnDropHandle::new(reader) }
    }

    /// The next update. Cancel safe. Not to be called again after an error.
    ///
    /// # Errors
    /// If the task that reads the stream has panicked.
    pub(crate) async fn next(&mut self) -> anyhow::Result<StreamUpdate> {
        match self.updates.recv().await {
            Some(update) => Ok(update),
            None => match (&mut self.reader).await {
                Ok(()) => bail!("the reader of the stream has ended"),
                Err(error) => Err(error.into()),
            },
        }
    }
}

async fn read_forever(
    http: &HttpClient,
    request: &(dyn Fn(&str) -> RequestBuilder + Send + Sync),
    urls: Vec<String>,
    refusal: &Refusal,
    updates: mpsc::Sender<StreamUpdate>,
) {
    let mut urls = urls.iter().cycle();
    let mut url = urls.next().map(String::as_str).unwrap_or_default();
    let mut last_id = String::new();
    let mut backoff = MIN_BACKOFF;
    loop {
        let began = Instant::now();
        let ended = read(http, request(url), refusal, &mut last_id, &updates).await;
        if began.elapsed() >= LASTING {
            backoff = MIN_BACKOFF;
        }
        let reason = match ended {
            Ok(()) => "the stream has ended".to_owned(),
            Err(error) => error.to_string(),
        };
        if updates.send(StreamUpdate::Disconnected { reason }).await.is_err() {
            return; // the source was dropped
        }
        url = urls.next().map_or(url, String::as_str);
        // Jitter, so that not all clients reconnect at once after the server restarts.
        sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

/// Reads one connection to its end.
async fn read(
    http: &HttpClient,
    request: RequestBuilder,
    refusal: &Refusal,
    last_id: &mut String,
    updates: &mpsc::Sender<StreamUpdate>,
) -> anyhow::Result<()> {
    let failed = |error: reqwest::Error| anyhow!(Cause::of(&error).to_string());
    let mut request = request.header(ACCEPT, sse::CONTENT_TYPE);
    if !last_id.is_empty() {
        request = request.header(sse::LAST_EVENT_ID, last_id.as_str());
    }
    let sent = timeout(RESPONSE_TIMEOUT, http.send(request))
        .await
        .context("it accepts connections but does not answer in time")?;
    let mut reply = sent.map_err(|error| anyhow!(Cause::of_send(&error).to_string()))?;
    let status = reply.status();
    let headers = reply.headers().clone();
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if !status.is_success() || !kind.starts_with(sse::CONTENT_TYPE.as_bytes()) {
        let body = read_start(reply).await;
        bail!(refusal(status, &headers, &body));
    }
    let mut parser = sse::Parser::new(MAX_EVENT);
    let mut events = Vec::new();
    if updates.send(StreamUpdate::Connected).await.is_err() {
        return Ok(());
    }
    loop {
        let chunk = timeout(IDLE_TIMEOUT, reply.chunk())
            .await
            .with_context(|| format!("nothing received for {IDLE_TIMEOUT:?}"))?;
        let Some(chunk) = chunk.map_err(failed)? else { return Ok(()) };
        parser.feed(&chunk, &mut events)?;
        for event in events.drain(..) {
            event.id.clone_into(last_id);
            if updates.send(StreamUpdate::Event(event)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// The beginning of a body, which may be endless.
pub(crate) async fn read_start(mut reply: reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while body.len() < MAX_REFUSAL {
            let Ok(Some(chunk)) = reply.chunk().await else { break };
            body.extend_from_slice(&chunk);
        }
    };
    let _ = timeout(RESPONSE_TIMEOUT, read).await; // what has come by then is enough
    body
}
