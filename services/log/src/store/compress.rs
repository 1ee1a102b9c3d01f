//! Compresses closed segments, one frame per block, so that queries still read any part of them alone.

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::blocks::BlockReader;
use super::files::FileList;
use super::seekable::SeekableWriter;
use super::segment::Segment;

/// Pause after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The thread that compresses one segment. Dropping it stops the work and waits for the thread.
pub(super) struct Compressor {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Compressor {
    /// Starts on the oldest segment that is not compressed.
    pub(super) fn start(files: &Arc<FileList>) -> Option<Self> {
        let segment = files.snapshot().closed.into_iter().find(|segment| !segment.compressed())?;
        let files = Arc::clone(files);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || match compress(&segment, &stopped) {
            Ok(Some(copy)) => publish(&files, copy),
            Ok(None) => {}
            Err(error) => {
                let (segment, error) = (segment.path.display(), &error as &dyn Error);
                tracing::error!(%segment, error, "can't compress a segment; retrying in a minute");
                // The thread counts as busy meanwhile.
                std::thread::park_timeout(RETRY_AFTER);
            }
        };
        let thread = std::thread::Builder::new().name("log-compress".to_owned()).spawn(work);
        let thread = thread.inspect_err(|error| {
            tracing::error!(error = error as &dyn Error, "can't start a thread to compress segments");
        });
        Some(Self { stop, thread: Some(thread.ok()?) })
    }

    pub(super) fn busy(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

/// Writes the compressed copy of `segment` beside it and removes the original. Retention may have removed it
/// already: then the caller finds the segment off the list, and removes the copy. `stop` cancels: the
/// original stays.
fn compress(segment: &Segment, stop: &AtomicBool) -> io::Result<Option<Segment>> {
    let Some(blocks) = BlockReader::open(segment)? else { return Ok(None) };
    let mut name = OsString::from(".");
    name.push(segment.path.file_name().unwrap_or_default());
    name.push(".tmp");
    let temp = segment.path.with_file_name(name);
    // A leftover only takes up space until the next start.
    let remove_temp = || drop(std::fs::remove_file(&temp));
    let Some(bytes) = write_copy(&blocks, segment, &temp, stop).inspect_err(|_| remove_temp())? else {
        remove_temp();
        return Ok(None);
    };
    let path = segment.compressed_path();
    std::fs::rename(&temp, &path)?;
    match std::fs::remove_file(&segment.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Ok(Some(Segment { path, bytes, ..segment.clone() }))
}

fn write_copy(
    blocks: &BlockReader,
    segment: &Segment,
    temp: &Path,
    stop: &AtomicBool,
) -> io::Result<Option<u64>> {
    let mut copy = SeekableWriter::create(temp)?;
    let mut block = Vec::new();
    for index in 0..blocks.count() {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        blocks.read(index, &mut block)?;
        if !block.is_empty() {
            copy.write(&block)?;
        }
    }
    let (file, bytes) = copy.finish()?;
    file.set_modified(segment.modified)?;
    Ok(Some(bytes))
}

/// Lists a copy in its segment's place, or removes it if retention removed the segment meanwhile.
fn publish(files: &FileList, copy: Segment) {
    let path = copy.path.clone();
    if !files.replace(copy)
        && let Err(error) = std::fs::remove_file(&path)
    {
        let (segment, error) = (path.display(), &error as &dyn Error);
        tracing::error!(%segment, error, "can't remove an expired segment");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::SystemTime;

    use super::*;
    use crate::store::blocks::lines;
    use crate::store::files::FilesSnapshot;

    #[test]
    fn a_compressed_segment_reads_the_same_from_both_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s-0000000000000001-20261123T080711Z.log");
        let content: String = (0..60_000).map(|n| format!("line {n} {}\n", "x".repeat(n % 90))).collect();
        fs::write(&path, &content).unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let segment = Segment { first_seq: 1, path: path.clone(), bytes: content.len() as u64, modified };
        assert_eq!(compress(&segment, &AtomicBool::new(true)).unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a cancelled copy leaves nothing");
        let copy = compress(&segment, &AtomicBool::new(false)).unwrap().unwrap();
        assert!(copy.compressed() && copy.bytes < segment.bytes && !path.exists());
        assert_eq!(fs::metadata(&copy.path).unwrap().modified().unwrap(), modified);

        // Found by the new name, and by the one in an older listing.
        for segment in [&copy, &segment] {
            let blocks = BlockReader::open(segment).unwrap().unwrap();
            assert!(blocks.count() > 1);
            let mut buf = Vec::new();
            let mut back = Vec::new();
            for index in (0..blocks.count()).rev() {
                blocks.read(index, &mut buf).unwrap();
                back.extend(lines(&buf).rev().map(|line| String::from_utf8(line.to_vec()).unwrap()));
            }
            back.reverse();
            assert!(back.iter().map(String::as_str).eq(content.lines()));
        }
        let plain = zstd::stream::decode_all(File::open(&copy.path).unwrap()).unwrap();
        assert!(plain == content.as_bytes(), "a plain decoder reads it");
    }

    #[test]
    fn a_copy_takes_its_segments_place_only_if_that_is_still_listed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s-0000000000000001-20261123T080711Z.log");
        fs::write(&path, "entries").unwrap();
        let plain = Segment { first_seq: 1, path, bytes: 7, modified: SystemTime::now() };
        let active = Arc::new(tempfile::tempfile().unwrap());
        let files = FileList::new(FilesSnapshot { closed: vec![plain.clone()], active, committed_len: 0 });
        let never = AtomicBool::new(false);
        let copy = compress(&plain, &never).unwrap().unwrap();
        publish(&files, copy.clone());
        // Again, from an older listing: the copy stays, since it is all there is.
        let again = compress(&plain, &never).unwrap().unwrap();
        publish(&files, again);
        assert_eq!(files.snapshot().closed, std::slice::from_ref(&copy));
        assert!(copy.path.exists());
        // Removed while it is compressed.
        assert_eq!(files.remove(1), Some(copy.clone()));
        publish(&files, copy.clone());
        assert!(!copy.path.exists() && files.snapshot().closed.is_empty());
    }
}
