//! What a gateway has counted for instances that report no load themselves.

use serde::{Deserialize, Serialize};

use crate::problem::lenient;
use crate::state::{Heartbeat, Load};

/// Requests that a gateway has sent to one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpstreamCount {
    /// Name of the service.
    pub service: String,
    /// Address of the instance.
    pub addr: String,
    /// Since the gateway knows the instance.
    #[serde(flatten)]
    pub load: Load,
}

/// A heartbeat as a gateway answers it: its own load, and its counts of some instances.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GatewayHeartbeat {
    /// What every member may report.
    #[serde(flatten)]
    pub heartbeat: Heartbeat,
    /// A part of the counts; the next heartbeats bring the others.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<UpstreamCount>,
}
