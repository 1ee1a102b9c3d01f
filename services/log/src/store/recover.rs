//! Opening the file after whatever happened to it.
//!
//! The content never keeps the service from starting: an unfinished entry or batch at the end is cut off and
//! reported, and lines that are not entries stay where they are. A second process on the same file does.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::blocks::{BLOCK, Blocks, lines};
use super::segment::{self, Names, Segment};
use crate::entry::SeqRange;
use crate::entry::line::{head, parse};

/// How much of the files is read again for the keys of their batches.
const KEYS_BLOCKS: u64 = 8;
/// A line longer than this is none of ours: an entry's text, escaped and in base64 beside it, with all its fields.
const MAX_LINE: u64 = 64 << 20;
const ENTRY_START: &[u8] = b"{\"ts\":\"";

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not a name that rotation can add to.
    #[error("{} is no file name", .0.display())]
    Name(PathBuf),
    /// Another process writes it.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The file system refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder concerned.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// The state of a log file, ready for appending.
pub(super) struct Recovered {
    pub(super) names: Names,
    /// Held as long as the file is written.
    pub(super) lock: File,
    pub(super) current: Current,
    pub(super) closed: Vec<Segment>,
    pub(super) last_seq: u64,
    /// The instance that the last entry names.
    pub(super) instance: Option<String>,
    /// Keys of the last batches, oldest first.
    pub(super) keys: Vec<(String, SeqRange)>,
    /// Bytes of an unfinished entry or batch that were cut off.
    pub(super) torn: u64,
}

/// The file being written.
pub(super) struct Current {
    pub(super) file: Arc<File>,
    pub(super) len: u64,
    /// Number and time of its first entry.
    pub(super) first: Option<(u64, Timestamp)>,
}

pub(super) fn open(file: &Path) -> Result<Recovered, OpenError> {
    let names = Names::new(file).ok_or_else(|| OpenError::Name(file.to_owned()))?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| OpenError::Io { path, error }
    };
    let dir = names.dir();
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
    let lock_path = names.lock();
    let lock = private().open(&lock_path).map_err(failed(&lock_path))?;
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
    read_all(names, lock, closed).map_err(failed(file))
}

fn read_all(names: Names, lock: File, closed: Vec<Segment>) -> io::Result<Recovered> {
    let (current, torn) = open_current(&names.current())?;
    let blocks = Blocks::current(Arc::clone(&current.file), current.len);
    let mut last = last_entry(&blocks)?;
    let mut least = closed.last().map_or(0, |segment| segment.first_seq);
    for segment in closed.iter().rev() {
        if last.is_some() {
            break;
        }
        match Blocks::open(segment).and_then(|blocks| blocks.map_or(Ok(None), |blocks| last_entry(&blocks))) {
            Ok(found) => last = found,
            Err(error) => {
                tracing::error!(segment = %segment.path.display(), %error, "a closed segment can't be read");
                // No reason to stay down: there are fewer entries than bytes, so this leaves a gap in the numbers,
                // but gives none twice.
                least = least.max(segment.first_seq + segment.bytes);
            }
        }
    }
    let (last_seq, instance) = last.map_or((0, None), |(seq, instance)| (seq, Some(instance)));
    let keys = recent_keys(&closed, blocks);
    Ok(Recovered { names, lock, current, closed, last_seq: last_seq.max(least), instance, keys, torn })
}

/// Opens or creates the file being written, and mends its end.
pub(super) fn open_current(path: &Path) -> io::Result<(Current, u64)> {
    let mut file = private().append(true).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    let mut len = file.metadata()?.len();
    let file_ref = Arc::new(file.try_clone()?);
    let good = end_of_last_line(&Blocks::current(Arc::clone(&file_ref), len))?;
    let tail = read_range(&file_ref, good, len.min(good + 64))?;
    let mut torn = 0;
    if good < len {
        // The start of an entry, or a block that the file system never filled.
        let of_an_entry = tail.starts_with(&ENTRY_START[..tail.len().min(ENTRY_START.len())]);
        if of_an_entry || tail.first() == Some(&0) {
            torn = len - good;
            file.set_len(good)?;
            len = good;
        } else {
            // Somebody else's text: not ours to cut.
            file.write_all(b"\n")?;
            len += 1;
        }
        file.sync_all()?;
    }
    if let Some(start) = unfinished_batch(&file_ref, len)? {
        torn += len - start;
        file.set_len(start)?;
        file.sync_all()?;
        len = start;
    }
    let first = first_entry(&Blocks::current(Arc::clone(&file_ref), len))?;
    Ok((Current { file: file_ref, len, first }, torn))
}

