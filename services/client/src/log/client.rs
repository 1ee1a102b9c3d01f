//! Sending an entry and waiting for its acknowledgement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join_all;
use hubspoke_protocol::{LOG_PATH, ServiceInfo};
use parking_lot::Mutex;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Span};

use super::batchers::Batchers;
use super::copies::{FewerCopies, LogCopies};
use super::error::{AttemptError, LogError, entry_at_fault};
use super::post::{ATTEMPT_TIMEOUT, PendingEntry, Poster};
use crate::directory::Directory;
use crate::http::{HttpClient, HttpClientError, HttpOptions, MemberCredentials};
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
    pub(super) copies: LogCopies,
    short: Arc<AtomicU64>,
}

impl LogClient {
    /// A client that finds log instances in `directory` and sends entries in the name of `sender`.
    ///
    /// # Errors
    /// [`HttpClientError`] if the HTTP client can't be created.
    pub fn new(directory: Directory, sender: &ServiceInfo) -> Result<Self, HttpClientError> {
        Self::with_credentials(directory, sender, MemberCredentials::default())
    }

    /// A client that also shows the log instances credentials.
    ///
    /// # Errors
    /// [`HttpClientError`] if the HTTP client can't be created.
    pub fn with_credentials(
        directory: Directory,
        sender: &ServiceInfo,
        credentials: MemberCredentials,
    ) -> Result<Self, HttpClientError> {
        let MemberCredentials { token, identity } = credentials;
        let options = HttpOptions::new(ATTEMPT_TIMEOUT).with_idle_timeout(IDLE_TIMEOUT);
        let http = HttpClient::new(&[LOG_SERVICE], identity.as_ref(), options)?;
        let source = format!("{}/{}", sender.name, sender.id()).into();
        let batchers = Arc::new(Batchers::new(Poster { http, source, token }));
        Ok(Self { directory, batchers, copies: LogCopies::default(), short: Arc::default() })
    }

    /// Stores each entry on several instances.
    #[must_use]
    pub fn with_copies(self, copies: LogCopies) -> Self {
        Self { copies, ..self }
    }

    /// Entries that were acknowledged with fewer copies than there should be ([`FewerCopies::Accept`]).
    pub fn short(&self) -> u64 {
        self.short.load(Relaxed)
    }

    pub(super) fn count_short(&self, entries: u64) {
        self.short.fetch_add(entries, Relaxed);
    }

    /// Sends one entry and waits until a log instance has stored it, or as many as there should be copies; at most 3 s.
    /// Returns the `Id` of that instance, or of one of them.
    ///
    /// # Errors
    /// [`LogError`]. Unless the entry was refused, it may be sent again.
    pub async fn send(&self, entry: impl Into<String>) -> Result<String, LogError> {
        let (entry, key) = (entry.into(), random_key());
        let tried = Mutex::default();
        let deadline = Instant::now() + DEADLINE;
        if self.copies.count() == 1 {
            return self.store(&entry, &key, &tried, deadline).await;
        }
        let copies = (0..self.copies.count()).map(|_| self.store(&entry, &key, &tried, deadline));
        self.outcome(join_all(copies).await)
    }

    /// The outcome of an entry, given that of each copy.
    fn outcome(&self, copies: Vec<Result<String, LogError>>) -> Result<String, LogError> {
        let (wanted, mut stored, mut first, mut failure) = (copies.len(), 0, None, None);
        for copy in copies {
            match copy {
                Ok(instance) => {
                    stored += 1;
                    first.get_or_insert(instance);
                }
                Err(error @ LogError::Refused { .. }) => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        match (first, failure) {
            (Some(instance), None) => Ok(instance),
            (Some(instance), Some(_)) if self.copies.fewer() == FewerCopies::Accept => {
                self.count_short(1);
                Ok(instance)
            }
            (Some(_), Some(LogError::NoInstance { last, .. })) => {
                Err(LogError::FewerCopies { stored, wanted, last })
            }
            (_, Some(error)) => Err(error),
            (None, None) => Err(LogError::NoInstance { attempts: 0, last: None }),
        }
    }

    /// Stores one copy of an entry, on an instance that is not among those that were `tried` for any copy.
    async fn store(
        &self,
        entry: &str,
        key: &str,
        tried: &Mutex<Vec<String>>,
        deadline: Instant,
    ) -> Result<String, LogError> {
        let (mut attempts, mut failed, mut last) = (0, 0, None);
        while failed < MAX_FAILED && Instant::now() < deadline {
            let Some(instance) = self.pick_untried(tried) else { break };
            let attempt = Attempt {
                operation: None,
                method: "POST",
                path: LOG_PATH,
                service: LOG_SERVICE,
                instance: instance.id(),
                addr: &instance.addr,
                resend: attempts,
            };
            attempts += 1;
            let error = match self.attempt(&instance, entry, key, deadline).instrument(attempt.span()).await {
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
        }
        Err(LogError::NoInstance { attempts, last })
    }

    /// A random instance that no copy of the entry has tried. From here on it counts as tried.
    fn pick_untried(&self, tried: &Mutex<Vec<String>>) -> Option<Arc<ServiceInfo>> {
        let mut tried = tried.lock();
        if tried.len() >= MAX_TRIED {
            return None;
        }
        let instance = self.directory.pick_except(LOG_SERVICE, &tried)?;
        tried.push(instance.addr.clone());
        Some(instance)
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
