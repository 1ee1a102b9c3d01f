//! One HTTP/1 connection to an instance: a request up, a reply down, then perhaps another.
//!
//! It is no task. Whoever holds it drives it: the request while it waits for the reply's head, the reply's body until
//! its end; so nothing is handed from task to task, and a failed request knows how far it came. What it reads goes
//! through one buffer per worker thread.
//!
//! It trusts the instance with its own replies and with nothing else. What could be read in two ways is refused
//! ([`head`], [`crate::http1::decoder`]), and a connection with a byte on it that nobody asked for is not used again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::http1::decoder::{Decoder, Malformed};
use crate::http1::encoder::Encoder;
use crate::http1::outbox::Outbox;
use crate::http1::{QUEUED, end_of_head, scratch};
use crate::proxy::upload::Upload;

mod head;

/// Interim replies before the final one; an instance that sends more never comes to an end.
const MAX_INTERIM: u8 = 32;

const TOO_LONG: Broken = Broken::Reply("its head is too long");

/// A connection.
pub(crate) struct Conn {
    stream: TcpStream,
    /// Whether it has carried a request before.
    pub(crate) reused: bool,
    /// When it was made, or became idle.
    pub(super) since: Instant,
    up: Up,
    down: Down,
}

/// A request to be sent.
pub(crate) struct Outbound<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a PathAndQuery,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) upload: Option<Upload>,
    /// Told of the instance's `100 Continue`.
    pub(crate) go_on: Option<oneshot::Sender<()>>,
    /// Whether it asks to switch to another protocol.
    pub(crate) upgrade: bool,
}

