//! The registry's events as values. Pure.

use anyhow::Context;
use hubspoke_protocol::sse::Event;
use hubspoke_protocol::{CatalogView, ChangeView, LoadView, ProtectionView};

/// What a registry says of its catalogue.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Update {
    /// All of it.
    Snapshot(CatalogView),
    /// One instance has changed.
    Change(Box<ChangeView>),
    /// What heartbeats have said.
    Load(LoadView),
    /// Self-protection is not what it was.
    Protection(ProtectionView),
}

/// Reads an event; nothing for the kinds that later registries may add.
pub(crate) fn read(event: &Event) -> anyhow::Result<Option<Update>> {
    let update = match event.name.as_str() {
        "snapshot" => serde_json::from_str(&event.data).map(Update::Snapshot),
        "change" => serde_json::from_str(&event.data).map(Update::Change),
        "load" => serde_json::from_str(&event.data).map(Update::Load),
        "protection" => serde_json::from_str(&event.data).map(Update::Protection),
        _ => return Ok(None),
    };
    let update = update.with_context(|| format!("the registry sends no proper {} event", event.name))?;
    Ok(Some(update))
}
