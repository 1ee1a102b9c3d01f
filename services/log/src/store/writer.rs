//! The one thread that writes: group commit, numbers, rotation.
//!
//! Invariants: a sender is told "stored" only after its entries are written (and, with `ack = "synced"`, synced);
//! numbers have no gaps, since an entry gets its number with the write that stores it; a failure fails the entries
//! that it concerns and no others, and the next group is tried as if nothing had been.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hubspoke_protocol::DedupWindow;
use jiff::Timestamp;

use self::keeper::Keeper;
use super::appender::{Appender, Committed, Disk, Failure};
use super::queue::{Submission, Taken};
use super::recover::{self, Current};
use super::segment::Segment;
use super::{Ack, AppendError, MakeDisk, Receipt, Shared};
use crate::entry::{Clock, SeqRange, Stamp};

pub(super) mod keeper;

/// A group is written in pieces of about this size, so that the buffer stays bounded.
const PIECE: usize = 4 << 20;
/// How often rotation, retention and the file's place are looked at.
const CHECK: Duration = Duration::from_secs(1);
/// How long one word about failures has to do.
const TELL_AGAIN: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) keeper: Keeper,
    pub(super) appender: Appender<Box<dyn Disk>>,
    pub(super) disk: MakeDisk,
    /// When the file being written got its first entry.
    pub(super) first: Option<(u64, Timestamp)>,
    pub(super) last_seq: u64,
    /// `,"instance":"…"`
    pub(super) instance: Vec<u8>,
    pub(super) window: DedupWindow<Arc<str>, SeqRange>,
    pub(super) ack: Ack,
    /// When a failure was last told.
    pub(super) failure_told: Option<Instant>,
    /// When others in the file were last told of.
    pub(super) others_told: Option<Instant>,
}

/// One piece of a group, rendered.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    /// Where each submission ends in `bytes`.
    cuts: Vec<usize>,
    receipts: Vec<(SeqRange, bool)>,
    clock: Clock,
}

impl Piece {
    /// Gives back what one large batch took.
    fn shrink(&mut self) {
        if self.bytes.capacity() > 2 * PIECE {
            self.bytes = Vec::with_capacity(PIECE);
        }
    }
}

impl Writer {
    pub(super) fn run(mut self) {
        let mut group = VecDeque::new();
        let mut piece = Piece::default();
        let mut checked = Instant::now();
        loop {
            match self.shared.queue.take(&mut group, CHECK) {
                Taken::Group { bytes } => {
                    self.commit(&mut group, &mut piece);
                    piece.shrink();
                    self.shared.queue.release(bytes);
                }
                Taken::Idle => {}
                Taken::Closed => break,
            }
            if checked.elapsed() >= CHECK {
                checked = Instant::now();
                self.check();
            }
        }
        if let Err(error) = self.appender.sync() {
            tracing::error!(%error, "the log file could not be synced at shutdown");
        }
    }

    fn commit(&mut self, group: &mut VecDeque<Submission>, piece: &mut Piece) {
        while !group.is_empty() {
            if self.keeper.full(self.appender.len()) {
                self.rotate();
            }
            // While writes fail, one submission at a time finds out which of them can be stored.
            let size = if self.shared.healthy.load(Ordering::Acquire) { PIECE } else { 0 };
            self.render(group, piece, size);
            let began = Instant::now();
            let result = match self.mind_others() {
                Ok(()) => self.appender.commit(&piece.bytes, &piece.cuts, self.ack == Ack::Synced),
                Err(error) => Committed { whole: 0, failure: Some(Failure::All(error)), synced: None },
            };
            let whole = result.whole;
            if let Some(commits) = self.shared.stats.commits.get() {
                commits.record(whole, began.elapsed(), result.synced);
            }
            self.stored(group, piece, whole);
            let Some(failure) = result.failure else {
                // Batches that were stored before say nothing about the disk.
                if !piece.bytes.is_empty() {
                    self.recovered();
                }
                continue;
            };
            let (error, failed) = match &failure {
                Failure::Write(error) => (error, 1),
                Failure::All(error) => (error, piece.cuts.len() - whole),
            };
            self.failed(error);
            let cause = if is_full(error) { AppendError::DiskFull } else { AppendError::Disk };
            for submission in group.drain(..failed.min(group.len())) {
                self.shared.stats.failed.fetch_add(submission.batch.len() as u64, Ordering::Relaxed);
                submission.answer(Err(cause));
            }
        }
    }

    fn render(&self, group: &VecDeque<Submission>, piece: &mut Piece, size: usize) {
        piece.bytes.clear();
        piece.cuts.clear();
        piece.receipts.clear();
        let mut last = self.last_seq;
        let mut fresh: Vec<(&str, SeqRange)> = Vec::new();
        for submission in group {
            let batch = &submission.batch;
            let known = batch.key().and_then(|key| {
                let in_piece = || fresh.iter().find(|(other, _)| *other == key).map(|(_, range)| *range);
                self.window.get(key).copied().or_else(in_piece)
            });
            if let Some(range) = known {
                piece.receipts.push((range, true));
            } else {
                let range = SeqRange { first: last + 1, last: last + batch.len() as u64 };
                let stamp = Stamp { ts: piece.clock.timestamp(submission.at), instance: &self.instance };
                batch.render(&mut piece.bytes, &stamp, range.first);
                last = range.last;
                piece.receipts.push((range, false));
                fresh.extend(batch.key().map(|key| (key, range)));
            }
            piece.cuts.push(piece.bytes.len());
            if piece.bytes.len() >= size {
                break;
            }
        }
    }

