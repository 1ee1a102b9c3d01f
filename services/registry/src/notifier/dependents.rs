//! The state of each dependent: what it has acknowledged, and which acknowledgements are awaited.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hubspoke_protocol::{Revision, ServiceInfo};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::plan::{Acknowledged, PushPlan, plan};
use crate::catalog::{Catalog, Incarnation, InstanceKey, InstanceList, Registration};
use crate::exchange::IdleConn;

/// Held until a change is acknowledged by all its dependents. The channel then closes, which wakes its receiver.
pub(crate) type AckGuard = mpsc::Sender<Infallible>;

/// How long a connection is kept for the next push: less than servers usually keep it.
const KEEP_IDLE: Duration = Duration::from_secs(4);

/// All dependents.
#[derive(Debug, Default)]
pub(super) struct Dependents {
    /// Services whose lists have changed since the last round, with the guards of those changes.
    changed: HashMap<Arc<str>, Vec<AckGuard>>,
    /// Members that have returned since the last round.
    returned: Vec<InstanceKey>,
    dependents: HashMap<InstanceKey, Dependent>,
}

/// One dependent.
#[derive(Debug)]
struct Dependent {
    incarnation: u64,
    info: Arc<ServiceInfo>,
    acknowledged: Acknowledged,
    /// A task is delivering; it continues if `again` is set.
    delivering: bool,
    again: bool,
    /// The last push failed.
    failing: bool,
    /// When the first push may be sent.
    not_before: Instant,
    idle: Option<(Instant, IdleConn)>,
    /// Guards to release when it acknowledges a revision. Those of one change are shared by all its dependents.
    waiting: Vec<(u64, Arc<[AckGuard]>)>,
}

/// The number of dependents, in all and by condition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DependentCounts {
    pub(crate) dependents: u64,
    pub(crate) delivering: u64,
    pub(crate) failing: u64,
}

/// A delivery to a dependent.
pub(super) struct Delivery {
    pub(super) info: Arc<ServiceInfo>,
    pub(super) plan: PushPlan,
    pub(super) idle: Option<IdleConn>,
}

impl Dependents {
    /// A member registered or renewed, and is answered with these lists.
    pub(super) fn registered(
        &mut self,
        registration: Registration,
        lists: &[(Arc<str>, Arc<InstanceList>)],
        not_before: Instant,
    ) {
        let Registration { of, info, revision } = registration;
        if info.required_services.is_empty() {
            self.dependents.remove(&of.key);
            return;
        }
        let acknowledged = Acknowledged::by_reply(&info, revision, lists);
        match self.get(&of) {
            // A push in flight may arrive after the reply, so events can't be planned from the lists in the reply.
            Some(known) if known.delivering && matches!(acknowledged, Acknowledged::Lists(_)) => {
                known.info = info;
            }
            Some(known) => {
                (known.info, known.acknowledged) = (info, acknowledged);
                known.release(revision);
            }
            None => {
                let dependent = Dependent {
                    incarnation: of.number,
                    info,
                    acknowledged,
                    delivering: false,
                    again: false,
                    failing: false,
                    not_before,
                    idle: None,
                    waiting: Vec::new(),
                };
                self.dependents.insert(of.key, dependent);
            }
        }
    }

    /// A removed member is back, and may know these lists of removed instances.
    pub(super) fn returned(&mut self, registration: Registration, removed: &[(Arc<str>, Arc<InstanceList>)]) {
        let key = registration.of.key.clone();
        let nothing = Registration { revision: 0, ..registration };
        self.registered(nothing, removed, Instant::now());
        self.returned.push(key);
    }

    /// A dependent is up to this registry from now on.
    pub(super) fn taken_over(
        &mut self,
        registration: Registration,
        since: u64,
        removed: &[(Arc<str>, Arc<InstanceList>)],
    ) {
        let key = registration.of.key.clone();
        self.registered(Registration { revision: since, ..registration }, removed, Instant::now());
        self.returned.push(key);
    }

    /// Another epoch begins at this revision.
    pub(super) fn rebase(&mut self, revision: u64) {
        for dependent in self.dependents.values_mut() {
            dependent.waiting.clear();
            if let Acknowledged::Revision(known) = &mut dependent.acknowledged {
                *known = revision;
            }
        }
    }

    /// Drops `ack` when all dependents have acknowledged the current list of a service.
    pub(super) fn await_acknowledged(&mut self, catalog: &Catalog, name: &str, ack: AckGuard) {
        let revision = catalog.list_revision(name);
        let acks: Arc<[AckGuard]> = Arc::new([ack.clone()]);
        if let Some(changed) = self.changed.get_mut(name) {
            changed.push(ack);
        }
        for key in catalog.dependents(name) {
            let behind = self.dependents.get_mut(&key).filter(|dependent| dependent.delivering);
            if let Some(dependent) = behind {
                dependent.wait(revision, &acks);
            }
        }
    }

