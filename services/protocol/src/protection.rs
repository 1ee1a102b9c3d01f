//! Self-protection: the registry holds back removals while too many instances miss heartbeats at the same time.

use serde::{Deserialize, Serialize};

/// The state of self-protection: the answer to `GET /protection` and the data of a `protection` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProtectionView {
    /// Whether the registry may hold back removals.
    pub enabled: bool,
    /// When it stops holding back at the latest (RFC 3339); missing if it holds back none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Instances whose removal is held back.
    pub held_back: usize,
}

/// The body of `PUT /protection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProtectionSwitch {
    /// Whether the registry may hold back removals. Switching it off removes at once the instances that are held back.
    pub enabled: bool,
}
