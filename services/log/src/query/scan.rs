//! Reads the files for a query: block by block, in constant memory, beginning where the first wanted entry can be
//! and ending where the last one was. Blocks on the disk.

use std::io;
use std::ops::ControlFlow;
use std::time::SystemTime;

use super::{Order, Query, SLACK};
use crate::entry::line::head;
use crate::entry::{SeqRange, timestamp};
use crate::store::Snapshot;
use crate::store::blocks::{Blocks, lines};
use crate::store::segment::Segment;

/// Where a scan's entries go.
pub(crate) trait Sink {
    /// Takes a line, without its newline.
    fn entry(&mut self, seq: u64, line: &[u8]) -> ControlFlow<()>;
    /// Called after each block: time to pass on what was taken, and to end where nobody waits any more.
    fn block(&mut self) -> ControlFlow<()>;
}

/// Gives the wanted entries to `sink`, in order.
pub(crate) fn scan(
    snapshot: Snapshot,
    query: &Query,
    range: SeqRange,
    sink: &mut impl Sink,
) -> io::Result<()> {
    let mut scan = Scan {
        query,
        range,
        left: query.limit.unwrap_or(u64::MAX),
        // Times beyond these are as good as out of reach.
        early: query.since.and_then(|at| at.checked_sub(SLACK).ok()).map(timestamp),
        late: query.until.and_then(|at| at.checked_add(SLACK).ok()).map(timestamp),
        sink,
    };
    let segments = scan.segments(&snapshot.closed);
    let current = Blocks::current(snapshot.current, snapshot.len);
    if query.order == Order::Desc && scan.blocks(&current)?.is_break() {
        return Ok(());
    }
    let closed: Vec<&Segment> = match query.order {
        Order::Asc => segments.iter().collect(),
        Order::Desc => segments.iter().rev().collect(),
    };
    for segment in closed {
        let scanned = match Blocks::open(segment) {
            Ok(Some(blocks)) => scan.blocks(&blocks),
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        match scanned {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(()),
            // One broken file must not keep the others from being read.
            Err(error) => {
                tracing::error!(segment = %segment.path.display(), %error, "a segment can't be read; it is left out");
            }
        }
    }
    if query.order == Order::Asc {
        let _ = scan.blocks(&current)?;
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

impl<S: Sink> Scan<'_, S> {
    /// The closed segments that can hold wanted entries, by their names and times alone.
    fn segments<'s>(&self, closed: &'s [Segment]) -> &'s [Segment] {
        // The last segment that starts at or before the first number may hold it.
        let by_seq =
            closed.partition_point(|segment| segment.first_seq <= self.range.first).saturating_sub(1);
        let end = closed.partition_point(|segment| segment.first_seq <= self.range.last).max(by_seq);
        let closed = &closed[by_seq..end];
        // A segment ends with its last write. A copy may have a later time, never an earlier one, so this is safe;
        // telling the start of a segment from the time of the one before it would not be.
        let old = |segment: &&Segment, since| segment.modified + SLACK < SystemTime::from(since);
        let start =
            self.query.since.map_or(0, |since| closed.iter().take_while(|one| old(one, since)).count());
        &closed[start..]
    }

    fn blocks(&mut self, blocks: &Blocks) -> io::Result<ControlFlow<()>> {
        let mut buf = Vec::new();
        let count = blocks.count();
        match self.query.order {
            Order::Asc => {
                let (first, early) = (self.range.first, self.early.clone());
                let before = |seq: u64, ts: &[u8]| {
                    seq <= first || early.as_ref().is_some_and(|early| ts < early.as_bytes())
                };
                // The block before the first that lies wholly within may hold the first entry.
                let start = partition(blocks, &mut buf, before)?.saturating_sub(1);
                for index in start..count {
                    blocks.read(index, &mut buf)?;
                    if self.forwards(&buf).is_break() || self.sink.block().is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Order::Desc => {
                let (last, late) = (self.range.last, self.late.clone());
                let within = |seq: u64, ts: &[u8]| {
                    seq <= last && late.as_ref().is_none_or(|late| ts < late.as_bytes())
                };
                for index in (0..partition(blocks, &mut buf, within)?).rev() {
                    blocks.read(index, &mut buf)?;
                    if self.backwards(&buf).is_break() || self.sink.block().is_break() {
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
            self.give(line)?;
        }
        ControlFlow::Continue(())
    }

    fn backwards(&mut self, block: &[u8]) -> ControlFlow<()> {
        let filter = &self.query.filter;
        let candidates: Vec<&[u8]> = filter.candidates(block).collect();
        for line in candidates.into_iter().rev() {
            self.give(line)?;
        }
        if let Some(first) = lines(block).find_map(head)
            && (first.seq < self.range.first
                || self.early.as_ref().is_some_and(|early| first.ts < early.as_bytes()))
        {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn give(&mut self, line: &[u8]) -> ControlFlow<()> {
        let Some(head) = self.query.filter.wanted(line) else { return ControlFlow::Continue(()) };
        if !self.range.contains(head.seq) {
            return ControlFlow::Continue(());
        }
        self.sink.entry(head.seq, line)?;
        self.left -= 1;
        if self.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// The first block of which `before` is false, by halves; blocks without an entry go with those after them.
fn partition(blocks: &Blocks, buf: &mut Vec<u8>, before: impl Fn(u64, &[u8]) -> bool) -> io::Result<u64> {
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
