//! The catalogue as the registry shows it to people and tools: `GET /services`, `GET /services/{name}` and the
//! `snapshot` event of `/services/watch`. Times are RFC 3339 text in UTC.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::protection::ProtectionView;
use crate::revision::Revision;
use crate::service::ServiceInfo;
use crate::state::{InstanceState, Load};

/// The whole catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CatalogView {
    /// The revision of this catalogue.
    pub revision: Revision,
    /// Instances by service name, sorted by address.
    pub services: BTreeMap<String, Vec<InstanceView>>,
    /// Self-protection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<ProtectionView>,
    /// The registries, if several can share the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registries: Option<RegistriesView>,
}

/// The registries that share the catalogue, and the etcd that it is in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegistriesView {
    /// Whether etcd answers this registry.
    pub etcd_up: bool,
    /// Since when it answers, or does not (RFC 3339).
    pub etcd_since: String,
    /// Why it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_error: Option<String>,
    /// The live registries, sorted by address.
    pub registries: Vec<RegistryView>,
}

/// One registry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegistryView {
    /// Tells one start of its process from the next.
    pub id: String,
    /// `host:port` at which the others reach it.
    pub addr: String,
    /// The version of its program.
    pub version: String,
    /// Whether it is the one that answers this.
    pub asked: bool,
    /// How many instances it sends heartbeats and pushes to.
    pub instances: usize,
}

/// One instance as the registry sees it, without its `PushKey`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InstanceView {
    /// What the member registered.
    #[serde(flatten)]
    pub info: ServiceInfo,
    /// Whether callers should use it.
    pub state: InstanceState,
    /// When this run of its process registered.
    pub registered: String,
    /// When it last answered a heartbeat; missing before the first answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<String>,
    /// The load that its last heartbeat reported; missing if it reports none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// What is odd about its registration, such as an unknown key, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Its latest changes with their reasons, oldest first.
    #[serde(default)]
    pub reasons: Vec<Reason>,
}

/// Why an instance changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Reason {
    /// When it happened.
    pub at: String,
    /// What happened.
    pub kind: ReasonKind,
    /// More about it, for people, such as why a heartbeat was missed. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What happened to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReasonKind {
    /// It registered.
    Registered,
    /// A new run of the process registered at the same address.
    Replaced,
    /// It did not answer a heartbeat.
    MissedHeartbeat,
    /// It answered a heartbeat after it had missed some.
    Recovered,
    /// It was removed because it missed too many heartbeats.
    Removed,
    /// The instance itself or an operator deregistered it.
    Deregistered,
    /// It became suspect but is kept: too many others fail too, it was restored and does not answer, or it comes and
    /// goes too often.
    HeldBack,
    /// The registry restored it from its snapshot file.
    Restored,
    /// The instance itself or an operator asked for no new requests.
    Draining,
    /// It takes new requests again.
    Undrained,
}

/// In words, for people. The log, the command line and the page show the same.
impl fmt::Display for ReasonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Registered => "registered",
            Self::Replaced => "replaced by a new process",
            Self::MissedHeartbeat => "missed a heartbeat",
            Self::Recovered => "recovered",
            Self::Removed => "removed",
            Self::Deregistered => "deregistered",
            Self::HeldBack => "suspect",
            Self::Restored => "restored from the snapshot file",
            Self::Draining => "draining",
            Self::Undrained => "no longer draining",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_reasons_in_words() {
        assert_eq!(format!("{:<9}|{}", InstanceState::Suspect, InstanceState::Passing), "suspect  |passing");
        for (kind, words) in [
            ("registered", "registered"),
            ("replaced", "replaced by a new process"),
            ("missed-heartbeat", "missed a heartbeat"),
            ("recovered", "recovered"),
            ("removed", "removed"),
            ("deregistered", "deregistered"),
            ("held-back", "suspect"),
            ("restored", "restored from the snapshot file"),
            ("draining", "draining"),
            ("undrained", "no longer draining"),
        ] {
            let kind: ReasonKind = serde_json::from_value(kind.into()).unwrap();
            assert_eq!(kind.to_string(), words);
        }
    }
}
