//! Splits a stream of server-sent events into blocks.

/// A block is longer than the reader accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockTooLong {
    /// The most bytes that the reader accepts.
    pub limit: usize,
}

impl std::fmt::Display for BlockTooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a server-sent event is longer than {} bytes", self.limit)
    }
}

impl std::error::Error for BlockTooLong {}

/// Cuts a stream, which arrives in any pieces, into blocks: lines up to and including an empty one. Lines end
/// with LF, CR or CRLF.
#[derive(Debug)]
pub struct Splitter {
    limit: usize,
    buf: Vec<u8>,
    /// Where in `buf` the current block begins.
    start: usize,
    /// Everything before this index has been searched.
    searched: usize,
    /// No byte of the current line has come.
    line_empty: bool,
    /// The last line ended with CR, so an LF that follows belongs to it.
    after_cr: bool,
    /// The current block is too long; its rest is skipped.
    skipping: bool,
}

impl Splitter {
    /// Accepts blocks of at most `limit` bytes, their line ends included.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            buf: Vec::new(),
            start: 0,
            searched: 0,
            line_empty: true,
            after_cr: false,
            skipping: false,
        }
    }

    /// Takes the next bytes of the stream. Call [`next_block`](Self::next_block) until it returns `None`
    /// before pushing more: that is what bounds the memory.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// The next whole block with its line ends, as it came. `None` if it takes more bytes to complete one.
    ///
    /// A block that is too long gives one [`BlockTooLong`], as soon as that is certain; its rest is skipped.
    pub fn next_block(&mut self) -> Option<Result<&[u8], BlockTooLong>> {
        loop {
            if self.after_cr && self.searched < self.buf.len() {
                self.after_cr = false;
                if self.buf[self.searched] == b'\n' {
                    self.start += usize::from(self.start == self.searched);
                    self.searched += 1;
                }
            }
            let rest = &self.buf[self.searched..];
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.line_empty &= rest.is_empty();
                return self.need_more().map(Err);
            };
            let empty = self.line_empty && end == 0;
            self.after_cr = rest[end] == b'\r';
            self.line_empty = true;
            self.searched += end + 1;
            if !empty {
                continue;
            }
            let block = std::mem::replace(&mut self.start, self.searched)..self.searched;
            if std::mem::take(&mut self.skipping) || block.len() == 1 {
                continue; // nothing but the empty line, if it is that short
            }
            if block.len() > self.limit {
                return Some(Err(BlockTooLong { limit: self.limit }));
            }
            return Some(Ok(&self.buf[block]));
        }
    }

    /// Drops what is no longer needed of the buffer. An error if the current block has just become too long.
    fn need_more(&mut self) -> Option<BlockTooLong> {
        let too_long = !self.skipping && self.buf.len() - self.start > self.limit;
        self.skipping |= too_long;
        if self.skipping {
            self.buf.clear();
        } else {
            self.buf.drain(..self.start);
        }
        (self.start, self.searched) = (0, self.buf.len());
        too_long.then_some(BlockTooLong { limit: self.limit })
    }
}
