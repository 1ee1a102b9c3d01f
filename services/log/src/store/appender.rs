//! Appends whole submissions to a disk that may fail at any moment.
//!
//! Invariant: the file is good up to `len`, and nothing that a sender was told is stored lies beyond it. Whatever
//! a failure left beyond `len` is cut off, at the latest before the next write.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the appender needs of a file. Tests have one that fails on purpose.
pub(crate) trait Disk: Send {
    /// How long it is.
    fn len(&self) -> io::Result<u64>;
    /// Writes some of `bytes` at the end.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Returns once everything written survives a power cut.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts to `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// A file opened for appending.
impl Disk for Arc<File> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&**self).write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

impl Disk for Box<dyn Disk> {
    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (**self).write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        (**self).sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        (**self).truncate(len)
    }
}

pub(crate) struct Appender<D> {
    disk: D,
    len: u64,
    /// Bytes beyond `len` that could not be cut off yet.
    dirty: bool,
}

/// How far a commit came.
#[derive(Debug)]
pub(crate) struct Committed {
    /// How many submissions are stored: always the first ones.
    pub(crate) whole: usize,
    /// What happened to the others.
    pub(crate) failure: Option<Failure>,
    /// How long its sync took, where there was one.
    pub(crate) synced: Option<Duration>,
}

/// Why submissions are not stored.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The first submission that is not stored could not be written; those after it were not tried.
    Write(io::Error),
    /// None could be made safe: the disk refused to sync, or to be repaired.
    All(io::Error),
}

impl<D: Disk> Appender<D> {
    pub(crate) fn new(disk: D, len: u64) -> Self {
        Self { disk, len, dirty: false }
    }

    /// Length of the good part, in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether others have added to the file or cut it since the last commit.
    pub(crate) fn touched(&self) -> io::Result<bool> {
        Ok(!self.dirty && self.disk.len()? != self.len)
    }

    /// Writes submissions, each ending at its place in `cuts` (ascending, the last is `bytes.len()`).
    pub(crate) fn commit(&mut self, bytes: &[u8], cuts: &[usize], sync: bool) -> Committed {
        if let Err(error) = self.repair() {
            return Committed { whole: 0, failure: Some(Failure::All(error)), synced: None };
        }
        let (written, error) = self.write_fully(bytes);
        let whole = cuts.partition_point(|cut| *cut <= written);
        let keep = if whole == 0 { 0 } else { cuts[whole - 1] };
        if written > keep {
            self.cut(keep as u64);
        }
        let began = Instant::now();
        let sync = (sync && keep > 0).then(|| self.disk.sync());
        let synced = sync.is_some().then(|| began.elapsed());
        if let Some(Err(error)) = sync {
            // After a failed sync nobody knows which pages reached the disk, and a second sync would say OK
            // without writing them. So all of it goes, and is written afresh if its senders try again.
            self.cut(0);
            return Committed { whole: 0, failure: Some(Failure::All(error)), synced };
        }
        self.len += keep as u64;
        Committed { whole, failure: error.map(Failure::Write), synced }
    }

    /// Makes what is written survive a power cut.
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

    fn cut(&mut self, keep: u64) {
        self.dirty = self.disk.truncate(self.len + keep).is_err();
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
