//! zstd's seekable format (facebook/zstd, contrib/seekable_format): compressed files of which any part can be
//! read without the rest.
//!
//! A file is a sequence of zstd frames, and a table of their sizes in a last frame that plain decoders skip.
//! So `zstd -d` reads it too.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;
/// Bytes of the footer: frame count, descriptor, magic number.
const FOOTER: u64 = 9;
/// Bytes of a table row: compressed and raw size of a frame.
const ROW: u64 = 8;
/// zstd's default: 3 to 5 times smaller, at some hundred MB/s.
const LEVEL: i32 = 3;
/// Largest raw frame to accept. The longest line and a block are far below it.
const MAX_FRAME: u32 = 1 << 30;

/// Reads frames in any order.
pub(crate) struct SeekableReader {
    file: File,
    frames: Vec<Frame>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    start: u64,
    /// Sizes in bytes.
    compressed: u32,
    raw: u32,
}

impl SeekableReader {
    /// Reads the table of a file.
    pub(super) fn open(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let footer_at = len.checked_sub(FOOTER).ok_or_else(not_seekable)?;
        let mut footer = [0; FOOTER as usize];
        file.read_exact_at(&mut footer, footer_at)?;
        if u32_at(&footer, 5) != SEEKABLE_MAGIC || footer[4] != 0 {
            return Err(not_seekable());
        }
        let rows = u64::from(u32_at(&footer, 0));
        let table_at = footer_at.checked_sub(rows * ROW).ok_or_else(not_seekable)?;
        let mut table = vec![0; usize::try_from(rows * ROW).map_err(|_| not_seekable())?];
        file.read_exact_at(&mut table, table_at)?;
        let mut start = 0;
        let mut frames = Vec::with_capacity(table.len() / ROW as usize);
        for row in table.chunks_exact(ROW as usize) {
            let frame = Frame { start, compressed: u32_at(row, 0), raw: u32_at(row, 4) };
            start += u64::from(frame.compressed);
            if frame.raw > MAX_FRAME || start > table_at {
                return Err(not_seekable());
            }
            frames.push(frame);
        }
        Ok(Self { file, frames })
    }

    /// Number of frames.
    pub(super) fn count(&self) -> u64 {
        self.frames.len() as u64
    }

    /// Decompresses frame `index` into `buf`.
    pub(super) fn read(&self, index: u64, buf: &mut Vec<u8>) -> io::Result<()> {
        let frame = usize::try_from(index).ok().and_then(|index| self.frames.get(index));
        let frame = frame.ok_or_else(not_seekable)?;
        let mut compressed = vec![0; frame.compressed as usize];
        self.file.read_exact_at(&mut compressed, frame.start)?;
        *buf = zstd::bulk::decompress(&compressed, frame.raw as usize)?;
        Ok(())
    }
}

/// Writes a file frame by frame.
pub(super) struct SeekableWriter {
    file: File,
    table: Vec<u8>,
    bytes: u64,
}

impl SeekableWriter {
    /// Creates or truncates the file.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { file, table: Vec::new(), bytes: 0 })
    }

    /// Compresses `raw` into a frame.
    pub(super) fn write(&mut self, raw: &[u8]) -> io::Result<()> {
        let frame = zstd::bulk::compress(raw, LEVEL)?;
        self.file.write_all(&frame)?;
        self.bytes += frame.len() as u64;
        for len in [frame.len(), raw.len()] {
            self.table.extend(u32::try_from(len).map_err(|_| not_seekable())?.to_le_bytes());
        }
        Ok(())
    }

    /// Writes the table and syncs. Returns the file, and its length in bytes.
    pub(super) fn finish(mut self) -> io::Result<(File, u64)> {
        let rows = u32::try_from(self.table.len() as u64 / ROW).map_err(|_| not_seekable())?;
        let mut last = Vec::with_capacity(self.table.len() + 17);
        last.extend(SKIPPABLE_MAGIC.to_le_bytes());
        last.extend((rows * ROW as u32 + FOOTER as u32).to_le_bytes());
        last.extend(self.table);
        last.extend(rows.to_le_bytes());
        last.push(0); // descriptor: no checksums in the table
        last.extend(SEEKABLE_MAGIC.to_le_bytes());
        self.file.write_all(&last)?;
        self.file.sync_all()?;
        Ok((self.file, self.bytes + last.len() as u64))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn not_seekable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a seekable zstd file")
}
