//! Sending an entry and waiting for its acknowledgement.

use std::sync::Arc;
use std::time::Duration;

use hubspoke_protocol::{LOG_PATH, ServiceInfo};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Span};

use super::batchers::Batchers;
use super::error::{AttemptError, LogError, entry_at_fault};
use super::post::{ATTEMPT_TIMEOUT, PendingEntry, Poster};
use crate::directory::Directory;
use crate::http::{self, HttpClientError};
use crate::token::Token;
use crate::trace::{self, Attempt};

/// The name of the log service.
pub const LOG_SERVICE: &str = "log";

/// Instances that may fail one entry. Those that refuse the connection do not count: after a crash the directory still
/// has them for a while, and finding that out costs next to nothing.
const MAX_FAILED: usize = 3;
/// Instances that are tried for one entry, including those.
const MAX_TRIED: usize = 16;
/// Time for all attempts.
const DEADLINE: Duration = Duration::from_secs(3);
/// Time after which an idle connection is closed: sooner than the log instance would.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends entries to the log service and waits for the acknowledgement. Clones share connections.
///
/// ```
/// use hubspoke_client::{Directory, LogClient};
/// use hubspoke_protocol::{ServiceInfo, ServiceLists};
/// # use hubspoke_testkit::FakeLog;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (busy, other) = (FakeLog::start().await, FakeLog::start().await);
/// # busy.answer_always(Some(503));
/// # let instances = vec![busy.info(), other.info()];
/// // A member has a directory; one of fixed instances works too.
/// let directory = Directory::from(ServiceLists([("log".to_owned(), instances)].into()));
/// let log = LogClient::new(directory, &ServiceInfo::new("greeter", "10.0.0.7:8080"))?;
/// // If one instance fails, another one gets the entry; the result is the `Id` of the one that stored it.
/// let stored_by = log.send("hello, ada").await?;
/// # assert_eq!(stored_by, other.info().instance_id());
/// # assert_eq!(other.texts(), ["hello, ada"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct LogClient {
    pub(super) directory: Directory,
    pub(super) batchers: Arc<Batchers>,
}

impl LogClient {
    /// A client that finds log instances in `directory` and sends entries in the name of `sender`.
    ///
    /// # Errors
    /// [`HttpClientError`] if the HTTP client can't be created.
    pub fn new(directory: Directory, sender: &ServiceInfo) -> Result<Self, HttpClientError> {
        Self::with_token(directory, sender, None)
    }

    /// A client that also shows the log instances a token.
    ///
    /// # Errors
    /// [`HttpClientError`] if the HTTP client can't be created.
    pub fn with_token(
        directory: Directory,
        sender: &ServiceInfo,
        token: Option<Token>,
    ) -> Result<Self, HttpClientError> {
        let http = http::client(ATTEMPT_TIMEOUT, |builder| builder.pool_idle_timeout(IDLE_TIMEOUT))?;
        let source = format!("{}/{}", sender.name, sender.id()).into();
        let batchers = Arc::new(Batchers::new(Poster { http, source, token }));
        Ok(Self { directory, batchers })
    }

    /// Sends one entry and waits until a log instance has stored it, at most 3 s. Returns the `Id` of that instance.
    ///
    /// # Errors
    /// [`LogError`]. Unless the entry was refused, it may be sent again.
    pub async fn send(&self, entry: impl Into<String>) -> Result<String, LogError> {
        let entry = entry.into();
        let key = random_key();
        let deadline = Instant::now() + DEADLINE;
        let mut tried: Vec<String> = Vec::new();
        let mut last = None;
        let mut failed = 0;
        while failed < MAX_FAILED && tried.len() < MAX_TRIED && Instant::now() < deadline {
            let Some(instance) = self.directory.pick_except(LOG_SERVICE, &tried) else { break };
            let attempt = Attempt {
                operation: None,
                method: "POST",
                path: LOG_PATH,
                service: LOG_SERVICE,
                instance: instance.id(),
                addr: &instance.addr,
                resend: tried.len(),
            };
            let error = match self.attempt(&instance, &entry, &key, deadline).instrument(attempt.span()).await
            {
                Ok(status) if status.is_success() => return Ok(instance.instance_id().into_owned()),
                Ok(status) if entry_at_fault(status) => {
                    return Err(LogError::Refused { status: status.as_u16() });
                }
                Ok(status) => AttemptError::Status(status.as_u16()),
                Err(error) => error,
            };
            failed += usize::from(!matches!(error, AttemptError::Unreachable(_)));
            let error = last.insert(error) as &dyn std::error::Error;
            tracing::debug!(instance = instance.id(), error, "a log instance did not store the entry");
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
        let (text, key) = (text.to_owned(), Some(key.to_owned()));
        let entry = PendingEntry { text, trace, key, ..PendingEntry::default() };
        let deadline = deadline.min(Instant::now() + ATTEMPT_TIMEOUT);
        let status = timeout_at(deadline, self.batchers.send(instance, entry)).await;
        let status = status.unwrap_or(Err(AttemptError::TimedOut));
        let outcome = status.as_ref().map(StatusCode::as_u16).map_err(|error| match error {
            AttemptError::TimedOut => "timeout",
            _ => "no_answer",
        });
        trace::record_outcome(&Span::current(), outcome);
        status
    }
}

/// A key that nobody can guess: a sender that knew it could have the log service refuse the entry.
pub(super) fn random_key() -> String {
    format!("{:032x}", rand::random::<u128>())
}
