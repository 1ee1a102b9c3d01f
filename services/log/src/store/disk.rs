//! The file operations that the appender needs. A trait, so that tests can make a disk fail.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;

/// A file opened for appending.
pub(crate) trait Disk: Send {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Appends some of `bytes`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Returns once everything written survives a power cut.
    fn sync(&mut self) -> io::Result<()>;
    /// Truncates to `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// Turns each new active segment into a disk.
pub(crate) type DiskFactory = Box<dyn Fn(Arc<File>) -> Box<dyn Disk> + Send>;

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
