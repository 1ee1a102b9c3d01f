//! The rules that the catalogue applies. All of them come from the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The catalogue's rules and limits.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Policy {
    /// Time between two heartbeats to one instance.
    pub interval: Duration,
    /// Consecutive missed heartbeats after which an instance is removed.
    pub attempts: u32,
    /// Most instances in the catalogue.
    pub max_instances: usize,
    /// Most services in the catalogue, including those that are only required.
    pub max_services: usize,
    /// How long a removed instance is shown.
    pub removed_for: Duration,
    /// Most removed instances shown.
    pub removed_max: usize,
    /// How long an instance restored from the snapshot file may stay without answering.
    pub restore_grace: Duration,
    /// Self-protection.
    pub protection: ProtectionPolicy,
    /// Flap damping.
    pub flap: FlapPolicy,
}

/// Self-protection: when the registry suspects its own network rather than the instances.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ProtectionPolicy {
    /// Whether removals may be held back.
    pub enabled: bool,
    /// Share of all instances, 0 to 1, that must fail within one interval to trigger it.
    pub share: f64,
    /// Fewest instances in the catalogue for it to apply.
    pub min_instances: usize,
    /// Longest time that removals are held back.
    #[serde(with = "humantime_serde")]
    pub max: Duration,
}

/// Flap damping: when an instance that keeps being removed or replaced becomes suspect.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct FlapPolicy {
    /// Removals and replacements allowed within `window`.
    pub limit: usize,
    /// The time over which they are counted.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// How long an instance that exceeds the limit is suspect. Zero turns flap damping off.
    #[serde(with = "humantime_serde")]
    pub hold: Duration,
}

impl Default for ProtectionPolicy {
    fn default() -> Self {
        Self { enabled: true, share: 0.5, min_instances: 10, max: Duration::from_secs(120) }
    }
}

impl Default for FlapPolicy {
    fn default() -> Self {
        Self { limit: 3, window: Duration::from_secs(60), hold: Duration::from_secs(60) }
    }
}