    /// An incarnation is gone.
    pub(super) fn removed(&mut self, of: &Incarnation) {
        if self.get(of).is_some() {
            self.dependents.remove(&of.key);
        }
    }

    /// The list of a service has changed.
    pub(super) fn list_changed(&mut self, name: Arc<str>, ack: Option<AckGuard>) {
        self.changed.entry(name).or_default().extend(ack);
    }

    /// The dependents of changed lists, except for those to which a delivery is in flight: that one continues.
    pub(super) fn due(&mut self, catalog: &Catalog) -> Vec<Incarnation> {
        let mut due = Vec::new();
        for (name, acks) in std::mem::take(&mut self.changed) {
            let revision = catalog.list_revision(&name);
            let acks: Arc<[AckGuard]> = acks.into();
            for key in catalog.dependents(&name) {
                let Some(dependent) = self.dependents.get_mut(&key) else { continue };
                if !acks.is_empty() {
                    dependent.wait(revision, &acks);
                }
                due.extend(dependent.start(key));
            }
        }
        for key in std::mem::take(&mut self.returned) {
            due.extend(self.dependents.get_mut(&key).and_then(|dependent| dependent.start(key)));
        }
        due
    }

    /// The next requests to a dependent; `None` ends its delivery.
    pub(super) fn next(
        &mut self,
        catalog: &mut Catalog,
        to: &Incarnation,
        revision_of: impl Fn(u64) -> Revision,
    ) -> Option<Delivery> {
        let dependent = self.get(to)?;
        dependent.again = false;
        let Some(plan) = plan(catalog, &dependent.info, &dependent.acknowledged, revision_of) else {
            dependent.delivering = false;
            dependent.waiting.clear();
            return None;
        };
        let idle = dependent.idle.take().filter(|(since, _)| since.elapsed() < KEEP_IDLE);
        Some(Delivery { info: dependent.info.clone(), plan, idle: idle.map(|(_, idle)| idle) })
    }

    /// Records how many requests of a plan were acknowledged; returns whether there may be more to send.
    pub(super) fn delivered(
        &mut self,
        to: &Incarnation,
        plan: PushPlan,
        acknowledged: usize,
        idle: Option<IdleConn>,
    ) -> bool {
        let Some(dependent) = self.get(to) else { return false };
        dependent.idle = idle.map(|idle| (Instant::now(), idle));
        dependent.failing = acknowledged < plan.requests.len();
        if dependent.failing {
            dependent.acknowledged = dependent.acknowledged.after(&plan, acknowledged);
            return true;
        }
        dependent.release(plan.revision);
        match (&mut dependent.acknowledged, plan.then) {
            // The reply to a renewal may have had a newer revision.
            (Acknowledged::Revision(known), Acknowledged::Revision(then)) => *known = then.max(*known),
            (known, then) => *known = then,
        }
        dependent.delivering = dependent.again;
        dependent.again
    }

    /// When the first push to a dependent may be sent.
    pub(super) fn not_before(&mut self, to: &Incarnation) -> Option<Instant> {
        self.get(to).map(|dependent| dependent.not_before)
    }

    pub(super) fn counts(&self) -> DependentCounts {
        let mut counts =
            DependentCounts { dependents: self.dependents.len() as u64, delivering: 0, failing: 0 };
        for dependent in self.dependents.values() {
            counts.delivering += u64::from(dependent.delivering);
            counts.failing += u64::from(dependent.failing);
        }
        counts
    }

    fn get(&mut self, of: &Incarnation) -> Option<&mut Dependent> {
        self.dependents.get_mut(&of.key).filter(|known| known.incarnation == of.number)
    }
}

impl Dependent {
    /// The delivery to start, unless one is in flight: that one continues.
    fn start(&mut self, key: InstanceKey) -> Option<Incarnation> {
        if self.delivering {
            self.again = true;
            return None;
        }
        self.delivering = true;
        Some(Incarnation { key, number: self.incarnation })
    }

    /// Holds guards until it acknowledges a revision.
    fn wait(&mut self, revision: u64, acks: &Arc<[AckGuard]>) {
        self.waiting.retain(|(_, acks)| !is_abandoned(acks));
        self.waiting.push((revision, acks.clone()));
    }

    /// It has acknowledged everything up to a revision: releases the guards that wait for that.
    fn release(&mut self, revision: u64) {
        self.waiting.retain(|(until, acks)| *until > revision && !is_abandoned(acks));
    }
}

/// Whether nobody waits any more.
fn is_abandoned(acks: &[AckGuard]) -> bool {
    acks.iter().all(mpsc::Sender::is_closed)
}
