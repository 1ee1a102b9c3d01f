//! One read buffer per thread instead of one per connection: an idle connection has none.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// The most that one read takes.
pub(crate) const READ_SIZE: usize = 64 << 10;
/// A buffer with less room than this is replaced.
const MIN_ROOM: usize = 16 << 10;
/// A read up to this length is copied out of the buffer, so that a small message does not keep all of it.
pub(crate) const MAX_COPIED: usize = 4 << 10;

thread_local! {
    /// Empty between two reads: a thread polls one connection at a time.
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    /// For reads that are copied in any case.
    static SMALL: RefCell<[u8; MAX_COPIED]> = const { RefCell::new([0; MAX_COPIED]) };
    static LIMIT: Cell<usize> = const { Cell::new(READ_SIZE) };
}

/// Limits reads on this thread to so many bytes each, from 1 to 64 KiB, and what waits to be written on a connection
/// before more is read for it. For a process that is short of memory: with up to 4 KiB, nothing that waits keeps more
/// memory than its length.
pub fn limit_reads(bytes: usize) {
    LIMIT.set(bytes.clamp(1, READ_SIZE));
}

/// The limit that holds on this thread.
#[inline]
pub(crate) fn limit() -> usize {
    LIMIT.get()
}

/// Reads once, up to `max` bytes. No bytes mean the end of the stream.
///
/// # Errors
/// The stream's.
pub fn poll_read(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    max: usize,
) -> Poll<io::Result<Bytes>> {
    let max = limit().min(max);
    if max <= MAX_COPIED { poll_read_small(stream, cx, max) } else { poll_read_large(stream, cx, max) }
}

fn poll_read_small(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    max: usize,
) -> Poll<io::Result<Bytes>> {
    SMALL.with_borrow_mut(|buffer| {
        let mut read = ReadBuf::new(buffer.get_mut(..max).unwrap_or_default());
        ready!(Pin::new(stream).poll_read(cx, &mut read))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(read.filled())))
    })
}

fn poll_read_large(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    max: usize,
) -> Poll<io::Result<Bytes>> {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.capacity() < MIN_ROOM {
            *buffer = BytesMut::with_capacity(READ_SIZE);
        }
        // A limit costs more than the rest of this function, so it is left out if the buffer is one.
        let read = match max < buffer.capacity() {
            true => ready!(pin!(stream.read_buf(&mut buffer.limit(max))).poll(cx))?,
            false => ready!(pin!(stream.read_buf(buffer)).poll(cx))?,
        };
        Poll::Ready(Ok(if read <= MAX_COPIED {
            let bytes = Bytes::copy_from_slice(buffer);
            buffer.clear();
            bytes
        } else {
            buffer.split().freeze()
        }))
    })
}
