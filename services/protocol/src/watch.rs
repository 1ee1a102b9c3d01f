//! What `/services/watch` sends after the `snapshot` (a [`CatalogView`](super::CatalogView)), and what
//! `/protection` says and takes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{InstanceView, Load, ReasonKind, Revision};

/// The data of a `change` event: one instance, as it is after the change or as it last was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ChangeView {
    /// The revision that the change made; also the event's id.
    pub revision: Revision,
    /// What happened.
    pub kind: ReasonKind,
    /// The instance; its state is `removed` where it is no longer in the catalogue.
    pub instance: InstanceView,
}

/// The data of a `load` event: the heartbeats that were answered within the last second.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LoadView {
    /// The last one of each instance, by service name and address.
    pub services: BTreeMap<String, BTreeMap<String, HeardView>>,
}

/// One answered heartbeat. It is there even where it said nothing new: who compares counters of several instances
/// must know until when each of them is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HeardView {
    /// When (RFC 3339).
    pub last_heartbeat: String,
    /// What it said of the instance's load; nothing for members that say nothing.
    #[serde(flatten)]
    pub load: Option<Load>,
}

/// Self-protection as it stands: the reply of `GET /protection` and the data of a `protection` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProtectionView {
    /// Whether the registry may hold back removals.
    pub enabled: bool,
    /// Until when it does at most (RFC 3339); nothing where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Instances whose removal is held back.
    pub held_back: usize,
}

/// The body of `PUT /protection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProtectionSwitch {
    /// Whether the registry may hold back removals. Switched off, it removes at once what it holds back.
    pub enabled: bool,
}
