//! The directory: this process's last-known view of the instances it depends on, and the random pick.
//!
//! It never waits for the registry: a stale answer beats none. A reader takes an immutable [`View`] and keeps it
//! for as long as it likes; a writer replaces the view as a whole. What the registry stamps with a revision is
//! applied only where it is not older than what is here, list by list; what a core-only registry sends has no
//! stamp and is applied in the order it arrives. A registry that has lost its state knows at first only the few
//! members that have come back, so across a change of epoch what was known before is kept beside what is told
//! now, until it is told of again or its grace is over. Left out: health of our own making (the gateway ejects, we don't).

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rand::Rng;
use rand::seq::IteratorRandom;

use hubspoke_protocol::{InstanceState, Revision, ServiceInfo, ServiceLists, Snapshot};

/// Most events that are remembered while a registration is under way.
const MAX_MEANWHILE: usize = 1024;

/// One immutable state of the directory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    services: BTreeMap<String, Instances>,
    revision: Option<Revision>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Instances {
    revision: Option<Revision>,
    /// What callers see: what the registry told, then what is kept.
    list: Vec<Arc<ServiceInfo>>,
    /// How many at the end of `list` are kept from the epoch before.
    kept: usize,
}

impl Instances {
    /// Replaces what the registry told; what it now tells of is no longer merely kept, so that its later absence
    /// counts.
    fn tell(&mut self, told: Vec<Arc<ServiceInfo>>) {
        let mut kept = self.list.split_off(self.list.len() - self.kept);
        kept.retain(|old| !told.iter().any(|new| new.addr == old.addr));
        self.kept = kept.len();
        self.list = told;
        self.list.extend(kept);
    }

    fn told(&self) -> &[Arc<ServiceInfo>] {
        &self.list[..self.list.len() - self.kept]
    }
}

impl View {
    /// The known instances of a service; `None` where the service is not known at all.
    pub fn instances(&self, service: &str) -> Option<&[Arc<ServiceInfo>]> {
        self.services.get(service).map(|instances| instances.list.as_slice())
    }

    /// Every known service with its instances, by name.
    pub fn services(&self) -> impl Iterator<Item = (&str, &[Arc<ServiceInfo>])> {
        self.services.iter().map(|(name, instances)| (name.as_str(), instances.list.as_slice()))
    }

    /// The newest revision that this view has seen; `None` before the first, and with a core-only registry.
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// A uniformly random instance of `service` whose address is not in `tried`. Suspects are picked only where
    /// no passing one is left, draining instances never.
    pub fn pick<A: AsRef<str>>(
        &self,
        service: &str,
        tried: &[A],
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
}

/// One change as a push in `event` mode tells it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Added(ServiceInfo),
    Removed(ServiceInfo),
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It was newer and is in the view, or it was older and the view stays as it is.
    UpToDate,
    /// It is of another epoch: only a renewal can tell what is true now.
    OtherEpoch,
}

/// The shared handle on the current [`View`]. Cloning it is cheap; all clones see the same view.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    view: Arc<RwLock<Arc<View>>>,
    /// While a registration is under way: the events that arrived meanwhile. A core-only registry's reply may
    /// have been written before them, so they are applied again on top of it. Bounded by the request's timeout, and
    /// by count, since before the first reply anybody may send some.
    meanwhile: Arc<Mutex<Option<Vec<Event>>>>,
    followers: Arc<Followers>,
}

/// Who acts on views, and has to have each before it counts as taken. A function of a view is one.
pub trait Follower: Send + Sync {
    /// Takes the next view. Must return soon, and not call the directory.
    fn take(&self, view: &View);

    /// Done when what the views so far have changed has come through: nothing more goes to an instance that they have
    /// removed. Must be bounded, well below the second that a registry waits.
    fn settled(&self) -> Settled {
        Box::pin(std::future::ready(()))
    }
}

/// See [`Follower::settled`].
pub type Settled = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<F: Fn(&View) + Send + Sync> Follower for F {
    fn take(&self, view: &View) {
        self(view);
    }
}

/// Locked throughout a change, so that changes follow one another while readers of the view wait for none. Lock order:
/// this, the view, `meanwhile`.
#[derive(Default)]
struct Followers(Mutex<Vec<Arc<dyn Follower>>>);

impl std::fmt::Debug for Followers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Followers").finish_non_exhaustive()
    }
}

impl Followers {
    fn list(&self) -> MutexGuard<'_, Vec<Arc<dyn Follower>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory {
    /// The view as it is now.
    pub fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands the present view and every later one to `follower`, in order and before a push that brought it is
    /// acknowledged: who deregisters an instance and is answered can rely on it that `follower` knows.
    pub fn follow(&self, follower: Arc<dyn Follower>) {
        let mut followers = self.followers.list();
        follower.take(&self.view());
        followers.push(follower);
    }

    /// Done when all followers have settled.
    pub(crate) async fn settled(&self) {
        let followers: Vec<Settled> =
            self.followers.list().iter().map(|follower| follower.settled()).collect();
        for settled in followers {
            settled.await;
        }
    }

    /// [`View::pick`] on the current view.
    pub fn pick<A: AsRef<str>>(
        &self,
        service: &str,
        tried: &[A],
        rng: &mut impl Rng,
    ) -> Option<Arc<ServiceInfo>> {
        self.view().pick(service, tried, rng)
    }

