//! The values in etcd: JSON. Unknown keys are ignored, so that registries of several versions can share a store.

use std::sync::Arc;

use hubspoke_protocol::{InstanceState, ReasonKind, ServiceInfo};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::catalog::{
    Departure, InstanceKey, NewRegistration, NewRemoval, NewState, StoredRegistration, StoredState,
};
use crate::view::WallClock;

/// A registration. It contains the push key.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RegistrationRecord {
    info: Arc<ServiceInfo>,
    registered: Timestamp,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// It was removed for missed heartbeats and has answered one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    returned: bool,
}

/// The state of an instance.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StateRecord {
    state: InstanceState,
    kind: ReasonKind,
    #[serde(default)]
    detail: String,
}

/// A removal.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RemovalRecord {
    info: Arc<ServiceInfo>,
    registered: Timestamp,
    at: Timestamp,
    kind: ReasonKind,
    #[serde(default)]
    detail: String,
}

impl RegistrationRecord {
    pub(super) fn new(new: &NewRegistration, clock: WallClock) -> Self {
        let NewRegistration { info, warnings, registered, returned, .. } = new;
        Self {
            info: info.clone(),
            registered: clock.timestamp(*registered),
            warnings: warnings.as_deref().unwrap_or_default().to_vec(),
            returned: *returned,
        }
    }

    /// `None` if it is not a valid registration of this instance: somebody else wrote it.
    pub(super) fn into_stored(
        self,
        key: &InstanceKey,
        number: u64,
        listed: bool,
        clock: WallClock,
    ) -> Option<StoredRegistration> {
        let Self { info, registered, warnings, returned } = self;
        let is_valid = *info.name == *key.name && *info.addr == *key.addr && info.check().is_ok();
        let warnings = (!warnings.is_empty()).then(|| warnings.into());
        let registered = clock.time(registered);
        is_valid.then_some(StoredRegistration { info, warnings, registered, returned, number, listed })
    }
}

impl StateRecord {
    pub(super) fn new(new: &NewState) -> Self {
        Self { state: new.state, kind: new.kind, detail: new.detail.clone() }
    }

    pub(super) fn into_stored(self) -> StoredState {
        let Self { state, kind, detail } = self;
        StoredState { state, kind, detail }
    }
}

impl RemovalRecord {
    pub(super) fn new(new: &NewRemoval, clock: WallClock) -> Self {
        Self {
            info: new.info.clone(),
            registered: clock.timestamp(new.registered),
            at: Timestamp::now(),
            kind: new.kind,
            detail: new.detail.clone(),
        }
    }

    /// When the instance was removed.
    pub(super) fn at(&self) -> Timestamp {
        self.at
    }

    pub(super) fn into_departure(self, clock: WallClock) -> Departure {
        let Self { info, registered, at, kind, detail } = self;
        let (at, registered) = (clock.time(at), clock.time(registered));
        Departure { kind, detail, at, info: Some(info), registered }
    }
}

pub(super) fn write(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).unwrap_or_default() // such records are always valid JSON
}

/// `None` if it is not such a record. That is logged: only registries should write here.
pub(super) fn read<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Option<T> {
    serde_json::from_slice(value)
        .inspect_err(|error| {
            let (key, error) = (String::from_utf8_lossy(key), error as &dyn std::error::Error);
            tracing::warn!(%key, error, "ignoring an invalid value in etcd; delete the key");
        })
        .ok()
}
