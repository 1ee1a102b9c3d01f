//! Sending entries to the log service: a random instance, another one where it fails.
//!
//! An entry is sent again only where the instance that had it did not acknowledge it, so an entry is lost only
//! where every attempt fails, and the sender is told so; one that an instance wrote but could not acknowledge may
//! stand twice. Attempts and total time are bounded.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::{Instant, timeout_at};

use crate::directory::Directory;
use crate::protocol::{HUB_SOURCE, LOG_PATH, ServiceInfo};

/// The service that entries go to.
pub const LOG_SERVICE: &str = "log";
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

    /// Sends one entry and waits until a log instance has acknowledged it.
    ///
    /// # Errors
    /// [`LogError`]; the entry may then be sent again.
    pub async fn send(&self, entry: impl Into<String>) -> Result<(), LogError> {
        let entry = entry.into();
        let deadline = Instant::now() + DEADLINE;
        let mut tried: Vec<String> = Vec::new();
        let mut last = None;
        while tried.len() < ATTEMPTS && Instant::now() < deadline {
            let Some(instance) = self.directory.pick(LOG_SERVICE, &tried, &mut rand::rng()) else { break };
            match self.attempt(&instance.addr, &entry, deadline).await {
                Ok(status) if status.is_success() => return Ok(()),
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
        let request = self
            .http
            .post(format!("http://{addr}{LOG_PATH}"))
            .header(HUB_SOURCE, &self.source)
            .header(reqwest::header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(entry.to_owned());
        let until = deadline.min(Instant::now() + ATTEMPT);
        let reply = timeout_at(until, async {
            let reply = request.send().await?;
            let status = reply.status();
            reply.bytes().await?; // read to its end, so that the connection can be used again
            Ok::<_, reqwest::Error>(status)
        });
        Ok(reply.await.map_err(|_| AttemptError::TimedOut)??)
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
