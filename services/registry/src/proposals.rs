//! Changes that the catalogue asks of the store, until somebody carries them out. The newest one about an instance
//! takes the place of an earlier one, so that there are never more of them than instances.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::catalog::{InstanceKey, Proposal};

/// The changes to ask for.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    waiting: Mutex<HashMap<InstanceKey, Proposal>>,
    wake: Notify,
}

impl Proposals {
    pub(crate) fn put(&self, proposal: Proposal) {
        self.waiting.lock().insert(proposal.key(), proposal);
        self.wake.notify_one();
    }

    /// Takes all of them. Waits if there is none.
    pub(crate) async fn take(&self) -> Vec<Proposal> {
        loop {
            let waiting = std::mem::take(&mut *self.waiting.lock());
            if !waiting.is_empty() {
                return waiting.into_values().collect();
            }
            self.wake.notified().await;
        }
    }
}
