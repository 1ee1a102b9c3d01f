//! The catalogue: which instances are registered, in which state, and which dependents a change concerns.
//!
//! A pure state machine: [`Catalog::apply`] takes the time and an event, and returns effects as values. It does no
//! IO and uses no clock and no randomness, so the same events give the same catalogue anywhere.
//!
//! Invariants, held by the property tests:
//! - the revision grows with every visible change, and with nothing else;
//! - the revision of a list is that of its last change; its dependents are notified of each such change and of no other;
//! - an instance is in the catalogue from a `Register` or `Restore` to its removal. Nothing else brings it back, except
//!   that a core member that was removed for missed heartbeats returns when it answers one;
//! - an operator's drain holds until an operator ends it, whatever happens to the instance;
//! - memory is bounded by the instances, what they require, and a fixed number of removed instances.
//!
//! With a store that several registries share, the catalogue proposes changes and applies those that the store has
//! made; see `stored`.
//!
//! `transition` has the steps of every change; `register`, `restore`, `heartbeat`, `recheck` and `operator` the rules
//! per kind of event.

pub(crate) use self::drains::{MAX_AGE as MAX_DRAIN_AGE, MAX_DRAINS};
pub(crate) use self::effect::{Change, Effect, HeartbeatTiming, Registration};
pub(crate) use self::event::{
    CatalogEvent, EventOutcome, EventResult, Initiator, Refusal, SavedCatalog, SavedInstance,
};
pub(crate) use self::instance::{HistoryEntry, InstanceRecord, MAX_DETAIL, Warnings};
pub(crate) use self::key::{Incarnation, InstanceKey};
pub(crate) use self::list::{InstanceList, ListedInstance};
pub(crate) use self::listing::Listing;
pub(crate) use self::proposal::{NewRegistration, NewRemoval, NewState, Proposal};
pub(crate) use self::read::ProtectionStatus;
pub(crate) use self::split::Split;
pub(crate) use self::state::Catalog;
pub(crate) use self::stored_change::{Departure, StoredChange, StoredRegistration, StoredState};
pub(crate) use self::time::Time;
use self::transition::Transition;

mod counted;
mod drains;
mod effect;
mod event;
mod heartbeat;
mod host_index;
mod hosts;
mod instance;
mod key;
mod list;
mod listing;
mod operator;
mod plan;
mod proposal;
mod protection;
mod read;
mod recheck;
mod register;
mod restore;
mod split;
mod state;
mod stored;
mod stored_change;
#[cfg(test)]
mod tests;
mod time;
mod transition;
mod upstream;

impl Catalog {
    /// Applies one event.
    ///
    /// # Errors
    /// [`Refusal`], and then nothing has changed.
    pub(crate) fn apply(&mut self, now: Time, event: CatalogEvent) -> Result<EventResult, Refusal> {
        let held_back_before = self.held_back;
        let mut transition = Transition::new(self, now);
        let outcome = match event {
            CatalogEvent::Register(info, warnings) => transition.register(info, warnings)?,
            CatalogEvent::Restore(saved) => transition.restore(saved)?,
            CatalogEvent::RestoreRemoved(saved, at) => transition.restore_removed(saved, at)?,
            CatalogEvent::RestoreDecisions { drains, protection } => {
                transition.restore_decisions(drains, protection)
            }
            CatalogEvent::Deregister { key, id, by } => transition.deregister(&key, id.as_deref(), &by)?,
            CatalogEvent::Heartbeat { of, result } => {
                let key = transition.catalog.is_stored().then(|| of.key.clone());
                let outcome = match result {
                    Ok(reply) => transition.heartbeat_answered(of, reply),
                    Err(why) => transition.heartbeat_missed(of, &why),
                };
                key.iter().for_each(|key| transition.reconcile(key));
                outcome
            }
            CatalogEvent::Stored { revision, change } => transition.stored(revision, change)?,
            CatalogEvent::Split(split) => transition.split(split),
            CatalogEvent::Vouched { key, over, reply } => transition.vouched(&key, over, reply),
            CatalogEvent::Heard { key, id, at, load } => transition.heard(key, &id, at, load),
            CatalogEvent::FailingElsewhere(count) => {
                transition.catalog.failing_elsewhere = count;
                EventOutcome::Unchanged
            }
            CatalogEvent::HeartbeatNotSent(of) => transition.heartbeat_not_sent(of),
            CatalogEvent::UpstreamCounted { by, counts } => transition.upstream_counted(&by, counts),
            CatalogEvent::Drain { key, on } => transition.drain(&key, on),
            CatalogEvent::SetProtection(on) => transition.set_protection(on),
        };
        if outcome != EventOutcome::Unknown {
            transition.announce_protection(held_back_before);
        }
        Ok(EventResult { outcome, effects: transition.effects })
    }
}
