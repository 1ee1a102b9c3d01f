//! The `[log]` table.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use hubspoke_chassis::Table;
use serde::{Deserialize, Serialize};

use crate::store::slot::SLOT;
use crate::store::{Ack, Limits, Options};

/// Keys of batches that are remembered: at 10,000 entries a second, the last ten seconds of them.
const KEYS: usize = 100_000;
/// Memory for the last lines while somebody follows.
const RING: usize = 8 << 20;

/// The log service's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Where entries are written. Closed files lie beside it. `{slot}` becomes the lowest number from 1 whose file
    /// no other process writes, so that replicas can share a folder.
    pub file: PathBuf,
    /// When a sender is told that its entry is stored: `written`, `synced` or `queued`.
    pub ack: Ack,
    /// What may wait to be written; beyond it, senders are told to come back later.
    pub queue: ByteSize,
    /// Longest text of one entry.
    pub max_entry: ByteSize,
    /// Longest batch, decompressed.
    pub max_batch: ByteSize,
    /// Entries of one batch.
    pub max_batch_entries: usize,
    /// What the bodies of requests under way may take together, not counting the first 64 KiB of each; beyond it,
    /// senders are told to come back later.
    pub max_bodies: ByteSize,
    /// Queries that may read files at a time; more are told to come back later.
    pub max_queries: usize,
    /// A reader that takes nothing for so long loses its reply. More than the minute for which one of several
    /// instances may keep the others waiting in `/log/all`.
    #[serde(with = "humantime_serde")]
    pub max_stall: Duration,
    /// When to close the file and begin a new one.
    pub rotate: Rotate,
    /// When to remove closed files.
    pub retain: Retain,
}

/// When to close the file and begin a new one. Zero is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rotate {
    /// At this size.
    pub size: ByteSize,
    /// This long after its first entry.
    #[serde(with = "humantime_serde")]
    pub age: Duration,
    /// Compress closed files with zstd.
    pub compress: bool,
}

/// When to remove closed files. Zero is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retain {
    /// The oldest, while all files together are larger.
    pub total: ByteSize,
    /// Those that were last written this long ago.
    #[serde(with = "humantime_serde")]
    pub age: Duration,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            file: "services.log".into(),
            ack: Ack::Written,
            queue: ByteSize::mib(32),
            max_entry: ByteSize::kib(256),
            max_batch: ByteSize::mib(8),
            max_batch_entries: 10_000,
            max_bodies: ByteSize::mib(64),
            max_queries: 8,
            max_stall: Duration::from_secs(90),
            rotate: Rotate::default(),
            retain: Retain::default(),
        }
    }
}

impl Default for Rotate {
    fn default() -> Self {
        Self { size: ByteSize::mib(256), age: Duration::from_secs(24 * 3600), compress: false }
    }
}

impl Default for Retain {
    fn default() -> Self {
        Self { total: ByteSize::gib(10), age: Duration::from_secs(30 * 24 * 3600) }
    }
}

impl Table for LogConfig {
    fn check(&self) -> Result<(), (String, String)> {
        let at = |key: &str, why: &str| Err((key.to_owned(), why.to_owned()));
        if self.file.file_name().is_none() {
            return at("file", "is no file name");
        }
        if self.file.to_string_lossy().replace(SLOT, "").contains(['{', '}']) {
            return at("file", "may have {slot} in it, and no other braces");
        }
        if self.max_entry.as_u64() == 0 {
            return at("max_entry", "must not be zero");
        }
        if self.max_batch < self.max_entry {
            return at("max_batch", "must not be less than max_entry");
        }
        if self.queue < self.max_batch {
            return at("queue", "must not be less than max_batch");
        }
        if self.max_batch_entries == 0 {
            return at("max_batch_entries", "must not be zero");
        }
        // As sent, and unpacked.
        if self.max_bodies.as_u64() / 2 < self.max_batch.as_u64() {
            return at("max_bodies", "must not be less than twice max_batch");
        }
        if self.max_queries == 0 {
            return at("max_queries", "must not be zero");
        }
        if self.max_stall.is_zero() {
            return at("max_stall", "must not be zero");
        }
        Ok(())
    }
}

impl LogConfig {
    pub(crate) fn options(&self) -> Options {
        let size = |size: ByteSize| Some(size.as_u64()).filter(|size| *size > 0);
        let age = |age: Duration| Some(age).filter(|age| !age.is_zero());
        Options {
            file: self.file.clone(),
            ack: self.ack,
            queue_bytes: bytes(self.queue),
            keys: KEYS,
            ring_bytes: RING,
            limits: Limits {
                rotate_bytes: size(self.rotate.size),
                rotate_age: age(self.rotate.age),
                retain_age: age(self.retain.age),
                retain_bytes: size(self.retain.total),
                compress: self.rotate.compress,
            },
        }
    }
}

/// A size as a length in memory.
pub(crate) fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}
