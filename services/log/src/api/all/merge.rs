//! Merges streams of entries by time. Does no IO itself.

use std::io;

use hubspoke_protocol::CopyFilter;

use crate::entry::line::head;
use crate::query::SortOrder;

/// How many entries with a key to remember. Copies of an entry are seconds apart, since senders store several at a time
/// and retry at once.
const DEDUP_KEYS: usize = 100_000;

/// A stream of entries, in the order of the query.
pub(super) trait EntryLines {
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>>;
}

pub(super) struct TimeMerge<L> {
    inputs: Vec<MergeInput<L>>,
    order: SortOrder,
    left: u64,
    started: bool,
    /// Entries with a key that were passed on.
    copies: CopyFilter,
}

/// A stream and its next entry.
struct MergeInput<L> {
    lines: L,
    /// `None` at the end of the stream.
    next: Option<Vec<u8>>,
}

impl<L: EntryLines> TimeMerge<L> {
    pub(super) fn new(streams: Vec<L>, order: SortOrder, limit: Option<u64>) -> Self {
        let inputs = streams.into_iter().map(|lines| MergeInput { lines, next: None }).collect();
        let left = limit.unwrap_or(u64::MAX);
        Self { inputs, order, left, started: false, copies: CopyFilter::new(DEDUP_KEYS) }
    }

    /// The next entry of all streams.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if !std::mem::replace(&mut self.started, true) {
            for input in &mut self.inputs {
                input.advance().await?;
            }
        }
        while self.left > 0 {
            let times = self.inputs.iter().enumerate().filter_map(|(n, input)| Some((input.ts()?, n)));
            // If times are equal, the first stream goes first in both orders.
            let next = match self.order {
                SortOrder::Asc => times.min(),
                SortOrder::Desc => times.max_by(|a, b| a.0.cmp(b.0).then(b.1.cmp(&a.1))),
            };
            let Some((_, n)) = next else { break };
            let line = self.inputs[n].advance().await?;
            if let Some(line) = line
                && self.is_first_copy(&line)
            {
                self.left -= 1;
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    fn is_first_copy(&mut self, line: &[u8]) -> bool {
        std::str::from_utf8(line).map_or(true, |line| self.copies.is_first_line(line))
    }
}

impl<L: EntryLines> MergeInput<L> {
    /// Moves on to the next entry; returns the one before.
    async fn advance(&mut self) -> io::Result<Option<Vec<u8>>> {
        let previous = self.next.take();
        // A line that is not an entry has no time, so no place in the order.
        while let Some(line) = self.lines.next().await? {
            if head(&line).is_some() {
                self.next = Some(line);
                break;
            }
        }
        Ok(previous)
    }

    fn ts(&self) -> Option<&[u8]> {
        self.next.as_deref().and_then(head).map(|head| head.ts)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::entry::tests::render_at;
    use crate::entry::{Batch, EntryMeta};

    struct StoredLines(VecDeque<Vec<u8>>);

    impl EntryLines for StoredLines {
        async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
            Ok(self.0.pop_front())
        }
    }

    fn line(second: i64, seq: u64, key: Option<&str>) -> Vec<u8> {
        let batch = Batch::one(&EntryMeta::default(), b"x", key.map(str::to_owned));
        let mut line = render_at(&batch, jiff::Timestamp::from_second(second).unwrap(), seq);
        line.pop();
        line
    }

    fn merged(streams: Vec<Vec<Vec<u8>>>, order: SortOrder, limit: Option<u64>) -> Vec<Vec<u8>> {
        let streams = streams.into_iter().map(|lines| StoredLines(lines.into())).collect();
        let mut merge = TimeMerge::new(streams, order, limit);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut all = Vec::new();
            while let Some(line) = merge.next().await.unwrap() {
                all.push(line);
            }
            all
        })
    }

    #[test]
    fn an_entry_on_two_instances_comes_once() {
        let streams = vec![
            vec![line(1, 1, Some("k")), line(3, 2, None)],
            vec![line(2, 7, Some("k")), b"not an entry".to_vec()],
        ];
        assert_eq!(merged(streams, SortOrder::Asc, None), [line(1, 1, Some("k")), line(3, 2, None)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_entries_are_in_order_of_time(
            mut streams in proptest::collection::vec(proptest::collection::vec(0_i64..50, 0..20), 0..5),
            desc in any::<bool>(),
            limit in proptest::option::of(0_u64..60),
        ) {
            let mut all: Vec<i64> = streams.concat();
            all.sort_unstable();
            for stream in &mut streams {
                stream.sort_unstable();
            }
            if desc {
                all.reverse();
                streams.iter_mut().for_each(|stream| stream.reverse());
            }
            let order = if desc { SortOrder::Desc } else { SortOrder::Asc };
            let lines = streams.iter().map(|stream| stream.iter().map(|second| line(*second, 1, None)).collect()).collect();
            let expected: Vec<_> = all.iter().map(|second| line(*second, 1, None)).collect();
            let expected = &expected[..expected.len().min(limit.map_or(usize::MAX, |limit| limit as usize))];
            prop_assert_eq!(merged(lines, order, limit), expected);
        }
    }
}
