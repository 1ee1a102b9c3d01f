//! One read buffer per thread instead of one per connection: an idle connection has none.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The most that one read takes.
pub(crate) const READ_SIZE: usize = 64 << 10;
/// A buffer with less room than this is replaced.
const MIN_ROOM: usize = 16 << 10;
/// A read up to this length is copied out of the buffer, so that a small message does not keep all of it.
pub(crate) const MAX_COPIED: usize = 4 << 10;

thread_local! {
    /// Empty between two reads: a thread polls one connection at a time.
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    static LIMIT: Cell<usize> = const { Cell::new(READ_SIZE) };
}

/// Limits reads on this thread to so many bytes each, from 1 to 64 KiB, and what waits to be written on a connection
/// before more is read for it. For a process that is short of memory: with up to 4 KiB, nothing that waits keeps more
/// memory than its length.
pub fn limit_reads(bytes: usize) {
    LIMIT.set(bytes.clamp(1, READ_SIZE));
}

/// The limit that holds on this thread.
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
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.capacity() < MIN_ROOM {
            *buffer = BytesMut::with_capacity(READ_SIZE);
        }
        let read = ready!(pin!(stream.read_buf(&mut buffer.limit(limit().min(max)))).poll(cx))?;
        Poll::Ready(Ok(if read <= MAX_COPIED {
            let bytes = Bytes::copy_from_slice(buffer);
            buffer.clear();
            bytes
        } else {
            buffer.split().freeze()
        }))
    })
}