    /// From here to [`Directory::registered`], events are remembered.
    pub(crate) fn registering(&self) {
        *self.meanwhile() = Some(Vec::new());
    }

    /// The registration did not come through.
    pub(crate) fn not_registered(&self) {
        *self.meanwhile() = None;
    }

    /// Takes the reply to a registration: the whole truth at its revision. Says whether it is of another epoch
    /// than what was known, so that something may be kept which [`Directory::forget`] must end.
    pub(crate) fn registered(&self, lists: ServiceLists, revision: Option<Revision>) -> bool {
        let mut other_epoch = false;
        self.change(|view| {
            // Taken within the change: an event that comes now is either among these or applied after it.
            let meanwhile = self.meanwhile().take().unwrap_or_default();
            other_epoch = view.revision.map(|known| known.epoch) != revision.map(|new| new.epoch);
            if other_epoch {
                view.keep();
            } else {
                // Names that the reply leaves out are gone, but for those that a later push has told of.
                view.services
                    .retain(|name, known| lists.0.contains_key(name) || is_older(revision, known.revision));
            }
            for (name, list) in lists.0 {
                view.set(name, list, revision);
            }
            view.seen(revision);
            if revision.is_none() {
                meanwhile.into_iter().for_each(|event| view.apply(event, None));
            }
        });
        other_epoch
    }

    /// The grace after a change of epoch is over: by now every member has renewed.
    pub(crate) fn forget(&self) {
        self.change(|view| {
            for instances in view.services.values_mut() {
                instances.list.truncate(instances.told().len());
                instances.kept = 0;
            }
        });
    }

    /// Takes a push in `snapshot` mode.
    pub(crate) fn snapshot(&self, snapshot: Snapshot) -> Applied {
        self.stamped(snapshot.revision, |view| {
            for (name, list) in snapshot.services.0 {
                view.set(name, list, Some(snapshot.revision));
            }
        })
    }

    /// Takes a push in `event` mode.
    pub(crate) fn event(&self, event: Event, revision: Option<Revision>) -> Applied {
        if let Some(revision) = revision {
            return self.stamped(revision, |view| view.apply(event, Some(revision)));
        }
        self.remember(&event);
        self.change(|view| view.apply(event, None));
        Applied::UpToDate
    }

    /// Remembers an event for the end of the registration that is under way; says whether there is one
    /// with room for it.
    pub(crate) fn remember(&self, event: &Event) -> bool {
        match self.meanwhile().as_mut() {
            Some(events) if events.len() < MAX_MEANWHILE => {
                events.push(event.clone());
                true
            }
            _ => false,
        }
    }

    fn stamped(&self, revision: Revision, change: impl FnOnce(&mut View)) -> Applied {
        let mut applied = Applied::OtherEpoch;
        self.change(|view| {
            if view.revision.map(|known| known.epoch) == Some(revision.epoch) {
                change(view);
                view.seen(Some(revision));
                applied = Applied::UpToDate;
            }
        });
        applied
    }

    /// Replaces the view by a changed copy; tells followers where an instance differs.
    fn change(&self, change: impl FnOnce(&mut View)) {
        let followers = self.followers.list();
        let before = self.view();
        let mut next = View::clone(&before);
        change(&mut next);
        let next = Arc::new(next);
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = next.clone();
        if next.services().ne(before.services()) {
            followers.iter().for_each(|follower| follower.take(&next));
        }
    }

    fn meanwhile(&self) -> MutexGuard<'_, Option<Vec<Event>>> {
        self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    /// Another epoch begins: everything known is kept, and nothing is told yet.
    fn keep(&mut self) {
        self.revision = None;
        for instances in self.services.values_mut() {
            instances.revision = None;
            instances.kept = instances.list.len();
        }
    }

    fn set(&mut self, name: String, list: Vec<ServiceInfo>, revision: Option<Revision>) {
        let known = self.services.entry(name).or_default();
        if is_older(revision, known.revision) {
            return;
        }
        known.tell(list.into_iter().map(Arc::new).collect());
        known.revision = revision;
    }

    fn apply(&mut self, event: Event, revision: Option<Revision>) {
        let (Event::Added(info) | Event::Removed(info)) = &event;
        let known = self.services.entry(info.name.clone()).or_default();
        if is_older(revision, known.revision) {
            return;
        }
        let mut told = known.told().to_vec();
        match event {
            Event::Added(info) => {
                told.retain(|other| other.addr != info.addr);
                told.push(Arc::new(info));
            }
            // An older start's removal, late, must not take the newer start with it.
            Event::Removed(info) => {
                let gone = |known: &ServiceInfo| {
                    known.addr == info.addr && (info.id.is_none() || known.id() == info.id())
                };
                told.retain(|other| !gone(other));
                let told_before = known.told().len();
                let kept = known.list.split_off(told_before).into_iter().filter(|other| !gone(other));
                known.list.extend(kept);
                known.kept = known.list.len() - told_before;
            }
        }
        known.tell(told);
        known.revision = revision;
    }

    fn seen(&mut self, revision: Option<Revision>) {
        if !is_older(revision, self.revision) {
            self.revision = revision;
        }
    }
}

/// Whether `new` is older than `known`. Both are of one epoch, or one of them has no stamp.
fn is_older(new: Option<Revision>, known: Option<Revision>) -> bool {
    matches!((new, known), (Some(new), Some(known)) if new.epoch == known.epoch && new.n < known.n)
}

#[cfg(test)]
mod tests;
