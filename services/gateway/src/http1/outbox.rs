//! What waits to be written on a connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// A piece up to this length is copied behind the head, so that one plain write takes both.
const COPIED: usize = 4 << 10;
/// No more than this is copied, and kept as a buffer for the next message.
const MAX_TEXT: usize = 16 << 10;
/// Pieces that one write takes.
const MAX_SLICES: usize = 16;

/// Bytes in the order in which they go out: heads and small pieces in one buffer, then the rest as it came.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    text: Vec<u8>,
    /// How much of it is written.
    at: usize,
    frames: VecDeque<Bytes>,
    /// Bytes in `frames`.
    framed: usize,
}

impl Outbox {
    /// Forgets all of it.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.at = 0;
        self.frames.clear();
        self.framed = 0;
    }

    /// Has a head written behind what waits.
    pub(crate) fn write_head<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if self.frames.is_empty() {
            return write(&mut self.text);
        }
        let mut text = Vec::new();
        let written = write(&mut text);
        self.push(text.into());
        written
    }

    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        if self.frames.is_empty() && bytes.len() <= COPIED && self.text.len() + bytes.len() <= MAX_TEXT {
            self.text.extend_from_slice(&bytes);
        } else {
            self.framed += bytes.len();
            self.frames.push_back(bytes);
        }
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.text.len() - self.at + self.framed
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes once; says how much.
    ///
    /// # Errors
    /// What the socket says.
    pub(crate) fn poll_write(
        &mut self,
        stream: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let text = self.text.get(self.at..).unwrap_or_default();
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
        self.written(written);
        Poll::Ready(Ok(written))
    }

    fn written(&mut self, written: usize) {
        let of_text = written.min(self.text.len() - self.at);
        self.at += of_text;
        if self.at == self.text.len() {
            self.at = 0;
            self.text.clear();
            self.text.shrink_to(MAX_TEXT);
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
