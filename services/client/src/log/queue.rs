//! Entries that nobody waits for: they go in batches, in the background, from a queue of bounded size.
//!
//! An entry is lost only where the queue is full, or where no log instance takes it for [`PATIENCE`]; lost entries
//! are counted, and the count is sent as an entry once something can be sent again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::lane::{TOGETHER, TOGETHER_BYTES};
use super::post::{Item, takes_batches};
use super::{Keys, LOG_SERVICE, LogClient, at_fault};

/// How long a batch is tried before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause after every known instance has failed; doubled each time, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What is to be logged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// Any text but the empty one.
    pub text: String,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: Option<&'static str>,
    /// More, for machines.
    pub fields: Map<String, Value>,
}

impl From<String> for Entry {
    fn from(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

impl From<&str> for Entry {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// The queue is full; the entry is lost, and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many entries wait to be sent")]
pub struct QueueFull;

/// Sends entries in the background. Dropping it gives up what waits: [`LogQueue::flush`] first.
#[derive(Debug)]
pub struct LogQueue {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
    limit: usize,
    keys: Keys,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Item>,
    /// Of what waits and what is being sent.
    bytes: usize,
    /// Entries being sent.
    in_hand: usize,
    lost: u64,
}

/// Puts entries into a [`LogQueue`].
#[derive(Debug, Clone)]
pub struct Pusher(Arc<Shared>);

impl LogQueue {
    /// A queue of at most `limit` bytes. Must be called on a tokio runtime.
    pub fn start(client: LogClient, limit: usize) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            limit,
            keys: client.keys.clone(),
        });
        let task = tokio::spawn(send_all(Arc::clone(&shared), client));
        Self { shared, task }
    }

    /// Adds an entry; it is sent as soon as may be.
    ///
    /// # Errors
    /// [`QueueFull`].
    pub fn push(&self, entry: impl Into<Entry>) -> Result<(), QueueFull> {
        self.shared.push(entry.into())
    }

    /// A handle that only adds.
    pub fn pusher(&self) -> Pusher {
        Pusher(Arc::clone(&self.shared))
    }

    /// Waits until everything that was added is stored or given up, at most `patience` long. Says how many entries
    /// still wait.
    pub async fn flush(&self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        loop {
            let emptied = self.shared.emptied.notified();
            let left = self.shared.lock().left();
            if left == 0 || tokio::time::timeout_at(deadline, emptied).await.is_err() {
                return left;
            }
        }
    }

    /// Entries lost so far and not reported yet.
    pub fn lost(&self) -> u64 {
        self.shared.lock().lost
    }
}

impl Pusher {
    /// [`LogQueue::push`].
    ///
    /// # Errors
    /// [`QueueFull`].
    pub fn push(&self, entry: impl Into<Entry>) -> Result<(), QueueFull> {
        self.0.push(entry.into())
    }
}

impl Drop for LogQueue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn left(&self) -> usize {
        self.waiting.len() + self.in_hand
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, entry: Entry) -> Result<(), QueueFull> {
        let mut trace = reqwest::header::HeaderMap::new();
        crate::trace::inject(&mut trace);
        let key = Some(self.keys.next());
        let item = Item { text: entry.text, level: entry.level, fields: entry.fields, trace, key };
        let size = weight(&item);
        let mut state = self.lock();
        if state.bytes + size > self.limit {
            state.lost += 1;
            return Err(QueueFull);
        }
        state.bytes += size;
        state.waiting.push_back(item);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    fn take(&self) -> Vec<Item> {
        let mut state = self.lock();
        let mut bytes = 0;
        let fits = |item: &&Item| {
            bytes += weight(item);
            bytes <= TOGETHER_BYTES
        };
        // One alone goes, however large.
        let count =
            state.waiting.iter().take(TOGETHER).take_while(fits).count().max(1).min(state.waiting.len());
        state.in_hand = count;
        state.waiting.drain(..count).collect()
    }

    fn sent(&self, items: &[Item], lost: u64) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(items.iter().map(weight).sum());
        state.in_hand = 0;
        state.lost += lost;
        let empty = state.left() == 0;
        drop(state);
        if empty {
            self.emptied.notify_waiters();
        }
    }
}

/// What an entry takes in memory, roughly, in bytes.
fn weight(item: &Item) -> usize {
    size_of::<Item>() + item.text.len() + members(&item.fields)
}

fn members(members: &Map<String, Value>) -> usize {
    members.iter().map(|(key, value)| key.len() + size(value)).sum()
}

fn size(value: &Value) -> usize {
    16 + match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(size).sum(),
        Value::Object(object) => members(object),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

async fn send_all(shared: Arc<Shared>, client: LogClient) {
    loop {
        let filled = shared.filled.notified();
        let items = shared.take();
        if items.is_empty() {
            filled.await;
            continue;
        }
        let lost = deliver(&client, &items).await;
        shared.sent(&items, lost);
        let unreported = std::mem::take(&mut shared.lock().lost);
        if unreported > 0 {
            let report = Item {
                text: format!("{unreported} log entries were lost"),
                level: Some("warn"),
                key: Some(shared.keys.next()),
                ..Item::default()
            };
            if lost > 0 || deliver(&client, &[report]).await > 0 {
                shared.lock().lost += unreported;
            }
        }
    }
}

/// Sends a batch to one instance after the other until one has it. Says how many entries are lost.
async fn deliver(client: &LogClient, items: &[Item]) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let mut left: Vec<&Item> = items.iter().collect();
    let mut key = client.keys.next();
    let mut lost = 0;
    let mut tried: Vec<String> = Vec::new();
    let mut pause = PAUSE.0;
    loop {
        let picked = client.directory.pick(LOG_SERVICE, &tried, &mut rand::rng());
        if let Some(instance) = picked {
            let outcomes = if takes_batches(&instance) {
                client.lanes.poster.batch(&instance.addr, left.iter().copied(), Some(&key)).await
            } else {
                one_by_one(client, &instance.addr, &left).await
            };
            let before = left.len();
            let mut outcomes = outcomes.into_iter();
            left.retain(|_| match outcomes.next() {
                Some(Ok(status)) if at_fault(status) => {
                    lost += 1;
                    false
                }
                Some(Ok(status)) => !status.is_success(),
                _ => true,
            });
            if left.is_empty() {
                return lost;
            }
            if left.len() < before {
                // Another batch than the one that this key is of.
                key = client.keys.next();
            }
            tried.push(instance.addr.clone());
            continue;
        }
        if Instant::now() + pause > deadline {
            return lost + left.len() as u64;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
        tried.clear();
    }
}

async fn one_by_one(
    client: &LogClient,
    addr: &str,
    items: &[&Item],
) -> Vec<Result<reqwest::StatusCode, super::AttemptError>> {
    let mut outcomes = Vec::new();
    for item in items {
        outcomes.push(client.lanes.poster.text(addr, item).await);
    }
    outcomes
}
