//! Changes that the catalogue asks of the store, if there is one. They come back as changes that the store has made.

use std::sync::Arc;

use hubspoke_protocol::{InstanceState, ReasonKind, ServiceInfo};

use super::instance::Warnings;
use super::key::InstanceKey;
use super::time::Time;

/// One change to ask for.
#[derive(Debug, Clone)]
pub(crate) enum Proposal {
    Register(NewRegistration),
    Remove(NewRemoval),
    State(NewState),
}

/// A registration. It fails if another one has taken the place.
#[derive(Debug, Clone)]
pub(crate) struct NewRegistration {
    pub(crate) info: Arc<ServiceInfo>,
    pub(crate) warnings: Warnings,
    pub(crate) registered: Time,
    /// It was removed for missed heartbeats and has answered one.
    pub(crate) returned: bool,
    /// The revision of the registration that it takes the place of; 0 for none.
    pub(crate) over: u64,
    /// It is the same start of the process as before, so its state stays.
    pub(crate) same_start: bool,
}

/// A removal. It fails if the instance has registered again.
#[derive(Debug, Clone)]
pub(crate) struct NewRemoval {
    pub(crate) key: InstanceKey,
    pub(crate) info: Arc<ServiceInfo>,
    pub(crate) registered: Time,
    /// The revision of the registration to remove; 0 if the store does not have it.
    pub(crate) over: u64,
    pub(crate) kind: ReasonKind,
    pub(crate) detail: String,
}

/// The state of an instance, as its heartbeats show it.
#[derive(Debug, Clone)]
pub(crate) struct NewState {
    pub(crate) key: InstanceKey,
    /// The revision of its registration.
    pub(crate) of: u64,
    pub(crate) state: InstanceState,
    pub(crate) kind: ReasonKind,
    pub(crate) detail: String,
}

impl Proposal {
    /// The instance that it is about.
    pub(crate) fn key(&self) -> InstanceKey {
        match self {
            Self::Register(new) => InstanceKey::new(&new.info.name, &new.info.addr),
            Self::Remove(NewRemoval { key, .. }) | Self::State(NewState { key, .. }) => key.clone(),
        }
    }
}
