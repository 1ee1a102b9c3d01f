//! Opens a log, whatever state its files are in.
//!
//! The content never keeps the service from starting: an incomplete entry or batch at the end is cut off and
//! reported, and lines that are not entries stay where they are. Only another process on the same file does.

use std::error::Error;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use hubspoke_protocol::KeyedHash;
use memchr::memmem::Finder;

use super::active::{ActiveSegment, private_file};
use super::blocks::{BlockReader, lines};
use super::segment::{self, Segment, SegmentNames};
use crate::entry::line::{head, parse};
use crate::entry::{BatchId, NO_CONTENT, SeqRange, add_content, batch_key, write_sender};

/// How many of the newest blocks are read for the keys of their batches.
const KEY_BLOCKS: u64 = 8;

/// Why a log can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Not a file name that segment names can be derived from.
    #[error("{} is not a valid file name", .0.display())]
    Name(PathBuf),
    /// Another process writes it.
    #[error(
        "{} is in use by another process; stop it, or choose another file with log.file (hub.data_dir in hub up)",
        .0.display()
    )]
    InUse(PathBuf),
    /// The file system refuses.
    #[error("can't access {}", path.display())]
    Io {
        /// The file or folder concerned.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The state of a log, ready for appending.
pub(super) struct RecoveredLog {
    pub(super) names: SegmentNames,
    /// Locked until it is dropped.
    pub(super) lock: File,
    pub(super) active: ActiveSegment,
    pub(super) closed: Vec<Segment>,
    pub(super) last_seq: u64,
    /// The instance in the last entry.
    pub(super) instance: Option<String>,
    /// Hashes the keys and contents of batches.
    pub(super) hash: KeyedHash,
    /// The newest batches that have keys, oldest first.
    pub(super) keys: Vec<(BatchId, SeqRange)>,
    /// Bytes of an incomplete entry or batch that were cut off.
    pub(super) torn_bytes: u64,
    /// When the active segment was last written, unless it is empty.
    pub(super) active_write: Option<SystemTime>,
}

impl RecoveredLog {
    /// When an entry was last written, by the times of the files.
    pub(super) fn last_write(&self) -> Option<SystemTime> {
        self.active_write.into_iter().chain(self.closed.iter().map(|segment| segment.modified)).max()
    }
}

pub(super) fn open(file: &Path) -> Result<RecoveredLog, OpenError> {
    let names = SegmentNames::new(file).ok_or_else(|| OpenError::Name(file.to_owned()))?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    let dir = names.dir();
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
    let lock_path = names.lock();
    let lock = private_file().open(&lock_path).map_err(failed(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(file.to_owned())),
        Err(TryLockError::Error(error)) => return Err(failed(&lock_path)(error)),
    }
    match std::fs::remove_file(names.next()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&names.next())(error)),
        _ => {}
    }
    let closed = segment::list(&names).map_err(failed(dir))?;
    recover(names, lock, closed).map_err(failed(file))
}

fn recover(names: SegmentNames, lock: File, closed: Vec<Segment>) -> io::Result<RecoveredLog> {
    let active_write = std::fs::metadata(names.active()).ok().filter(|meta| meta.len() > 0);
    let active_write = active_write.and_then(|meta| meta.modified().ok());
    let (active, torn_bytes) = ActiveSegment::open(&names.active())?;
    let blocks = BlockReader::active(Arc::clone(&active.file), active.len);
    let mut last = last_entry(&blocks)?;
    let mut least_seq = closed.last().map_or(0, |segment| segment.first_seq);
    for segment in closed.iter().rev() {
        if last.is_some() {
            break;
        }
        match BlockReader::open(segment)
            .and_then(|blocks| blocks.map_or(Ok(None), |blocks| last_entry(&blocks)))
        {
            Ok(found) => last = found,
            Err(error) => {
                let (file, error) = (segment.path.display(), &error as &dyn Error);
                tracing::error!(segment = %file, error, "can't read a closed segment; skipping it");
                // There are fewer entries than bytes, so this leaves a gap in the sequence numbers but
                // repeats none.
                least_seq = least_seq.max(segment.first_seq + segment.bytes);
            }
        }
    }
    let (last_seq, instance) = last.map_or((0, None), |(seq, instance)| (seq, Some(instance)));
    let last_seq = last_seq.max(least_seq);
    let hash = KeyedHash::default();
    let keys = recent_keys(&closed, blocks, &hash);
    Ok(RecoveredLog { names, lock, active, closed, last_seq, instance, hash, keys, torn_bytes, active_write })
}

