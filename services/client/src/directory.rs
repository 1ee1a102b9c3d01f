//! The directory: the last known instances of the services that this process requires.
//!
//! Reading never waits for the registry: a stale answer beats none. A reader takes an immutable [`View`] and keeps
//! it for as long as it likes; a change replaces the view as a whole.
//!
//! Lists that the registry stamps with a revision are applied only if they are not older than what is known, service
//! by service. A core-only registry sends no revisions, so its lists and events are applied in order of arrival.
//! A registry that has lost its state knows only the few members that have come back, so when the epoch changes, the
//! instances known before are carried over until the new epoch's lists contain them or a grace period is over.
//!
//! The directory does not judge the health of instances by itself; the gateway does, by ejecting them.

use std::sync::Arc;

use hubspoke_protocol::{Revision, ServiceInfo, ServiceLists, Snapshot};
use parking_lot::{Mutex, RwLock};

use self::follower::Followers;
pub(crate) use self::view::InstanceEvent;

pub use self::follower::{DirectoryFollower, Settled};
pub use self::view::View;

mod follower;
mod view;

/// Most events that are buffered during a registration.
const MAX_BUFFERED_EVENTS: usize = 1024;

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The view contains it, or something newer.
    UpToDate,
    /// It is of another epoch and was ignored: only a renewal can bring the view up to date.
    OtherEpoch,
}

/// A shared handle on the current [`View`]. Clones are cheap and see the same view.
///
/// A [`Member`](crate::Member) keeps its directory up to date. A program without a registry can make one from fixed
/// lists:
///
/// ```
/// use hubspoke_client::Directory;
/// use hubspoke_protocol::{ServiceInfo, ServiceLists};
///
/// let instances = ["10.0.0.7:20002", "10.0.0.8:20002"].map(|addr| ServiceInfo::new("log", addr));
/// let directory = Directory::from(ServiceLists([("log".to_owned(), instances.into())].into()));
/// let first = directory.pick("log").expect("two instances");
/// // If the first one fails, another one:
/// let second = directory.pick_except("log", &[&first.addr]).expect("one instance");
/// assert_ne!(first.addr, second.addr);
/// assert_eq!(directory.pick_except("log", &[&first.addr, &second.addr]), None);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Directory {
    // Lock order: `followers`, `buffered`, `view`.
    followers: Arc<Followers>,
    /// Events that arrived during the registration in progress; `None` if there is none. A core-only registry may have
    /// written its answer before them, so they are applied again on top of it.
    buffered: Arc<Mutex<Option<Vec<InstanceEvent>>>>,
    view: Arc<RwLock<Arc<View>>>,
}

impl From<ServiceLists> for Directory {
    fn from(lists: ServiceLists) -> Self {
        let directory = Self::default();
        directory.apply_registration(lists, None);
        directory
    }
}

impl Directory {
    /// The current view.
    pub fn view(&self) -> Arc<View> {
        self.view.read().clone()
    }

    /// Replaces all lists, for a program that finds instances by itself instead of being a member.
    pub fn replace(&self, lists: ServiceLists) {
        self.apply_registration(lists, None);
    }

    /// [`View::pick`] on the current view.
    pub fn pick(&self, service: &str) -> Option<Arc<ServiceInfo>> {
        self.view().pick(service)
    }

    /// [`View::pick_except`] on the current view.
    pub fn pick_except(&self, service: &str, tried: &[impl AsRef<str>]) -> Option<Arc<ServiceInfo>> {
        self.view().pick_except(service, tried)
    }

