//! The list of a store's files, shared by the writer, the background work and the readers.

use std::fs::File;
use std::sync::Arc;

use parking_lot::Mutex;

use super::segment::Segment;

/// The files at one moment.
#[derive(Clone)]
pub(crate) struct FilesSnapshot {
    /// Closed segments, oldest first.
    pub(crate) closed: Vec<Segment>,
    /// The active segment.
    pub(crate) active: Arc<File>,
    /// How much of `active` is committed, in bytes. Readers stop here.
    pub(crate) committed_len: u64,
}

/// Every change is one step, so each snapshot has every committed entry exactly once.
pub(super) struct FileList {
    files: Mutex<FilesSnapshot>,
}

impl FileList {
    pub(super) fn new(files: FilesSnapshot) -> Self {
        Self { files: Mutex::new(files) }
    }

    pub(super) fn snapshot(&self) -> FilesSnapshot {
        self.files.lock().clone()
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        let files = self.files.lock();
        files.committed_len + files.closed.iter().map(|segment| segment.bytes).sum::<u64>()
    }

    /// Shows readers the active segment up to `len`.
    pub(super) fn commit(&self, len: u64) {
        self.files.lock().committed_len = len;
    }

    /// Switches to another active segment; after a rotation, `closed` is the one before.
    pub(super) fn switch(&self, closed: Option<Segment>, active: Arc<File>, committed_len: u64) {
        let mut files = self.files.lock();
        files.closed.extend(closed);
        files.active = active;
        files.committed_len = committed_len;
    }

    /// Lists the compressed copy of a segment in its place. `false` if the segment was removed in the
    /// meantime.
    #[must_use]
    pub(super) fn replace(&self, copy: Segment) -> bool {
        let mut files = self.files.lock();
        let listed = files.closed.iter_mut().find(|segment| segment.first_seq == copy.first_seq);
        listed.map(|segment| *segment = copy).is_some()
    }

    /// Takes a segment off the list. Returns it as listed now: it may have been compressed.
    pub(super) fn remove(&self, first_seq: u64) -> Option<Segment> {
        let mut files = self.files.lock();
        let at = files.closed.iter().position(|segment| segment.first_seq == first_seq)?;
        Some(files.closed.remove(at))
    }

    /// Puts a segment on the list, in order.
    pub(super) fn insert(&self, segment: Segment) {
        let mut files = self.files.lock();
        let at = files.closed.partition_point(|other| other.first_seq < segment.first_seq);
        files.closed.insert(at, segment);
    }
}
