//! Sending entries to the log service: a random instance, another one where it fails.
//!
//! An entry is sent again only where the instance that had it did not acknowledge it, so an entry is lost only
//! where every attempt fails, and the sender is told so; one that an instance wrote but could not acknowledge may
//! stand on two, under the same key, by which readers know it. Attempts and total time are bounded.
//!
//! [`LogClient`] is for those who wait for the acknowledgement; under load their entries share requests (`lane`).
//! [`LogQueue`] is for those who don't, and [`LogLayer`] for a service's own `tracing` events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Span};

use self::lanes::Lanes;
use self::post::{Item, Poster};
use crate::directory::Directory;
use crate::trace::{self, Attempt};
use hubspoke_protocol::{LOG_PATH, ServiceInfo};

pub use self::layer::LogLayer;
pub use self::post::BATCH_META;
pub use self::queue::{Entry, LogQueue, Pusher, QueueFull};

mod lane;
mod lanes;
mod layer;
mod post;
mod queue;

/// The service that entries go to.
pub const LOG_SERVICE: &str = "log";
/// Header of a reply whose sender has logged something for it: the `Id` of the log instance that took the entry.
pub const HUB_LOGGED_BY: &str = "hub-logged-by";
/// Instances that may fail one entry, not counting those that could not be connected to: after a crash of many, the
/// directory still has them for a while, and finding that out costs next to nothing.
const ATTEMPTS: usize = 3;
/// Instances asked for one entry, at the most.
const MOST: usize = 16;
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
#[derive(Debug, Clone, thiserror::Error)]
pub enum AttemptError {
    /// It could not be reached, or broke off.
    #[error("no answer")]
    Http(#[source] Arc<reqwest::Error>),
    /// It did not answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// It is overloaded, its disk is full, or it fails.
    #[error("answered {0}")]
    Status(StatusCode),
}

impl AttemptError {
    /// Whether the instance could not even be connected to.
    fn unreached(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_connect())
    }
}

/// Sends entries for one member. Cloning shares connections.
#[derive(Debug, Clone)]
pub struct LogClient {
    directory: Directory,
    lanes: Arc<Lanes>,
    keys: Keys,
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
        let source = format!("{}/{}", sender.name, sender.id()).into();
        let lanes = Arc::new(Lanes::new(Poster { http, source }));
        Ok(Self { directory, lanes, keys: Keys::default() })
    }

    /// Sends one entry and waits until a log instance has acknowledged it; says which, by its `Id`.
    ///
    /// # Errors
    /// [`LogError`]; the entry may then be sent again.
    pub async fn send(&self, entry: impl Into<String>) -> Result<String, LogError> {
        let entry = entry.into();
        let key = self.keys.next();
        let deadline = Instant::now() + DEADLINE;
        let mut tried: Vec<String> = Vec::new();
        let mut last = None;
        let mut failed = 0;
        while failed < ATTEMPTS && tried.len() < MOST && Instant::now() < deadline {
            let Some(instance) = self.directory.pick(LOG_SERVICE, &tried, &mut rand::rng()) else { break };
            let attempt = Attempt {
                operation: None,
                method: "POST",
                path: LOG_PATH,
                service: LOG_SERVICE,
                instance: instance.id(),
                addr: &instance.addr,
                resend: tried.len(),
            };
            match self.attempt(&instance, &entry, &key, deadline).instrument(attempt.span()).await {
                Ok(status) if status.is_success() => return Ok(instance.id().to_owned()),
                Ok(status) if at_fault(status) => return Err(LogError::Refused(status)),
                Ok(status) => last = Some(AttemptError::Status(status)),
                Err(error) => last = Some(error),
            }
            failed += usize::from(!last.as_ref().is_some_and(AttemptError::unreached));
            tracing::debug!(instance = instance.id(), "a log instance did not take the entry");
            tried.push(instance.addr.clone());
        }
        Err(LogError::NoInstance { attempts: tried.len(), last })
    }

    async fn attempt(
        &self,
        instance: &ServiceInfo,
        text: &str,
        key: &str,
        deadline: Instant,
    ) -> Result<StatusCode, AttemptError> {
        let mut trace = HeaderMap::new();
        trace::inject(&mut trace);
        let item = Item { text: text.to_owned(), trace, key: Some(key.to_owned()), ..Item::default() };
        let until = deadline.min(Instant::now() + ATTEMPT);
        let status = timeout_at(until, self.lanes.send(instance, item)).await;
        let status = status.unwrap_or(Err(AttemptError::TimedOut));
        let outcome = status.as_ref().map(StatusCode::as_u16).map_err(|error| match error {
            AttemptError::TimedOut => "timeout",
            _ => "no_answer",
        });
        trace::attempted(&Span::current(), outcome);
        status
    }
}

/// Makes keys that nothing else has. Cloning shares the numbers.
#[derive(Debug, Clone)]
struct Keys {
    /// Of this start of the process: keys are this and a number.
    start: u64,
    next: Arc<AtomicU64>,
}

impl Default for Keys {
    fn default() -> Self {
        Self { start: rand::random(), next: Arc::default() }
    }
}

impl Keys {
    fn next(&self) -> String {
        format!("{:016x}.{:x}", self.start, self.next.fetch_add(1, Ordering::Relaxed))
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

#[cfg(test)]
mod tests;
