//! States of an instance, and what its heartbeats report.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::problem::lenient;

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

/// The load of an instance, from its last heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Load {
    /// Requests served by this run of the process.
    pub requests: u64,
    /// Requests being served at that moment; missing if that is not reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
}

/// The body with which a member may answer a heartbeat. An empty body means [`Status::Serving`]. Reading is lenient:
/// members that know only the core protocol may send anything, so what is missing or has the wrong type is unknown.
///
/// ```
/// use hubspoke_protocol::Heartbeat;
///
/// let heartbeat: Heartbeat = serde_json::from_str(r#"{"status": "ok"}"#)?;
/// assert_eq!(heartbeat.load(), None);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Heartbeat {
    /// Whether the member takes new requests.
    #[serde(deserialize_with = "lenient")]
    pub status: Status,
    /// Requests served by this run of the process.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Requests being served now.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
}

impl Heartbeat {
    /// The load, if the member reports its requests.
    pub fn load(&self) -> Option<Load> {
        self.requests.map(|requests| Load { requests, in_flight: self.in_flight })
    }
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
