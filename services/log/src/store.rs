//! The entries on disk: one active segment that grows, and closed segments beside it.
//!
//! One thread writes. Requests hand it their entries through a bounded queue and wait for the receipt.
//! Readers take a snapshot of the files and read them up to the committed length, so they never slow the
//! writer down and never see an entry that may yet be taken back.
//!
//! [`AckMode`] decides what an acknowledged entry survives. Left out: checksums per entry (the file system's
//! and the disk's must suffice), and replication (each log instance keeps what it got).

use std::sync::Arc;
use std::thread::JoinHandle;

use hubspoke_protocol::KeyedHash;
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use self::disk::DiskFactory;
pub(crate) use self::files::FilesSnapshot;
pub(crate) use self::options::KEY_MEMORY;
pub use self::options::{AckMode, FileLimits, StoreOptions};
pub use self::receipt::{AppendError, Receipt};
pub use self::recover::OpenError;
use self::ring::RingFollower;
use self::shared::StoreShared;
pub use self::stats::StoreStats;
pub(crate) use self::writer::WRITE_BYTES;
use self::writer::Writer;
use crate::entry::Batch;

mod active;
mod appender;
pub(crate) mod blocks;
mod clock;
mod compress;
mod disk;
#[cfg(test)]
pub(crate) mod faulty;
mod files;
mod group;
mod options;
mod queue;
mod receipt;
mod recover;
mod repair;
mod retention;
pub(crate) mod ring;
mod rotation;
mod seekable;
pub(crate) mod segment;
mod shared;
pub(crate) mod slot;
mod stats;
mod writer;

/// An open log. Dropping it writes what is queued, syncs, and ends the writer.
pub struct Store {
    shared: Arc<StoreShared>,
    instance: String,
    torn_bytes: u64,
    ack: AckMode,
    hash: KeyedHash,
    writer: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens or creates the log. Blocks on the disk.
    ///
    /// Entries name `instance`, unless the log already has entries of another one: then it continues with
    /// that name, so that (instance, sequence number) identifies one entry forever.
    ///
    /// # Errors
    /// [`OpenError`], never because of what the files contain.
    pub fn open(options: StoreOptions, instance: &str) -> Result<Self, OpenError> {
        Self::open_with(options, instance, Box::new(|file| Box::new(file)))
    }

    /// Like [`Store::open`], with the caller's own disks; those of some tests fail.
    pub(crate) fn open_with(
        options: StoreOptions,
        instance: &str,
        disks: DiskFactory,
    ) -> Result<Self, OpenError> {
        let log = slot::open(&options.file)?;
        let failed = |source| OpenError::Io { path: options.file.clone(), source };
        let instance = log.instance.clone().unwrap_or_else(|| instance.to_owned());
        let torn_bytes = log.torn_bytes;
        let hash = log.hash.clone();
        let shared = Arc::new(StoreShared::new(&options, &log));
        let writer = Writer::new(Arc::clone(&shared), log, &options, &instance, disks).map_err(failed)?;
        let thread = std::thread::Builder::new().name("log-writer".to_owned());
        let writer = thread.spawn(move || writer.run()).map_err(failed)?;
        Ok(Self { shared, instance, torn_bytes, ack: options.ack, hash, writer: Some(writer) })
    }

    /// The instance that entries name.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Bytes of an incomplete entry or batch that were cut off at the start.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// Hands a batch to the writer. It is on its way when this returns; await the result for the receipt,
    /// which is `None` if the mode is [`AckMode::Queued`]. `clock` is read once the order of the batch among the others
    /// is certain, and must return at once.
    ///
    /// # Errors
    /// [`AppendError::QueueFull`] and [`AppendError::Closed`], at once.
    pub fn append<C: FnOnce() -> Timestamp>(
        &self,
        batch: Batch,
        clock: C,
    ) -> Result<impl Future<Output = Result<Option<Receipt>, AppendError>> + use<C>, AppendError> {
        // While writes fail, senders wait for the receipt in every mode, so that nothing is accepted only to
        // be dropped.
        let waits = self.ack != AckMode::Queued || !self.shared.healthy();
        let (reply, receipt) = waits.then(oneshot::channel).unzip();
        let id = batch.id(&self.hash);
        self.shared.queue.push(batch, id, reply, clock)?;
        Ok(async move {
            let Some(receipt) = receipt else { return Ok(None) };
            receipt.await.unwrap_or(Err(AppendError::Closed)).map(Some)
        })
    }

    /// The sequence number of the last committed entry, as it changes.
    pub(crate) fn last_seq(&self) -> watch::Receiver<u64> {
        self.shared.last_seq.subscribe()
    }

    pub(crate) fn follow(&self) -> RingFollower {
        self.shared.ring.follow()
    }

    /// The oldest entry that followers get from memory.
    pub(crate) fn oldest_in_memory(&self) -> Option<u64> {
        self.shared.ring.oldest()
    }

    pub(crate) fn snapshot(&self) -> FilesSnapshot {
        self.shared.files.snapshot()
    }

    /// Counters since the start.
    pub fn stats(&self) -> &StoreStats {
        &self.shared.stats
    }

    /// Whether the last write succeeded.
    pub fn healthy(&self) -> bool {
        self.shared.healthy()
    }

    /// Bytes that wait for the writer.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.shared.queue.bytes()
    }

    /// Bytes of all files.
    pub fn stored_bytes(&self) -> u64 {
        self.shared.files.bytes()
    }

    /// Number of followers.
    pub(crate) fn followers(&self) -> usize {
        self.shared.ring.followers()
    }

    /// Resolves when the writer has ended: after [`Store::close`], or by itself, which is a failure.
    pub async fn ended(&self) {
        // `self` keeps the sender alive, so this is never an error.
        let _ = self.shared.writer_ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Refuses new entries; those in the queue are still written.
    pub fn close(&self) {
        self.shared.queue.close();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            // A panic there has been printed.
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests;
