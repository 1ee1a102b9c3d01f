//! The stream to one watcher.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use hubspoke_chassis::server::ConnectionHandle;
use hubspoke_protocol::sse;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::event::{WatchEvent, WatchFilter, snapshot};
use super::feed::{BACKLOG, ChangeFeed};

/// Events buffered between this task and the watcher's connection.
const BUFFER: usize = 16;
/// A watcher that takes nothing for this long is disconnected.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a watcher that takes nothing is checked.
const STALL_CHECK: Duration = Duration::from_millis(200);
/// A comment is sent after this long without an event, so that both sides notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Counts a watcher while it is connected.
struct CountedWatcher(Arc<ChangeFeed>);

impl Drop for CountedWatcher {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Relaxed);
    }
}

/// Why the stream to a watcher ended.
enum StreamEnd {
    Disconnected,
    TooSlow,
    /// Too much memory is held by others; the watcher reconnects.
    Overloaded,
}

/// Starts a stream: its events as text, and the task that sends them. `None` if there are `max` watchers already.
/// A watcher that does not read would not take the end of the stream either, so its `connection` is closed.
pub(crate) fn start(
    feed: &Arc<ChangeFeed>,
    filter: WatchFilter,
    max: usize,
    connection: ConnectionHandle,
) -> Option<(mpsc::Receiver<Bytes>, AbortOnDropHandle<()>)> {
    let before = feed.watchers.fetch_add(1, Relaxed);
    let watcher = CountedWatcher(feed.clone());
    if before >= max {
        return None;
    }
    let (sender, receiver) = mpsc::channel(BUFFER);
    let task = tokio::spawn(async move {
        if let Err(StreamEnd::TooSlow) = send(&watcher.0, &filter, &sender).await {
            watcher.0.cut_off.fetch_add(1, Relaxed);
            tracing::warn!("disconnected a watcher that does not read");
            connection.close();
        }
    });
    Some((receiver, AbortOnDropHandle::new(task)))
}

/// Sends events until the stream ends.
async fn send(
    feed: &ChangeFeed,
    filter: &WatchFilter,
    to: &mpsc::Sender<Bytes>,
) -> Result<Infallible, StreamEnd> {
    let mut events = feed.events.subscribe(); // before the snapshot, so that nothing is missed between the two
    feed.has_new_watchers.store(true, Relaxed);
    let (texts, included) = match resume(feed, filter) {
        Some(resumed) => resumed,
        None => {
            let (text, revision) = snapshot(&feed.catalog, filter).await.ok_or(StreamEnd::Overloaded)?;
            (vec![text], revision)
        }
    };
    for text in texts {
        put(to, &events, text).await?;
    }
    loop {
        let text = tokio::select! {
            event = events.recv() => match event {
                Ok(event) if matches!(*event, WatchEvent::Restarted) => return Err(StreamEnd::Disconnected),
                Ok(event) => event.text_for(&feed.catalog, filter, included),
                Err(RecvError::Lagged(_)) => return Err(StreamEnd::TooSlow),
                Err(RecvError::Closed) => return Err(StreamEnd::Disconnected),
            },
            () = sleep(KEEP_ALIVE) => Some(sse::comment("").into()),
        };
        if let Some(text) = text {
            put(to, &events, text).await?;
        }
    }
}

/// Puts a text into the buffer. Gives up on a watcher that takes nothing for too long, or falls too far behind.
async fn put(
    to: &mpsc::Sender<Bytes>,
    events: &broadcast::Receiver<Arc<WatchEvent>>,
    text: Bytes,
) -> Result<(), StreamEnd> {
    let give_up = Instant::now() + STALL_TIMEOUT;
    loop {
        match timeout(STALL_CHECK, to.reserve()).await {
            Ok(Ok(permit)) => {
                permit.send(text);
                return Ok(());
            }
            Ok(Err(_)) => return Err(StreamEnd::Disconnected),
            Err(_) if events.len() >= BACKLOG || Instant::now() >= give_up => {
                return Err(StreamEnd::TooSlow);
            }
            Err(_) => {}
        }
    }
}

/// The changes that a watcher missed since it was last connected, if all are still kept, and the newest revision.
fn resume(feed: &ChangeFeed, filter: &WatchFilter) -> Option<(Vec<Bytes>, u64)> {
    let last = filter.last.filter(|last| last.epoch == feed.catalog.revision().epoch)?;
    let (missed, newest) = feed.catalog.with(|catalog, _| {
        let newest = catalog.revision();
        (feed.since(last.n, newest), newest)
    });
    let texts = missed?.iter().filter_map(|event| event.text_for(&feed.catalog, filter, 0)).collect();
    Some((texts, newest))
}
