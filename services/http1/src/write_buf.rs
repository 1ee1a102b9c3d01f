//! Bytes that wait to be written.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use crate::read_buf;

/// A piece up to this length is copied behind the head, so that one plain write takes both.
const MAX_COPIED: usize = 4 << 10;
/// The most that is copied, and kept as a buffer for the next message.
const MAX_TEXT: usize = 16 << 10;
/// A larger buffer goes to the next connection of the thread that needs one: an idle one does not keep it.
const MAX_IDLE: usize = 1 << 10;
/// Pieces per vectored write.
const MAX_SLICES: usize = 16;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes in the order in which they are written: heads and small pieces in one buffer, then large pieces as they came.
#[derive(Debug, Default)]
pub(crate) struct WriteBuf {
    text: Vec<u8>,
    /// How much of `text` is written.
    written: usize,
    frames: VecDeque<Bytes>,
    /// Small pieces after the frames, gathered: a body in tiny chunks would need a system call for every few of them.
    tail: Vec<u8>,
    /// Bytes in `frames` and `tail`.
    framed: usize,
}

impl WriteBuf {
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.written = 0;
        self.frames.clear();
        self.tail.clear();
        self.framed = 0;
    }

    /// Lets `write` append a head.
    pub(crate) fn write_head<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if self.framed == 0 {
            if self.text.capacity() == 0 {
                self.text = SPARE.take();
            }
            return write(&mut self.text);
        }
        let before = self.tail.len();
        let result = write(&mut self.tail);
        self.framed += self.tail.len() - before;
        result
    }

    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let is_small = bytes.len() <= MAX_COPIED;
        if is_small && self.framed == 0 && self.text.len() + bytes.len() <= MAX_TEXT {
            return self.text.extend_from_slice(&bytes);
        }
        self.framed += bytes.len();
        if !is_small || self.tail.len() + bytes.len() > MAX_TEXT {
            self.end_tail();
        }
        if is_small {
            self.tail.extend_from_slice(&bytes);
        } else {
            self.frames.push_back(bytes);
        }
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.frames.push_back(std::mem::take(&mut self.tail).into());
        }
    }

    /// Whether so much waits that no more of a body is polled for.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        !self.is_empty() && self.len() >= read_buf::limit()
    }

    /// Bytes that wait.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.text.len() - self.written + self.framed
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes once, and returns how many bytes were written.
    ///
    /// # Errors
    /// The stream's.
    pub(crate) fn poll_write(
        &mut self,
        stream: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.end_tail();
        let text = self.text.get(self.written..).unwrap_or_default();
        let written = if self.frames.is_empty() {
            ready!(stream.poll_write(cx, text))?
        } else {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let all = std::iter::once(text).chain(self.frames.iter().map(Bytes::as_ref));
            let mut count = 0;
            for (slice, bytes) in slices.iter_mut().zip(all.filter(|bytes| !bytes.is_empty())) {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            ready!(stream.poll_write_vectored(cx, slices.get(..count).unwrap_or_default()))?
        };
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, written: usize) {
        let of_text = written.min(self.text.len() - self.written);
        self.written += of_text;
        if self.written == self.text.len() {
            self.written = 0;
            self.text.clear();
            if self.text.capacity() > MAX_IDLE {
                let mut text = std::mem::take(&mut self.text);
                text.shrink_to(MAX_TEXT);
                SPARE.set(text);
            }
        }
        let mut rest = written - of_text;
        self.framed = self.framed.saturating_sub(rest);
        while let Some(frame) = self.frames.front_mut() {
            if rest < frame.len() {
                frame.advance(rest);
                return;
            }
            rest -= frame.len();
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
