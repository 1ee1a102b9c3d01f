//! The state that handlers share.

use std::sync::Arc;
use std::time::Duration;

use hubspoke_chassis::Problem;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::catalog::{CatalogEvent, Initiator, InstanceKey};
use crate::dispatch::Dispatcher;

/// The state of the routes.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) access: Arc<Access>,
    /// How long a deregistration waits for acknowledgements of the dependents.
    pub(crate) deregister_wait: Duration,
    /// Most watch streams at once.
    pub(crate) max_watchers: usize,
    /// Ends watch streams.
    pub(crate) shutdown: CancellationToken,
}

impl Api {
    /// Deregisters an instance and waits, within bounds, until its dependents have acknowledged that.
    pub(super) async fn deregister(
        &self,
        key: InstanceKey,
        id: Option<String>,
        by: Initiator,
    ) -> Result<(), Problem> {
        let (ack, mut acknowledged) = mpsc::channel(1);
        self.dispatcher.apply(CatalogEvent::Deregister { key, id, by }, Some(ack))?;
        if tokio::time::timeout(self.deregister_wait, acknowledged.recv()).await.is_err() {
            tracing::debug!("some dependents did not acknowledge a deregistration in time");
        }
        Ok(())
    }
}
