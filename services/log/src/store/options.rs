//! How a store is opened: durability, bounds, rotation and retention.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Approximate memory of a remembered key, in bytes, whatever its length.
pub(crate) const KEY_MEMORY: usize = 100;

/// When an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckMode {
    /// On arrival. A crash of the process loses what waits to be written, and so does a full disk.
    Queued,
    /// After the write. A crash of the process loses nothing; a power cut loses the last seconds.
    #[default]
    Written,
    /// After `fdatasync`. A power cut loses nothing.
    Synced,
}

/// Options of a store. Start from [`StoreOptions::new`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreOptions {
    /// The active segment. `{slot}` becomes the lowest number whose file no other process writes.
    pub file: PathBuf,
    /// When an append is acknowledged.
    pub ack: AckMode,
    /// Bytes of entries that may wait for the writer.
    pub queue_bytes: usize,
    /// Idempotency keys of members to remember, and as many of others. The default covers ten seconds at 10,000 batches
    /// a second.
    pub dedup_keys: usize,
    /// Bytes of recent entries to keep in memory while the log has followers.
    pub ring_bytes: usize,
    /// Rotation and retention.
    pub limits: FileLimits,
}

impl StoreOptions {
    /// Defaults: acknowledged when written, a queue of 32 MiB, and no rotation or retention.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            ack: AckMode::default(),
            queue_bytes: 32 << 20,
            dedup_keys: 100_000,
            ring_bytes: 8 << 20,
            limits: FileLimits::default(),
        }
    }
}

/// When to rotate the active segment and to remove closed ones. `None` is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FileLimits {
    /// Rotate at this length.
    pub rotate_bytes: Option<u64>,
    /// Rotate this long after the first entry.
    pub rotate_age: Option<Duration>,
    /// Remove segments last written this long ago.
    pub retain_age: Option<Duration>,
    /// Remove the oldest segments while all files together are larger.
    pub retain_bytes: Option<u64>,
    /// Compress closed segments.
    pub compress: bool,
}
