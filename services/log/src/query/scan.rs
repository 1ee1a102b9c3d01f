//! Reads the files for a query, block by block in constant memory: from where the first match can be to where
//! the last one was. Blocks on the disk.

use std::io;
use std::ops::ControlFlow;
use std::time::SystemTime;

use super::{CLOCK_SLACK, Query, SortOrder};
use crate::entry::line::head;
use crate::entry::{SeqRange, timestamp};
use crate::store::FilesSnapshot;
use crate::store::blocks::{BlockReader, lines};
use crate::store::segment::Segment;

/// Receives the matches of a scan.
pub(crate) trait EntrySink {
    /// Takes a line, without its newline.
    fn entry(&mut self, seq: u64, line: &[u8]) -> ControlFlow<()>;
    /// Called after each block: passes on the lines so far, and ends the scan if the reader has left.
    fn end_of_block(&mut self) -> ControlFlow<()>;
}

/// Gives the matching entries in `range` to `sink`, in the order of the query.
pub(crate) fn scan(
    snapshot: FilesSnapshot,
    query: &Query,
    range: SeqRange,
    sink: &mut impl EntrySink,
) -> io::Result<()> {
    let mut scan = Scan {
        query,
        range,
        left: query.limit.unwrap_or(u64::MAX),
        // Beyond these times nothing matches.
        early: query.since.and_then(|at| at.checked_sub(CLOCK_SLACK).ok()).map(timestamp),
        late: query.until.and_then(|at| at.checked_add(CLOCK_SLACK).ok()).map(timestamp),
        sink,
    };
    let segments = scan.segments(&snapshot.closed);
    let active = BlockReader::active(snapshot.active, snapshot.committed_len);
    if query.order == SortOrder::Desc && scan.blocks(&active)?.is_break() {
        return Ok(());
    }
    let closed: Vec<&Segment> = match query.order {
        SortOrder::Asc => segments.iter().collect(),
        SortOrder::Desc => segments.iter().rev().collect(),
    };
    for segment in closed {
        let scanned = match BlockReader::open(segment) {
            Ok(Some(blocks)) => scan.blocks(&blocks),
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        match scanned {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(()),
            // A damaged file must not keep the others from being read.
            Err(error) => {
                let (segment, error) = (segment.path.display(), &error as &dyn std::error::Error);
                tracing::error!(%segment, error, "can't read a segment; its entries are missing from a reply");
            }
        }
    }
    if query.order == SortOrder::Asc {
        let _ = scan.blocks(&active)?;
    }
    Ok(())
}

struct Scan<'a, S> {
    query: &'a Query,
    range: SeqRange,
    left: u64,
    early: Option<String>,
    late: Option<String>,
    sink: &'a mut S,
}

impl<S: EntrySink> Scan<'_, S> {
    /// The closed segments that can contain matches, judged by their names and times alone.
    fn segments<'s>(&self, closed: &'s [Segment]) -> &'s [Segment] {
        // The last segment that starts at or before the first sequence number may contain it.
        let by_seq =
            closed.partition_point(|segment| segment.first_seq <= self.range.first).saturating_sub(1);
        let end = closed.partition_point(|segment| segment.first_seq <= self.range.last).max(by_seq);
        let closed = &closed[by_seq..end];
        // No entry is newer than the last write to its file, and copying a file only makes that time later.
        // So this is safe; bounding a segment's first entry by the time of the segment before would not be.
        let old = |segment: &&Segment, since| segment.modified + CLOCK_SLACK < SystemTime::from(since);
        let start =
            self.query.since.map_or(0, |since| closed.iter().take_while(|one| old(one, since)).count());
        &closed[start..]
    }

    fn blocks(&mut self, blocks: &BlockReader) -> io::Result<ControlFlow<()>> {
        let mut buf = Vec::new();
        let count = blocks.count();
        match self.query.order {
            SortOrder::Asc => {
                let (first, early) = (self.range.first, self.early.clone());
                let before = |seq: u64, ts: &[u8]| {
                    seq <= first || early.as_ref().is_some_and(|early| ts < early.as_bytes())
                };
                // The block before the first one that lies within entirely may contain the first match.
                let start = partition(blocks, &mut buf, before)?.saturating_sub(1);
                for index in start..count {
                    blocks.read(index, &mut buf)?;
                    if self.forwards(&buf).is_break() || self.sink.end_of_block().is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            SortOrder::Desc => {
                let (last, late) = (self.range.last, self.late.clone());
                let within = |seq: u64, ts: &[u8]| {
                    seq <= last && late.as_ref().is_none_or(|late| ts < late.as_bytes())
                };
                for index in (0..partition(blocks, &mut buf, within)?).rev() {
                    blocks.read(index, &mut buf)?;
                    if self.backwards(&buf).is_break() || self.sink.end_of_block().is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn forwards(&mut self, block: &[u8]) -> ControlFlow<()> {
        if let Some(first) = lines(block).find_map(head)
            && (first.seq > self.range.last
                || self.late.as_ref().is_some_and(|late| first.ts > late.as_bytes()))
        {
            return ControlFlow::Break(());
        }
        let filter = &self.query.filter;
        for line in filter.candidates(block) {
            self.emit(line)?;
        }
        ControlFlow::Continue(())
    }

    fn backwards(&mut self, block: &[u8]) -> ControlFlow<()> {
        let filter = &self.query.filter;
        let candidates: Vec<&[u8]> = filter.candidates(block).collect();
        for line in candidates.into_iter().rev() {
            self.emit(line)?;
        }
        if let Some(first) = lines(block).find_map(head)
            && (first.seq < self.range.first
                || self.early.as_ref().is_some_and(|early| first.ts < early.as_bytes()))
        {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn emit(&mut self, line: &[u8]) -> ControlFlow<()> {
        let Some(head) = self.query.filter.matching(line) else { return ControlFlow::Continue(()) };
        if !self.range.contains(head.seq) {
            return ControlFlow::Continue(());
        }
        self.sink.entry(head.seq, line)?;
        self.left -= 1;
        if self.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Binary search for the first block of which `before` is false. A block without entries counts like the next
/// one.
fn partition(
    blocks: &BlockReader,
    buf: &mut Vec<u8>,
    before: impl Fn(u64, &[u8]) -> bool,
) -> io::Result<u64> {
    let (mut low, mut high) = (0, blocks.count());
    while low < high {
        let mid = low + (high - low) / 2;
        let mut at = mid;
        let mut verdict = None;
        while at < high && verdict.is_none() {
            blocks.read(at, buf)?;
            verdict = lines(buf).find_map(head).map(|head| before(head.seq, head.ts));
            at += 1;
        }
        match verdict {
            Some(true) => low = at,
            Some(false) | None => high = mid,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests;
