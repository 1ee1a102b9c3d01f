//! A client's socket with the framing checks in it: what they withhold, the server's parser never sees.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::peer::Peer;
use crate::edge::framing::{Fault, Framing};

/// A client's socket.
pub(crate) struct EdgeIo {
    stream: TcpStream,
    peer: Arc<Peer>,
    framing: Framing,
    /// Bytes that were read before the protocol was known.
    first: Vec<u8>,
}

impl EdgeIo {
    pub(crate) fn new(stream: TcpStream, peer: Arc<Peer>, framing: Framing, first: Vec<u8>) -> Self {
        Self { stream, peer, framing, first }
    }

    /// What is wrong with what came.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.framing.fault()
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Nothing more will ever be passed on: the parser waits, and the connection's task sees to it. But where a body
    /// is what is wrong, its end makes the request fail that is reading it.
    fn stopped(&self) -> Poll<io::Result<()>> {
        if self.framing.fault() == Some(Fault::Chunk) {
            return Poll::Ready(Ok(()));
        }
        self.peer.set_faulty();
        Poll::Pending
    }

    fn pass_first(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = self.first.len().min(buf.remaining());
        let passed = self.framing.advance(self.first.get(..most).unwrap_or_default());
        let rest = self.first.split_off(passed);
        buf.put_slice(&self.first);
        self.first = rest;
        if self.framing.fault().is_some() {
            self.first = Vec::new();
        }
        self.peer.head(self.framing.in_head());
        if passed == 0 { self.stopped() } else { Poll::Ready(Ok(())) }
    }
}

impl AsyncRead for EdgeIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.peer.is_upgraded() {
            this.framing.set_opaque();
        } else if this.framing.fault().is_some() {
            return this.stopped();
        }
        if !this.first.is_empty() {
            return this.pass_first(buf);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let (passed, all) = (this.framing.advance(read), read.len());
        this.peer.head(this.framing.in_head());
        if passed < all {
            buf.set_filled(before + passed);
        }
        if passed == 0 { this.stopped() } else { Poll::Ready(Ok(())) }
    }
}

impl EdgeIo {
    fn written<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.peer.blocked(result.is_pending());
        result
    }
}

impl AsyncWrite for EdgeIo {
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