/// Sequence number and instance of the last entry.
fn last_entry(blocks: &BlockReader) -> io::Result<Option<(u64, String)>> {
    let mut buf = Vec::new();
    for index in (0..blocks.count()).rev() {
        blocks.read(index, &mut buf)?;
        let entry = lines(&buf).rev().find_map(|line| {
            let instance = parse(line)?.instance.into_owned();
            Some((head(line)?.seq, instance))
        });
        if entry.is_some() {
            return Ok(entry);
        }
    }
    Ok(None)
}

/// The complete batches in the newest blocks, oldest first. An incomplete one must be stored when it is sent
/// again. Unreadable blocks are skipped: a retry of their batches is stored twice, under its key.
fn recent_keys(closed: &[Segment], active: BlockReader, hash: &KeyedHash) -> Vec<(BatchId, SeqRange)> {
    let unreadable = |path: &Path, error: io::Error| {
        let (file, error) = (path.display(), &error as &dyn Error);
        tracing::error!(%file, error, "can't read recent keys; retries of their batches are stored again");
    };
    let mut left = KEY_BLOCKS.saturating_sub(active.count());
    let mut newest_first = vec![(Path::new("the active segment"), active)];
    for segment in closed.iter().rev() {
        if left == 0 {
            break;
        }
        match BlockReader::open(segment) {
            Ok(Some(blocks)) => {
                left = left.saturating_sub(blocks.count());
                newest_first.push((&segment.path, blocks));
            }
            Ok(None) => {}
            Err(error) => unreadable(&segment.path, error),
        }
    }
    let mut buf = Vec::new();
    let mut batches = BatchCollector::new(hash);
    for (path, blocks) in newest_first.iter().rev() {
        for index in blocks.count().saturating_sub(KEY_BLOCKS)..blocks.count() {
            match blocks.read(index, &mut buf) {
                Ok(()) => batches.add_block(&buf),
                Err(error) => unreadable(path, error),
            }
        }
    }
    batches.complete
}

/// Puts batches with a key together from the lines of their entries, which follow one another.
struct BatchCollector<'a> {
    hash: &'a KeyedHash,
    key: Finder<'static>,
    complete: Vec<(BatchId, SeqRange)>,
    /// The batch that the last line belongs to, as far as it has come, and its number of entries so far.
    open: Option<(BatchId, SeqRange, u64)>,
}

impl<'a> BatchCollector<'a> {
    fn new(hash: &'a KeyedHash) -> Self {
        Self { hash, key: Finder::new(b",\"key\":\""), complete: Vec::new(), open: None }
    }

    fn add_block(&mut self, block: &[u8]) {
        for line in lines(block) {
            let keyed = self.key.find(line).is_some();
            self.open = if keyed { self.add(line) } else { None };
        }
    }

    /// Adds a line; returns the batch that it belongs to, unless that is complete now.
    fn add(&mut self, line: &[u8]) -> Option<(BatchId, SeqRange, u64)> {
        let (head, entry) = (head(line)?, parse(line)?);
        let mut sender = Vec::new();
        write_sender(
            &mut sender,
            entry.source.as_deref(),
            entry.source_id.as_deref(),
            entry.client.as_deref(),
        );
        let key = batch_key(self.hash, &sender, entry.key.as_deref()?);
        let (mut id, mut range) = match self.open {
            _ if entry.part == 0 => {
                let id = BatchId { member: entry.source.is_some(), key, content: NO_CONTENT };
                (id, SeqRange { first: head.seq, last: head.seq })
            }
            Some((id, range, parts))
                if (id.key, parts) == (key, entry.part) && range.last.checked_add(1) == Some(head.seq) =>
            {
                (id, range)
            }
            _ => return None,
        };
        range.last = head.seq;
        id.content = add_content(self.hash, id.content, head.own_time(), line);
        let parts = entry.part.saturating_add(1);
        if parts == entry.of {
            self.complete.push((id, range));
            return None;
        }
        Some((id, range, parts))
    }
}