/// An empty file for the entries to come, under a name that nobody reads yet.
pub(super) fn create_next(names: &Names) -> io::Result<Current> {
    let file = private().append(true).truncate(false).open(names.next())?;
    Ok(Current { file: Arc::new(file), len: 0, first: None })
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn read_range(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// Where the last finished line ends.
fn end_of_last_line(blocks: &Blocks) -> io::Result<u64> {
    let Blocks::Plain { file, len } = blocks else { return Ok(0) };
    for index in (0..blocks.count()).rev() {
        let from = index * BLOCK;
        let bytes = read_range(file, from, (from + BLOCK).min(*len))?;
        if let Some(newline) = memchr::memrchr(b'\n', &bytes) {
            return Ok(from + newline as u64 + 1);
        }
    }
    Ok(0)
}

/// Where the last batch begins, if it has a key and a crash cut it short. Its sender was told nothing and sends it
/// again; what is left of it would then stand there twice.
fn unfinished_batch(file: &File, len: u64) -> io::Result<Option<u64>> {
    let mut end = len;
    // Number, part and length of the batch of the line behind.
    let mut behind: Option<(u64, u64, u64, String)> = None;
    loop {
        let Some((start, line)) = line_before(file, end)? else { return Ok(None) };
        let Some((head, entry)) = head(&line).zip(parse(&line)) else { return Ok(None) };
        let Some(key) = entry.key else { return Ok(None) };
        let fits = match &behind {
            None => entry.part + 1 < entry.of,
            Some((seq, part, of, same)) => {
                (head.seq + 1, entry.part + 1, entry.of) == (*seq, *part, *of) && key == *same
            }
        };
        // Otherwise whole, or not what was written here: nothing to cut.
        if !fits || entry.part == 0 {
            return Ok(fits.then_some(start));
        }
        behind = Some((head.seq, entry.part, entry.of, key.into_owned()));
        end = start;
    }
}

/// The line that ends at `end`, with its start; nothing at the start of the file, and for a line that is none of ours.
fn line_before(file: &File, end: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut step = 4 << 10;
    if end == 0 {
        return Ok(None);
    }
    loop {
        let from = end.saturating_sub(step);
        let bytes = read_range(file, from, end)?;
        let content = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        match memchr::memrchr(b'\n', content) {
            Some(newline) => return Ok(Some((from + newline as u64 + 1, content[newline + 1..].to_vec()))),
            None if from == 0 => return Ok(Some((0, content.to_vec()))),
            None if step >= MAX_LINE => return Ok(None),
            None => step *= 4,
        }
    }
}

/// Makes the names of the files in `dir`, and of `dir` itself, survive a power cut.
pub(super) fn sync_names(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()?;
    let parent =
        dir.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    match parent.map(File::open) {
        Some(Ok(parent)) => parent.sync_all(),
        // A folder that this user may not read was there before.
        _ => Ok(()),
    }
}

fn last_entry(blocks: &Blocks) -> io::Result<Option<(u64, String)>> {
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

fn first_entry(blocks: &Blocks) -> io::Result<Option<(u64, Timestamp)>> {
    let mut buf = Vec::new();
    for index in 0..blocks.count() {
        blocks.read(index, &mut buf)?;
        let entry = lines(&buf).find_map(|line| {
            let head = head(line)?;
            let ts = std::str::from_utf8(head.ts).ok()?.parse().ok()?;
            Some((head.seq, ts))
        });
        if entry.is_some() {
            return Ok(entry);
        }
    }
    Ok(None)
}

/// Batches of the last blocks, oldest first. Only those that are whole: one that a crash cut short must be stored
/// when it is sent again. What can't be read is left out: a retry of it is stored twice, under its key.
fn recent_keys(closed: &[Segment], current: Blocks) -> Vec<(String, SeqRange)> {
    let unread = |path: &Path, error: io::Error| {
        tracing::error!(file = %path.display(), %error, "keys can't be read; retries of their batches are stored again");
    };
    let mut left = KEYS_BLOCKS.saturating_sub(current.count());
    let mut newest_first = vec![(Path::new("the file being written"), current)];
    for segment in closed.iter().rev() {
        if left == 0 {
            break;
        }
        match Blocks::open(segment) {
            Ok(Some(blocks)) => {
                left = left.saturating_sub(blocks.count());
                newest_first.push((&segment.path, blocks));
            }
            Ok(None) => {}
            Err(error) => unread(&segment.path, error),
        }
    }
    let mut buf = Vec::new();
    let mut keys = Vec::new();
    for (path, blocks) in newest_first.iter().rev() {
        for index in blocks.count().saturating_sub(KEYS_BLOCKS)..blocks.count() {
            match blocks.read(index, &mut buf) {
                Ok(()) => keys.extend(whole_batches(&buf)),
                Err(error) => unread(path, error),
            }
        }
    }
    keys
}

fn whole_batches(block: &[u8]) -> impl Iterator<Item = (String, SeqRange)> {
    let key = memchr::memmem::Finder::new(b",\"key\":\"").into_owned();
    lines(block).filter(move |line| key.find(line).is_some()).filter_map(|line| {
        let (head, entry) = (head(line)?, parse(line)?);
        let key = entry.key?;
        // A batch is written in order, so its last part stands for all of it.
        let first = head.seq.saturating_sub(entry.part);
        (entry.part + 1 == entry.of).then(|| (key.into_owned(), SeqRange { first, last: head.seq }))
    })
}
