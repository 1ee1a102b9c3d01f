//! Splits a byte stream of server-sent events into whole events, so that several streams can be merged. Pure.
//!
//! Lines end with LF, as the log service sends them. An event longer than the limit is dropped and counted.

use bytes::{Bytes, BytesMut};

const END: &[u8] = b"\n\n";

/// The events of one stream.
#[derive(Debug)]
pub(super) struct Blocks {
    rest: BytesMut,
    /// The first bytes of `rest`, which contain no end of an event.
    searched: usize,
    /// The current event is too long.
    skipping: bool,
    limit: usize,
    /// Events dropped since this was last taken.
    pub(super) dropped: u64,
}

impl Blocks {
    pub(super) fn new(limit: usize) -> Self {
        Self { rest: BytesMut::new(), searched: 0, skipping: false, limit, dropped: 0 }
    }

    /// Adds a piece of the stream.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
    }

    /// The next whole event, including the empty line that ends it.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        loop {
            let found = self.rest[self.searched..].windows(END.len()).position(|window| window == END);
            let Some(found) = found else {
                self.searched = self.rest.len().saturating_sub(END.len() - 1);
                if self.rest.len() > self.limit {
                    self.skipping = true;
                    let _ = self.rest.split_to(self.searched);
                    self.searched = 0;
                }
                return None;
            };
            let block = self.rest.split_to(self.searched + found + END.len());
            self.searched = 0;
            if std::mem::take(&mut self.skipping) || block.len() > self.limit {
                self.dropped += 1;
            } else {
                return Some(block.freeze());
            }
        }
    }
}

/// The `id` of an event.
pub(super) fn id(block: &[u8]) -> Option<&[u8]> {
    let mut lines = block.split(|byte| *byte == b'\n');
    lines.find_map(|line| line.strip_prefix(b"id:")).map(|id| id.strip_prefix(b" ").unwrap_or(id))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(blocks: &mut Blocks) -> Vec<Bytes> {
        std::iter::from_fn(|| blocks.next()).collect()
    }

    #[test]
    fn an_event_that_is_too_long_is_dropped_and_the_next_one_is_not() {
        let mut blocks = Blocks::new(16);
        for piece in ["data: 0123456789", "0123456789", "0123456789\n", "\ndata: a\n\n"] {
            blocks.push(piece.as_bytes());
            assert!(blocks.rest.len() <= 64);
            let whole = all(&mut blocks);
            assert_eq!(
                whole.iter().map(Bytes::as_ref).collect::<Vec<_>>().concat(),
                match piece.as_bytes()[0] {
                    b'\n' => &b"data: a\n\n"[..],
                    _ => b"",
                }
            );
        }
        assert_eq!(blocks.dropped, 1);
    }

    #[test]
    fn ids_are_found() {
        assert_eq!(id(b"id: log-1:7\ndata: {}\n\n"), Some(&b"log-1:7"[..]));
        assert_eq!(id(b"event: x\nid:7\n\n"), Some(&b"7"[..]));
        assert_eq!(id(b": id: 7\n\n"), None);
        assert_eq!(id(b"data: id: 7\n\n"), None);
    }

    proptest! {
        #[test]
        fn the_same_events_come_out_however_the_stream_is_split(
            texts in proptest::collection::vec("[a-z]{1,40}", 0..20),
            cuts in proptest::collection::vec(1usize..30, 1..200),
        ) {
            let whole: String = texts.iter().map(|text| format!("data: {text}\n\n")).collect();
            let mut blocks = Blocks::new(30);
            let mut got = Vec::new();
            let mut rest = whole.as_bytes();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                blocks.push(piece);
                got.extend(all(&mut blocks));
                rest = after;
            }
            let fits = |text: &&String| text.len() + 8 <= 30;
            let expected: Vec<_> = texts.iter().filter(fits).map(|text| format!("data: {text}\n\n")).collect();
            prop_assert_eq!(got.iter().map(|block| String::from_utf8_lossy(block).into_owned()).collect::<Vec<_>>(), expected);
            prop_assert_eq!(blocks.dropped, texts.iter().filter(|text| !fits(text)).count() as u64);
        }
    }
}
