//! The events of `GET /services/watch` as values. Pure.

use anyhow::Context;
use hubspoke_protocol::sse::Event;
use hubspoke_protocol::{CatalogView, ChangeView, LoadView, ProtectionView};

/// One event of the stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CatalogUpdate {
    /// The whole catalogue.
    Snapshot(CatalogView),
    /// A change of one instance.
    Change(Box<ChangeView>),
    /// The heartbeats of the last second.
    Load(LoadView),
    /// The state of self-protection.
    Protection(ProtectionView),
}

impl CatalogUpdate {
    /// Reads an event. `None` for kinds that a later registry may add.
    pub(crate) fn parse(event: &Event) -> anyhow::Result<Option<Self>> {
        let update = match event.name.as_str() {
            "snapshot" => serde_json::from_str(&event.data).map(Self::Snapshot),
            "change" => serde_json::from_str(&event.data).map(Self::Change),
            "load" => serde_json::from_str(&event.data).map(Self::Load),
            "protection" => serde_json::from_str(&event.data).map(Self::Protection),
            _ => return Ok(None),
        };
        update.map(Some).with_context(|| format!("the registry sent an invalid {} event", event.name))
    }
}
