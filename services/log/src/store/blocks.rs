//! Reads a segment block by block, forwards or backwards, in constant memory.
//!
//! A block is the lines that *start* in it, so blocks can be read in any order and give each line once. A
//! plain segment has a block per MiB, a compressed one a block per frame.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::seekable::SeekableReader;
use super::segment::Segment;

/// Bytes of a plain block.
pub(crate) const BLOCK: u64 = 1 << 20;
/// Bytes to read at a time while looking for the end of a block's last line.
const STEP: usize = 16 << 10;

/// A segment opened for reading.
pub(crate) enum BlockReader {
    Plain { file: Arc<File>, len: u64 },
    Compressed(SeekableReader),
}

impl BlockReader {
    /// The active segment, up to its committed length.
    pub(crate) fn active(file: Arc<File>, len: u64) -> Self {
        Self::Plain { file, len }
    }

    /// A closed segment; `None` if it is gone. Retention may remove it at any time.
    pub(crate) fn open(segment: &Segment) -> io::Result<Option<Self>> {
        if segment.compressed() {
            return open_compressed(&segment.path);
        }
        let Some(file) = open_file(&segment.path)? else {
            // It may have been compressed since the listing.
            return open_compressed(&segment.compressed_path());
        };
        let len = file.metadata()?.len();
        Ok(Some(Self::Plain { file: Arc::new(file), len }))
    }

    /// Number of blocks.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Plain { len, .. } => len.div_ceil(BLOCK),
            Self::Compressed(frames) => frames.count(),
        }
    }

    /// Reads block `index` into `buf`: whole lines, perhaps none.
    pub(crate) fn read(&self, index: u64, buf: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Plain { file, len } => read_plain(file, *len, index, buf),
            Self::Compressed(frames) => frames.read(index, buf),
        }
    }
}

fn open_file(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_compressed(path: &Path) -> io::Result<Option<BlockReader>> {
    let Some(file) = open_file(path)? else { return Ok(None) };
    Ok(Some(BlockReader::Compressed(SeekableReader::open(file)?)))
}

fn read_plain(file: &File, len: u64, index: u64, buf: &mut Vec<u8>) -> io::Result<()> {
    // Starts one byte early, to see whether a line starts at the block's first byte.
    let before = u64::from(index > 0);
    let from = index * BLOCK - before;
    let mut end = (index * BLOCK + BLOCK).min(len);
    // At most BLOCK + 1.
    let size = usize::try_from(end.saturating_sub(from)).unwrap_or(0);
    buf.resize(size, 0);
    file.read_exact_at(buf, from)?;
    if index > 0 {
        match memchr::memchr(b'\n', buf) {
            Some(newline) if newline + 1 < buf.len() => drop(buf.drain(..=newline)),
            _ => buf.clear(),
        }
    }
    while !buf.is_empty() && buf.last() != Some(&b'\n') && end < len {
        let start = buf.len();
        let step = usize::try_from(len - end).unwrap_or(STEP).min(STEP);
        buf.resize(start + step, 0);
        file.read_exact_at(&mut buf[start..], end)?;
        end += step as u64;
        if let Some(newline) = memchr::memchr(b'\n', &buf[start..]) {
            buf.truncate(start + newline + 1);
        }
    }
    Ok(())
}

/// The complete lines of a block, first to last, without their newlines.
pub(crate) fn lines(block: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let end = memchr::memrchr(b'\n', block);
    end.map(|end| block[..end].split(|b| *b == b'\n')).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_line_hides_none_before_it() {
        let all = |block: &'static [u8]| lines(block).collect::<Vec<_>>();
        assert_eq!(all(b"a\n\nb\nc"), [&b"a"[..], b"", b"b"]);
        assert_eq!(all(b"a\n"), [b"a"]);
        assert!(all(b"a").is_empty() && all(b"").is_empty());
    }

    #[test]
    fn every_line_is_in_one_block_whatever_its_length() {
        let file = tempfile::tempfile().unwrap();
        let mut content = Vec::new();
        let mut expected = Vec::new();
        // Lines that end at, just before and just after block borders, and one longer than two blocks.
        let block = usize::try_from(BLOCK).unwrap();
        for len in [10, block - 12, 1, block - 1, block, 2 * block + 7, 5, block - 3, 100] {
            let line = vec![b'a' + u8::try_from(expected.len()).unwrap(); len];
            content.extend_from_slice(&line);
            content.push(b'\n');
            expected.push(line);
        }
        file.write_all_at(&content, 0).unwrap();
        let blocks = BlockReader::active(Arc::new(file), content.len() as u64);
        let mut forward = Vec::new();
        let mut buf = Vec::new();
        for index in 0..blocks.count() {
            blocks.read(index, &mut buf).unwrap();
            forward.extend(lines(&buf).map(<[u8]>::to_vec));
        }
        assert!(forward == expected, "forwards");
        let mut backward = Vec::new();
        for index in (0..blocks.count()).rev() {
            blocks.read(index, &mut buf).unwrap();
            backward.extend(lines(&buf).rev().map(<[u8]>::to_vec));
        }
        backward.reverse();
        assert!(backward == expected, "backwards");
    }
}
