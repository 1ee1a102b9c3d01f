//! A client's socket as the HTTP/2 server reads and writes it: bytes that were read before the protocol was known
//! come first, and a client that does not read is reported to the sweep.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame_scan::FrameScan;
use crate::client_conn::ClientConn;
use crate::client_socket::ClientSocket;
use crate::memory::Charge;

/// The beginning of an HTTP/2 connection (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The memory of a header block that has not ended: its fields are decoded as they arrive, and each takes up more than it
/// counts towards the limit.
const BLOCK_MEMORY: usize = 128 << 10;

/// A client's socket.
pub(crate) struct ClientIo<S> {
    stream: S,
    client: Arc<ClientConn>,
    /// Bytes that were read before the protocol was known.
    first: Vec<u8>,
    frames: FrameScan,
    /// The memory of an incomplete frame.
    partial: Charge,
}

impl<S> ClientIo<S> {
    pub(crate) fn new(stream: S, client: Arc<ClientConn>, first: Vec<u8>) -> Self {
        let partial = client.gateway.memory.buffers.charge();
        client.speaks_h2();
        Self { stream, client, first, frames: FrameScan::after(PREFACE.len()), partial }
    }

    /// The bytes were read. Fails if they begin a header block and there is no memory for more of those: a head that
    /// arrives at once is still served.
    fn read(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.frames.read(bytes);
        let in_block = self.frames.is_in_block();
        let heads = &self.client.gateway.memory.heads;
        if in_block && !self.client.is_reading_head() && heads.is_exhausted() {
            return Err(io::Error::other("no memory is left for header blocks"));
        }
        self.client.set_reading_head(if in_block { BLOCK_MEMORY } else { 0 });
        self.partial.set(self.frames.partial());
        Ok(())
    }

    fn written<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        // What waits is counted where it is queued; here it only matters that something does.
        self.client.set_write_blocked(usize::from(result.is_pending()));
        result
    }
}

impl<S: ClientSocket> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.first.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let most = self.first.len().min(buf.remaining());
            let rest = self.first.split_off(most);
            buf.put_slice(&self.first);
            self.first = rest;
        }
        Poll::Ready(self.read(buf.filled().get(before..).unwrap_or_default()))
    }
}

impl<S: ClientSocket> AsyncWrite for ClientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
