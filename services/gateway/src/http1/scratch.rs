//! One read buffer per worker thread, in place of one per connection: a connection that waits owns none.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What one read takes at most.
const SCRATCH: usize = 64 << 10;
/// A buffer with less room than this is replaced.
const MIN_ROOM: usize = 16 << 10;
/// What is shorter is copied out of the buffer, so that a small message does not keep all of it.
const COPIED: usize = 4 << 10;

thread_local! {
    /// Empty between two reads. A worker's connections are read by its thread alone, one at a time.
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Reads once; no bytes are the end.
///
/// # Errors
/// What the socket says.
pub(crate) fn poll_read(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
) -> Poll<io::Result<Bytes>> {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.capacity() < MIN_ROOM {
            *buffer = BytesMut::with_capacity(SCRATCH);
        }
        let read = ready!(pin!(stream.read_buf(buffer)).poll(cx))?;
        Poll::Ready(Ok(if read <= COPIED {
            let bytes = Bytes::copy_from_slice(buffer);
            buffer.clear();
            bytes
        } else {
            buffer.split().freeze()
        }))
    })
}
