//! Rotation: closes the active segment by size or age, and begins an empty one.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::active::ActiveSegment;
use super::options::FileLimits;
use super::segment::{Segment, SegmentNames};

/// Pause after a rotation that failed: trying again with every group would only slow things down.
const RETRY_AFTER: Duration = Duration::from_secs(60);

pub(super) struct Rotation {
    names: SegmentNames,
    max_bytes: Option<u64>,
    max_age: Option<Duration>,
    /// The active segment.
    path: PathBuf,
    not_before: Option<Instant>,
}

impl Rotation {
    pub(super) fn new(names: SegmentNames, limits: &FileLimits) -> Self {
        let path = names.active();
        Self { names, max_bytes: limits.rotate_bytes, max_age: limits.rotate_age, path, not_before: None }
    }

    /// Path of the active segment.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Folder of all segments.
    pub(super) fn dir(&self) -> &Path {
        self.names.dir()
    }

    /// Whether a segment of `len` bytes is large enough to rotate.
    pub(super) fn due_by_size(&self, len: u64) -> bool {
        len > 0 && self.max_bytes.is_some_and(|max| len >= max) && self.allowed()
    }

    /// Whether a segment whose first entry came at `first` is old enough to rotate, or its clock was that wrong.
    pub(super) fn due_by_age(&self, first: Timestamp, now: Timestamp) -> bool {
        let age = now.duration_since(first).unsigned_abs();
        self.max_age.is_some_and(|max| age >= max) && self.allowed()
    }

    fn allowed(&self) -> bool {
        self.not_before.is_none_or(|at| Instant::now() >= at)
    }

    /// Pauses after a failure.
    pub(super) fn postpone(&mut self) {
        self.not_before = Some(Instant::now() + RETRY_AFTER);
    }

    /// Closes the active segment of `len` bytes, which begins with entry `first_seq`, as last written at `modified`.
    pub(super) fn rotate(
        &mut self,
        first_seq: u64,
        len: u64,
        modified: SystemTime,
    ) -> io::Result<(Segment, ActiveSegment)> {
        self.not_before = None;
        // First of all: if the disk has no room for it, nothing has changed yet.
        let next = ActiveSegment::create(&self.names.next())?;
        let path = self.names.closed(first_seq, Timestamp::now());
        swap(&self.path, &path, &self.names.next())?;
        // If it fails, the file keeps the time of the last write, which only a wrong clock makes worse.
        let _ = File::options().write(true).open(&path).and_then(|file| file.set_modified(modified));
        Ok((Segment { first_seq, path, bytes: len, modified }, next))
    }
}

/// Renames `active` to `closed` and `next` to `active`: both, or neither. Otherwise entries would be
/// appended to a file under a name that no reader knows.
fn swap(active: &Path, closed: &Path, next: &Path) -> io::Result<()> {
    std::fs::rename(active, closed)?;
    let dir = active.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let renamed = std::fs::rename(next, active).and_then(|()| File::open(dir)?.sync_all());
    renamed.inspect_err(|_| {
        // If this fails too, the writer finds the active segment missing and creates a new one.
        let _ = std::fs::rename(closed, active);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_that_fails_halfway_leaves_the_file_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let [active, closed, next] = ["services.log", "closed", "next"].map(|name| dir.path().join(name));
        std::fs::write(&active, "entries").unwrap();
        assert_eq!(swap(&active, &closed, &next).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!((std::fs::read_to_string(&active).unwrap().as_str(), closed.exists()), ("entries", false));
        std::fs::write(&next, "").unwrap();
        swap(&active, &closed, &next).unwrap();
        assert_eq!(std::fs::read_to_string(&closed).unwrap(), "entries");
        assert_eq!(std::fs::read_to_string(&active).unwrap(), "");
    }
}
