//! Where entries are kept: one file that grows, and closed segments beside it.
//!
//! One thread writes (`writer`); requests hand it their entries through a bounded queue and wait for its word.
//! Readers take a `Snapshot` and read the files themselves, up to what is committed, so they never slow the
//! writer and never see an entry that may yet be taken back.
//!
//! What an acknowledged entry survives depends on [`Ack`]. Left out: checksums per entry (the file system's and
//! the disk's have to do), and replication (each log instance keeps what it got).

use std::fs::File;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use hubspoke_protocol::DedupWindow;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use self::appender::{Appender, Disk};
use self::queue::{Queue, Submission};
pub use self::recover::OpenError;
use self::ring::{Follower, Ring};
use self::segment::Segment;
use self::writer::{Writer, keeper::Keeper};
use crate::entry::{Batch, instance_field};
use crate::metrics::Commits;

mod appender;
pub(crate) mod blocks;
mod compress;
#[cfg(test)]
pub(crate) mod faulty;
mod queue;
mod recover;
pub(crate) mod ring;
pub(crate) mod segment;
pub(crate) mod slot;
mod writer;

/// When a sender is told that its entry is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// At once. A crash of the process loses what waits to be written, and so does a full disk.
    Queued,
    /// When the operating system has it: a crash of the process loses nothing, a power cut the last seconds.
    #[default]
    Written,
    /// When the disk has it: a power cut loses nothing.
    Synced,
}

/// What a store is opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The file being written; `{slot}` in it is the lowest number whose file is free.
    pub file: PathBuf,
    /// When a sender is told.
    pub ack: Ack,
    /// Bytes that may wait for the writer.
    pub queue_bytes: usize,
    /// How many keys of batches are remembered.
    pub keys: usize,
    /// Bytes of the last lines that are kept in memory while somebody follows.
    pub ring_bytes: usize,
    /// When to rotate and to drop.
    pub limits: Limits,
}

/// When to rotate and to drop; `None` is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Close the file at this length.
    pub rotate_bytes: Option<u64>,
    /// Close the file this long after its first entry.
    pub rotate_age: Option<Duration>,
    /// Drop closed segments not written for this long.
    pub retain_age: Option<Duration>,
    /// Drop the oldest closed segments while all files together are larger.
    pub retain_bytes: Option<u64>,
    /// Compress closed segments.
    pub compress: bool,
}

/// Where stored entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Number of the first entry of the batch.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// The batch was stored before, under the same key.
    pub duplicate: bool,
}

/// Why entries are not stored. They may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The disk is slower than the senders.
    #[error("too many entries wait to be written")]
    QueueFull,
    /// No room on the disk.
    #[error("the disk is full")]
    DiskFull,
    /// The disk fails; the cause is in this process's own log.
    #[error("the disk can't be written")]
    Disk,
    /// The service is going down.
    #[error("the log is closing")]
    Closed,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Entries stored.
    pub entries: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Writes they took: fewer than entries where the group commit works.
    pub writes: AtomicU64,
    /// Entries refused by the disk.
    pub failed: AtomicU64,
    /// Entries that were stored before.
    pub duplicates: AtomicU64,
    /// Size and duration of each commit, where somebody wants them.
    pub(crate) commits: OnceLock<Commits>,
}

/// How the writer gets at a file.
pub(crate) type MakeDisk = Box<dyn Fn(Arc<File>) -> Box<dyn Disk> + Send>;

/// What the writer and the readers share.
struct Shared {
    queue: Queue,
    ring: Arc<Ring>,
    files: Mutex<Files>,
    last_seq: watch::Sender<u64>,
    /// The last write went well.
    healthy: AtomicBool,
    stats: Stats,
    /// The writer has ended.
    over: watch::Sender<bool>,
}

struct Files {
    closed: Vec<Segment>,
    current: Arc<File>,
    len: u64,
}

/// The files as they are now.
pub(crate) struct Snapshot {
    /// In order.
    pub(crate) closed: Vec<Segment>,
    pub(crate) current: Arc<File>,
    /// How much of `current` is committed.
    pub(crate) len: u64,
}

/// An open log file. Dropping it writes what waits, syncs, and ends the writer.
pub struct Store {
    shared: Arc<Shared>,
    instance: String,
    torn: u64,
    ack: Ack,
    writer: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens or creates the file. Blocks on the disk.
    ///
    /// Entries name `instance`, unless the file has entries of another name: then it goes on with that one, so that
    /// (instance, number) is one entry for ever.
    ///
    /// # Errors
    /// [`OpenError`], never for what the file holds.
    pub fn open(options: Options, instance: &str) -> Result<Self, OpenError> {
        Self::open_on(options, instance, Box::new(|file| Box::new(file)))
    }

