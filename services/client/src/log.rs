//! Sending entries to the log service: a random instance, another one where it fails.
//!
//! An entry is sent again only where the instance that had it did not acknowledge it, so an entry is lost only
//! where every attempt fails, and the sender is told so; one that an instance wrote but could not acknowledge may
//! stand twice. Attempts and total time are bounded.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use tokio::time::{Instant, timeout_at};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::directory::Directory;
use crate::protocol::{HUB_SOURCE, LOG_PATH, ServiceInfo};
use crate::trace;

/// The service that entries go to.
pub const LOG_SERVICE: &str = "log";
/// Header of a reply whose sender has logged something for it: the `Id` of the log instance that took the entry.
pub const HUB_LOGGED_BY: &str = "hub-logged-by";
/// Instances asked for one entry, at the most.
const ATTEMPTS: usize = 3;
/// All attempts together.
const DEADLINE: Duration = Duration::from_secs(3);
/// One attempt: a paused instance must leave time for the others.
const ATTEMPT: Duration = Duration::from_millis(1000);

/// Why an entry was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No log instance is known, or none is left.
    #[error("no log instance took the entry ({attempts} asked)")]
    NoInstance {
        /// How many were asked.
        attempts: usize,
        /// Why the last one did not take it.
        #[source]
        last: Option<AttemptError>,
    },
    /// The entry itself is at fault: empty, or too long.
    #[error("the log service refused the entry with {0}")]
    Refused(StatusCode),
}

/// Why one instance did not take an entry.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// It could not be reached, or broke off.
    #[error("no answer")]
    Http(#[from] reqwest::Error),
    /// It did not answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// It is overloaded, its disk is full, or it fails.
    #[error("answered {0}")]
    Status(StatusCode),
}

/// Sends entries for one member. Cloning shares connections.
#[derive(Debug, Clone)]
pub struct LogClient {
    directory: Directory,
    http: reqwest::Client,
    source: String,
}

impl LogClient {
    /// A client that finds log instances in `directory` and signs entries as `sender`.
    ///
    /// # Errors
    /// Where the HTTP client can't be made.
    pub fn new(directory: Directory, sender: &ServiceInfo) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(ATTEMPT)
            // Below the time after which a log instance closes an idle connection.
            .pool_idle_timeout(Duration::from_secs(10))
            .build()?;
        Ok(Self { directory, http, source: format!("{}/{}", sender.name, sender.id()) })
    }

    /// Sends one entry and waits until a log instance has acknowledged it; says which, by its `Id`.
    ///
    /// # Errors
    /// [`LogError`]; the entry may then be sent again.
    pub async fn send(&self, entry: impl Into<String>) -> Result<String, LogError> {
        let entry = entry.into();
        let deadline = Instant::now() + DEADLINE;
        let mut tried: Vec<String> = Vec::new();
        let mut last = None;
        while tried.len() < ATTEMPTS && Instant::now() < deadline {
            let Some(instance) = self.directory.pick(LOG_SERVICE, &tried, &mut rand::rng()) else { break };
            let span = client_span(&instance, tried.len());
            match self.attempt(&instance.addr, &entry, deadline).instrument(span).await {
                Ok(status) if status.is_success() => return Ok(instance.id().to_owned()),
                Ok(status) if at_fault(status) => return Err(LogError::Refused(status)),
                Ok(status) => last = Some(AttemptError::Status(status)),
                Err(error) => last = Some(error),
            }
            tracing::debug!(instance = instance.id(), "a log instance did not take the entry");
            tried.push(instance.addr.clone());
        }
        Err(LogError::NoInstance { attempts: tried.len(), last })
    }

    async fn attempt(&self, addr: &str, entry: &str, deadline: Instant) -> Result<StatusCode, AttemptError> {
        let mut headers = HeaderMap::new();
        trace::inject(&mut headers);
        let request = self
            .http
            .post(format!("http://{addr}{LOG_PATH}"))
            .headers(headers)
            .header(HUB_SOURCE, &self.source)
            .header(CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(entry.to_owned());
        let until = deadline.min(Instant::now() + ATTEMPT);
        let reply = timeout_at(until, async {
            let reply = request.send().await?;
            let status = reply.status();
            reply.bytes().await?; // read to its end, so that the connection can be used again
            Ok::<_, reqwest::Error>(status)
        });
        let status = reply.await.map_err(|_| AttemptError::TimedOut).and_then(|sent| Ok(sent?));
        note(&status);
        status
    }
}

/// The span around one attempt (OpenTelemetry's semantic conventions for HTTP clients).
fn client_span(instance: &ServiceInfo, resend: usize) -> Span {
    let (host, port) = instance.addr.rsplit_once(':').unwrap_or((&instance.addr, ""));
    tracing::info_span!(
        "log.send",
        otel.name = "POST /log",
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = "POST",
        http.request.resend_count = (resend > 0).then_some(resend as u64),
        http.response.status_code = Empty,
        url.full = %format_args!("http://{}{LOG_PATH}", instance.addr),
        server.address = host,
        server.port = port.parse::<u16>().ok(),
        error.type = Empty,
        hub.service = instance.name,
        hub.instance = instance.id(),
    )
}

/// Writes what became of an attempt to its span.
fn note(status: &Result<StatusCode, AttemptError>) {
    let span = Span::current();
    let error = match status {
        Ok(status) => {
            span.record("http.response.status_code", status.as_u16());
            (!status.is_success()).then(|| status.as_str().to_owned())
        }
        Err(AttemptError::TimedOut) => Some("timeout".to_owned()),
        Err(_) => Some("no_answer".to_owned()),
    };
    if let Some(error) = error {
        span.record("error.type", error);
        span.record("otel.status_code", "error");
    }
}

/// Whether the status says that the entry is at fault, so that no other instance would take it either. Anything
/// else (a 404 of a stranger who got a dead instance's port, say) is worth another instance.
fn at_fault(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY
    )
}
