//! A client's connection: a request out, a response in, then perhaps another.
//!
//! It is not a task. Whoever holds it polls it: the request's task while it waits for the response's head, then whoever
//! reads the body. Nothing is handed from task to task, and after a failure the caller knows how far the request came.
//!
//! A byte that nobody asked for ends the use of a connection: see [`ClientConnection::is_reusable`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::decoder::BodyDecoder;
use crate::encoder::BodyEncoder;
use crate::read_buf;
use crate::response_head::{InvalidResponse, MAX_HEAD_SIZE, ResponseHead};
use crate::syntax::end_of_head;
use crate::write_buf::WriteBuf;

mod request;

/// Interim responses before the final one, and their bytes.
const MAX_INTERIM: u8 = 32;
const MAX_INTERIM_SIZE: usize = MAX_HEAD_SIZE;

/// A connection to a server, over the stream `S`, for requests with bodies of type `B`.
pub struct ClientConnection<S, B> {
    stream: S,
    sending: Sending<B>,
    receiving: Receiving,
}

/// A request to be sent.
pub struct ClientRequest<'a, B> {
    /// The method.
    pub method: &'a Method,
    /// The target, in origin form.
    pub path: &'a PathAndQuery,
    /// All fields, `Host` included. A body has the length of their `Content-Length`, or is sent in chunks.
    pub headers: &'a HeaderMap,
    /// `None` if there is no body.
    pub body: Option<B>,
    /// Receives a message when the server answers `100 Continue`. The body is polled regardless: it is up to the body
    /// to wait.
    pub on_continue: Option<oneshot::Sender<()>>,
    /// Whether the request asks for an upgrade, so that a `101 Switching Protocols` is a valid response.
    pub upgrade: bool,
}

/// Why a request got no response, or not all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Reading failed. Writing that fails is not an error: the server may have responded before it closed.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// The server closed the connection before the end of the response.
    #[error("the connection ended too early")]
    UnexpectedEnd,
    /// The server does not speak HTTP/1 as it should.
    #[error("the response is invalid")]
    InvalidResponse(#[from] InvalidResponse),
    /// The request's body failed, or is not as long as its `Content-Length`.
    #[error("the request's body could not be read to its end")]
    RequestBody,
}

struct Sending<B> {
    out: WriteBuf,
    /// `None` once it was read to its end.
    body: Option<B>,
    encoder: BodyEncoder,
    on_continue: Option<oneshot::Sender<()>>,
    /// A byte of this request was written.
    has_begun: bool,
    /// The server reads no more; it may still have responded.
    refused: bool,
    blocked_since: Option<Instant>,
}

#[derive(Default)]
struct Receiving {
    /// Read and not yet used.
    bytes: Bytes,
    /// The beginning of an incomplete head.
    partial: Vec<u8>,
    head_only: bool,
    upgrade: bool,
    body: BodyDecoder,
    interim: u8,
    interim_size: usize,
    /// A byte of this response was read.
    has_begun: bool,
    keep_alive: bool,
}

impl<B> Default for Sending<B> {
    fn default() -> Self {
        Self {
            out: WriteBuf::default(),
            body: None,
            encoder: BodyEncoder::Done,
            on_continue: None,
            has_begun: false,
            refused: false,
            blocked_since: None,
        }
    }
}

impl<S, B> ClientConnection<S, B> {
    /// A connection over an open stream.
    pub fn new(stream: S) -> Self {
        Self { stream, sending: Sending::default(), receiving: Receiving::default() }
    }

    /// The stream.
    #[inline]
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream. Whoever reads from it takes bytes from the next response.
    #[inline]
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream and the bytes that followed the response: after a `101`, they belong to the new protocol.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.receiving.bytes)
    }

    /// Whether a byte of the request was written.
    #[inline]
    pub fn has_sent(&self) -> bool {
        self.sending.has_begun
    }

    /// Whether a byte of the response was read.
    #[inline]
    pub fn has_received(&self) -> bool {
        self.receiving.has_begun
    }

    /// Since when the server has not been reading the request.
    #[inline]
    pub fn blocked_since(&self) -> Option<Instant> {
        self.sending.blocked_since
    }

    /// Bytes of the request that wait to be written.
    #[inline]
    pub fn unsent(&self) -> usize {
        self.sending.out.len()
    }

    /// Whether the response has been read to its end.
    #[inline]
    pub fn is_end_stream(&self) -> bool {
        self.receiving.body.is_done()
    }

    /// The length of what is still to come of the response's body.
    pub fn size_hint(&self) -> SizeHint {
        self.receiving.body.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// Whether the connection can carry another request now: request and response are complete, the server keeps the
    /// connection open, and nothing follows the response.
    pub fn is_reusable(&self) -> bool {
        let (sending, receiving) = (&self.sending, &self.receiving);
        receiving.keep_alive
            && receiving.body.is_done()
            && receiving.bytes.is_empty()
            && sending.is_done()
            && !sending.refused
    }
}

