//! Appends whole submissions to a disk that may fail at any moment.
//!
//! Invariant: the file is good up to `len`, and every acknowledged entry lies before it. Bytes that a failed
//! write left beyond `len` are cut off, at the latest before the next write.

use std::io;
use std::time::{Duration, Instant};

use super::disk::Disk;

pub(crate) struct Appender {
    disk: Box<dyn Disk>,
    len: u64,
    /// There are bytes beyond `len` that could not be cut off yet.
    dirty: bool,
}

/// The outcome of [`Appender::commit`].
#[derive(Debug)]
pub(crate) struct CommitOutcome {
    /// How many submissions are stored, counted from the first.
    pub(crate) stored: usize,
    /// Why the others are not.
    pub(crate) failure: Option<CommitFailure>,
    /// Duration of the sync, if there was one.
    pub(crate) sync: Option<Duration>,
}

/// Why submissions are not stored.
#[derive(Debug)]
pub(crate) enum CommitFailure {
    /// The first one that is not stored could not be written; those after it were not tried.
    Write(io::Error),
    /// None is safe: the disk could not be synced or repaired.
    All(io::Error),
}

impl CommitOutcome {
    /// Nothing is stored.
    pub(crate) fn failed(error: io::Error, sync: Option<Duration>) -> Self {
        Self { stored: 0, failure: Some(CommitFailure::All(error)), sync }
    }
}

impl Appender {
    pub(crate) fn new(disk: Box<dyn Disk>, len: u64) -> Self {
        Self { disk, len, dirty: false }
    }

    /// Length of the good part, in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether another process has appended to the file or truncated it since the last commit.
    pub(crate) fn modified_by_others(&self) -> io::Result<bool> {
        Ok(!self.dirty && self.disk.len()? != self.len)
    }

    /// Writes submissions. `ends` has the end of each, ascending; the last is `bytes.len()`.
    pub(crate) fn commit(&mut self, bytes: &[u8], ends: &[usize], sync: bool) -> CommitOutcome {
        if let Err(error) = self.repair() {
            return CommitOutcome::failed(error, None);
        }
        let (written, error) = self.write_fully(bytes);
        let stored = ends.partition_point(|end| *end <= written);
        let good = if stored == 0 { 0 } else { ends[stored - 1] };
        if written > good {
            self.truncate_to(good as u64);
        }
        let began = Instant::now();
        let synced = (sync && good > 0).then(|| self.disk.sync());
        let sync = synced.is_some().then(|| began.elapsed());
        if let Some(Err(error)) = synced {
            // After a failed sync it is unknown which pages reached the disk, and a second sync would report
            // success without writing them. So drop the whole group; its senders retry.
            self.truncate_to(0);
            return CommitOutcome::failed(error, sync);
        }
        self.len += good as u64;
        CommitOutcome { stored, failure: error.map(CommitFailure::Write), sync }
    }

    /// Returns once everything committed survives a power cut.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.repair()?;
        self.disk.sync()
    }

    /// Cuts off what an earlier failure left.
    fn repair(&mut self) -> io::Result<()> {
        if self.dirty {
            self.disk.truncate(self.len)?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Truncates to `more` bytes beyond the good part, now or at the next repair.
    fn truncate_to(&mut self, more: u64) {
        self.dirty = self.disk.truncate(self.len + more).is_err();
    }

    fn write_fully(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut written = 0;
        while written < bytes.len() {
            match self.disk.write(&bytes[written..]) {
                Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }
}

#[cfg(test)]
mod tests;
