//! Merges streams of entries by time. No IO of its own.

use std::io;
use std::sync::Arc;

use hubspoke_protocol::DedupWindow;

use crate::entry::line::{head, parse};
use crate::query::Order;

/// How many keys are remembered. Copies of an entry lie seconds apart, since senders try again at once.
const KEYS: usize = 50_000;

/// A stream of entries, in the order of the query.
pub(super) trait Lines {
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>>;
}

pub(super) struct Merge<L> {
    streams: Vec<Head<L>>,
    order: Order,
    left: u64,
    begun: bool,
    seen: DedupWindow<(Arc<str>, u64)>,
}

struct Head<L> {
    lines: L,
    /// `None` once the stream is at its end.
    line: Option<Vec<u8>>,
}

impl<L: Lines> Merge<L> {
    pub(super) fn new(streams: Vec<L>, order: Order, limit: Option<u64>) -> Self {
        let streams = streams.into_iter().map(|lines| Head { lines, line: None }).collect();
        let left = limit.unwrap_or(u64::MAX);
        Self { streams, order, left, begun: false, seen: DedupWindow::new(KEYS) }
    }

    /// The next entry of all.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if !std::mem::replace(&mut self.begun, true) {
            for stream in &mut self.streams {
                stream.advance().await?;
            }
        }
        while self.left > 0 {
            let times = self.streams.iter().enumerate().filter_map(|(n, stream)| Some((stream.ts()?, n)));
            // Where times are equal, the first stream goes first, in both orders.
            let next = match self.order {
                Order::Asc => times.min(),
                Order::Desc => times.max_by(|a, b| a.0.cmp(b.0).then(b.1.cmp(&a.1))),
            };
            let Some((_, n)) = next else { break };
            let line = self.streams[n].advance().await?;
            if let Some(line) = line
                && self.first_of_its_key(&line)
            {
                self.left -= 1;
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    fn first_of_its_key(&mut self, line: &[u8]) -> bool {
        if memchr::memmem::find(line, b",\"key\":\"").is_none() {
            return true;
        }
        let Some(entry) = parse(line) else { return true };
        entry.key.is_none_or(|key| self.seen.insert((key.into(), entry.part), ()))
    }
}

impl<L: Lines> Head<L> {
    /// Moves on to the next entry, and gives the one that was the head.
    async fn advance(&mut self) -> io::Result<Option<Vec<u8>>> {
        let last = self.line.take();
        // What is no entry has no time, and no place.
        while let Some(line) = self.lines.next().await? {
            if head(&line).is_some() {
                self.line = Some(line);
                break;
            }
        }
        Ok(last)
    }

    fn ts(&self) -> Option<&[u8]> {
        self.line.as_deref().and_then(head).map(|head| head.ts)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::entry::{Batch, Origin, Stamp, instance_field, timestamp};

    struct Given(VecDeque<Vec<u8>>);

    impl Lines for Given {
        async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
            Ok(self.0.pop_front())
        }
    }

    fn line(second: i64, seq: u64, key: Option<&str>) -> Vec<u8> {
        let instance = instance_field("log-1");
        let batch = Batch::one(&Origin::default(), b"x", key.map(str::to_owned));
        let mut out = Vec::new();
        batch.render(
            &mut out,
            &Stamp {
                ts: timestamp(jiff::Timestamp::from_second(second).unwrap()).as_bytes(),
                instance: &instance,
            },
            seq,
        );
        out.pop();
        out
    }

    fn merged(streams: Vec<Vec<Vec<u8>>>, order: Order, limit: Option<u64>) -> Vec<Vec<u8>> {
        let streams = streams.into_iter().map(|lines| Given(lines.into())).collect();
        let mut merge = Merge::new(streams, order, limit);
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
    fn an_entry_on_two_instances_is_given_once() {
        let streams = vec![
            vec![line(1, 1, Some("k")), line(3, 2, None)],
            vec![line(2, 7, Some("k")), b"rubbish".to_vec()],
        ];
        assert_eq!(merged(streams, Order::Asc, None), [line(1, 1, Some("k")), line(3, 2, None)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_times_are_in_order(
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
            let order = if desc { Order::Desc } else { Order::Asc };
            let lines = streams.iter().map(|stream| stream.iter().map(|second| line(*second, 1, None)).collect()).collect();
            let expected: Vec<_> = all.iter().map(|second| line(*second, 1, None)).collect();
            let expected = &expected[..expected.len().min(limit.map_or(usize::MAX, |limit| limit as usize))];
            prop_assert_eq!(merged(lines, order, limit), expected);
        }
    }
}
