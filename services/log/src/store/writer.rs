//! The writer thread: group commit, rotation, retention.
//!
//! Invariants: an append is acknowledged only after its entries are written (and, with `ack = "synced"`,
//! synced). Sequence numbers have no gaps, since an entry gets its number with the write that stores it. A
//! failure fails the entries concerned and no others; the next group is tried normally.

use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::active::{self, ActiveSegment, FirstEntry};
use super::appender::{Appender, CommitFailure, CommitOutcome};
use super::clock::SteadyClock;
use super::compress::Compressor;
use super::disk::DiskFactory;
use super::group::{KeyWindow, RenderedGroup};
use super::options::{AckMode, FileLimits, StoreOptions};
use super::queue::{Submission, Taken};
use super::receipt::AppendError;
use super::recover::RecoveredLog;
use super::retention::remove_expired;
use super::rotation::Rotation;
use super::segment::Segment;
use super::shared::StoreShared;
use super::stats::CommitSample;
use crate::entry::instance_key;

/// Approximate size of one write, which bounds the buffer.
pub(crate) const WRITE_BYTES: usize = 4 << 20;
/// Interval of maintenance: rotation by age, retention, compression, and checks for changes by others.
const MAINTENANCE: Duration = Duration::from_secs(1);
/// Minimum time between two log lines about the same problem.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    shared: Arc<StoreShared>,
    ack: AckMode,
    limits: FileLimits,
    rotation: Rotation,
    compressor: Option<Compressor>,
    clock: SteadyClock,
    started: Instant,
    appender: Appender,
    disks: DiskFactory,
    /// First entry of the active segment.
    first: Option<FirstEntry>,
    last_seq: u64,
    /// `,"instance":"…"`
    instance: Vec<u8>,
    keys: KeyWindow,
    /// When a write failure was last logged.
    failure_logged: Option<Instant>,
    /// When a change by others was last logged.
    modified_logged: Option<Instant>,
    /// Locked while the writer lives.
    _lock: File,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<StoreShared>,
        log: RecoveredLog,
        options: &StoreOptions,
        instance: &str,
        disks: DiskFactory,
    ) -> io::Result<Self> {
        let last_write = log.last_write();
        let mut keys = KeyWindow::new(options.dedup_keys);
        for (id, range) in log.keys {
            keys.insert(id, range);
        }
        let mut appender = Appender::new(disks(Arc::clone(&log.active.file)), log.active.len);
        if options.ack == AckMode::Synced {
            // A recovered entry may never have reached the disk. It was not acknowledged, and a retry of it
            // must not be acknowledged as stored before it is safe.
            appender.sync()?;
            active::sync_dir(log.names.dir())?;
        }
        Ok(Self {
            shared,
            ack: options.ack,
            limits: options.limits,
            rotation: Rotation::new(log.names, &options.limits),
            compressor: None,
            clock: SteadyClock::new(last_write, SystemTime::now()),
            started: Instant::now(),
            appender,
            disks,
            first: log.active.first,
            last_seq: log.last_seq,
            instance: instance_key(instance),
            keys,
            failure_logged: None,
            modified_logged: None,
            _lock: log.lock,
        })
    }

    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut submissions = VecDeque::new();
        let mut group = RenderedGroup::default();
        let mut maintained = Instant::now();
        loop {
            match self.shared.queue.take(&mut submissions, MAINTENANCE) {
                Taken::Group { bytes } => {
                    self.commit(&mut submissions, &mut group);
                    group.shrink(WRITE_BYTES);
                    self.shared.queue.release(bytes);
                }
                Taken::TimedOut => {}
                Taken::Closed => break,
            }
            if maintained.elapsed() >= MAINTENANCE {
                maintained = Instant::now();
                self.maintain();
            }
        }
        if let Err(error) = self.appender.sync() {
            tracing::error!(error = &error as &dyn Error, "can't sync the log file at shutdown");
        }
    }

    fn commit(&mut self, submissions: &mut VecDeque<Submission>, group: &mut RenderedGroup) {
        while !submissions.is_empty() {
            if self.rotation.due_by_size(self.appender.len()) {
                self.rotate();
            }
            // While writes fail, try one submission at a time to find those that can be stored.
            let size = if self.shared.healthy() { WRITE_BYTES } else { 0 };
            group.render(submissions, size, self.last_seq, &self.keys, &self.instance);
            let began = Instant::now();
            let outcome = match self.reopen_if_modified() {
                Ok(()) => self.appender.commit(&group.bytes, &group.ends, self.ack == AckMode::Synced),
                Err(error) => CommitOutcome::failed(error, None),
            };
            let stored = outcome.stored;
            let sample = CommitSample { submissions: stored, duration: began.elapsed(), sync: outcome.sync };
            self.shared.stats.on_commit.record(sample);
            self.publish(submissions, group, stored);
            let Some(failure) = outcome.failure else {
                // If all were duplicates or refused, nothing was written, which proves nothing about the disk.
                if !group.bytes.is_empty() {
                    self.note_success();
                }
                continue;
            };
            let (error, failed) = match &failure {
                CommitFailure::Write(error) => (error, 1),
                CommitFailure::All(error) => (error, group.ends.len() - stored),
            };
            self.note_failure(error);
            let answer = if is_full(error) { AppendError::DiskFull } else { AppendError::Disk };
            for submission in submissions.drain(..failed.min(submissions.len())) {
                self.shared.stats.failed.fetch_add(submission.batch.len() as u64, Ordering::Relaxed);
                submission.answer(Err(answer));
            }
        }
    }

    /// Shows readers the first `stored` submissions of the group, then answers their senders.
    fn publish(&mut self, submissions: &mut VecDeque<Submission>, group: &RenderedGroup, stored: usize) {
        if stored == 0 {
            return;
        }
        let first = self.last_seq + 1;
        for (submission, outcome) in submissions.iter().zip(&group.outcomes[..stored]) {
            if let Ok(receipt) = outcome
                && !receipt.duplicate
            {
                self.last_seq = receipt.last;
                self.first.get_or_insert(FirstEntry { seq: receipt.first, at: submission.at });
                if let Some(id) = submission.id {
                    self.keys.insert(id, receipt.range());
                }
            }
        }
        let bytes = &group.bytes[..group.ends[stored - 1]];
        let stats = &self.shared.stats;
        if self.last_seq >= first {
            stats.entries.fetch_add(self.last_seq + 1 - first, Ordering::Relaxed);
            stats.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            stats.writes.fetch_add(1, Ordering::Relaxed);
            self.shared.ring.push(first, self.last_seq, bytes);
            self.shared.files.commit(self.appender.len());
            self.shared.last_seq.send_replace(self.last_seq);
        }
        for (submission, outcome) in submissions.drain(..stored).zip(&group.outcomes) {
            if outcome.is_ok_and(|receipt| receipt.duplicate) {
                stats.duplicates.fetch_add(submission.batch.len() as u64, Ordering::Relaxed);
            }
            submission.answer(*outcome);
        }
    }

    fn note_failure(&mut self, error: &io::Error) {
        self.shared.set_healthy(false);
        // On a disk that is nearly full some entries still pass, so success and failure may alternate
        // quickly.
        if self.failure_logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            self.failure_logged = Some(Instant::now());
            let failed_entries = self.shared.stats.failed.load(Ordering::Relaxed);
            let (error, file) = (error as &dyn Error, self.rotation.path().display());
            tracing::error!(error, %file, failed_entries, "can't write entries; their senders get an error");
        }
    }

    fn note_success(&mut self) {
        self.shared.set_healthy(true);
        if self.failure_logged.is_some_and(|at| at.elapsed() >= LOG_INTERVAL) {
            self.failure_logged = None;
            let failed_entries = self.shared.stats.failed.load(Ordering::Relaxed);
            tracing::info!(failed_entries, "entries are written again");
        }
    }

    /// Opens the active segment again, as at the start, if another process has appended to it or truncated
    /// it. Otherwise every offset in it would be wrong, for readers and for truncation after a failure.
    fn reopen_if_modified(&mut self) -> io::Result<()> {
        if self.appender.modified_by_others()? {
            let (active, torn_bytes) = ActiveSegment::open(self.rotation.path())?;
            let (file, old_len, len) = (self.rotation.path().display(), self.appender.len(), active.len);
            if self.modified_logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                self.modified_logged = Some(Instant::now());
                tracing::warn!(%file, old_len, len, torn_bytes, "another process changed the log; reopened it");
            }
            self.switch(None, active);
        }
        Ok(())
    }

    fn maintain(&mut self) {
        self.reopen_if_replaced();
        if let Err(error) = self.reopen_if_modified() {
            let (error, file) = (&error as &dyn Error, self.rotation.path().display());
            tracing::error!(error, %file, "can't check whether another process changed the log file");
        }
        if self.first.is_some_and(|first| self.rotation.due_by_age(first.at, Timestamp::now())) {
            self.rotate();
        }
        let now = self.clock.now(SystemTime::now(), self.started.elapsed());
        remove_expired(&self.shared.files, &self.limits, self.appender.len(), now);
        if self.limits.compress && !self.compressor.as_ref().is_some_and(Compressor::busy) {
            self.compressor = Compressor::start(&self.shared.files);
        }
    }

    fn reopen_if_replaced(&mut self) {
        let file = self.rotation.path();
        let Some(active) = ActiveSegment::reopen_if_replaced(file, &self.shared.files.snapshot().active)
        else {
            return;
        };
        tracing::warn!(file = %file.display(), "the log file was moved or removed; writing to a new one");
        self.switch(None, active);
        if self.ack == AckMode::Synced
            && let Err(error) = active::sync_dir(self.rotation.dir())
        {
            let error = &error as &dyn Error;
            tracing::error!(error, "can't sync the folder; a power cut may lose the new log file");
        }
    }

    fn rotate(&mut self) {
        let Some(first) = self.first else { return };
        let len = self.appender.len();
        let synced = self.appender.sync();
        let system = SystemTime::now();
        // Not earlier than its entries say, for readers; not earlier than it is, for retention.
        let modified = system.max(self.clock.now(system, self.started.elapsed()));
        match synced.and_then(|()| self.rotation.rotate(first.seq, len, modified)) {
            Ok((closed, active)) => self.switch(Some(closed), active),
            Err(error) => {
                let (error, file) = (&error as &dyn Error, self.rotation.path().display());
                tracing::error!(error, %file, "can't rotate the log file; it keeps growing, retrying in a minute");
                self.rotation.postpone();
            }
        }
    }

    fn switch(&mut self, closed: Option<Segment>, active: ActiveSegment) {
        self.appender = Appender::new((self.disks)(Arc::clone(&active.file)), active.len);
        self.first = active.first;
        self.shared.files.switch(closed, active.file, active.len);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue.abandon();
        self.shared.writer_ended.send_replace(true);
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
