//! Sending entries in the background, from a bounded queue.
//!
//! An entry is lost only if the queue is full, or if no log instance takes it for [`GIVE_UP_AFTER`]. Lost entries are
//! counted, and an entry reports their number as soon as something can be sent again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::batcher::batch_len;
use super::client::{LOG_SERVICE, LogClient, random_key};
use super::copies::FewerCopies;
use super::error::{AttemptError, entry_at_fault};
use super::post::{PendingEntry, takes_batches};

/// How long a batch is tried before its entries are lost.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// Pause after every known instance has failed. Doubled after each round.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between rounds.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// An entry for a [`LogQueue`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogEntry {
    /// Any text except the empty one.
    pub text: String,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: Option<&'static str>,
    /// Further fields, for programs that read the log.
    pub fields: Map<String, Value>,
    /// When it happened (RFC 3339), if that was before it is sent.
    pub time: Option<String>,
    /// The trace that it belongs to, as 32 hexadecimal digits. Unset: the current one.
    pub trace_id: Option<String>,
}

impl From<String> for LogEntry {
    fn from(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

impl From<&str> for LogEntry {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// The queue is full. The entry is lost, and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue of log entries is full")]
pub struct QueueFull;

/// Sends entries in the background. Dropping it drops the entries that are queued: [`LogQueue::flush`] first.
///
/// ```
/// use std::time::Duration;
///
/// use hubspoke_client::log::LogQueue;
/// # use hubspoke_client::{Directory, LogClient};
/// # use hubspoke_protocol::{ServiceInfo, ServiceLists};
/// # use hubspoke_testkit::FakeLog;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let log = FakeLog::start().await;
/// # let directory = Directory::from(ServiceLists([("log".to_owned(), vec![log.batch_info()])].into()));
/// # let client = LogClient::new(directory, &ServiceInfo::new("greeter", "10.0.0.7:8080"))?;
/// // With a `LogClient` that is …
/// let queue = LogQueue::start(client, 1 << 20);
/// queue.push("started")?;
/// queue.push("hello, ada")?;
/// let unsent = queue.flush(Duration::from_secs(5)).await;
/// assert_eq!(unsent, 0);
/// # assert_eq!(log.texts(), ["started", "hello, ada"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LogQueue {
    shared: Arc<QueueShared>,
    _sender: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct QueueShared {
    state: Mutex<QueueState>,
    filled: Notify,
    emptied: Notify,
    /// A batch has ended, so there is room.
    has_room: Notify,
    limit: usize,
}

#[derive(Debug, Default)]
struct QueueState {
    queued: VecDeque<PendingEntry>,
    /// Size of the entries that are queued or being sent.
    bytes: usize,
    /// Entries being sent.
    sending: usize,
    lost: u64,
}

/// Adds entries to a [`LogQueue`].
#[derive(Debug, Clone)]
pub struct Pusher(Arc<QueueShared>);

impl LogQueue {
    /// A queue of at most `limit` bytes. Must be called on a tokio runtime.
    pub fn start(client: LogClient, limit: usize) -> Self {
        let shared = Arc::new(QueueShared {
            state: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            has_room: Notify::new(),
            limit,
        });
        let sender = tokio::spawn(send_all(Arc::clone(&shared), client));
        Self { shared, _sender: AbortOnDropHandle::new(sender) }
    }

    /// Adds an entry. It is sent at once, or together with others after the batch that is being sent.
    ///
    /// # Errors
    /// [`QueueFull`].
    pub fn push(&self, entry: impl Into<LogEntry>) -> Result<(), QueueFull> {
        self.shared.push(entry.into())
    }

    /// Adds an entry as soon as there is room for it.
    pub async fn push_wait(&self, entry: impl Into<LogEntry>) {
        let mut entry = pending(entry.into());
        loop {
            let has_room = self.shared.has_room.notified();
            match self.shared.add_if_room(entry) {
                Ok(()) => return,
                Err(back) => entry = back,
            }
            has_room.await;
        }
    }

    /// A handle that adds entries.
    pub fn pusher(&self) -> Pusher {
        Pusher(Arc::clone(&self.shared))
    }

    /// Waits until every entry is stored or lost, at most for `timeout`. Returns how many are left.
    pub async fn flush(&self, timeout: Duration) -> usize {
        let deadline = Instant::now() + timeout;
        loop {
            let emptied = self.shared.emptied.notified();
            let left = self.shared.state.lock().left();
            if left == 0 || timeout_at(deadline, emptied).await.is_err() {
                return left;
            }
        }
    }

    /// Entries that were lost and are not reported yet.
    pub fn lost(&self) -> u64 {
        self.shared.state.lock().lost
    }
}

impl Pusher {
    /// [`LogQueue::push`].
    ///
    /// # Errors
    /// [`QueueFull`].
    pub fn push(&self, entry: impl Into<LogEntry>) -> Result<(), QueueFull> {
        self.0.push(entry.into())
    }
}

impl QueueState {
    fn left(&self) -> usize {
        self.queued.len() + self.sending
    }
}

impl QueueShared {
    fn push(&self, entry: LogEntry) -> Result<(), QueueFull> {
        let entry = pending(entry);
        let mut state = self.state.lock();
        if state.bytes + memory(&entry) > self.limit {
            state.lost += 1;
            return Err(QueueFull);
        }
        self.add(state, entry);
        Ok(())
    }

    fn add(&self, mut state: MutexGuard<'_, QueueState>, entry: PendingEntry) {
        state.bytes += memory(&entry);
        state.queued.push_back(entry);
        drop(state);
        self.filled.notify_one();
    }

    /// Adds an entry if there is room; one that is larger than the whole queue fits an empty one.
    fn add_if_room(&self, entry: PendingEntry) -> Result<(), PendingEntry> {
        let state = self.state.lock();
        if state.left() > 0 && state.bytes + memory(&entry) > self.limit {
            return Err(entry);
        }
        self.add(state, entry);
        Ok(())
    }

    fn next_batch(&self) -> Vec<PendingEntry> {
        let mut state = self.state.lock();
        let count = batch_len(state.queued.iter().map(memory));
        state.sending = count;
        state.queued.drain(..count).collect()
    }

    /// Ends a batch: every entry was stored, except `lost` of them.
    fn finish(&self, batch: &[PendingEntry], lost: u64) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(batch.iter().map(memory).sum());
        state.sending = 0;
        state.lost += lost;
        let empty = state.left() == 0;
        drop(state);
        self.has_room.notify_waiters();
        if empty {
            self.emptied.notify_waiters();
        }
    }
}

fn pending(entry: LogEntry) -> PendingEntry {
    let LogEntry { text, level, fields, time, trace_id } = entry;
    let mut trace = HeaderMap::new();
    if trace_id.is_none() {
        crate::trace::inject(&mut trace);
    }
    PendingEntry { text, level, fields, time, trace_id, trace, key: Some(random_key()) }
}

/// Approximate memory of an entry, in bytes.
fn memory(entry: &PendingEntry) -> usize {
    size_of::<PendingEntry>() + entry.text.len() + object_memory(&entry.fields)
}

fn object_memory(object: &Map<String, Value>) -> usize {
    object.iter().map(|(key, value)| key.len() + value_memory(value)).sum()
}

fn value_memory(value: &Value) -> usize {
    16 + match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(value_memory).sum(),
        Value::Object(object) => object_memory(object),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

async fn send_all(shared: Arc<QueueShared>, client: LogClient) {
    loop {
        let filled = shared.filled.notified();
        let batch = shared.next_batch();
        if batch.is_empty() {
            filled.await;
            continue;
        }
        let lost = deliver(&client, &batch).await;
        shared.finish(&batch, lost);
        let unreported = std::mem::take(&mut shared.state.lock().lost);
        if unreported > 0 {
            let report = PendingEntry {
                text: format!("{unreported} log entries were lost"),
                level: Some("warn"),
                key: Some(random_key()),
                ..PendingEntry::default()
            };
            if lost > 0 || deliver(&client, &[report]).await > 0 {
                shared.state.lock().lost += unreported;
            }
        }
    }
}

/// Stores a batch, on several instances if there should be copies. Returns how many of its entries are lost. One copy is
/// enough for the others, which are counted if there are fewer than there should be: nobody waits for this queue.
async fn deliver(client: &LogClient, batch: &[PendingEntry]) -> u64 {
    let mut holders = Vec::new();
    let lost = deliver_copy(client, batch, &mut holders, true).await;
    for _ in 1..client.copies.count() {
        let patient = client.copies.fewer() == FewerCopies::Refuse;
        let missing = deliver_copy(client, batch, &mut holders, patient).await;
        client.count_short(missing.saturating_sub(lost));
    }
    lost
}

/// Sends a batch to one instance after another, except `holders` of other copies, until all entries are stored. Adds
/// those that have stored any. Returns how many entries are not stored; unless `patient` it does not wait for instances.
async fn deliver_copy(
    client: &LogClient,
    batch: &[PendingEntry],
    holders: &mut Vec<String>,
    patient: bool,
) -> u64 {
    let deadline = Instant::now() + GIVE_UP_AFTER;
    let mut left: Vec<&PendingEntry> = batch.iter().collect();
    // A batch as a whole has another key after a part of it was stored, so copies are recognized entry by entry.
    let keyed_as_batch = client.copies.count() == 1;
    let mut key = random_key();
    let mut lost = 0;
    let mut tried = holders.clone();
    let mut pause = PAUSE;
    loop {
        if let Some(instance) = client.directory.pick_except(LOG_SERVICE, &tried) {
            let outcomes = if takes_batches(&instance) {
                let key = keyed_as_batch.then_some(key.as_str());
                client.batchers.poster.batch(&instance.addr, left.iter().copied(), key).await
            } else {
                one_by_one(client, &instance.addr, &left).await
            };
            let before = left.len();
            let refused_before = lost;
            let mut outcomes = outcomes.into_iter();
            left.retain(|_| match outcomes.next() {
                Some(Ok(status)) if entry_at_fault(status) => {
                    lost += 1;
                    false
                }
                Some(Ok(status)) => !status.is_success(),
                _ => true,
            });
            if before as u64 > left.len() as u64 + (lost - refused_before) {
                holders.push(instance.addr.clone());
            }
            if left.is_empty() {
                return lost;
            }
            if left.len() < before {
                key = random_key(); // what is left is another batch
            }
            tried.push(instance.addr.clone());
            continue;
        }
        if !patient || Instant::now() + pause > deadline {
            return lost + left.len() as u64;
        }
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
        tried.clone_from(holders);
    }
}

async fn one_by_one(
    client: &LogClient,
    addr: &str,
    entries: &[&PendingEntry],
) -> Vec<Result<StatusCode, AttemptError>> {
    let mut outcomes = Vec::new();
    for entry in entries {
        outcomes.push(client.batchers.poster.text(addr, entry).await);
    }
    outcomes
}
