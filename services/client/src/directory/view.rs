//! Views: immutable states of the directory, and the rules by which one follows from another.

use std::collections::BTreeMap;
use std::sync::Arc;

use hubspoke_protocol::{InstanceState, Revision, ServiceInfo, ServiceLists};
use rand::Rng;
use rand::seq::IteratorRandom;

/// An immutable state of the directory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    services: BTreeMap<String, KnownInstances>,
    revision: Option<Revision>,
}

/// The instances of one service.
#[derive(Debug, Clone, Default, PartialEq)]
struct KnownInstances {
    revision: Option<Revision>,
    /// What callers see: the registry's current list, then what is carried over.
    list: Vec<Arc<ServiceInfo>>,
    /// How many at the end of `list` are carried over from the epoch before.
    carried: usize,
}

/// A push in `event` mode.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum InstanceEvent {
    Added(ServiceInfo),
    Removed(ServiceInfo),
}

impl KnownInstances {
    /// The registry's current list.
    fn current(&self) -> &[Arc<ServiceInfo>] {
        &self.list[..self.list.len() - self.carried]
    }

    /// Replaces the registry's current list. An instance in it is no longer carried over, so that it is gone when a
    /// later list omits it.
    fn replace(&mut self, current: Vec<Arc<ServiceInfo>>) {
        let mut carried = self.list.split_off(self.list.len() - self.carried);
        carried.retain(|old| !current.iter().any(|new| new.addr == old.addr));
        self.carried = carried.len();
        self.list = current;
        self.list.extend(carried);
    }

    fn drop_carried(&mut self) {
        self.list.truncate(self.list.len() - self.carried);
        self.carried = 0;
    }
}

impl View {
    /// The known instances of a service, or `None` if the registry has sent no list of it.
    pub fn instances(&self, service: &str) -> Option<&[Arc<ServiceInfo>]> {
        self.services.get(service).map(|known| known.list.as_slice())
    }

    /// Every known service with its instances, by name.
    pub fn services(&self) -> impl Iterator<Item = (&str, &[Arc<ServiceInfo>])> {
        self.services.iter().map(|(name, known)| (name.as_str(), known.list.as_slice()))
    }

    /// The newest revision in this view; `None` before the first, and with a core-only registry.
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// A random instance of a service, all with the same probability: one that is passing, or a suspect one if none
    /// is. Draining instances are never picked.
    pub fn pick(&self, service: &str) -> Option<Arc<ServiceInfo>> {
        self.pick_except(service, &[""; 0])
    }

    /// [`View::pick`] among the instances whose addresses are not in `tried`.
    pub fn pick_except(&self, service: &str, tried: &[impl AsRef<str>]) -> Option<Arc<ServiceInfo>> {
        self.pick_with(service, tried, &mut rand::rng())
    }

    pub(super) fn pick_with(
        &self,
        service: &str,
        tried: &[impl AsRef<str>],
        rng: &mut impl Rng,
    ) -> Option<Arc<ServiceInfo>> {
        let mut of = |state: InstanceState| {
            let list = self.instances(service)?.iter();
            list.filter(|instance| instance.state() == state)
                .filter(|instance| !tried.iter().any(|addr| addr.as_ref() == instance.addr))
                .choose(rng)
        };
        of(InstanceState::Passing).or_else(|| of(InstanceState::Suspect)).cloned()
    }

    /// Starts another epoch: everything known is carried over until the new epoch's lists replace it.
    pub(super) fn start_epoch(&mut self) {
        self.revision = None;
        for known in self.services.values_mut() {
            known.revision = None;
            known.carried = known.list.len();
        }
    }

    pub(super) fn drop_carried(&mut self) {
        self.services.values_mut().for_each(KnownInstances::drop_carried);
    }

    /// Drops the services that `lists` omits, except those of which a newer push has come.
    pub(super) fn retain(&mut self, lists: &ServiceLists, revision: Option<Revision>) {
        self.services.retain(|name, known| lists.0.contains_key(name) || is_older(revision, known.revision));
    }

    /// Replaces the list of each service that is not known at a newer revision.
    pub(super) fn set(&mut self, lists: ServiceLists, revision: Option<Revision>) {
        for (name, list) in lists.0 {
            let known = self.services.entry(name).or_default();
            if !is_older(revision, known.revision) {
                known.replace(list.into_iter().map(Arc::new).collect());
                known.revision = revision;
            }
        }
    }

    pub(super) fn apply(&mut self, event: InstanceEvent, revision: Option<Revision>) {
        let (InstanceEvent::Added(info) | InstanceEvent::Removed(info)) = &event;
        let known = self.services.entry(info.name.clone()).or_default();
        if is_older(revision, known.revision) {
            return;
        }
        let mut current = known.current().to_vec();
        match event {
            InstanceEvent::Added(info) => {
                current.retain(|other| other.addr != info.addr);
                current.push(Arc::new(info));
            }
            InstanceEvent::Removed(info) => {
                // The late removal of an older incarnation must not remove the newer one.
                let removed = |known: &ServiceInfo| {
                    known.addr == info.addr && (info.id.is_none() || known.id() == info.id())
                };
                current.retain(|other| !removed(other));
                let carried_from = known.current().len();
                let carried = known.list.split_off(carried_from).into_iter().filter(|other| !removed(other));
                known.list.extend(carried);
                known.carried = known.list.len() - carried_from;
            }
        }
        known.replace(current);
        known.revision = revision;
    }

    /// Notes that everything up to this revision is in the view.
    pub(super) fn advance(&mut self, revision: Option<Revision>) {
        if !is_older(revision, self.revision) {
            self.revision = revision;
        }
    }
}

/// Whether `new` is older than `known`: only within one epoch, and only if both are known.
fn is_older(new: Option<Revision>, known: Option<Revision>) -> bool {
    matches!((new, known), (Some(new), Some(known)) if new.epoch == known.epoch && new.n < known.n)
}
