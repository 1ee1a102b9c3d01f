//! A server's connection: a request in, a response out, then perhaps another.
//!
//! It is one task, and serves one request at a time: what a client sends ahead waits in its socket. While a request is
//! served, the connection reads on only to notice that its client has gone, and ends then.
//!
//! An idle connection owns its stream and little else: it reads through a buffer of its thread ([`read_buf`]).
//!
//! Left out: clients that close their side after a request and still wait for the response. They count as gone, since
//! most that do so are.
//!
//! [`read_buf`]: crate::read_buf

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use self::body::{PendingBody, ReadHalf};
use self::response::RequestInfo;
use self::sending::{SendingResponse, Then};
use crate::encoder::BodyEncoder;
use crate::header_map;
use crate::request_head::{HeadError, RequestHead, RequestHeadReader};
use crate::write_buf::WriteBuf;

pub use self::body::{RequestBody, RequestBodyError};
pub use self::config::ServerConfig;
pub use self::response::date_value;
pub use self::supervisor::{Command, Supervisor};

mod body;
mod config;
mod response;
mod sending;
mod supervisor;

/// A client's connection, over the two halves of a stream.
///
/// `S` watches over it; `()` is a supervisor that never intervenes.
pub struct ServerConnection<R, W, S = ()> {
    supervisor: S,
    config: ServerConfig,
    /// `None` while a request's body has it.
    read: Option<ReadHalf<R>>,
    write: W,
    out: WriteBuf,
    heads: RequestHeadReader,
    /// The body that is being read.
    pending: Option<PendingBody<R>>,
    /// A body did not come to its end: no request can follow.
    truncated: bool,
    /// This request is the last.
    draining: bool,
    close_delimited: bool,
}

/// How a connection ends.
#[derive(Debug)]
pub enum ConnectionEnd<B> {
    /// Nothing is left to be sent. `linger`: the client may still be sending, so that closing at once could reset the
    /// connection and lose the response.
    Closed {
        /// Whether to shut down the write side and read on for a moment.
        linger: bool,
    },
    /// The request can't be read. Nothing is answered yet.
    BadRequest(HeadError),
    /// [`Command::Timeout`]. Nothing is answered yet.
    Timeout,
    /// A `101` was sent: the bytes that follow belong to another protocol. This is the body of that response.
    Upgraded(B),
}

impl<B> ConnectionEnd<B> {
    const CLOSED: Self = Self::Closed { linger: false };
}

impl<R, W, S> ServerConnection<R, W, S>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    S: Supervisor<W>,
{
    /// A new connection; `first` was read from it already.
    pub fn new(read: R, write: W, first: Bytes, supervisor: S, config: ServerConfig) -> Self {
        Self {
            supervisor,
            config,
            read: Some(ReadHalf { stream: read, bytes: first }),
            write,
            out: WriteBuf::default(),
            heads: RequestHeadReader::new(config.head),
            pending: None,
            truncated: false,
            draining: false,
            close_delimited: false,
        }
    }

    /// Serves one request after the other with `handle`.
    pub async fn run<F, B>(&mut self, handle: impl Fn(Request<RequestBody<R>>) -> F) -> ConnectionEnd<B>
    where
        F: Future<Output = Response<B>>,
        B: Body<Data = Bytes> + Unpin,
    {
        loop {
            if let Err(end) = self.exchange(&handle).await {
                return end;
            }
        }
    }

    /// The read half with the bytes that were read and not used (`None` if a body still has it), and the write half.
    pub fn into_parts(self) -> (Option<(R, Bytes)>, W) {
        (self.read.map(|ReadHalf { stream, bytes }| (stream, bytes)), self.write)
    }

    /// Whether a request's head has begun to arrive and is incomplete.
    pub fn is_in_head(&self) -> bool {
        self.heads.is_partial()
    }

    /// Whether a response is under way that ends with the connection.
    pub fn is_close_delimited(&self) -> bool {
        self.close_delimited
    }

