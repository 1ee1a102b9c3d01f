//! What the store has changed, and what calls ask of it.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use hubspoke_protocol::{Heartbeat, Load, ServiceInfo};
use tokio::sync::mpsc;

use super::{Dispatcher, RegistrationReply};
use crate::catalog::{
    Catalog, CatalogEvent, Effect, Initiator, InstanceKey, Listing, NewRegistration, NewRemoval, Refusal,
    Registration, Split, StoredChange, Time, Warnings,
};
use crate::findings::{Findings, HeardEntry};
use crate::heard::HeardMap;

/// Heartbeats applied at a time, so that the catalogue is never locked for long.
const MAX_HEARD: usize = 256;

/// What a registration needs.
#[derive(Debug)]
pub(crate) enum RegistrationPlan {
    /// The catalogue has it: here is the reply.
    Known(RegistrationReply),
    /// The store must take this first.
    Write(NewRegistration),
}

impl Dispatcher {
    /// The store was read at this revision. In another epoch the store has lost its state or has got another one.
    pub(crate) fn listed(&self, epoch: u64, revision: u64, listing: impl FnOnce(Time) -> Listing) {
        let log = self.catalog.with(|catalog, now| {
            let known = self.catalog.epoch();
            let is_first = known == 0;
            if known != epoch {
                self.catalog.set_epoch(epoch);
                catalog.rebase(revision);
                self.notifier.rebase(revision);
                self.feed.restart(revision);
            }
            let lost = known != epoch && !is_first;
            let changes = catalog.changes_to(listing(now), lost, now);
            self.apply_stored(catalog, now, revision, changes)
        });
        self.log(&log);
    }

    /// The store was changed, at this revision.
    pub(crate) fn stored(&self, revision: u64, changes: impl FnOnce(Time) -> Vec<StoredChange>) {
        let log = self.catalog.with(|catalog, now| self.apply_stored(catalog, now, revision, changes(now)));
        self.log(&log);
    }

    /// Other registries share the store. Their dependents of before know at least the lists of revision `since`.
    pub(crate) fn split(&self, split: Split, since: u64) {
        let log = self.catalog.with(|catalog, now| {
            let Ok(applied) = catalog.apply(now, CatalogEvent::Split(split)) else { return Vec::new() };
            let routed = self.route(applied, None);
            for registration in routed.taken_over {
                let removed = catalog.removed_lists(&registration.info);
                self.notifier.taken_over(registration, since, &removed);
            }
            routed.log
        });
        self.log(&log);
    }

    /// The reply to a registration that the catalogue has, or what the store must take for it.
    ///
    /// # Errors
    /// [`Refusal`] if there is no room.
    pub(crate) fn plan_registration(
        &self,
        info: &ServiceInfo,
        warnings: &Warnings,
    ) -> Result<RegistrationPlan, Refusal> {
        self.catalog.with(|catalog, now| {
            if let Some(new) = catalog.plan_registration(now, info, warnings)? {
                return Ok(RegistrationPlan::Write(new));
            }
            let applied = catalog.apply(now, CatalogEvent::Register(info.clone(), warnings.clone()))?;
            let routed = self.route(applied, None);
            let lists = catalog.lists(info);
            let of = routed.registered.as_ref().map(|registration| registration.of.clone());
            if let Some(registration) = routed.registered {
                self.notifier.registered(registration, &lists);
            }
            let revision = self.catalog.revision_of(catalog.revision());
            Ok(RegistrationPlan::Known(RegistrationReply { of, lists, revision }))
        })
    }

    /// What the store must take for a deregistration, if anything.
    ///
    /// # Errors
    /// [`Refusal`] if another start is registered.
    pub(crate) fn plan_deregistration(
        &self,
        key: &InstanceKey,
        id: Option<&str>,
        by: &Initiator,
    ) -> Result<Option<NewRemoval>, Refusal> {
        self.catalog.with(|catalog, _| catalog.plan_deregistration(key, id, by))
    }

