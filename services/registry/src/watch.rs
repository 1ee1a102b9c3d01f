//! The watch stream: every change to whoever listens, and every second the load that heartbeats reported.
//!
//! A change is published once, rendered once, and shared by all watchers; the last ones are kept for those that
//! come back with the revision that they saw last. A watcher that does not read is cut off when it falls behind
//! what is kept for it, and counted: memory does not grow with slow watchers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hubspoke_chassis::server::Connection;
use hubspoke_protocol::{ChangeView, HeardView, InstanceState, InstanceView, Load, LoadView, Revision};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use crate::catalog::{Change, Key};
use crate::core::Core;
use crate::view::{self, Wall};

/// Events that a watcher may fall behind, before it is cut off.
const BACKLOG: usize = 1024;
/// Events on their way to one watcher's socket.
const ON_THE_WAY: usize = 16;
/// A watcher that takes nothing for this long is cut off.
const STUCK: Duration = Duration::from_secs(10);
/// How often a watcher that takes nothing is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A comment is sent after this long without an event, so that both sides notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Load goes out this often, and how many instances are held back.
const REPORT_EVERY: Duration = Duration::from_secs(1);

type Receiver = broadcast::Receiver<Arc<Event>>;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Watch {
    kept: Mutex<Kept>,
    events: broadcast::Sender<Arc<Event>>,
    heard: Mutex<HashMap<Key, Heard>>,
    protection_changed: AtomicBool,
    watchers: AtomicUsize,
    cut_off: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    changes: VecDeque<Arc<Event>>,
    most: usize,
}

/// An answered heartbeat.
#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Timestamp,
    load: Option<Load>,
}

/// One event, rendered at its first use.
#[derive(Debug)]
enum Event {
    Change {
        change: Change,
        text: OnceLock<Bytes>,
    },
    /// `text` is for those who want to see all.
    Load {
        heard: Vec<(Key, Heard)>,
        text: OnceLock<Bytes>,
    },
    Protection(Bytes),
}

impl Watch {
    pub(crate) fn new(changes: usize) -> Self {
        Self {
            kept: Mutex::new(Kept { changes: VecDeque::new(), most: changes }),
            events: broadcast::Sender::new(BACKLOG),
            heard: Mutex::default(),
            protection_changed: AtomicBool::new(false),
            watchers: AtomicUsize::new(0),
            cut_off: AtomicU64::new(0),
        }
    }

    /// Publishes a change. Called in the order of revisions.
    pub(crate) fn publish(&self, change: Change) {
        let mut kept = self.kept();
        let event = Arc::new(Event::Change { change, text: OnceLock::new() });
        kept.changes.push_back(event.clone());
        while kept.changes.len() > kept.most {
            kept.changes.pop_front();
        }
        // Fails only where nobody listens.
        let _ = self.events.send(event);
    }

    /// Something about self-protection is not what it was; it is published with the next report.
    pub(crate) fn protection_changed(&self) {
        self.protection_changed.store(true, Relaxed);
    }

    /// Publishes self-protection as it stands.
    pub(crate) fn publish_protection(&self, core: &Core) {
        let text = text("protection", None, &view::protection(core));
        let _ = self.events.send(Arc::new(Event::Protection(text)));
    }

    /// Takes note of an answered heartbeat, for the next `load` event.
    pub(crate) fn heard(&self, key: Key, load: Option<Load>) {
        if self.events.receiver_count() > 0 {
            let heard = Heard { at: Timestamp::now(), load };
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(key, heard);
        }
    }

    /// How many watch.
    pub(crate) fn watchers(&self) -> usize {
        self.watchers.load(Relaxed)
    }

    /// How many were cut off since the start.
    pub(crate) fn cut_off(&self) -> u64 {
        self.cut_off.load(Relaxed)
    }

