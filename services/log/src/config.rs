//! The process, and the `[log]` table.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use hubspoke_chassis::{Process, Table};
use serde::{Deserialize, Serialize};

use crate::store::slot::SLOT;
use crate::store::{AckMode, FileLimits, StoreOptions};

/// The log service's process: its name and default address.
pub const PROCESS: Process = Process::new("log", env!("CARGO_PKG_VERSION")).with_listen("127.0.0.1:20002");

/// The log service's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LogConfig {
    /// The file that entries are appended to. Closed files lie beside it. `{slot}` becomes the lowest number
    /// from 1 whose file no other process writes, so that replicas can share a folder.
    pub file: PathBuf,
    /// When an append is acknowledged: `written`, `synced` or `queued`.
    pub ack: AckMode,
    /// Bytes that may wait to be written. Beyond that, senders get 503.
    pub queue: ByteSize,
    /// Longest text of one entry.
    pub max_entry: ByteSize,
    /// Longest batch, decompressed.
    pub max_batch: ByteSize,
    /// Maximum number of entries in one batch.
    pub max_batch_entries: usize,
    /// Bytes that the bodies of all requests in progress may take, as sent and decompressed, not counting the first
    /// 16 KiB of each. Beyond that, senders get 503.
    pub max_bodies: ByteSize,
    /// Queries that may read files at the same time, half of them with a pattern. Beyond that, readers get 503.
    pub max_queries: usize,
    /// How long a query may search, not counting how long it waits for its reader.
    #[serde(with = "humantime_serde")]
    pub max_query_time: Duration,
    /// How long a reader may accept nothing before its reply is aborted. More than the minute for which one
    /// instance may keep the others waiting in `/log/all`.
    #[serde(with = "humantime_serde")]
    pub max_stall: Duration,
    /// Whether entries are taken from anybody, also if tokens are required: for senders that have none, and for clients
    /// of the gateway.
    pub anonymous_writes: bool,
    /// When to rotate the file.
    pub rotate: RotateConfig,
    /// When to remove closed files.
    pub retain: RetainConfig,
}

/// When to close the file and begin a new one. Zero is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RotateConfig {
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
#[non_exhaustive]
pub struct RetainConfig {
    /// The oldest, while all files together are larger than this.
    pub total: ByteSize,
    /// Those last written this long ago.
    #[serde(with = "humantime_serde")]
    pub age: Duration,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            file: "services.log".into(),
            ack: AckMode::Written,
            queue: ByteSize::mib(16),
            max_entry: ByteSize::kib(256),
            max_batch: ByteSize::mib(8),
            max_batch_entries: 10_000,
            max_bodies: ByteSize::mib(24),
            max_queries: 8,
            max_query_time: Duration::from_secs(30),
            max_stall: Duration::from_secs(90),
            anonymous_writes: false,
            rotate: RotateConfig::default(),
            retain: RetainConfig::default(),
        }
    }
}

impl Default for RotateConfig {
    fn default() -> Self {
        Self { size: ByteSize::mib(256), age: Duration::from_secs(24 * 3600), compress: false }
    }
}

impl Default for RetainConfig {
    fn default() -> Self {
        Self { total: ByteSize::gib(10), age: Duration::from_secs(30 * 24 * 3600) }
    }
}

impl Table for LogConfig {
    fn check(&self) -> Result<(), (String, String)> {
        let braces = self.file.to_string_lossy().replace(SLOT, "").contains(['{', '}']);
        // A batch counts twice: as sent, and decompressed.
        let two_batches = self.max_bodies.as_u64() / 2 >= self.max_batch.as_u64();
        let rules = [
            ("file", self.file.file_name().is_some(), "is not a file name"),
            ("file", !braces, "may contain {slot}, but no other braces"),
            ("max_entry", self.max_entry.as_u64() > 0, "must not be zero"),
            ("max_batch", self.max_batch >= self.max_entry, "must not be less than max_entry"),
            ("queue", self.queue >= self.max_batch, "must not be less than max_batch"),
            ("max_batch_entries", self.max_batch_entries > 0, "must not be zero"),
            ("max_bodies", two_batches, "must not be less than twice max_batch"),
            ("max_queries", self.max_queries > 0, "must not be zero"),
            ("max_query_time", !self.max_query_time.is_zero(), "must not be zero"),
            ("max_stall", !self.max_stall.is_zero(), "must not be zero"),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((key, _, rule)) => Err((key.to_owned(), rule.to_owned())),
            None => Ok(()),
        }
    }
}

impl LogConfig {
    pub(crate) fn store_options(&self) -> StoreOptions {
        let size = |size: ByteSize| Some(size.as_u64()).filter(|size| *size > 0);
        let age = |age: Duration| Some(age).filter(|age| !age.is_zero());
        StoreOptions {
            ack: self.ack,
            queue_bytes: bytes(self.queue),
            limits: FileLimits {
                rotate_bytes: size(self.rotate.size),
                rotate_age: age(self.rotate.age),
                retain_age: age(self.retain.age),
                retain_bytes: size(self.retain.total),
                compress: self.rotate.compress,
            },
            ..StoreOptions::new(&self.file)
        }
    }
}

/// A size as a length in memory.
pub(crate) fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}