    /// The same, on disks that `disk` makes of files; tests have some that fail on purpose.
    pub(crate) fn open_on(options: Options, instance: &str, disk: MakeDisk) -> Result<Self, OpenError> {
        let recovered = slot::open(&options.file)?;
        let failed = |error| OpenError::Io { path: options.file.clone(), error };
        let instance = recovered.instance.unwrap_or_else(|| instance.to_owned());
        let mut window = DedupWindow::new(options.keys);
        for (key, range) in &recovered.keys {
            window.insert(key.as_str().into(), *range);
        }
        let current = recovered.current;
        let mut appender = Appender::new(disk(Arc::clone(&current.file)), current.len);
        if options.ack == Ack::Synced {
            // What is found may never have reached the disk: its sender was not told, and a retry of it must not be
            // acknowledged as stored before it has.
            appender.sync().and_then(|()| recover::sync_names(recovered.names.dir())).map_err(failed)?;
        }
        let shared = Arc::new(Shared {
            queue: Queue::new(options.queue_bytes),
            ring: Arc::new(Ring::new(options.ring_bytes, recovered.last_seq)),
            files: Mutex::new(Files {
                closed: recovered.closed,
                current: Arc::clone(&current.file),
                len: current.len,
            }),
            last_seq: watch::Sender::new(recovered.last_seq),
            healthy: AtomicBool::new(true),
            stats: Stats::default(),
            over: watch::Sender::new(false),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            keeper: Keeper::new(recovered.names, options.limits, recovered.lock),
            appender,
            disk,
            first: current.first,
            last_seq: recovered.last_seq,
            instance: instance_field(&instance),
            window,
            ack: options.ack,
            failure_told: None,
            others_told: None,
        };
        let thread = std::thread::Builder::new().name("log-writer".to_owned());
        let writer = thread.spawn(move || writer.run()).map_err(failed)?;
        Ok(Self { shared, instance, torn: recovered.torn, ack: options.ack, writer: Some(writer) })
    }

    /// The name that entries carry.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Bytes of an unfinished entry or batch that were cut off at the start.
    pub fn torn(&self) -> u64 {
        self.torn
    }

    /// Hands a batch to the writer. It is on its way when this returns; the outcome is awaited.
    ///
    /// # Errors
    /// [`AppendError::QueueFull`] and [`AppendError::Closed`], at once.
    pub fn append(&self, batch: Batch, at: Timestamp) -> Result<Pending, AppendError> {
        // While writes fail, senders wait for the truth in every mode: so nothing is accepted only to be dropped.
        if self.ack == Ack::Queued && self.shared.healthy.load(Ordering::Acquire) {
            self.shared.queue.push(Submission { batch, at, reply: None })?;
            return Ok(Pending(None));
        }
        let (reply, outcome) = oneshot::channel();
        self.shared.queue.push(Submission { batch, at, reply: Some(reply) })?;
        Ok(Pending(Some(outcome)))
    }

    /// The number of the last committed entry, and its changes.
    pub(crate) fn last_seq(&self) -> watch::Receiver<u64> {
        self.shared.last_seq.subscribe()
    }

    pub(crate) fn follow(&self) -> Follower {
        self.shared.ring.follow()
    }

    /// The oldest entry that followers can still get without the files.
    pub(crate) fn oldest_in_memory(&self) -> Option<u64> {
        self.shared.ring.oldest()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let files = self.shared.lock();
        Snapshot { closed: files.closed.clone(), current: Arc::clone(&files.current), len: files.len }
    }

    /// Counts since the start.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Whether the last write went well.
    pub fn healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Acquire)
    }

    /// Bytes that wait for the writer.
    pub fn queued_bytes(&self) -> usize {
        self.shared.queue.bytes()
    }

    /// Bytes of all files.
    pub fn stored_bytes(&self) -> u64 {
        let files = self.shared.lock();
        files.len + files.closed.iter().map(|segment| segment.bytes).sum::<u64>()
    }

    /// Followers at the moment.
    pub fn followers(&self) -> usize {
        self.shared.ring.followers()
    }

    /// Ends when the writer has ended: by [`Store::close`], or, which must not pass unseen, by itself.
    pub async fn ended(&self) {
        // The sender lives as long as `self`, so this ends only with the writer.
        let _ = self.shared.over.subscribe().wait_for(|over| *over).await;
    }

    /// Refuses new entries; what waits is still written.
    pub fn close(&self) {
        self.shared.queue.close();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            // A panic there has been printed already.
            let _ = writer.join();
        }
    }
}

/// The outcome of an append.
#[derive(Debug)]
pub struct Pending(Option<oneshot::Receiver<Result<Receipt, AppendError>>>);

impl Future for Pending {
    /// `None` where the sender does not wait for the number (`ack = "queued"`).
    type Output = Result<Option<Receipt>, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            None => Poll::Ready(Ok(None)),
            Some(outcome) => Pin::new(outcome)
                .poll(context)
                .map(|outcome| outcome.unwrap_or(Err(AppendError::Closed)).map(Some)),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current_file(&self) -> Arc<File> {
        Arc::clone(&self.lock().current)
    }

    fn closed_segments(&self) -> Vec<Segment> {
        self.lock().closed.clone()
    }

    fn committed(&self, len: u64, last_seq: u64) {
        self.lock().len = len;
        self.last_seq.send_replace(last_seq);
    }

    /// In one step, so that no reader sees entries twice or not at all.
    fn replaced(&self, closed: Option<Segment>, current: Arc<File>, len: u64) {
        let mut files = self.lock();
        files.closed.extend(closed);
        files.current = current;
        files.len = len;
    }

    /// Lists a segment's compressed copy in its place; says `false` where it was dropped meanwhile.
    fn compressed(&self, small: Segment) -> bool {
        let mut files = self.lock();
        let listed = files.closed.iter_mut().find(|segment| segment.first_seq == small.first_seq);
        listed.map(|segment| *segment = small).is_some()
    }

    /// Takes a segment off the list, and gives it as it is now: it may have been compressed.
    fn drop_segment(&self, first_seq: u64) -> Option<Segment> {
        let mut files = self.lock();
        let at = files.closed.iter().position(|segment| segment.first_seq == first_seq)?;
        Some(files.closed.remove(at))
    }

    /// Takes back a segment that could not be removed.
    fn keep_segment(&self, segment: Segment) {
        let mut files = self.lock();
        let at = files.closed.partition_point(|other| other.first_seq < segment.first_seq);
        files.closed.insert(at, segment);
    }
}

#[cfg(test)]
mod tests;