/// Why a request got no reply, or not the whole of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the connection broke")]
    Io(#[source] io::Error),
    #[error("the connection ended too early")]
    End,
    #[error("the reply is not HTTP/1 as it should be: {0}")]
    Reply(&'static str),
    #[error("the request's body could not be read to its end")]
    Upload,
}

impl From<Malformed> for Broken {
    fn from(_: Malformed) -> Self {
        Self::Reply("its body is malformed")
    }
}

#[derive(Default)]
struct Up {
    out: Outbox,
    /// `None` once all of it was fetched.
    upload: Option<Upload>,
    encoder: Encoder,
    go_on: Option<oneshot::Sender<()>>,
    /// A byte of this request was written.
    sent: bool,
    /// The instance takes no more; it may still have replied.
    refused: bool,
    /// Since when the instance does not read what is there for it.
    blocked: Option<Instant>,
}

#[derive(Default)]
struct Down {
    /// Read and not yet used.
    bytes: Bytes,
    /// The beginning of a head.
    partial: Vec<u8>,
    expected: Expected,
    body: Decoder,
    interim: u8,
    /// A byte of this reply was read.
    replied: bool,
    /// The connection may carry another request afterwards.
    keep_alive: bool,
}

/// What the request lets the reply be.
#[derive(Debug, Clone, Copy, Default)]
struct Expected {
    /// The reply to HEAD has a head only.
    head_only: bool,
    upgrade: bool,
}

impl Conn {
    pub(crate) fn new(stream: TcpStream, now: Instant) -> Self {
        Self { stream, reused: false, since: now, up: Up::default(), down: Down::default() }
    }

    /// Makes ready to send a request. Nothing is written before the connection is polled.
    pub(crate) fn begin(&mut self, request: Outbound<'_>) {
        let Outbound { method, path, headers, upload, go_on, upgrade } = request;
        let up = &mut self.up;
        up.out.clear();
        let has_body = upload.is_some();
        up.encoder = up.out.write_head(|out| head::encode(out, method, path, headers, has_body));
        (up.sent, up.refused, up.blocked) = (false, false, None);
        (up.upload, up.go_on) = (upload, go_on);
        let expected = Expected { head_only: *method == Method::HEAD, upgrade };
        let bytes = std::mem::take(&mut self.down.bytes);
        self.down = Down { bytes, expected, ..Down::default() };
    }

    /// Sends the request and waits for the reply's head.
    pub(crate) fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Broken>> {
        if let Poll::Ready(Err(error)) = self.poll_up(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            if let Some(reply) = self.next_head()? {
                return Poll::Ready(Ok(reply));
            }
            if !ready!(self.poll_read(cx))? {
                return Poll::Ready(Err(Broken::End));
            }
        }
    }

    /// The next piece of the reply's body; `None` after the last.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Poll::Ready(Err(error)) = self.poll_up(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            match self.down.body.decode(&mut self.down.bytes) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if self.down.body.is_over() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            match ready!(self.poll_read(cx)) {
                Ok(true) => {}
                Ok(false) if self.down.body.end() => return Poll::Ready(None),
                Ok(false) => return Poll::Ready(Some(Err(Broken::End))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Whether the reply's last byte is here.
    pub(crate) fn is_over(&self) -> bool {
        self.down.body.is_over()
    }

    /// What is known of the length of what is still to come.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.down.body.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// After a reply's end: waits until the whole request is written too, which an instance may not have waited for.
    /// Says whether the connection can carry another request.
    pub(crate) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match self.poll_up(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(self.is_reusable()),
            Poll::Ready(Err(_)) => Poll::Ready(false),
            // Whatever comes now, end or bytes, nobody has asked for.
            Poll::Pending => self.poll_read(cx).map(|_| false),
        }
    }

    /// Whether the connection can carry another request now.
    pub(crate) fn is_reusable(&self) -> bool {
        let (up, down) = (&self.up, &self.down);
        down.keep_alive && down.body.is_over() && down.bytes.is_empty() && up.is_done() && !up.refused
    }

    /// Whether an idle connection is still open, by what the event loop has heard: no system call where all is well.
    pub(super) fn is_open(&self) -> bool {
        self.stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Asks the kernel the same. Costs a system call, and knows what the event loop may not have heard of yet.
    pub(super) fn is_surely_open(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let peeked = socket2::SockRef::from(&self.stream).peek(&mut byte);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether a byte of the request was written.
    pub(crate) fn sent(&self) -> bool {
        self.up.sent
    }

    /// Whether a byte of the reply was read.
    pub(crate) fn replied(&self) -> bool {
        self.down.replied
    }

    /// Since when the instance has not been reading the request.
    pub(crate) fn blocked(&self) -> Option<Instant> {
        self.up.blocked
    }

    /// The socket after the instance has switched protocols, and what came behind its reply.
    pub(crate) fn into_switched(self) -> (TcpStream, Bytes) {
        (self.stream, self.down.bytes)
    }

    fn next_head(&mut self) -> Result<Option<Response<()>>, Broken> {
        let down = &mut self.down;
        loop {
            if !down.partial.is_empty() {
                // Parsed again only when the end has come, or a head that comes byte by byte would cost its length
                // squared.
                let has_ended = end_of_head(&down.partial, &down.bytes).is_some();
                down.partial.extend_from_slice(&std::mem::take(&mut down.bytes));
                if !has_ended {
                    let is_too_long = down.partial.len() > head::MAX_SIZE;
                    return if is_too_long { Err(TOO_LONG) } else { Ok(None) };
                }
                down.bytes = Bytes::from(std::mem::take(&mut down.partial));
            }
            if down.bytes.is_empty() {
                return Ok(None);
            }
            let Some(head) = head::parse(&mut down.bytes, down.expected.head_only)? else {
                if down.bytes.len() > head::MAX_SIZE {
                    return Err(TOO_LONG);
                }
                down.partial = std::mem::take(&mut down.bytes).into();
                return Ok(None);
            };
            let status = head.response.status();
            if status == StatusCode::SWITCHING_PROTOCOLS {
                if !down.expected.upgrade {
                    return Err(Broken::Reply("it switches protocols unasked"));
                }
                return Ok(Some(head.response));
            }
            if !status.is_informational() {
                (down.body, down.keep_alive) = (head.body, head.keep_alive);
                return Ok(Some(head.response));
            }
            down.interim += 1;
            if down.interim > MAX_INTERIM {
                return Err(Broken::Reply("it does not come to the point"));
            }
            if let (StatusCode::CONTINUE, Some(go_on)) = (status, self.up.go_on.take()) {
                let _ = go_on.send(()); // the body may be waited for no longer
            }
        }
    }

    /// Reads once. False where the instance has ended its side.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Broken>> {
        let bytes = ready!(scratch::poll_read(&mut self.stream, cx)).map_err(Broken::Io)?;
        let goes_on = !bytes.is_empty();
        self.down.bytes = bytes;
        self.down.replied |= goes_on;
        Poll::Ready(Ok(goes_on))
    }

    /// Writes the request; ready when all of it is written, or the instance takes no more.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let up = &mut self.up;
        while !up.is_done() && !up.refused {
            let fetched = up.fetch(cx)?;
            if up.out.is_empty() {
                ready!(fetched);
                continue;
            }
            match up.out.poll_write(Pin::new(&mut self.stream), cx) {
                Poll::Pending => {
                    up.blocked.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(1..)) => (up.sent, up.blocked) = (true, None),
                // Not yet the end: it may have said why before it closed. But it is not waited for any longer.
                Poll::Ready(_) => {
                    up.refused = true;
                    up.blocked.get_or_insert_with(Instant::now);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Up {
    fn is_done(&self) -> bool {
        self.upload.is_none() && self.out.is_empty()
    }

    /// Fetches more of the body while little of it waits. Pending where the client is waited for.
    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Broken> {
        while let Some(upload) = &mut self.upload
            && self.out.len() < QUEUED
        {
            let frame = match Pin::new(upload).poll_frame(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(frame) => frame.transpose().map_err(|_| Broken::Upload)?,
            };
            let over = frame.is_none();
            if !self.encoder.frame(frame, &mut self.out) {
                return Err(Broken::Upload);
            }
            if over {
                self.upload = None;
            }
        }
        Ok(Poll::Ready(()))
    }
}

#[cfg(test)]
mod tests;