    /// Reports what changes too often to be told each time, until it is dropped.
    pub(crate) async fn report(&self, core: &Core) {
        loop {
            tokio::time::sleep(REPORT_EVERY).await;
            if self.protection_changed.swap(false, Relaxed) {
                self.publish_protection(core);
            }
            let heard = std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner));
            if !heard.is_empty() {
                let load = Event::Load { heard: heard.into_iter().collect(), text: OnceLock::new() };
                let _ = self.events.send(Arc::new(load));
            }
        }
    }

    /// The kept changes after a revision; `None` where some of them are no longer kept.
    fn since(&self, n: u64, newest: u64) -> Option<Vec<Arc<Event>>> {
        let kept = self.kept();
        let is_newer = |event: &&Arc<Event>| event.revision().is_some_and(|revision| revision > n);
        let newer: Vec<_> = kept.changes.iter().filter(is_newer).cloned().collect();
        // Each change has a revision of its own, one after the other, so a gap shows in their number.
        let missed = newest.checked_sub(n)?;
        (u64::try_from(newer.len()) == Ok(missed)).then_some(newer)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which changes somebody wants to see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// These services; none means all.
    pub(crate) services: Vec<String>,
    /// The last event that it saw.
    pub(crate) last: Option<Revision>,
}

impl Wanted {
    fn wants(&self, name: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|service| service == name)
    }
}

/// Counts a watcher for as long as it is there.
struct Watcher(Arc<Core>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.watch.watchers.fetch_sub(1, Relaxed);
    }
}

/// Ends a task when whoever holds this is gone.
#[derive(Debug)]
pub(crate) struct Task(tokio::task::AbortHandle);

impl Task {
    /// Starts what ends when the task is dropped.
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts to send events to one watcher: the stream of their texts, and what ends it. `None` where too many watch.
/// `connection` is ended where the watcher does not read: it would not even take the stream's end.
pub(crate) fn start(
    core: &Arc<Core>,
    wanted: Wanted,
    most: usize,
    connection: Connection,
) -> Option<(mpsc::Receiver<Bytes>, Task)> {
    let before = core.watch.watchers.fetch_add(1, Relaxed);
    let watcher = Watcher(core.clone());
    if before >= most {
        return None;
    }
    let (to, from) = mpsc::channel(ON_THE_WAY);
    let task = tokio::spawn(async move {
        if send(&watcher.0, wanted, to).await == End::TooSlow {
            watcher.0.watch.cut_off.fetch_add(1, Relaxed);
            tracing::warn!("cut off a watcher that does not read");
            connection.end();
        }
    });
    Some((from, Task(task.abort_handle())))
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Gone,
    TooSlow,
}

async fn send(core: &Core, wanted: Wanted, to: mpsc::Sender<Bytes>) -> End {
    let mut events = core.watch.events.subscribe(); // from here on nothing is missed
    let mut seen = match resume(core, &wanted) {
        Some((texts, seen)) => {
            for text in texts {
                if let Err(end) = put(&to, &events, text).await {
                    return end;
                }
            }
            seen
        }
        None => {
            let (text, revision) = first(core, &wanted).await;
            if let Err(end) = put(&to, &events, text).await {
                return end;
            }
            revision
        }
    };
    loop {
        let text = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => event.text_for(core, &wanted, &mut seen),
                Err(broadcast::error::RecvError::Lagged(_)) => return End::TooSlow,
                Err(broadcast::error::RecvError::Closed) => return End::Gone,
            },
            () = tokio::time::sleep(KEEP_ALIVE) => Some(Bytes::from_static(b":\n\n")),
        };
        if let Some(text) = text
            && let Err(end) = put(&to, &events, text).await
        {
            return end;
        }
    }
}

/// Everything that a watcher wants to see, and its revision.
async fn first(core: &Core, wanted: &Wanted) -> (Bytes, u64) {
    let only = (!wanted.services.is_empty()).then_some(wanted.services.as_slice());
    let _turn = if only.is_none() { core.turn().await } else { None };
    let view = view::catalog(core, only);
    (text("snapshot", Some(view.revision), &view), view.revision.n)
}

/// Puts a text on its way; gives up on a watcher that takes nothing for too long, or falls too far behind.
async fn put(to: &mpsc::Sender<Bytes>, events: &Receiver, text: Bytes) -> Result<(), End> {
    let give_up = Instant::now() + STUCK;
    loop {
        match tokio::time::timeout(LOOK_EVERY, to.reserve()).await {
            Ok(Ok(place)) => {
                place.send(text);
                return Ok(());
            }
            Ok(Err(_)) => return Err(End::Gone),
            Err(_) if events.len() >= BACKLOG || Instant::now() >= give_up => return Err(End::TooSlow),
            Err(_) => {}
        }
    }
}