    /// Gives the current view and every later one to `follower`, in order. A push is acknowledged only after the
    /// followers have its view and have [settled](DirectoryFollower::settled), so whoever deregisters an instance and
    /// gets an answer can rely on it that no follower uses that instance any more.
    ///
    /// ```
    /// # use hubspoke_protocol::ServiceLists;
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    ///
    /// use hubspoke_client::Directory;
    /// use hubspoke_client::directory::View;
    ///
    /// # let directory = Directory::from(serde_json::from_str::<ServiceLists>(r#"{"log":[{"Name":"log","Addr":"a:1"}]}"#)?);
    /// let known = Arc::new(AtomicUsize::new(0));
    /// let count = known.clone();
    /// directory.follow(Arc::new(move |view: &View| {
    ///     count.store(view.instances("log").map_or(0, |list| list.len()), Relaxed);
    /// }));
    /// assert_eq!(known.load(Relaxed), 1, "the current view comes first");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn follow(&self, follower: Arc<dyn DirectoryFollower>) {
        let mut followers = self.followers.lock();
        follower.update(&self.view());
        followers.push(follower);
    }

    /// Completes when all followers have settled.
    pub(crate) async fn settled(&self) {
        let followers: Vec<Settled> =
            self.followers.lock().iter().map(|follower| follower.settled()).collect();
        for settled in followers {
            settled.await;
        }
    }

    /// Starts a registration: until it is over, events are buffered.
    pub(crate) fn begin_registration(&self) {
        *self.buffered.lock() = Some(Vec::new());
    }

    /// Ends a registration that has failed.
    pub(crate) fn abandon_registration(&self) {
        *self.buffered.lock() = None;
    }

    /// Ends a registration with its answer: the lists of all required services at `revision`. Returns whether the
    /// epoch has changed, so that [`Directory::drop_carried`] is due after the grace period.
    pub(crate) fn apply_registration(&self, lists: ServiceLists, revision: Option<Revision>) -> bool {
        let mut other_epoch = false;
        self.change(|view| {
            // Taken within the change: an event that comes now is either among these or applied after it.
            let buffered = self.buffered.lock().take().unwrap_or_default();
            other_epoch = view.revision().map(|known| known.epoch) != revision.map(|new| new.epoch);
            if other_epoch {
                view.start_epoch();
            } else {
                view.retain(&lists, revision);
            }
            view.set(lists, revision);
            view.advance(revision);
            if revision.is_none() {
                buffered.into_iter().for_each(|event| view.apply(event, None));
            }
        });
        other_epoch
    }

    /// Drops the instances that are carried over: the grace period is over, and every member has had time to renew.
    pub(crate) fn drop_carried(&self) {
        self.change(View::drop_carried);
    }

    /// Applies a push in `snapshot` mode.
    pub(crate) fn apply_snapshot(&self, snapshot: Snapshot) -> Applied {
        let revision = snapshot.revision;
        self.change_at(revision, |view| view.set(snapshot.services, Some(revision)))
    }

    /// Applies a push in `event` mode.
    pub(crate) fn apply_event(&self, event: InstanceEvent, revision: Option<Revision>) -> Applied {
        if let Some(revision) = revision {
            return self.change_at(revision, |view| view.apply(event, Some(revision)));
        }
        self.buffer(&event);
        self.change(|view| view.apply(event, None));
        Applied::UpToDate
    }

    /// Buffers an event until the registration in progress is over. Returns false if there is none, or no room.
    pub(crate) fn buffer(&self, event: &InstanceEvent) -> bool {
        match self.buffered.lock().as_mut() {
            Some(events) if events.len() < MAX_BUFFERED_EVENTS => {
                events.push(event.clone());
                true
            }
            _ => false,
        }
    }

    /// [`Directory::change`], if the view is of the same epoch as `revision`.
    fn change_at(&self, revision: Revision, change: impl FnOnce(&mut View)) -> Applied {
        let mut applied = Applied::OtherEpoch;
        self.change(|view| {
            if view.revision().map(|known| known.epoch) == Some(revision.epoch) {
                change(view);
                view.advance(Some(revision));
                applied = Applied::UpToDate;
            }
        });
        applied
    }

    /// Replaces the view by a changed copy. Followers get it if an instance differs.
    fn change(&self, change: impl FnOnce(&mut View)) {
        let followers = self.followers.lock();
        let before = self.view();
        let mut next = View::clone(&before);
        change(&mut next);
        let next = Arc::new(next);
        *self.view.write() = next.clone();
        if next.services().ne(before.services()) {
            followers.iter().for_each(|follower| follower.update(&next));
        }
    }
}

#[cfg(test)]
mod tests;
