//! A request's body, read from its connection.
//!
//! Whoever wants the body reads it, and has the connection's read half until its end. If nobody wants the rest (the
//! request was refused, or has failed), it is read and discarded for a while: a server that closes while the client
//! still sends resets the connection, and the client may never see why (RFC 9112, 9.6). Bounded in bytes and time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::AsyncRead;
use tokio::time::Sleep;

use super::config::ServerConfig;
use crate::chunked::InvalidChunk;
use crate::decoder::BodyDecoder;
use crate::read_buf;

/// A connection's read half.
pub(super) struct ReadHalf<R> {
    pub(super) stream: R,
    /// Read and not yet used.
    pub(super) bytes: Bytes,
}

impl<R: AsyncRead + Unpin> ReadHalf<R> {
    /// Reads once, replacing the bytes. False if the client has closed its side.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.poll_read_up_to(read_buf::READ_SIZE, cx)
    }

    /// The same where a head is expected: as much as is copied, since a head lives as long as its request, and what a
    /// client sends ahead waits for as long.
    pub(super) fn poll_read_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.poll_read_up_to(read_buf::MAX_COPIED, cx)
    }

    fn poll_read_up_to(&mut self, max: usize, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.bytes = ready!(read_buf::poll_read(&mut self.stream, cx, max))?;
        Poll::Ready(Ok(!self.bytes.is_empty()))
    }
}

/// Hands the read half over to a body, and returns the connection's side of it and the handler's.
pub(super) fn split<R>(
    read: ReadHalf<R>,
    decoder: BodyDecoder,
    expect_continue: bool,
) -> (PendingBody<R>, RequestBody<R>) {
    let expect = if expect_continue { Expect::Waiting } else { Expect::Answered };
    let state = BodyState { read: Some(read), decoder, expect, unwanted: false, failed: false };
    let shared = Arc::new(SharedBody { state: Mutex::new(state), waker: AtomicWaker::new() });
    (PendingBody { shared: shared.clone(), discarded: 0, timer: None }, RequestBody(Some(shared)))
}

/// A request's body. Dropped before its end, the connection discards the rest.
pub struct RequestBody<R>(Option<Arc<SharedBody<R>>>);

/// The connection's side of a body: it waits for its read half.
pub(super) struct PendingBody<R> {
    shared: Arc<SharedBody<R>>,
    discarded: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The read half, back from a body.
pub(super) struct Returned<R> {
    pub(super) read: ReadHalf<R>,
    /// Whether the body was read to its end, so that another request may follow.
    pub(super) is_complete: bool,
}

/// Why a body is incomplete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestBodyError {
    /// The connection failed.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The client closed the connection, or the connection has given the body up.
    #[error("the connection ended within the body")]
    UnexpectedEnd,
    /// The body's chunks are invalid.
    #[error(transparent)]
    Chunk(#[from] InvalidChunk),
}

struct SharedBody<R> {
    state: Mutex<BodyState<R>>,
    /// The connection's task, while it waits.
    waker: AtomicWaker,
}

struct BodyState<R> {
    /// `None` once it is returned.
    read: Option<ReadHalf<R>>,
    decoder: BodyDecoder,
    expect: Expect,
    /// The handler has dropped the body.
    unwanted: bool,
    failed: bool,
}

/// Whether the client waits for `100 Continue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Waiting,
    /// The handler wants the body: `100 Continue` is to be sent.
    Due,
    /// It was sent, or the client does not wait for it.
    Answered,
}

impl<R: AsyncRead + Unpin> BodyState<R> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let Some(read) = &mut self.read else { return Poll::Ready(None) };
        loop {
            match self.decoder.decode(&mut read.bytes) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if self.decoder.is_done() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            match ready!(read.poll_read(cx)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Some(Err(RequestBodyError::UnexpectedEnd))),
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }
}

impl<R> RequestBody<R> {
    pub(super) fn empty() -> Self {
        Self(None)
    }

    /// Looks at the stream that the body is read from; `None` after its end. Whoever does not read for a while can find
    /// out by it that the client has gone.
    pub fn with_stream<T>(&self, look: impl FnOnce(&R) -> T) -> Option<T> {
        let state = self.0.as_ref()?.state.lock();
        state.read.as_ref().map(|read| look(&read.stream))
    }
}

