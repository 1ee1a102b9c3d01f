//! The effects of an event. They are plain values; the dispatcher carries them out.

use std::sync::Arc;

use hubspoke_protocol::{Load, ReasonKind, ServiceInfo};

use super::instance::InstanceRecord;
use super::key::{Incarnation, InstanceKey};
use super::proposal::Proposal;
use super::time::Time;

/// One effect.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    /// The list of this service has changed: push it to its dependents.
    ListChanged(Arc<str>),
    /// An instance registered or renewed, and will be answered with its lists.
    Registered(Registration),
    /// A removed core member is back without a registration: it must be told what it may have missed.
    Returned(Registration),
    /// An incarnation is gone: send it nothing more.
    Removed(Incarnation),
    /// An incarnation is up to another registry from now on: send it nothing more.
    Released(Incarnation),
    /// An instance is up to this registry from now on. The one before may have told it everything or not.
    TakenOver(Registration),
    /// Ask the store for a change.
    Propose(Proposal),
    /// Send a heartbeat.
    SendHeartbeat { to: Incarnation, timing: HeartbeatTiming },
    /// Log a change, and send it to watchers.
    Change(Change),
    /// Self-protection began (`true`) or stopped (`false`) to hold back removals.
    Protecting(bool),
    /// Send self-protection to watchers: it was switched, or holds back another number of instances.
    ProtectionChanged,
    /// An operator's decision was made or undone without a change of an instance: save it.
    DecisionChanged,
    /// A heartbeat was answered, to this registry itself (`own`) or to another one: send its load to watchers.
    HeartbeatAnswered { key: InstanceKey, load: Option<Load>, at: Time, own: bool },
}

/// A registration, for the notifier.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub(crate) of: Incarnation,
    pub(crate) info: Arc<ServiceInfo>,
    /// The revision of the lists in its reply.
    pub(crate) revision: u64,
}

/// When to send a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeartbeatTiming {
    /// At once: the first of an incarnation.
    Now,
    /// At a random time within the interval: the second of an incarnation.
    Spread,
    /// Within a second: the first of a restored instance.
    Soon,
    /// About one interval after the last.
    Interval,
    /// After the short gap that follows a failed attempt.
    Gap,
}

/// One change of the catalogue.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) kind: ReasonKind,
    /// The instance after the change, or as it was when it was removed.
    pub(crate) instance: Arc<InstanceRecord>,
    pub(crate) removed: bool,
}
