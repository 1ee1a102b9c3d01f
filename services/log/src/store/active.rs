//! The active segment: the file that entries are appended to.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::blocks::{BlockReader, lines};
use super::repair::{end_of_last_line, incomplete_batch};
use crate::entry::line::head;

const ENTRY_START: &[u8] = b"{\"ts\":\"";

/// The active segment, ready for appending.
pub(super) struct ActiveSegment {
    pub(super) file: Arc<File>,
    pub(super) len: u64,
    pub(super) first: Option<FirstEntry>,
}

/// The first entry of a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstEntry {
    pub(super) seq: u64,
    pub(super) at: Timestamp,
}

impl ActiveSegment {
    /// Opens or creates the file and repairs its end. Returns it with the number of bytes that were cut off:
    /// an incomplete entry or batch. Text that is not an entry stays.
    pub(super) fn open(path: &Path) -> io::Result<(Self, u64)> {
        let mut file = private_file().append(true).open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        let len = file.metadata()?.len();
        let file_ref = Arc::new(file.try_clone()?);
        let mut end = end_of_last_line(&file_ref, len)?;
        if end < len {
            let mut tail = [0; ENTRY_START.len()];
            let tail = &mut tail[..usize::try_from(len - end).unwrap_or(usize::MAX).min(ENTRY_START.len())];
            file_ref.read_exact_at(tail, end)?;
            // The start of an entry, or a block that the file system never filled.
            if ENTRY_START.starts_with(tail) || tail.first() == Some(&0) {
                file.set_len(end)?;
            } else {
                // Another program's text is not ours to cut.
                file.write_all(b"\n")?;
                end = len + 1;
            }
            file.sync_all()?;
        }
        if let Some(start) = incomplete_batch(&file_ref, end)? {
            file.set_len(start)?;
            file.sync_all()?;
            end = start;
        }
        let first = first_entry(&BlockReader::active(Arc::clone(&file_ref), end))?;
        Ok((Self { file: file_ref, len: end, first }, len.saturating_sub(end)))
    }

    /// Creates an empty file, or opens the one that a failed rotation left.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = private_file().append(true).truncate(false).open(path)?;
        Ok(Self { file: Arc::new(file), len: 0, first: None })
    }

    /// Opens `path` again if it no longer leads to `file`: an operator has moved or removed it.
    pub(super) fn reopen_if_replaced(path: &Path, file: &File) -> Option<Self> {
        let open = file.metadata().ok()?;
        match std::fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (open.dev(), open.ino()) => None,
            Err(error) if error.kind() != io::ErrorKind::NotFound => None,
            _ => Self::open(path).ok().map(|(active, _)| active),
        }
    }
}

/// Options for a file that only its owner may read: entries can hold secrets.
pub(super) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

/// Returns once the names in `dir`, and the name of `dir` itself, survive a power cut.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()?;
    let parent =
        dir.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    match parent.map(File::open) {
        Some(Ok(parent)) => parent.sync_all(),
        // A parent that this user may not read existed before.
        _ => Ok(()),
    }
}

fn first_entry(blocks: &BlockReader) -> io::Result<Option<FirstEntry>> {
    let mut buf = Vec::new();
    for index in 0..blocks.count() {
        blocks.read(index, &mut buf)?;
        let entry = lines(&buf).find_map(|line| {
            let head = head(line)?;
            let at = std::str::from_utf8(head.arrival()).ok()?.parse().ok()?;
            Some(FirstEntry { seq: head.seq, at })
        });
        if entry.is_some() {
            return Ok(entry);
        }
    }
    Ok(None)
}
