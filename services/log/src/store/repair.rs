//! Finds what a crash left incomplete at the end of the active segment.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::blocks::BLOCK;
use crate::entry::line::{head, parse};

/// No entry is longer, even with its text both escaped and in base64, and all its fields.
const MAX_LINE: u64 = 64 << 20;

/// Where the last complete line ends.
pub(super) fn end_of_last_line(file: &File, len: u64) -> io::Result<u64> {
    for index in (0..len.div_ceil(BLOCK)).rev() {
        let from = index * BLOCK;
        let bytes = read_range(file, from, (from + BLOCK).min(len))?;
        if let Some(newline) = memchr::memrchr(b'\n', &bytes) {
            return Ok(from + newline as u64 + 1);
        }
    }
    Ok(0)
}

/// Where the last batch begins, if it has a key and is incomplete. It was never acknowledged, so its sender
/// sends it again; the rest of it would then be stored twice.
pub(super) fn incomplete_batch(file: &File, len: u64) -> io::Result<Option<u64>> {
    let mut end = len;
    // The line after the one at hand: sequence number, part, number of parts, key.
    let mut next: Option<(u64, u64, u64, String)> = None;
    loop {
        let Some((start, line)) = line_before(file, end)? else { return Ok(None) };
        let Some((head, entry)) = head(&line).zip(parse(&line)) else { return Ok(None) };
        let Some(key) = entry.key else { return Ok(None) };
        let incomplete = match &next {
            None => entry.part + 1 < entry.of,
            Some((seq, part, of, next_key)) => {
                (head.seq + 1, entry.part + 1, entry.of) == (*seq, *part, *of) && key == *next_key
            }
        };
        // Otherwise the batch is complete, or this is not what the writer wrote: nothing to cut.
        if !incomplete || entry.part == 0 {
            return Ok(incomplete.then_some(start));
        }
        next = Some((head.seq, entry.part, entry.of, key.into_owned()));
        end = start;
    }
}

/// The line that ends at `end`, with its start; `None` at the start of the file, and for a line longer than
/// any entry.
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

fn read_range(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}
