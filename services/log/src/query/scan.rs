//! Reads the files for a query, block by block in constant memory: from where the first match can be to where
//! the last one was. Blocks on the disk.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::SystemTime;

use super::sort::TimeSorter;
use super::{CLOCK_SLACK, Query, SortOrder};
use crate::entry::line::{EntryHead, head};
use crate::entry::{SeqRange, timestamp};
use crate::store::FilesSnapshot;
use crate::store::blocks::{BlockReader, lines};
use crate::store::segment::Segment;

/// Receives the matches of a scan.
pub(crate) trait EntrySink {
    /// Takes a line, without its newline.
    fn entry(&mut self, seq: u64, line: &[u8]) -> ControlFlow<()>;
    /// Called after each block: passes on the lines so far.
    fn end_of_block(&mut self) -> ControlFlow<()>;
    /// Whether to search on: false once the reader has left or the query has had its time. Called before each line,
    /// and every few microseconds while one is searched for a pattern.
    fn goes_on(&mut self) -> bool;
}

/// Gives the matching entries in `range` to `sink`, in the order of the query: by time, or by arrival.
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
        sorter: query.sorts.then(|| TimeSorter::new(query.order)),
        sink,
    };
    scan.files(&snapshot)?;
    scan.flush();
    Ok(())
}

struct Scan<'a, S> {
    query: &'a Query,
    range: SeqRange,
    left: u64,
    early: Option<String>,
    late: Option<String>,
    /// `None`: in the order of arrival.
    sorter: Option<TimeSorter>,
    sink: &'a mut S,
}

impl<S: EntrySink> Scan<'_, S> {
    fn files(&mut self, snapshot: &FilesSnapshot) -> io::Result<()> {
        let segments = self.segments(&snapshot.closed);
        let active = BlockReader::active(Arc::clone(&snapshot.active), snapshot.committed_len);
        if self.query.order == SortOrder::Desc && self.blocks(&active)?.is_break() {
            return Ok(());
        }
        let closed: Vec<&Segment> = match self.query.order {
            SortOrder::Asc => segments.iter().collect(),
            SortOrder::Desc => segments.iter().rev().collect(),
        };
        for segment in closed {
            let scanned = match BlockReader::open(segment) {
                Ok(Some(blocks)) => self.blocks(&blocks),
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
        if self.query.order == SortOrder::Asc {
            let _ = self.blocks(&active)?;
        }
        Ok(())
    }

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
                    if self.forwards(&buf).is_break() || self.end_of_block().is_break() {
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
                    if self.backwards(&buf).is_break() || self.end_of_block().is_break() {
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
        self.reach(lines(block).rev().find_map(head))
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
        self.reach(lines(block).find_map(head))
    }

    fn end_of_block(&mut self) -> ControlFlow<()> {
        if !self.sink.goes_on() {
            return ControlFlow::Break(());
        }
        self.sink.end_of_block()
    }

    fn emit(&mut self, line: &[u8]) -> ControlFlow<()> {
        if !self.sink.goes_on() {
            return ControlFlow::Break(());
        }
        let Some(head) = self.query.filter.matching(line, &mut || self.sink.goes_on()) else {
            return ControlFlow::Continue(());
        };
        if !self.range.contains(head.seq) {
            return ControlFlow::Continue(());
        }
        match &mut self.sorter {
            Some(sorter) if !sorter.passes(&head) => {
                sorter.add(&head, line);
                self.give_due()
            }
            _ => self.give(head.seq, line),
        }
    }

    /// Passes on what need not wait for anything behind `head`.
    fn reach(&mut self, head: Option<EntryHead<'_>>) -> ControlFlow<()> {
        if let Some((sorter, head)) = self.sorter.as_mut().zip(head) {
            sorter.reach(&head);
        }
        self.give_due()
    }

    fn give_due(&mut self) -> ControlFlow<()> {
        while let Some((seq, line)) = self.sorter.as_mut().and_then(TimeSorter::next_due) {
            self.give(seq, &line)?;
        }
        ControlFlow::Continue(())
    }

    /// Passes on what waits, unless there is enough or the reader has left.
    fn flush(&mut self) {
        while self.left > 0
            && self.sink.goes_on()
            && let Some((seq, line)) = self.sorter.as_mut().and_then(TimeSorter::next)
            && self.give(seq, &line).is_continue()
        {}
    }

    fn give(&mut self, seq: u64, line: &[u8]) -> ControlFlow<()> {
        self.sink.entry(seq, line)?;
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