impl<S, B> ClientConnection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    /// Prepares a request. Nothing is written before the connection is polled.
    pub fn begin(&mut self, request: ClientRequest<'_, B>) {
        let ClientRequest { method, path, headers, body, on_continue, upgrade } = request;
        let sending = &mut self.sending;
        sending.out.clear();
        let has_body = body.is_some();
        sending.encoder = sending.out.write_head(|out| request::encode(out, method, path, headers, has_body));
        (sending.has_begun, sending.refused, sending.blocked_since) = (false, false, None);
        (sending.body, sending.on_continue) = (body, on_continue);
        let bytes = std::mem::take(&mut self.receiving.bytes);
        self.receiving =
            Receiving { bytes, head_only: *method == Method::HEAD, upgrade, ..Receiving::default() };
    }

    /// Sends the request and waits for the head of a response. An interim one (1xx, but not a `101` that was asked for) is
    /// followed by others: the connection is polled for those, too, until the final one.
    ///
    /// # Errors
    /// The connection can't be used any more.
    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, ClientError>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            if let Some(response) = self.next_head()? {
                return Poll::Ready(Ok(response));
            }
            if !ready!(self.poll_read(cx))? {
                return Poll::Ready(Err(ClientError::UnexpectedEnd));
            }
        }
    }

    /// Reads the next piece of the response's body, and goes on sending the request's. `None` after the last.
    ///
    /// # Errors
    /// The response is cut off.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        let receiving = &mut self.receiving;
        loop {
            match receiving.body.decode(&mut receiving.bytes) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if receiving.body.is_done() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(InvalidResponse::from(error).into()))),
            }
            match ready!(receiving.poll_read(&mut self.stream, cx)) {
                Ok(true) => {}
                Ok(false) if receiving.body.end() => return Poll::Ready(None),
                Ok(false) => return Poll::Ready(Some(Err(ClientError::UnexpectedEnd))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// After a response that came before the end of its request: waits until the whole request is sent. Returns whether
    /// the connection can carry another request.
    pub fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match self.poll_send(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(self.is_reusable()),
            Poll::Ready(Err(_)) => Poll::Ready(false),
            // Neither bytes nor the end are expected now.
            Poll::Pending => self.poll_read(cx).map(|_| false),
        }
    }

    fn next_head(&mut self) -> Result<Option<Response<()>>, ClientError> {
        let receiving = &mut self.receiving;
        if !receiving.partial.is_empty() {
            // Parsed again only at its end, or a head that arrives byte by byte would cost its length squared.
            let is_complete = end_of_head(&receiving.partial, &receiving.bytes).is_some();
            receiving.partial.extend_from_slice(&std::mem::take(&mut receiving.bytes));
            if !is_complete {
                let is_too_large = receiving.partial.len() > MAX_HEAD_SIZE;
                return if is_too_large { Err(InvalidResponse::TooLarge.into()) } else { Ok(None) };
            }
            receiving.bytes = Bytes::from(std::mem::take(&mut receiving.partial));
        }
        if receiving.bytes.is_empty() {
            return Ok(None);
        }
        let available = receiving.bytes.len();
        let Some(head) = ResponseHead::parse(&mut receiving.bytes, receiving.head_only)? else {
            if receiving.bytes.len() > MAX_HEAD_SIZE {
                return Err(InvalidResponse::TooLarge.into());
            }
            receiving.partial = std::mem::take(&mut receiving.bytes).into();
            return Ok(None);
        };
        let status = head.response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS && !receiving.upgrade {
            return Err(InvalidResponse::UnexpectedUpgrade.into());
        }
        if !status.is_informational() {
            (receiving.body, receiving.keep_alive) = (head.body, head.keep_alive);
        } else if status != StatusCode::SWITCHING_PROTOCOLS {
            receiving.interim += 1;
            receiving.interim_size += available - receiving.bytes.len();
            if receiving.interim > MAX_INTERIM || receiving.interim_size > MAX_INTERIM_SIZE {
                return Err(InvalidResponse::TooManyInterim.into());
            }
            if let (StatusCode::CONTINUE, Some(on_continue)) = (status, self.sending.on_continue.take()) {
                let _ = on_continue.send(()); // nobody may be waiting any more
            }
        }
        Ok(Some(head.response))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ClientError>> {
        self.receiving.poll_read(&mut self.stream, cx)
    }

    /// Sends the request; ready when all of it is written, or the server reads no more.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let sending = &mut self.sending;
        while !sending.is_done() && !sending.refused {
            let fetched = sending.fetch(cx)?;
            if sending.out.is_empty() {
                ready!(fetched);
                continue;
            }
            match sending.out.poll_write(Pin::new(&mut self.stream), cx) {
                Poll::Pending => {
                    sending.blocked_since.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(1..)) => (sending.has_begun, sending.blocked_since) = (true, None),
                // Not an error yet: the server may have responded before it closed. But it counts as blocked now.
                Poll::Ready(_) => {
                    sending.refused = true;
                    sending.blocked_since.get_or_insert_with(Instant::now);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Receiving {
    /// Reads once. False if the server has closed its side.
    fn poll_read(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, ClientError>> {
        // What follows a 101 may wait for as long as the new protocol likes: it must not keep a whole buffer.
        let may_switch = self.upgrade && self.body.is_done();
        let max = if may_switch { read_buf::MAX_COPIED } else { read_buf::READ_SIZE };
        self.bytes = ready!(read_buf::poll_read(stream, cx, max)).map_err(ClientError::Io)?;
        let has_more = !self.bytes.is_empty();
        self.has_begun |= has_more;
        Poll::Ready(Ok(has_more))
    }
}

impl<B> Sending<B> {
    #[inline]
    fn is_done(&self) -> bool {
        self.body.is_none() && self.out.is_empty()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Sending<B> {
    /// Polls the body for more while little of it waits. Pending if the body is.
    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, ClientError> {
        while let Some(body) = &mut self.body
            && !self.out.is_full()
        {
            let frame = match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(frame) => frame.transpose().map_err(|_| ClientError::RequestBody)?,
            };
            let is_end = frame.is_none();
            self.encoder.encode(frame, &mut self.out).map_err(|_| ClientError::RequestBody)?;
            if is_end {
                self.body = None;
            }
        }
        Ok(Poll::Ready(()))
    }
}
