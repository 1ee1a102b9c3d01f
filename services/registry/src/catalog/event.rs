//! The events that change the catalogue, and their results.

use std::sync::Arc;

use bytesize::ByteSize;
use hubspoke_protocol::{Heartbeat, Load, ServiceInfo, UpstreamCount};

use super::effect::Effect;
use super::instance::Warnings;
use super::key::{Incarnation, InstanceKey};
use super::split::Split;
use super::stored_change::StoredChange;
use super::time::Time;

/// One event.
#[derive(Debug, Clone)]
pub(crate) enum CatalogEvent {
    /// A member registers or renews. Names and addresses are valid; required names are unique.
    Register(ServiceInfo, Warnings),
    /// An instance is deregistered. With an `id`, it must have that one.
    Deregister { key: InstanceKey, id: Option<String>, by: Initiator },
    /// A heartbeat was answered, with an optional body, or missed. Results for an earlier incarnation change nothing.
    Heartbeat { of: Incarnation, result: Result<Option<Heartbeat>, String> },
    /// A heartbeat could not be sent because the registry ran out of a resource; not a miss.
    HeartbeatNotSent(Incarnation),
    /// A gateway's heartbeat reported what it has sent to instances.
    UpstreamCounted { by: InstanceKey, counts: Vec<UpstreamCount> },
    /// An operator starts or stops draining an instance.
    Drain { key: InstanceKey, on: bool },
    /// An operator switches self-protection on or off.
    SetProtection(bool),
    /// The snapshot file of an earlier run contained this instance.
    Restore(SavedInstance),
    /// It contained this core member, which was removed for missed heartbeats at that time and is still checked.
    RestoreRemoved(SavedInstance, Time),
    /// The store has made this change, at this revision.
    Stored { revision: u64, change: StoredChange },
    /// The live registries have changed, and with them what is up to this one.
    Split(Split),
    /// Another registry could reach the instance that registered at the revision `over`.
    Vouched { key: InstanceKey, over: u64, reply: Option<Heartbeat> },
    /// The state of an instance as the registry in charge of it knows it.
    Heard { key: InstanceKey, id: String, at: Time, load: Option<Load> },
    /// The number of instances that other registries find failing.
    FailingElsewhere(usize),
    /// It contained these decisions of an operator: drained addresses without an instance, with the time when the last
    /// one left, and the self-protection switch if it differs from the configuration.
    RestoreDecisions { drains: Vec<(InstanceKey, Time)>, protection: Option<bool> },
}

impl CatalogEvent {
    /// The instance that is restored.
    pub(crate) fn saved(&self) -> Option<&SavedInstance> {
        match self {
            Self::Restore(saved) | Self::RestoreRemoved(saved, _) => Some(saved),
            _ => None,
        }
    }
}

/// The side that deregistered an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Initiator {
    /// The instance itself, with its reason, which may be empty.
    Instance(String),
    Operator,
}

impl Initiator {
    /// For an instance's history.
    pub(super) fn detail(&self) -> &str {
        match self {
            Self::Instance(reason) => reason,
            Self::Operator => "by an operator",
        }
    }
}

/// An instance as the snapshot file stores it.
#[derive(Debug, Clone)]
pub(crate) struct SavedInstance {
    pub(crate) info: Arc<ServiceInfo>,
    pub(crate) registered: Time,
    /// Whether an operator drained it.
    pub(crate) drained: bool,
}

/// The catalogue as the snapshot file stores it.
#[derive(Debug, Default)]
pub(crate) struct SavedCatalog {
    pub(crate) instances: Vec<SavedInstance>,
    /// Removed core members that are still checked, with the times of their removal.
    pub(crate) removed: Vec<(SavedInstance, Time)>,
    /// See [`CatalogEvent::RestoreDecisions`].
    pub(crate) drains: Vec<(InstanceKey, Time)>,
    pub(crate) protection: Option<bool>,
}

/// The outcome of an event, apart from its effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventOutcome {
    Changed,
    /// Nothing visible has changed.
    Unchanged,
    /// There is no such instance, or no longer.
    Unknown,
}

/// The result of an event, with its effects in order.
#[derive(Debug)]
pub(crate) struct EventResult {
    pub(crate) outcome: EventOutcome,
    pub(crate) effects: Vec<Effect>,
}

/// Why an event was refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// A deregistration with another `Id` than the one that is registered.
    #[error("{key} is registered with another Id: {current:?}")]
    OlderStart { key: InstanceKey, current: String },
    #[error("the catalogue is full: {0} instances")]
    TooManyInstances(usize),
    #[error("the catalogue is full: {0} services")]
    TooManyServices(usize),
    #[error("the catalogue is full: all registrations together may take up {0}")]
    TooMuchMemory(ByteSize),
}
