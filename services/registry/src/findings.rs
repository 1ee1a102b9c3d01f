//! What registries that share a store tell each other, in JSON. The paths require the token, if there is one.

use hubspoke_protocol::Heartbeat;
use serde::{Deserialize, Serialize};

/// `GET`: the [`Findings`] from a batch on.
pub(crate) const HEARD_PATH: &str = "/registries/heard";
/// `POST`: sends a heartbeat to an instance.
pub(crate) const PROBE_PATH: &str = "/registries/probe";
/// `POST`: waits until dependents have acknowledged a list.
pub(crate) const ACKNOWLEDGED_PATH: &str = "/registries/acknowledged";

/// What a registry has found out by its heartbeats.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Findings {
    /// The batch to ask for next.
    pub(crate) next: u64,
    /// How many instances it finds failing.
    pub(crate) failing: usize,
    pub(crate) batches: Vec<HeardBatch>,
}

/// Heartbeats that were answered within about a second.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HeardBatch {
    /// How long ago it was made.
    pub(crate) age_ms: u64,
    pub(crate) heard: Vec<HeardEntry>,
}

/// `[name, address, Id, milliseconds before the batch was made, requests, in flight]`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HeardEntry(
    pub(crate) String,
    pub(crate) String,
    pub(crate) String,
    pub(crate) u64,
    pub(crate) Option<u64>,
    pub(crate) Option<u64>,
);

/// The instance to send a heartbeat to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ProbeQuery {
    pub(crate) name: String,
    pub(crate) addr: String,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ProbeReply {
    pub(crate) alive: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) heartbeat: Option<Heartbeat>,
}

/// The list that dependents must have acknowledged.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AcknowledgedQuery {
    pub(crate) name: String,
    pub(crate) revision: u64,
    pub(crate) wait_ms: u64,
}
