//! The changes of a store, as values.

use std::sync::Arc;

use hubspoke_protocol::{InstanceState, ReasonKind, ServiceInfo};

use super::instance::Warnings;
use super::key::InstanceKey;
use super::time::Time;

/// One change.
#[derive(Debug, Clone)]
pub(crate) enum StoredChange {
    Registered(StoredRegistration),
    /// A registration is gone, or is gone for another reason than before.
    Removed(InstanceKey, Departure),
    /// The store has lost this registration with its state. Whoever is in charge of the instance writes it again.
    Lost(InstanceKey),
    State(InstanceKey, StoredState),
    Drain(InstanceKey, bool),
    Protection(Option<bool>),
}

/// A registration as the store has it.
#[derive(Debug, Clone)]
pub(crate) struct StoredRegistration {
    pub(crate) info: Arc<ServiceInfo>,
    pub(crate) warnings: Warnings,
    pub(crate) registered: Time,
    /// It was removed for missed heartbeats and has answered one.
    pub(crate) returned: bool,
    /// The revision of the write.
    pub(crate) number: u64,
    /// It is not news, but was in the store when this registry looked.
    pub(crate) listed: bool,
}

/// The state of an instance, with the reason for its last change.
#[derive(Debug, Clone)]
pub(crate) struct StoredState {
    pub(crate) state: InstanceState,
    pub(crate) kind: ReasonKind,
    pub(crate) detail: String,
}

/// Why and when an instance was removed.
#[derive(Debug, Clone)]
pub(crate) struct Departure {
    pub(crate) kind: ReasonKind,
    pub(crate) detail: String,
    pub(crate) at: Time,
    /// The instance, for registries that have not known it.
    pub(crate) info: Option<Arc<ServiceInfo>>,
    pub(crate) registered: Time,
}

/// What the store says about a registration that is being applied.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredMark {
    pub(super) registered: Time,
    pub(super) returned: bool,
    pub(super) number: u64,
    pub(super) listed: bool,
}