    /// One request and its response; an error if no other can follow. Steps that don't wait are separate functions, so
    /// the future holds only what is needed while it waits.
    async fn exchange<F, B>(
        &mut self,
        handle: &impl Fn(Request<RequestBody<R>>) -> F,
    ) -> Result<(), ConnectionEnd<B>>
    where
        F: Future<Output = Response<B>>,
        B: Body<Data = Bytes> + Unpin,
    {
        let head = poll_fn(|cx| self.poll_head(cx)).await?;
        let (info, request) = self.begin_request(head);
        let response = {
            let mut handling = pin!(handle(request));
            poll_fn(|cx| self.poll_handling(cx, handling.as_mut(), info)).await?
        };
        let mut sending = self.begin_response(response, info);
        poll_fn(|cx| self.poll_sending(cx, &mut sending)).await?;
        poll_fn(|cx| self.poll_end(cx, &mut sending)).await
    }

    fn poll_head<B>(&mut self, cx: &mut Context<'_>) -> Poll<Result<RequestHead, ConnectionEnd<B>>> {
        if let Some(end) = self.obey(cx) {
            return Poll::Ready(Err(end));
        }
        loop {
            let Some(read) = &mut self.read else { return Poll::Ready(Err(ConnectionEnd::CLOSED)) };
            match self.heads.read(&mut read.bytes) {
                Ok(Some(head)) => {
                    self.supervisor.reading_head(0);
                    return Poll::Ready(Ok(head));
                }
                // Only a complete head stops the clock: empty lines would reset it forever.
                Ok(None) if self.heads.is_partial() => {
                    self.supervisor.reading_head(self.heads.memory());
                    if self.supervisor.pauses_head() {
                        return Poll::Pending;
                    }
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(ConnectionEnd::BadRequest(error))),
            }
            match read.poll_read_head(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(_) => return Poll::Ready(Err(ConnectionEnd::CLOSED)),
                // After reading: a request that has already arrived is still answered.
                Poll::Pending if self.draining && !self.heads.is_partial() => {
                    return Poll::Ready(Err(ConnectionEnd::CLOSED));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn begin_request(&mut self, head: RequestHead) -> (RequestInfo, Request<RequestBody<R>>) {
        let RequestHead { parts, body, keep_alive, expect_continue } = head;
        let head_only = parts.method == Method::HEAD;
        let info = RequestInfo { version: parts.version, head_only, keep_alive };
        let body = match self.read.take_if(|_| !body.is_done()) {
            Some(read) => {
                let (pending, body) = body::split(read, body, expect_continue);
                self.pending = Some(pending);
                body
            }
            None => RequestBody::empty(),
        };
        (info, Request::from_parts(parts, body))
    }

    /// Waits for the response's head.
    fn poll_handling<B>(
        &mut self,
        cx: &mut Context<'_>,
        handling: Pin<&mut impl Future<Output = Response<B>>>,
        info: RequestInfo,
    ) -> Poll<Result<Response<B>, ConnectionEnd<B>>> {
        if let Some(end) = self.obey(cx) {
            return Poll::Ready(Err(end));
        }
        self.begin_work();
        let handled = handling.poll(cx);
        while let Some(interim) = self.supervisor.take_interim() {
            // An HTTP/1.0 client would take it for the final response (RFC 9110, 15.2).
            if info.version == Version::HTTP_11 {
                self.out.write_head(|out| response::encode_interim(out, interim));
            }
        }
        if let Poll::Ready(response) = handled {
            if self.pending.is_some() {
                let _ = self.poll_client::<B>(cx); // the head announces whether the connection persists
            }
            return Poll::Ready(Ok(response));
        }
        let end = self.poll_client(cx);
        if self.pending.as_ref().is_some_and(PendingBody::take_continue) {
            self.out.push(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
        match (end, self.poll_write(cx)) {
            (Poll::Ready(end), _) | (_, Poll::Ready(Err(end))) => Poll::Ready(Err(end)),
            _ => Poll::Pending,
        }
    }

    fn begin_response<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        response: Response<B>,
        mut info: RequestInfo,
    ) -> SendingResponse<B> {
        // A client that still waits for `100 Continue` may send its body or not: where the next request would begin is
        // unknown.
        let is_waiting = self.pending.as_ref().is_some_and(PendingBody::expects_continue);
        info.keep_alive &= !self.truncated && !self.draining && !is_waiting;
        let (parts, body) = response.into_parts();
        let length = body.size_hint().exact();
        let (encoder, keep_alive) = self.out.write_head(|out| response::encode(out, &parts, length, info));
        if encoder == BodyEncoder::CloseDelimited {
            self.set_close_delimited(true);
        }
        header_map::recycle(parts.headers);
        let then = match keep_alive {
            _ if parts.status == StatusCode::SWITCHING_PROTOCOLS => Then::Upgrade,
            true => Then::KeepAlive,
            false => Then::Close,
        };
        SendingResponse::new(body, encoder, then, &mut self.out)
    }

    /// Sends the response to its last byte.
    fn poll_sending<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        sending: &mut SendingResponse<B>,
    ) -> Poll<Result<(), ConnectionEnd<B>>> {
        if let Some(end) = self.obey(cx) {
            return Poll::Ready(Err(end));
        }
        self.begin_work();
        loop {
            let is_waiting = sending.fetch(cx, &mut self.out).is_pending();
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) if sending.is_complete() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if !is_waiting => {}
                Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                Poll::Ready(Ok(())) | Poll::Pending => return self.poll_client(cx).map(Err),
            }
        }
    }

    /// After the response: waits for the end of the request, which may have been answered before it was read.
    fn poll_end<B>(
        &mut self,
        cx: &mut Context<'_>,
        sending: &mut SendingResponse<B>,
    ) -> Poll<Result<(), ConnectionEnd<B>>> {
        match (sending.then, sending.body.take()) {
            (Then::Upgrade, Some(body)) => return Poll::Ready(Err(ConnectionEnd::Upgraded(body))),
            (Then::Upgrade, None) | (Then::BreakOff, _) => return Poll::Ready(Err(ConnectionEnd::CLOSED)),
            (Then::KeepAlive | Then::Close, _) => {}
        }
        if self.close_delimited {
            self.set_close_delimited(false);
        }
        if let Some(pending) = &self.pending {
            if pending.expects_continue() {
                pending.give_up();
            }
            if let Some(end) = self.obey(cx) {
                return Poll::Ready(Err(end));
            }
            if self.poll_client::<B>(cx).is_pending() && self.pending.is_some() {
                return Poll::Pending;
            }
        }
        // When draining too: a request that has already arrived is answered, and that response says that it is the last.
        if sending.then == Then::KeepAlive && !self.truncated {
            return Poll::Ready(Ok(()));
        }
        let has_more = self.read.as_ref().is_some_and(|read| !read.bytes.is_empty());
        Poll::Ready(Err(ConnectionEnd::Closed { linger: self.truncated || has_more }))
    }

    /// Takes the read half back when the body is complete, and reads on then. Ready if the client has gone.
    fn poll_client<B>(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd<B>> {
        if let Some(pending) = &mut self.pending {
            let returned = ready!(pending.poll_returned(cx, &self.config));
            self.truncated |= !returned.is_complete;
            (self.read, self.pending) = (Some(returned.read), None);
        }
        match &mut self.read {
            // Bytes that were read belong to the next request: they show that the client is there.
            Some(read) if read.bytes.is_empty() && !self.truncated => match ready!(read.poll_read_head(cx)) {
                Ok(true) => Poll::Pending,
                Ok(false) | Err(_) => Poll::Ready(ConnectionEnd::CLOSED),
            },
            _ => Poll::Pending,
        }
    }

    fn poll_write<B>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionEnd<B>>> {
        while !self.out.is_empty() {
            let written = self.out.poll_write(Pin::new(&mut self.write), cx);
            self.supervisor.write_blocked(if written.is_pending() { self.out.len() } else { 0 });
            match ready!(written) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(ConnectionEnd::CLOSED)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn set_close_delimited(&mut self, close_delimited: bool) {
        self.close_delimited = close_delimited;
        self.supervisor.close_delimited(&self.write, close_delimited);
    }

    /// The connection's task is running, and looks at the body itself when it is done: the body need not wake it.
    fn begin_work(&self) {
        if let Some(pending) = &self.pending {
            pending.clear_waker();
        }
    }

    fn obey<B>(&mut self, cx: &Context<'_>) -> Option<ConnectionEnd<B>> {
        match self.supervisor.command(cx.waker()) {
            Command::Continue => None,
            Command::Drain => {
                self.draining = true;
                None
            }
            Command::Timeout => Some(ConnectionEnd::Timeout),
            Command::Close => Some(ConnectionEnd::CLOSED),
        }
    }
}
