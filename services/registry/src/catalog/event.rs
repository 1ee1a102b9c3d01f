//! What can happen to the catalogue, and how it answers.

use std::sync::Arc;

use hubspoke_protocol::{Heartbeat, ServiceInfo};

use super::effect::Effect;
use super::key::InstanceKey;
use super::time::Time;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A member registers or renews. Names and addresses are valid; required names are unique.
    Register(ServiceInfo),
    /// A member deregisters, or an operator deregisters it.
    Deregister {
        /// The instance.
        key: InstanceKey,
        /// The `Id` it must have; `None` accepts any.
        id: Option<String>,
        /// Who asked, for the history.
        by: Initiator,
    },
    /// A heartbeat was answered or missed.
    Heartbeat {
        /// The instance.
        key: InstanceKey,
        /// Its incarnation; the result of an earlier one changes nothing.
        incarnation: u64,
        /// The reply, whose body is optional, or why there was none.
        result: Result<Option<Heartbeat>, String>,
    },
    /// A heartbeat could not be sent because the registry ran out of a resource; not a miss.
    HeartbeatNotSent {
        /// The instance.
        key: InstanceKey,
        /// Its incarnation.
        incarnation: u64,
    },
    /// An operator starts or stops draining an instance.
    Drain {
        /// The instance.
        key: InstanceKey,
        /// Whether it should drain.
        on: bool,
    },
    /// An operator switches self-protection on or off.
    SetProtection(bool),
    /// The snapshot file of an earlier run contained this instance.
    Restore(SavedInstance),
}

/// Who deregistered an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initiator {
    /// The instance itself.
    Instance,
    /// An operator.
    Operator,
}

/// An instance as the snapshot file stores it.
#[derive(Debug, Clone)]
pub struct SavedInstance {
    /// Its registration.
    pub info: Arc<ServiceInfo>,
    /// When it registered.
    pub registered: Time,
    /// Whether an operator drained it.
    pub drained: bool,
}

/// What an event did, apart from its effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The catalogue has changed.
    Changed,
    /// Nothing visible has changed.
    Unchanged,
    /// There is no such instance, or no longer.
    Unknown,
}

/// The result of an event.
#[derive(Debug)]
pub struct Applied {
    /// What the event did.
    pub outcome: Outcome,
    /// What must be done about it, in order.
    pub effects: Vec<Effect>,
}

/// Why an event was refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A deregistration with another `Id` than the one that is registered.
    #[error("{key} is registered with another Id: {current:?}")]
    OlderStart {
        /// The instance.
        key: InstanceKey,
        /// The registered `Id`.
        current: String,
    },
    /// The limit of instances is reached.
    #[error("the catalogue is full: {0} instances")]
    TooManyInstances(usize),
    /// The limit of services is reached.
    #[error("the catalogue is full: {0} services")]
    TooManyServices(usize),
}
