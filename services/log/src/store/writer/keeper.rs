//! What happens to whole files: rotation, retention, compression, and noticing that the file is gone.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::super::compress::compress;
use super::super::recover::{self, Current};
use super::super::segment::{Names, Segment, expired};
use super::super::{Limits, Shared};

/// How long to go on with a file that could not be rotated before trying again.
const AGAIN: Duration = Duration::from_secs(60);

pub(in super::super) struct Keeper {
    names: Names,
    limits: Limits,
    /// The path as configured, for messages.
    file: PathBuf,
    not_before: Option<Instant>,
    compressing: Option<Compressing>,
    /// Held while the process lives.
    _lock: File,
}

/// The thread that compresses one segment; ends early when dropped.
struct Compressing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(in super::super) fn new(names: Names, limits: Limits, lock: File) -> Self {
        let file = names.current();
        Self { names, limits, file, not_before: None, compressing: None, _lock: lock }
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Whether a file of `len` bytes is to be closed.
    pub(super) fn full(&self, len: u64) -> bool {
        len > 0 && self.limits.rotate_bytes.is_some_and(|max| len >= max) && self.may_rotate()
    }

    /// Whether a file whose first entry came at `first` is to be closed.
    pub(super) fn old(&self, first: Option<Timestamp>, now: Timestamp) -> bool {
        let age = first.and_then(|first| Duration::try_from(now.duration_since(first)).ok());
        age.zip(self.limits.rotate_age).is_some_and(|(age, max)| age >= max) && self.may_rotate()
    }

    /// Puts rotation off: trying again with every group would only make things slower.
    pub(super) fn postpone(&mut self) {
        self.not_before = Some(Instant::now() + AGAIN);
    }

    fn may_rotate(&self) -> bool {
        self.not_before.is_none_or(|at| Instant::now() >= at)
    }

    /// Closes the file being written, which starts with entry `first_seq`, and makes an empty one.
    pub(super) fn rotate(
        &mut self,
        first_seq: u64,
        len: u64,
        now: Timestamp,
    ) -> io::Result<(Segment, Current)> {
        self.not_before = None;
        // Made first: where there is no room for it, nothing has happened yet.
        let next = recover::create_next(&self.names)?;
        let path = self.names.closed(first_seq, now);
        swap(&self.file, &path, &self.names.next())?;
        Ok((Segment { first_seq, path, bytes: len, modified: SystemTime::now() }, next))
    }

    /// Makes the file's name survive a power cut.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        recover::sync_names(self.names.dir())
    }

    /// A new file, where the name no longer leads to `current`: an operator moved or removed it.
    pub(super) fn lost_file(&self, current: &File) -> Option<Current> {
        let open = current.metadata().ok()?;
        match std::fs::metadata(&self.file) {
            Ok(named) if (named.dev(), named.ino()) == (open.dev(), open.ino()) => None,
            Err(error) if error.kind() != io::ErrorKind::NotFound => None,
            // Taken up like a file found at start.
            _ => recover::open_current(&self.file).ok().map(|(current, _)| current),
        }
    }

    /// Drops what is too old or too much, and compresses what is left.
    pub(super) fn tidy(&mut self, shared: &Arc<Shared>, current: u64) {
        let closed = shared.closed_segments();
        let limits = &self.limits;
        let drop = expired(&closed, current, SystemTime::now(), limits.retain_age, limits.retain_bytes);
        for segment in &closed[..drop] {
            // Off the list first: who compresses it meanwhile sees that, and removes the copy.
            let Some(segment) = shared.drop_segment(segment.first_seq) else { continue };
            let path = segment.path.display();
            match std::fs::remove_file(&segment.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::error!(segment = %path, %error, "an old segment can't be removed");
                    shared.keep_segment(segment);
                    break;
                }
                _ => tracing::info!(segment = %path, bytes = segment.bytes, "old segment removed"),
            }
        }
        if self.limits.compress && !self.compressing.as_ref().is_some_and(Compressing::busy) {
            // As they are now: what was compressed a moment ago is done.
            let next = shared.closed_segments().into_iter().find(|segment| !segment.compressed());
            self.compressing = next.and_then(|segment| Compressing::start(segment, Arc::clone(shared)));
        }
    }
}

/// Gives `file` the name `closed`, and `next` the name of `file`: both, or neither. Otherwise entries would go on into
/// a file under a name that no reader knows.
fn swap(file: &Path, closed: &Path, next: &Path) -> io::Result<()> {
    std::fs::rename(file, closed)?;
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let named = std::fs::rename(next, file).and_then(|()| File::open(dir)?.sync_all());
    named.inspect_err(|_| {
        // Where this fails too, the file is found missing, and a new one is made.
        let _ = std::fs::rename(closed, file);
    })
}

/// Lists a copy in its segment's place, or removes it where the segment was dropped meanwhile.
fn compressed(shared: &Shared, small: Segment) {
    let path = small.path.clone();
    if !shared.compressed(small)
        && let Err(error) = std::fs::remove_file(&path)
    {
        tracing::error!(segment = %path.display(), %error, "an old segment can't be removed");
    }
}

impl Compressing {
    fn start(segment: Segment, shared: Arc<Shared>) -> Option<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || match compress(&segment, &stopped) {
            Ok(Some(small)) => compressed(&shared, small),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(segment = %segment.path.display(), %error, "a segment can't be compressed");
                // So that it does not begin again every second.
                std::thread::park_timeout(AGAIN);
            }
        };
        let thread = std::thread::Builder::new().name("log-compress".to_owned()).spawn(work);
        let thread =
            thread.inspect_err(|error| tracing::error!(%error, "no thread to compress with")).ok()?;
        Some(Self { stop, thread: Some(thread) })
    }

    fn busy(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Compressing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Its failures are told where they happen; a panic there has been printed.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Ack, Options, Store};

    #[test]
    fn a_copy_takes_its_segments_place_only_where_that_is_still_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            file: dir.path().join("services.log"),
            ack: Ack::Written,
            queue_bytes: 1,
            keys: 0,
            ring_bytes: 0,
            limits: Limits::default(),
        };
        let store = Store::open(options, "log-a").unwrap();
        let segment = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "entries").unwrap();
            Segment { first_seq: 1, path, bytes: 7, modified: SystemTime::now() }
        };
        let plain = segment("s-0000000000000001-20261123T080711Z.log");
        let never = AtomicBool::new(false);
        store.shared.keep_segment(plain.clone());
        let small = compress(&plain, &never).unwrap().unwrap();
        compressed(&store.shared, small.clone());
        // Again, by a listing from before: the copy stays, since it is all there is.
        let again = compress(&plain, &never).unwrap().unwrap();
        compressed(&store.shared, again);
        assert_eq!(store.shared.closed_segments(), std::slice::from_ref(&small));
        assert!(small.path.exists());
        // Dropped while it is compressed.
        assert_eq!(store.shared.drop_segment(1), Some(small.clone()));
        compressed(&store.shared, small.clone());
        assert!(!small.path.exists() && store.shared.closed_segments().is_empty());
    }

    #[test]
    fn a_rotation_that_fails_halfway_leaves_the_file_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let [file, closed, next] = ["services.log", "closed", "next"].map(|name| dir.path().join(name));
        std::fs::write(&file, "entries").unwrap();
        assert_eq!(swap(&file, &closed, &next).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!((std::fs::read_to_string(&file).unwrap().as_str(), closed.exists()), ("entries", false));
        std::fs::write(&next, "").unwrap();
        swap(&file, &closed, &next).unwrap();
        assert_eq!(std::fs::read_to_string(&closed).unwrap(), "entries");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
    }
}
