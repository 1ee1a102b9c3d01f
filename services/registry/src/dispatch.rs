//! Applies events to the catalogue and routes its effects to heartbeats, notifier and watchers.
//!
//! Effects are routed while the catalogue is locked, through queues that never block, so that all receivers see the
//! changes in the order in which the catalogue made them.

use std::sync::Arc;

use hubspoke_chassis::Metrics;
use hubspoke_protocol::{ReasonKind, Revision, ServiceInfo};
use tokio::sync::mpsc;

use crate::catalog::{
    CatalogEvent, Change, Effect, EventOutcome, EventResult, Incarnation, InstanceKey, InstanceList, Refusal,
    Registration, SavedCatalog, Time, Warnings,
};
use crate::config::Settings;
use crate::exchange::MemberDialer;
use crate::heard::HeardLog;
use crate::heartbeat::HeartbeatCommand;
use crate::instruments::Instruments;
use crate::notifier::{AckGuard, Notifier};
use crate::proposals::Proposals;
use crate::shared::SharedCatalog;
use crate::unsaved::Unsaved;
use crate::watch::ChangeFeed;

pub(crate) mod stored;

/// Applies events and routes their effects.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub(crate) catalog: Arc<SharedCatalog>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) feed: Arc<ChangeFeed>,
    pub(crate) instruments: Arc<Instruments>,
    pub(crate) dialer: MemberDialer,
    /// Bounded by the catalogue: at most one heartbeat per instance, and one command when it is removed.
    heartbeats: mpsc::UnboundedSender<HeartbeatCommand>,
    pub(crate) unsaved: Unsaved,
    /// What the catalogue asks of the store, if there is one.
    pub(crate) proposals: Proposals,
    /// What other registries that share the store want to know.
    pub(crate) heard: HeardLog,
}

/// What is left of an event's effects once they are routed.
#[derive(Debug)]
struct Routed {
    outcome: EventOutcome,
    registered: Option<Registration>,
    returned: Option<Registration>,
    taken_over: Vec<Registration>,
    /// To be logged.
    log: Vec<Effect>,
}

/// The reply to a registration.
#[derive(Debug)]
pub(crate) struct RegistrationReply {
    /// The incarnation that registered.
    pub(crate) of: Option<Incarnation>,
    pub(crate) lists: Vec<(Arc<str>, Arc<InstanceList>)>,
    pub(crate) revision: Revision,
}

impl Dispatcher {
    /// A dispatcher with an empty catalogue, and the commands for the heartbeat task.
    pub(crate) fn new(
        settings: &Settings,
        epoch: u64,
        metrics: &Metrics,
        dialer: MemberDialer,
    ) -> (Self, mpsc::UnboundedReceiver<HeartbeatCommand>) {
        let catalog = Arc::new(SharedCatalog::new(settings.clone(), epoch));
        let instruments = Arc::new(Instruments::new(metrics, &settings.limits));
        let (heartbeats, commands) = mpsc::unbounded_channel();
        let notifier =
            Notifier::new(settings.push.clone(), catalog.clone(), instruments.clone(), dialer.clone());
        let dispatcher = Self {
            notifier: Arc::new(notifier),
            feed: Arc::new(ChangeFeed::new(settings.history.changes, catalog.clone())),
            catalog,
            instruments,
            dialer,
            heartbeats,
            unsaved: Unsaved::default(),
            proposals: Proposals::default(),
            heard: HeardLog::default(),
        };
        (dispatcher, commands)
    }

    /// Applies a registration or renewal. `ack` is dropped when all dependents have acknowledged the instance.
    pub(crate) fn register(
        &self,
        info: ServiceInfo,
        warnings: Warnings,
        ack: Option<AckGuard>,
    ) -> Result<RegistrationReply, Refusal> {
        let (reply, log) = self.catalog.with(|catalog, now| {
            let applied = catalog.apply(now, CatalogEvent::Register(info, warnings))?;
            let routed = self.route(applied, ack.as_ref());
            let revision = self.catalog.revision_of(catalog.revision());
            let (mut lists, mut of) = (Vec::new(), None);
            if let Some(registration) = routed.registered {
                lists = catalog.lists(&registration.info);
                of = Some(registration.of.clone());
                if let (EventOutcome::Unchanged, Some(ack)) = (routed.outcome, ack) {
                    self.notifier.await_acknowledged(catalog, &registration.of.key.name, ack);
                }
                self.notifier.registered(registration, &lists);
            }
            Ok((RegistrationReply { of, lists, revision }, routed.log))
        })?;
        self.log(&log);
        Ok(reply)
    }

    /// The reply to a registration as it would be now; `None` if the incarnation is gone.
    pub(crate) fn current_reply(&self, of: &Incarnation) -> Option<RegistrationReply> {
        self.catalog.with(|catalog, _| {
            let info = catalog.registered_as(of)?.clone();
            let revision = catalog.revision();
            let lists = catalog.lists(&info);
            self.notifier.registered(Registration { of: of.clone(), info, revision }, &lists);
            let revision = self.catalog.revision_of(revision);
            Some(RegistrationReply { of: Some(of.clone()), lists, revision })
        })
    }

