//! A count of one process, in memory or in a file.
//!
//! With a file, numbers are reserved in blocks: the file has the last number that may be given out, and is
//! synced before the first number of a block is used. So no number is given out twice, whatever happens, and
//! the disk is written once per block. The price: a crash leaves a gap of at most a block. A clean stop
//! leaves none.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::file::{StateError, StateFile};

/// Numbers reserved at a time.
pub const BLOCK: u64 = 1_000;

/// Clones share the count.
#[derive(Debug, Clone)]
pub(super) struct LocalCount(Arc<Mutex<Count>>);

#[derive(Debug)]
struct Count {
    /// The last number given out.
    last: u64,
    /// The last number that may be given out.
    reserved: u64,
    file: Option<Arc<StateFile>>,
}

impl LocalCount {
    /// Starts at 1; a restart forgets the count.
    pub(super) fn in_memory() -> Self {
        Self::from(Count { last: 0, reserved: u64::MAX, file: None })
    }

    /// Continues after the number in the file. Blocks on the disk.
    ///
    /// # Errors
    /// [`StateError`].
    pub(super) fn in_file(path: &Path) -> Result<Self, StateError> {
        let (file, last) = StateFile::open(path)?;
        Ok(Self::from(Count { last, reserved: last, file: Some(Arc::new(file)) }))
    }

    /// The next number.
    ///
    /// # Errors
    /// If the next block can't be reserved; then no number is given out.
    pub(super) async fn next(&self) -> io::Result<u64> {
        let mut count = self.0.lock().await;
        if count.last == count.reserved {
            let reserved = count.reserved + BLOCK;
            count.save(reserved).await?;
            count.reserved = reserved;
        }
        count.last += 1;
        Ok(count.last)
    }

    /// The last number given out.
    pub(super) async fn last(&self) -> u64 {
        self.0.lock().await.last
    }

    /// Releases reserved numbers that were not given out, so that a restart continues without a gap. A later
    /// call of [`LocalCount::next`] reserves again.
    ///
    /// # Errors
    /// If the file can't be written; then a restart leaves a gap.
    pub(super) async fn release(&self) -> io::Result<()> {
        let mut count = self.0.lock().await;
        let last = count.last;
        count.save(last).await?;
        if count.file.is_some() {
            count.reserved = last;
        }
        Ok(())
    }
}

impl From<Count> for LocalCount {
    fn from(count: Count) -> Self {
        Self(Arc::new(Mutex::new(count)))
    }
}

impl Count {
    async fn save(&self, number: u64) -> io::Result<()> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        tokio::task::spawn_blocking(move || file.write(number)).await.map_err(io::Error::other)?
    }
}
