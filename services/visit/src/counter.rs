//! One number per visit, taken in one step, so that no two visits get the same: counted by this process alone
//! (`local`), or by all replicas together (`shared`).

use std::io;
use std::path::Path;
use std::sync::Arc;

use hubspoke_etcd::Etcd;

pub use self::file::StateError;
pub use self::local::BLOCK;
use self::local::LocalCount;
use self::shared::SharedCount;
pub use self::shared::{CountStats, SharedCountError};

mod file;
mod local;
mod shared;

/// Gives out numbers. Clones share the count.
#[derive(Debug, Clone)]
pub struct VisitCounter(Storage);

#[derive(Debug, Clone)]
enum Storage {
    Local(LocalCount),
    Shared(Arc<SharedCount>),
}

/// Why a visit has no number.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CountError {
    /// The file can't be written.
    #[error("can't reserve numbers in the state file")]
    File(#[from] io::Error),
    /// The shared count gave no number.
    #[error("can't take a number from the shared count")]
    Shared(#[from] SharedCountError),
}

impl VisitCounter {
    /// Starts at 1; a restart forgets the count.
    pub fn in_memory() -> Self {
        Self(Storage::Local(LocalCount::in_memory()))
    }

    /// Continues after the number in the file. Blocks on the disk.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn in_file(path: &Path) -> Result<Self, StateError> {
        Ok(Self(Storage::Local(LocalCount::in_file(path)?)))
    }

    /// Shares the count in a key of etcd with all replicas that use the key. Needs a Tokio runtime; the counter's task
    /// ends with its last clone.
    pub fn in_etcd(etcd: &Etcd, key: impl Into<String>) -> Self {
        Self(Storage::Shared(Arc::new(SharedCount::start(etcd.clone(), key.into()))))
    }

    /// The next number.
    ///
    /// # Errors
    /// [`CountError`]; then no number is given out.
    pub async fn next(&self) -> Result<u64, CountError> {
        match &self.0 {
            Storage::Local(count) => Ok(count.next().await?),
            Storage::Shared(count) => Ok(count.next().await?),
        }
    }

    /// The last number given out; by any replica if the count is shared, as far as is known.
    pub async fn last(&self) -> u64 {
        match &self.0 {
            Storage::Local(count) => count.last().await,
            Storage::Shared(count) => count.last().await,
        }
    }

    /// Releases numbers that were reserved and not given out, so that a restart continues without a gap. A later call
    /// of [`VisitCounter::next`] reserves again.
    ///
    /// # Errors
    /// If the file can't be written; then a restart leaves a gap.
    pub async fn release(&self) -> io::Result<()> {
        match &self.0 {
            Storage::Local(count) => count.release().await,
            Storage::Shared(_) => Ok(()), // nothing is reserved ahead
        }
    }

    /// What the shared count has done so far, if it is shared.
    pub fn stats(&self) -> Option<Arc<CountStats>> {
        match &self.0 {
            Storage::Local(_) => None,
            Storage::Shared(count) => Some(count.stats()),
        }
    }
}

#[cfg(test)]
mod tests;
