//! The state that the handlers share.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::request::Parts;
use hubspoke_chassis::rights::{AccessControl, Denied, Right};
use hubspoke_chassis::server::ConnectionHandle;
use hubspoke_client::{Directory, HttpClient};
use tokio::sync::{Semaphore, watch};

use super::admission::QueryAdmission;
use super::body::BodyBudget;
use crate::ingest::IngestLimits;
use crate::store::Store;

/// Bytes that all queries and merges may take.
pub(crate) const READERS: usize = 64 << 20;
/// Large bodies that are parsed at a time. A few keep all cores busy, and each takes memory beside its body.
pub(crate) const PARSERS: usize = 2;
/// Patterns that are compiled or searched for by followers at a time.
pub(crate) const PATTERN_TURNS: usize = 2;
/// Followers with a pattern; a compiled one takes some MiB.
pub(crate) const PATTERN_TAILS: usize = 8;
/// Bytes of long entries that are being sent to followers. A thousand of them that read nothing would hold a thousand
/// copies otherwise.
pub(crate) const LONG_EVENTS: usize = 8 << 20;

pub(crate) struct LogApp {
    pub(crate) store: Arc<Store>,
    /// The rights to write and read entries.
    pub(crate) access: Arc<AccessControl>,
    /// Whether entries are taken from anybody, tokens or not.
    pub(crate) anonymous_writes: bool,
    pub(crate) limits: IngestLimits,
    /// Memory for request bodies.
    pub(crate) bodies: BodyBudget,
    /// Longest batch, in bytes.
    pub(crate) max_batch: usize,
    /// The registered name of this instance and its siblings.
    pub(crate) name: Arc<str>,
    /// The `Id` of this run of the service.
    pub(crate) id: Arc<str>,
    /// Where the siblings are.
    pub(crate) directory: Directory,
    pub(crate) http: HttpClient,
    /// A permit for each byte that queries and merges may take.
    pub(crate) readers: Arc<Semaphore>,
    /// Which queries may read files.
    pub(crate) queries: QueryAdmission,
    /// How long one may search.
    pub(crate) max_query_time: Duration,
    /// A permit for each large body that is parsed.
    pub(crate) parsers: Arc<Semaphore>,
    /// A permit for each pattern that is compiled, or searched for by a follower. They take turns, so that they leave
    /// most of the processor to others.
    pub(crate) pattern_turns: Arc<Semaphore>,
    /// A permit for each follower with a pattern.
    pub(crate) pattern_tails: Arc<Semaphore>,
    /// A permit for each byte of the long entries that are being sent to followers.
    pub(crate) long_events: Arc<Semaphore>,
    /// How long a reader may accept nothing.
    pub(crate) max_stall: Duration,
    /// Becomes true at shutdown: followers would never leave by themselves.
    pub(crate) closing: watch::Receiver<bool>,
}

impl LogApp {
    /// Checks that the sender of a request may write entries in the name of `source`.
    pub(super) async fn require_writer(&self, parts: &Parts, source: Option<&str>) -> Result<(), Denied> {
        if self.anonymous_writes {
            return Ok(());
        }
        let connection = parts.extensions.get::<ConnectionHandle>();
        let right = Right::WriteEntries(source.unwrap_or_default());
        self.access.require(right, &parts.headers, connection).await.map(drop)
    }

    /// Checks that the sender of a request may read entries.
    pub(super) async fn require_reader(
        &self,
        headers: &HeaderMap,
        connection: Option<&ConnectionHandle>,
    ) -> Result<(), Denied> {
        self.access.require(Right::ReadEntries(&self.name), headers, connection).await.map(drop)
    }
}