    /// Waits until this registry's dependents have acknowledged the list of a service.
    pub(crate) async fn acknowledged(&self, name: &str) {
        let (ack, mut acknowledged) = mpsc::channel::<Infallible>(1);
        self.catalog.with(|catalog, _| self.notifier.await_acknowledged(catalog, name, ack));
        acknowledged.recv().await;
    }

    /// Another registry could reach an instance that this one can't.
    pub(crate) fn vouched(&self, key: InstanceKey, over: u64, reply: Option<Heartbeat>) {
        let _ = self.apply(CatalogEvent::Vouched { key, over, reply }, None); // never refused
    }

    /// The number of instances that other registries find failing.
    pub(crate) fn failing_elsewhere(&self, count: usize) {
        let _ = self.apply(CatalogEvent::FailingElsewhere(count), None); // never refused
    }

    /// What another registry has heard from instances that are up to it.
    pub(crate) fn heard(&self, findings: Findings) {
        for batch in findings.batches {
            for of in batch.heard.chunks(MAX_HEARD) {
                self.catalog.with(|catalog, now| {
                    for HeardEntry(name, addr, id, ms, requests, in_flight) in of {
                        let ago = i64::try_from(batch.age_ms.saturating_add(*ms)).unwrap_or(i64::MAX);
                        let at = Time::from_millis(now.as_millis().saturating_sub(ago));
                        let load = requests.map(|requests| Load { requests, in_flight: *in_flight });
                        let (key, id) = (InstanceKey::new(name, addr), id.clone());
                        if let Ok(applied) = catalog.apply(now, CatalogEvent::Heard { key, id, at, load }) {
                            self.route(applied, None);
                        }
                    }
                });
            }
        }
    }

    /// What this registry has heard, from this batch on.
    pub(crate) fn findings(&self, from: u64) -> Bytes {
        let (failing, now) = self.catalog.with(|catalog, now| (catalog.failing(), now));
        let id = |catalog: &Catalog, key: &InstanceKey| Some(catalog.registered(key)?.id().to_owned());
        let cut = |heard: HeardMap| {
            self.catalog.with(|catalog, now| {
                let entry = |(key, (at, load)): (InstanceKey, (Time, Option<Load>))| {
                    let id = id(catalog, &key)?;
                    let ms = u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
                    let (name, addr) = (key.name.to_string(), key.addr.to_string());
                    let in_flight = load.and_then(|load| load.in_flight);
                    Some(HeardEntry(name, addr, id, ms, load.map(|load| load.requests), in_flight))
                };
                heard.into_iter().filter_map(entry).collect()
            })
        };
        self.heard.render(from, failing, now, cut)
    }

    /// Changes of one revision belong together, so whoever reads the catalogue sees all of them or none.
    fn apply_stored(
        &self,
        catalog: &mut Catalog,
        now: Time,
        revision: u64,
        changes: Vec<StoredChange>,
    ) -> Vec<Effect> {
        let (mut registered, mut returned, mut log) = (Vec::new(), Vec::new(), Vec::new());
        for change in changes {
            // What the store has taken is not refused.
            let Ok(applied) = catalog.apply(now, CatalogEvent::Stored { revision, change }) else { continue };
            let routed = self.route(applied, None);
            registered.extend(routed.registered);
            returned.extend(routed.returned);
            log.extend(routed.log);
        }
        catalog.advance(revision);
        let revision = catalog.revision();
        for registration in registered {
            // Some registry answers it, with lists of this revision or later.
            let lists: Vec<(Arc<str>, _)> = catalog.lists(&registration.info);
            self.notifier.registered(Registration { revision, ..registration }, &lists);
        }
        for registration in returned {
            let lists = catalog.removed_lists(&registration.info);
            self.notifier.returned(registration, &lists);
        }
        log
    }
}
