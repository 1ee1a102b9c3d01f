//! States of an instance, and what its heartbeats report.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether callers should use an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// It answers its heartbeats.
    Passing,
    /// It missed heartbeats and may be dead: used only if no instance is passing.
    Suspect,
    /// It finishes its requests and gets no new ones.
    Draining,
    /// It is no longer in the catalogue; shown for a while, with the reason.
    Removed,
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passing => "passing",
            Self::Suspect => "suspect",
            Self::Draining => "draining",
            Self::Removed => "removed",
        })
    }
}

/// The body with which a member may answer a heartbeat. An empty body means [`Status::Serving`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Heartbeat {
    /// Whether the member takes new requests.
    pub status: Status,
    /// Requests served by this run of the process.
    pub requests: u64,
    /// Requests being served now.
    pub in_flight: u64,
}

/// What a member reports of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It takes requests.
    #[default]
    Serving,
    /// It finishes its requests and wants no new ones.
    Draining,
}