impl<R: AsyncRead + Unpin> Body for RequestBody<R> {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let Some(shared) = &self.0 else { return Poll::Ready(None) };
        let mut state = shared.state.lock();
        if state.failed {
            return Poll::Ready(Some(Err(RequestBodyError::UnexpectedEnd)));
        }
        if state.expect == Expect::Waiting {
            state.expect = Expect::Due;
            shared.waker.wake();
        }
        let frame = ready!(state.poll_frame(cx));
        state.expect = Expect::Answered;
        state.failed = matches!(frame, Some(Err(_)));
        if state.failed || state.decoder.is_done() {
            shared.waker.wake();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| shared.state.lock().decoder.is_done())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(shared) = &self.0 else { return SizeHint::with_exact(0) };
        shared.state.lock().decoder.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<R> Drop for RequestBody<R> {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.state.lock().unwanted = true;
            shared.waker.wake();
        }
    }
}

impl<R> PendingBody<R> {
    /// Until the next [`PendingBody::poll_returned`], the body does not wake the connection.
    pub(super) fn clear_waker(&self) {
        self.shared.waker.take();
    }

    /// Whether `100 Continue` is to be sent now. True once.
    pub(super) fn take_continue(&self) -> bool {
        let mut state = self.shared.state.lock();
        let is_due = state.expect == Expect::Due;
        if is_due {
            state.expect = Expect::Answered;
        }
        is_due
    }

    /// Whether the client waits for `100 Continue`, even if that was about to be sent.
    pub(super) fn expects_continue(&self) -> bool {
        self.shared.state.lock().expect != Expect::Answered
    }

    /// `100 Continue` will not be sent any more: the body fails for whoever waits for it.
    pub(super) fn give_up(&self) {
        self.shared.state.lock().failed = true;
    }
}

impl<R: AsyncRead + Unpin> PendingBody<R> {
    /// Ready when nobody needs the read half any more.
    pub(super) fn poll_returned(&mut self, cx: &mut Context<'_>, config: &ServerConfig) -> Poll<Returned<R>> {
        self.shared.waker.register(cx.waker());
        let mut state = self.shared.state.lock();
        let is_complete = loop {
            if state.decoder.is_done() {
                break true;
            }
            // A client that waits for `100 Continue` sends nothing, and discarding would not make it send.
            if state.failed || (state.unwanted && state.expect != Expect::Answered) {
                break false;
            }
            if !state.unwanted {
                return Poll::Pending;
            }
            match state.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.discarded += frame.data_ref().map_or(0, Bytes::len);
                    state.failed = self.discarded > config.discard_bytes;
                }
                Poll::Ready(Some(Err(_))) => state.failed = true,
                Poll::Ready(None) => {}
                Poll::Pending => {
                    let sleep = || Box::pin(tokio::time::sleep(config.discard_timeout));
                    ready!(self.timer.get_or_insert_with(sleep).as_mut().poll(cx));
                    state.failed = true;
                }
            }
        };
        match state.read.take() {
            Some(read) => Poll::Ready(Returned { read, is_complete }),
            None => Poll::Pending, // it was returned already
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::DuplexStream;

    use super::*;

    /// A read half with `bytes` read already, and its client.
    fn read_half(bytes: &'static [u8]) -> (ReadHalf<DuplexStream>, DuplexStream) {
        let (stream, client) = tokio::io::duplex(1024);
        (ReadHalf { stream, bytes: Bytes::from_static(bytes) }, client)
    }

    fn poll(body: &mut RequestBody<DuplexStream>) -> bool {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_client_waits_until_it_is_told_to_continue_or_has_sent_something() {
        let (silent, _client) = read_half(b"");
        let (pending, mut body) = split(silent, BodyDecoder::length(2), true);
        assert!(pending.expects_continue() && !pending.take_continue());
        assert!(!poll(&mut body));
        assert!(pending.expects_continue(), "a 100 Continue that is due was not sent yet");
        assert!(pending.take_continue() && !pending.take_continue() && !pending.expects_continue());

        let (sending, _client) = read_half(b"a");
        let (pending, mut body) = split(sending, BodyDecoder::length(2), true);
        assert!(poll(&mut body));
        assert!(!pending.expects_continue() && !pending.take_continue());
    }
}
