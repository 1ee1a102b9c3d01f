//! The events of `/services/watch` after its first, a `snapshot` with a [`CatalogView`](crate::CatalogView).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::revision::Revision;
use crate::state::Load;
use crate::view::{InstanceView, ReasonKind};

/// The data of a `change` event: one instance after the change, or as it was last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ChangeView {
    /// The revision that the change created; also the id of the event.
    pub revision: Revision,
    /// What happened.
    pub kind: ReasonKind,
    /// The instance; its state is `removed` if it is no longer in the catalogue.
    pub instance: InstanceView,
}

/// The data of a `load` event: the heartbeats that were answered in the last second.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LoadView {
    /// The latest of each instance, by service name and address.
    pub services: BTreeMap<String, BTreeMap<String, HeardView>>,
}

/// One answered heartbeat. It is sent even if the load has not changed, so that a reader that compares the counters
/// of several instances knows how recent each of them is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HeardView {
    /// When it was answered (RFC 3339).
    pub last_heartbeat: String,
    /// The load that it reported; missing if it reported none.
    #[serde(flatten)]
    pub load: Option<Load>,
}
