//! The state that the handlers share.

use std::sync::Arc;
use std::time::Duration;

use hubspoke_client::Directory;
use tokio::sync::{Semaphore, watch};

use super::body::BodyBudget;
use crate::ingest::IngestLimits;
use crate::store::Store;

pub(crate) struct LogApp {
    pub(crate) store: Arc<Store>,
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
    pub(crate) http: reqwest::Client,
    /// A permit for each query that may read files.
    pub(crate) queries: Arc<Semaphore>,
    /// How long a reader may accept nothing.
    pub(crate) max_stall: Duration,
    /// Becomes true at shutdown: followers would never leave by themselves.
    pub(crate) closing: watch::Receiver<bool>,
}
