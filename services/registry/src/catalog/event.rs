//! What can happen to the catalogue, and what it wants done about it. Both are plain values, so that they can be
//! written down, replayed and tested; the shell turns the effects into network traffic.

use std::sync::Arc;
use std::time::Duration;

use hubspoke_protocol::{Heartbeat, Load, ReasonKind, ServiceInfo};

use super::instance::Instance;
use super::{Key, Time};

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A member registers or renews. Names and addresses are valid, required names are there once each.
    Register(ServiceInfo),
    /// A member leaves, or an operator takes it out.
    Deregister {
        /// Which instance.
        key: Key,
        /// Which start of it; `None` means whichever there is.
        id: Option<String>,
        /// Said in the history.
        by: By,
    },
    /// A heartbeat was answered, or not.
    Heartbeat {
        /// Which instance was asked.
        key: Key,
        /// Which start of it; the outcome of an older one changes nothing.
        start: u64,
        /// The answer, or why there was none.
        answer: Result<Option<Heartbeat>, String>,
    },
    /// A heartbeat could not be sent, for want of something of the registry's own.
    Unasked {
        /// Which instance was to be asked.
        key: Key,
        /// Which start of it.
        start: u64,
    },
    /// An operator wants an instance to get no new requests, or to get them again.
    Drain {
        /// Which instance.
        key: Key,
        /// On or off.
        on: bool,
    },
    /// An operator switches self-protection on or off.
    Protect(bool),
    /// The snapshot file of an earlier run held this instance.
    Restore(Saved),
}

/// Who took an instance out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The instance itself.
    Itself,
    /// An operator.
    Operator,
}

/// An instance as the snapshot file keeps it.
#[derive(Debug, Clone)]
pub struct Saved {
    /// What it registered.
    pub info: Arc<ServiceInfo>,
    /// When it did.
    pub registered: Time,
    /// Whether an operator drained it.
    pub drained: bool,
}

/// What an event came to, apart from its effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The catalogue has changed.
    Changed,
    /// Nothing that anybody else can see has changed.
    Unchanged,
    /// There is no such instance (any more).
    Unknown,
}

/// What an event came to.
#[derive(Debug)]
pub struct Applied {
    /// In a word.
    pub outcome: Outcome,
    /// What is to be done, in order.
    pub effects: Vec<Effect>,
}

/// Why an event was refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A deregistration by an older start than the one that is registered.
    #[error("{key} is registered by a newer start, {current:?}")]
    OlderStart {
        /// Which instance.
        key: Key,
        /// The `Id` that is registered.
        current: String,
    },
    /// The catalogue is full.
    #[error("the catalogue is full: {0} instances")]
    TooManyInstances(usize),
    /// The catalogue is full.
    #[error("the catalogue is full: {0} services")]
    TooManyServices(usize),
}

/// What is to be done about an event.
#[derive(Debug, Clone)]
pub enum Effect {
    /// The list of a service has changed: its dependents must be told.
    ListChanged(Arc<str>),
    /// A start is there, with its wishes for pushes. Its reply tells it all up to this revision.
    Joined(Joined),
    /// A start is gone: nothing more is to be sent to it.
    Left {
        /// Which instance.
        key: Key,
        /// Which start of it.
        start: u64,
    },
    /// Send a heartbeat.
    Beat {
        /// To which instance.
        key: Key,
        /// To which start of it.
        start: u64,
        /// When.
        when: When,
    },
    /// For the log and for those who watch: one change, with the revision that it made.
    Change(Change),
    /// Self-protection began to hold back removals, or no longer does.
    Protecting(bool),
    /// For those who watch: another number of instances is held back, or self-protection was switched.
    ProtectionChanged,
    /// For those who watch: a heartbeat was answered.
    Heard {
        /// Whose.
        key: Key,
        /// What it said of its load.
        load: Option<Load>,
    },
}

/// A start that is there, as those who push to it must know it.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Which instance.
    pub key: Key,
    /// Which start of it.
    pub start: u64,
    /// What it registered.
    pub info: Arc<ServiceInfo>,
    /// What its reply tells it all up to.
    pub revision: u64,
}

/// When to send a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At a random moment within the interval: the first of a new start, and the second of a restored one.
    Spread,
    /// Soon, but spread: the instance is known from before a restart only.
    Soon,
    /// An interval after the outcome of the last, or a little sooner.
    Interval,
    /// The gap after an attempt that failed, or could not be made.
    Gap,
}

/// One change of the catalogue.
#[derive(Debug, Clone)]
pub struct Change {
    /// The revision that it made.
    pub revision: u64,
    /// What happened.
    pub kind: ReasonKind,
    /// The instance as it is after the change, or as it last was.
    pub instance: Arc<Instance>,
    /// It is no longer in the catalogue.
    pub gone: bool,
}

/// What the catalogue decides by. All of it comes from the configuration.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Time between two heartbeats of one instance.
    pub interval: Duration,
    /// Failed heartbeats in a row after which an instance is removed.
    pub attempts: u32,
    /// Instances that the catalogue may hold.
    pub max_instances: usize,
    /// Services that it may hold.
    pub max_services: usize,
    /// How long a removed instance is shown.
    pub removed_for: Duration,
    /// How many removed instances are shown at most.
    pub removed_max: usize,
    /// An instance known only from a snapshot file is not removed for this long.
    pub restore_grace: Duration,
    /// Self-protection.
    pub protection: ProtectionPolicy,
    /// Flap damping.
    pub flap: FlapPolicy,
}

/// When the registry suspects itself rather than the instances.
#[derive(Debug, Clone)]
pub struct ProtectionPolicy {
    /// Whether it ever does.
    pub enabled: bool,
    /// More than this share of all instances fails within one interval, …
    pub share: f64,
    /// … of at least so many instances.
    pub min_instances: usize,
    /// For how long at most removals are held back.
    pub max: Duration,
}

/// When an instance that comes and goes is trusted less.
#[derive(Debug, Clone)]
pub struct FlapPolicy {
    /// More than so many removals or replacements …
    pub limit: usize,
    /// … within this time …
    pub window: Duration,
    /// … keep it suspect for this long.
    pub hold: Duration,
}
