//! Compresses closed segments so that any part of them can be read without the rest.
//!
//! The file is in zstd's seekable format (facebook/zstd, contrib/seekable_format): frames of about a MiB, each of
//! whole lines, and a table of their sizes in a last frame that plain decoders skip. So `zstd -d` reads it too.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::blocks::Blocks;
use super::segment::{Segment, ZST};

const SKIPPABLE: u32 = 0x184D_2A5E;
const SEEKABLE: u32 = 0x8F92_EAB1;
/// Frame count, descriptor, magic number.
const FOOTER: u64 = 9;
/// Compressed and raw size of a frame.
const ROW: u64 = 8;
/// zstd's default: 3 to 5 times smaller at some hundred MB/s.
const LEVEL: i32 = 3;
/// A frame larger than this is no frame of ours: the longest line and a block, with room to spare.
const MAX_FRAME: u32 = 1 << 30;

/// A compressed segment opened for reading.
pub(crate) struct Frames {
    file: File,
    /// Start, length, and length of the content.
    table: Vec<(u64, u32, u32)>,
}

impl Frames {
    pub(crate) fn open(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let footer_at = len.checked_sub(FOOTER).ok_or_else(not_seekable)?;
        let mut footer = [0; FOOTER as usize];
        file.read_exact_at(&mut footer, footer_at)?;
        if u32_at(&footer, 5) != SEEKABLE || footer[4] != 0 {
            return Err(not_seekable());
        }
        let rows = u64::from(u32_at(&footer, 0));
        let table_at = footer_at.checked_sub(rows * ROW).ok_or_else(not_seekable)?;
        let mut raw = vec![0; usize::try_from(rows * ROW).map_err(|_| not_seekable())?];
        file.read_exact_at(&mut raw, table_at)?;
        let mut start = 0;
        let mut table = Vec::with_capacity(raw.len() / 8);
        for row in raw.chunks_exact(8) {
            let (stored, content) = (u32_at(row, 0), u32_at(row, 4));
            if content > MAX_FRAME || start + u64::from(stored) > table_at {
                return Err(not_seekable());
            }
            table.push((start, stored, content));
            start += u64::from(stored);
        }
        Ok(Self { file, table })
    }

    pub(crate) fn count(&self) -> u64 {
        self.table.len() as u64
    }

    pub(crate) fn read(&self, index: u64, buf: &mut Vec<u8>) -> io::Result<()> {
        let row = usize::try_from(index).ok().and_then(|index| self.table.get(index));
        let (start, stored, content) = *row.ok_or_else(not_seekable)?;
        let mut frame = vec![0; stored as usize];
        self.file.read_exact_at(&mut frame, start)?;
        *buf = zstd::bulk::decompress(&frame, content as usize)?;
        Ok(())
    }
}

/// Writes the compressed copy of `segment` beside it, then removes the original, unless retention already has: then
/// the copy is no longer wanted, which the caller knows. `stop` ends it early, with the original left as it was.
pub(crate) fn compress(segment: &Segment, stop: &AtomicBool) -> io::Result<Option<Segment>> {
    let Some(blocks) = Blocks::open(segment)? else { return Ok(None) };
    let name = segment.path.file_name().unwrap_or_default();
    let mut temp_name = std::ffi::OsString::from(".");
    temp_name.push(name);
    temp_name.push(".tmp");
    let temp = segment.path.with_file_name(temp_name);
    let Some(bytes) = write_frames(&blocks, &temp, stop).inspect_err(|_| remove(&temp))? else {
        remove(&temp);
        return Ok(None);
    };
    let mut target = segment.path.clone().into_os_string();
    target.push(".");
    target.push(ZST);
    File::options().write(true).open(&temp)?.set_modified(segment.modified)?;
    std::fs::rename(&temp, &target)?;
    match std::fs::remove_file(&segment.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Ok(Some(Segment { path: target.into(), bytes, ..segment.clone() }))
}

fn write_frames(blocks: &Blocks, temp: &Path, stop: &AtomicBool) -> io::Result<Option<u64>> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temp)?;
    let mut table = Vec::new();
    let mut bytes = 0;
    let mut block = Vec::new();
    for index in 0..blocks.count() {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        blocks.read(index, &mut block)?;
        if block.is_empty() {
            continue;
        }
        let frame = zstd::bulk::compress(&block, LEVEL)?;
        file.write_all(&frame)?;
        bytes += frame.len() as u64;
        for len in [frame.len(), block.len()] {
            table.extend(u32::try_from(len).map_err(|_| not_seekable())?.to_le_bytes());
        }
    }
    let rows = u32::try_from(table.len() / 8).map_err(|_| not_seekable())?;
    let mut last = Vec::with_capacity(table.len() + 17);
    last.extend(SKIPPABLE.to_le_bytes());
    last.extend((rows * 8 + 9).to_le_bytes());
    last.extend(table);
    last.extend(rows.to_le_bytes());
    last.push(0); // descriptor: no checksums in the table
    last.extend(SEEKABLE.to_le_bytes());
    file.write_all(&last)?;
    file.sync_all()?;
    Ok(Some(bytes + last.len() as u64))
}

fn remove(temp: &Path) {
    // A leftover takes room until the next start, no more.
    let _ = std::fs::remove_file(temp);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn not_seekable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a compressed segment")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::blocks::lines;

    #[test]
    fn a_compressed_segment_reads_the_same_from_both_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s-0000000000000001-20261123T080711Z.log");
        let content: String = (0..60_000).map(|n| format!("line {n} {}\n", "x".repeat(n % 90))).collect();
        std::fs::write(&path, &content).unwrap();
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        let segment = Segment { first_seq: 1, path: path.clone(), bytes: content.len() as u64, modified };
        assert_eq!(compress(&segment, &AtomicBool::new(true)).unwrap(), None);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left of an unfinished copy"
        );
        let small = compress(&segment, &AtomicBool::new(false)).unwrap().unwrap();
        assert!(small.compressed() && small.bytes < segment.bytes && !path.exists());
        assert_eq!(std::fs::metadata(&small.path).unwrap().modified().unwrap(), modified);

        // Found by the new name, and by the one it had in an older listing.
        for segment in [&small, &segment] {
            let blocks = Blocks::open(segment).unwrap().unwrap();
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
        let plain = zstd::stream::decode_all(File::open(&small.path).unwrap()).unwrap();
        assert!(plain == content.as_bytes(), "an ordinary decoder reads it");
    }
}
