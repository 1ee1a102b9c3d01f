//! A stream of server-sent events that outlives its connections: it reconnects with a growing backoff and
//! resumes after the last event's id, so a server that keeps some history need not start over.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hubspoke_protocol::sse;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::text;

/// Longest event, in bytes: a catalogue of ten thousand instances takes some ten megabytes.
const MAX_EVENT: usize = 64 << 20;
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
    /// Opens the stream at `url`. `http` must have no timeout for whole responses.
    pub(crate) fn open(http: reqwest::Client, url: String) -> Self {
        let (sender, updates) = mpsc::channel(QUEUED);
        let reader = tokio::spawn(read_forever(http, url, sender));
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

async fn read_forever(http: reqwest::Client, url: String, updates: mpsc::Sender<StreamUpdate>) {
    let mut last_id = String::new();
    let mut backoff = MIN_BACKOFF;
    loop {
        let reason = match read(&http, &url, &mut last_id, &updates, &mut backoff).await {
            Ok(()) => "the stream has ended".to_owned(),
            Err(error) => error.to_string(),
        };
        if updates.send(StreamUpdate::Disconnected { reason }).await.is_err() {
            return; // the source was dropped
        }
        // Jitter, so that not all clients reconnect at once after the server restarts.
        sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

/// Reads one connection to its end.
async fn read(
    http: &reqwest::Client,
    url: &str,
    last_id: &mut String,
    updates: &mpsc::Sender<StreamUpdate>,
    backoff: &mut Duration,
) -> anyhow::Result<()> {
    let failed = |error: reqwest::Error| anyhow!(text::root_cause(&error));
    let mut request = http.get(url).header(ACCEPT, sse::CONTENT_TYPE);
    if !last_id.is_empty() {
        request = request.header(sse::LAST_EVENT_ID, last_id.as_str());
    }
    let sent = timeout(RESPONSE_TIMEOUT, request.send()).await.context("no answer in time")?;
    let mut reply = sent.map_err(failed)?;
    let status = reply.status();
    if !status.is_success() {
        let body =
            timeout(RESPONSE_TIMEOUT, reply.bytes()).await.ok().and_then(Result::ok).unwrap_or_default();
        bail!("{}", format!("{status} {}", text::problem_detail(&body)).trim_end());
    }
    let content_type = reply.headers().get(CONTENT_TYPE);
    if !content_type.is_some_and(|kind| kind.as_bytes().starts_with(sse::CONTENT_TYPE.as_bytes())) {
        bail!("the answer is not an event stream; is the URL right?");
    }
    *backoff = MIN_BACKOFF;
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