/// What a watcher has missed since it was last here, where all of that is still kept.
fn resume(core: &Core, wanted: &Wanted) -> Option<(Vec<Bytes>, u64)> {
    let last = wanted.last.filter(|last| last.epoch == core.revision().epoch)?;
    let (missed, newest) = core.read(|catalog, _| {
        let newest = catalog.revision();
        (core.watch.since(last.n, newest), newest)
    });
    let mut seen = last.n;
    let texts = missed?.iter().filter_map(|event| event.text_for(core, wanted, &mut seen)).collect();
    Some((texts, newest))
}

impl Event {
    fn revision(&self) -> Option<u64> {
        match self {
            Self::Change { change, .. } => Some(change.revision),
            Self::Load { .. } | Self::Protection(_) => None,
        }
    }

    /// The event as one watcher gets it, where it does; `seen` is the newest change that it has.
    fn text_for(&self, core: &Core, wanted: &Wanted, seen: &mut u64) -> Option<Bytes> {
        match self {
            Self::Change { change, text } => {
                if change.revision <= *seen {
                    return None; // the snapshot had it
                }
                *seen = change.revision;
                let wants = wanted.wants(&change.instance.info.name);
                wants.then(|| text.get_or_init(|| change_text(core, change)).clone())
            }
            Self::Load { heard, text } if wanted.services.is_empty() => {
                Some(text.get_or_init(|| load_text(heard)).clone())
            }
            Self::Load { heard, .. } => {
                let wants = |(key, _): &&(Key, Heard)| wanted.wants(&key.name);
                let mut heard = heard.iter().filter(wants).peekable();
                heard.peek().is_some().then(|| load_text(heard))
            }
            Self::Protection(text) => Some(text.clone()),
        }
    }
}

fn change_text(core: &Core, change: &Change) -> Bytes {
    let wall = core.read(|_, now| Wall::new(now));
    let view = view::instance(&change.instance, change.gone, wall);
    let last = view.reasons.last().cloned();
    let instance = InstanceView {
        state: if change.gone { InstanceState::Removed } else { view.state },
        reasons: last.into_iter().collect(),
        ..view
    };
    let revision = core.revision_of(change.revision);
    text("change", Some(revision), &ChangeView { revision, kind: change.kind, instance })
}

fn load_text<'a>(heard: impl IntoIterator<Item = &'a (Key, Heard)>) -> Bytes {
    let mut services: BTreeMap<String, BTreeMap<String, HeardView>> = BTreeMap::new();
    for (key, Heard { at, load }) in heard {
        let view = HeardView { last_heartbeat: format!("{at:.3}"), load: *load };
        services.entry(key.name.to_string()).or_default().insert(key.addr.to_string(), view);
    }
    text("load", None, &LoadView { services })
}

/// One server-sent event (HTML standard, "Server-sent events"). JSON holds no line ends, so one `data` line does.
fn text(kind: &str, id: Option<Revision>, data: &impl Serialize) -> Bytes {
    let mut out = format!("event: {kind}\n");
    if let Some(id) = id {
        let _ = writeln!(out, "id: {id}"); // a String takes everything
    }
    out.push_str("data: ");
    out.push_str(&serde_json::to_string(data).unwrap_or_default());
    out.push_str("\n\n");
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn load_is_rendered_once_for_all_who_want_everything() {
        let metrics = hubspoke_chassis::Metrics::new("registry", "test").unwrap();
        let (core, _orders) = Core::new(&Settings::default(), 1, &metrics);
        let at = Timestamp::UNIX_EPOCH;
        let load = Some(Load { requests: 1, in_flight: 0 });
        let heard = ["a", "b"].map(|name| (Key::new(name, "10.0.0.1:80"), Heard { at, load }));
        let event = Event::Load { heard: heard.into(), text: OnceLock::new() };
        let text = |services: &[&str]| {
            let services = services.iter().map(|&name| name.to_owned()).collect();
            event.text_for(&core, &Wanted { services, last: None }, &mut 0)
        };
        let (one, two) = (text(&[]).unwrap(), text(&[]).unwrap());
        assert_eq!(one.as_ptr(), two.as_ptr());
        let filtered = text(&["b"]).unwrap();
        assert!(
            filtered.len() < one.len() && filtered.starts_with(b"event: load\ndata: {\"Services\":{\"b\"")
        );
        assert_eq!(text(&["c"]), None);
    }
}