    /// Applies any other event. `ack` is dropped when all dependents have acknowledged what it changed.
    pub(crate) fn apply(&self, event: CatalogEvent, ack: Option<AckGuard>) -> Result<EventOutcome, Refusal> {
        let (outcome, log) = self.catalog.with(|catalog, now| {
            let applied = catalog.apply(now, event)?;
            let routed = self.route(applied, ack.as_ref());
            if let Some(registration) = routed.returned {
                let lists = catalog.removed_lists(&registration.info);
                self.notifier.returned(registration, &lists);
            }
            Ok((routed.outcome, routed.log))
        })?;
        self.log(&log);
        Ok(outcome)
    }

    /// Restores a catalogue from a snapshot file; returns the number of instances.
    pub(crate) fn restore(&self, saved: impl FnOnce(Time) -> SavedCatalog) -> usize {
        let (count, refused) = self.catalog.with(|catalog, now| {
            let (mut restored, mut refused) = (Vec::new(), Vec::new());
            let SavedCatalog { instances, removed, drains, protection } = saved(now);
            let decisions = CatalogEvent::RestoreDecisions { drains, protection };
            let instances = instances.into_iter().map(CatalogEvent::Restore);
            let removed = removed.into_iter().map(|(saved, at)| CatalogEvent::RestoreRemoved(saved, at));
            for event in std::iter::once(decisions).chain(instances).chain(removed) {
                let key = event.saved().map(|saved| InstanceKey::new(&saved.info.name, &saved.info.addr));
                match catalog.apply(now, event) {
                    Ok(applied) => restored.extend(self.route(applied, None).registered),
                    // The limits may be lower than when the file was written.
                    Err(error) => refused.extend(key.map(|key| (key, error))),
                }
            }
            let count = restored.len();
            // Restored dependents are assumed to know what the file contained. Those that know revisions see the new
            // epoch in their next heartbeat; the others keep what they have.
            for registration in restored {
                let lists = catalog.lists(&registration.info);
                self.notifier.registered(registration, &lists);
            }
            (count, refused)
        });
        for (key, error) in refused {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(service = %key.name, addr = %key.addr, error, "instance not restored");
        }
        count
    }

    /// Routes the effects of an event, except for those that the caller handles. Called while the catalogue is locked.
    fn route(&self, applied: EventResult, ack: Option<&AckGuard>) -> Routed {
        let (registered, returned) = (None, None);
        let (taken_over, log) = (Vec::new(), Vec::new());
        let mut routed = Routed { outcome: applied.outcome, registered, returned, taken_over, log };
        for effect in applied.effects {
            match effect {
                Effect::ListChanged(name) => self.notifier.list_changed(name, ack.cloned()),
                Effect::Registered(registration) => routed.registered = Some(registration),
                Effect::Returned(registration) => routed.returned = Some(registration),
                Effect::Removed(of) | Effect::Released(of) => {
                    self.notifier.removed(&of);
                    self.command(HeartbeatCommand::Forget(of));
                }
                Effect::SendHeartbeat { to, timing } => self.command(HeartbeatCommand::Send { to, timing }),
                Effect::Change(change) => {
                    if change.removed {
                        self.instruments.count_removal(change.kind);
                    }
                    self.unsaved.changed();
                    self.feed.publish(change.clone());
                    routed.log.push(Effect::Change(change));
                }
                Effect::TakenOver(registration) => routed.taken_over.push(registration),
                Effect::Propose(proposal) => self.proposals.put(proposal),
                Effect::HeartbeatAnswered { key, load, at, own } => {
                    if own {
                        self.heard.note(&key, load, at);
                    }
                    self.feed.heartbeat_answered(key, load, at);
                }
                Effect::Protecting(_) => routed.log.push(effect),
                Effect::ProtectionChanged => self.feed.protection_changed(),
                Effect::DecisionChanged => self.unsaved.changed(),
            }
        }
        routed
    }

    /// Logs what has changed. Not while the catalogue is locked, since writing the log may block.
    fn log(&self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Change(change) => log_change(change),
                Effect::Protecting(true) => tracing::warn!(
                    "holding back removals: most instances fail at once, so the registry's own network is suspected"
                ),
                Effect::Protecting(false) => tracing::warn!("no longer holding back removals"),
                _ => {}
            }
            if matches!(effect, Effect::Protecting(_)) {
                self.feed.publish_protection();
            }
        }
    }

    fn command(&self, command: HeartbeatCommand) {
        // Fails only if the registry is stopping.
        let _ = self.heartbeats.send(command);
    }
}

fn log_change(change: &Change) {
    let Change { revision, kind, instance, .. } = change;
    let (service, id, addr) = (&instance.info.name, &*instance.info.instance_id(), &instance.info.addr);
    let reason = instance.reasons.back().map(|entry| &*entry.detail).filter(|detail| !detail.is_empty());
    if matches!(kind, ReasonKind::Removed | ReasonKind::HeldBack) {
        tracing::warn!(service, instance = id, addr, revision, reason, "{kind}");
    } else {
        tracing::info!(service, instance = id, addr, revision, reason, "{kind}");
    }
}
