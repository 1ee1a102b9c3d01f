//! The catalogue as the registry shows it to people and tools: `GET /services`, `/services/{name}`, and the
//! `snapshot` of `/services/watch`. Times are RFC 3339 text in UTC, since readers of JSON have no better type.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ProtectionView, Revision, ServiceInfo};

/// Every service with its instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CatalogView {
    /// The revision that this is of.
    pub revision: Revision,
    /// Instances by service name, sorted by address.
    pub services: BTreeMap<String, Vec<InstanceView>>,
    /// Self-protection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<ProtectionView>,
}

/// One instance as the registry sees it. Its `PushKey` is never shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InstanceView {
    /// What the member registered.
    #[serde(flatten)]
    pub info: ServiceInfo,
    /// Whether callers should use it.
    pub state: InstanceState,
    /// When this start of it registered.
    pub registered: String,
    /// When it last answered a heartbeat; nothing before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<String>,
    /// What its last heartbeat said of its load; nothing for members that say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// The last reasons for change, oldest first.
    #[serde(default)]
    pub reasons: Vec<Reason>,
}

/// Whether callers should use an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// Its heart beats.
    Passing,
    /// It may be dead: used only where nothing else is there.
    Suspect,
    /// It finishes what it has and gets no new requests.
    Draining,
    /// It is gone; shown for a while so that "why?" has an answer.
    Removed,
}

/// Load as a member's heartbeat carries it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Load {
    /// Requests served since this start.
    pub requests: u64,
    /// Requests being served at the last heartbeat.
    pub in_flight: u64,
}

/// One reason for change, with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Reason {
    /// When.
    pub at: String,
    /// What happened.
    pub kind: ReasonKind,
    /// More, for people: why a heartbeat was missed, say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What happened to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReasonKind {
    /// It registered.
    Registered,
    /// Another start registered at the same address.
    Replaced,
    /// A heartbeat failed.
    MissedHeartbeat,
    /// A heartbeat succeeded after failed ones.
    Recovered,
    /// It was removed after too many failed heartbeats.
    Removed,
    /// It, or an operator, deregistered it.
    Deregistered,
    /// It would have been removed, but too many others failed with it.
    HeldBack,
    /// It came back from the registry's own snapshot file.
    Restored,
    /// It, or an operator, asked for no more new requests.
    Draining,
    /// It takes new requests again.
    Undrained,
}