    /// Publishes the first `whole` submissions of the piece, then tells their senders.
    fn stored(&mut self, group: &mut VecDeque<Submission>, piece: &Piece, whole: usize) {
        if whole == 0 {
            return;
        }
        let first = self.last_seq + 1;
        for (submission, (range, duplicate)) in group.iter().zip(&piece.receipts[..whole]) {
            if !duplicate {
                self.last_seq = range.last;
                self.first.get_or_insert((range.first, submission.at));
                if let Some(key) = submission.batch.key() {
                    self.window.insert(key.into(), *range);
                }
            }
        }
        let bytes = &piece.bytes[..piece.cuts[whole - 1]];
        if self.last_seq >= first {
            let stats = &self.shared.stats;
            stats.entries.fetch_add(self.last_seq + 1 - first, Ordering::Relaxed);
            stats.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            stats.writes.fetch_add(1, Ordering::Relaxed);
            self.shared.ring.push(first, self.last_seq, bytes);
            self.shared.committed(self.appender.len(), self.last_seq);
        }
        for (submission, (range, duplicate)) in group.drain(..whole).zip(&piece.receipts) {
            if *duplicate {
                self.shared.stats.duplicates.fetch_add(submission.batch.len() as u64, Ordering::Relaxed);
            }
            submission.answer(Ok(Receipt { first: range.first, last: range.last, duplicate: *duplicate }));
        }
    }

    /// Said once in a while, however many entries it concerns: on a disk that is nearly full, some pass.
    fn failed(&mut self, error: &io::Error) {
        self.shared.healthy.store(false, Ordering::Release);
        if self.failure_told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
            self.failure_told = Some(Instant::now());
            let failed = self.shared.stats.failed.load(Ordering::Relaxed);
            let file = self.keeper.file().display();
            tracing::error!(%error, %file, failed_before = failed, "entries can't be written");
        }
    }

    fn recovered(&mut self) {
        self.shared.healthy.store(true, Ordering::Release);
        if self.failure_told.is_some_and(|at| at.elapsed() >= TELL_AGAIN) {
            self.failure_told = None;
            let failed = self.shared.stats.failed.load(Ordering::Relaxed);
            tracing::info!(failed_since_start = failed, "entries are written again");
        }
    }

    /// Takes the file up again, as at the start, where others have added to it or cut it: places in it would be
    /// wrong by so much, for readers and for what is cut off after a failure.
    fn mind_others(&mut self) -> io::Result<()> {
        if self.appender.touched()? {
            let (current, torn) = recover::open_current(self.keeper.file())?;
            let (file, was, is) = (self.keeper.file().display(), self.appender.len(), current.len);
            // Said once in a while: somebody may do so all the time.
            if self.others_told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
                self.others_told = Some(Instant::now());
                tracing::warn!(%file, was, is, torn, "the file was changed by others; it is taken up again");
            }
            self.replace(None, current);
        }
        Ok(())
    }

    fn check(&mut self) {
        if let Some(current) = self.keeper.lost_file(&self.shared.current_file()) {
            tracing::warn!(file = %self.keeper.file().display(), "the file was moved or removed; a new one is made");
            self.replace(None, current);
            if self.ack == Ack::Synced
                && let Err(error) = self.keeper.sync_names()
            {
                tracing::error!(%error, "the name of the new file may not survive a power cut");
            }
        }
        if let Err(error) = self.mind_others() {
            tracing::error!(%error, "the log file can't be looked at");
        }
        let age_from = self.first.map(|(_, at)| at);
        if self.keeper.old(age_from, Timestamp::now()) {
            self.rotate();
        }
        self.keeper.tidy(&self.shared, self.appender.len());
    }

    fn rotate(&mut self) {
        let Some((first_seq, _)) = self.first else { return };
        let rotated = self
            .appender
            .sync()
            .and_then(|()| self.keeper.rotate(first_seq, self.appender.len(), Timestamp::now()));
        match rotated {
            Ok((segment, current)) => self.replace(Some(segment), current),
            Err(error) => {
                tracing::error!(%error, "the log file could not be rotated; it grows on");
                self.keeper.postpone();
            }
        }
    }

    fn replace(&mut self, closed: Option<Segment>, current: Current) {
        self.appender = Appender::new((self.disk)(Arc::clone(&current.file)), current.len);
        self.first = current.first;
        self.shared.replaced(closed, current.file, current.len);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue.abandon();
        self.shared.over.send_replace(true);
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_large_batch_does_not_keep_its_memory() {
        let mut piece = Piece { bytes: vec![0; 2 * PIECE + 1], ..Piece::default() };
        piece.shrink();
        assert_eq!(piece.bytes.capacity(), PIECE);
        piece.bytes.resize(PIECE + 1, 0);
        let kept = piece.bytes.capacity();
        piece.shrink();
        assert_eq!(piece.bytes.capacity(), kept);
    }
}
