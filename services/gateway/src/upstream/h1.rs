//! One HTTP/1 connection to an instance: a request up, a reply down, then perhaps another.
//!
//! It is no task. Whoever holds it drives it: the request while it waits for the reply's head, the reply's body until
//! its end; so nothing is handed from task to task, and a failed request knows how far it came. Between requests it
//! owns no buffer: what is read goes through one scratch buffer per worker thread.
//!
//! It trusts the instance with its own replies and with nothing else. What could be read in two ways is refused
//! ([`head`], [`body`]), and a connection with a byte on it that nobody asked for is not used again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use self::body::Decoder;
use self::head::Framing;
use crate::proxy::upload::Upload;

mod body;
mod head;

/// What one read takes at most.
const SCRATCH: usize = 64 << 10;
/// A scratch buffer with less room than this is replaced.
const MIN_ROOM: usize = 16 << 10;
/// What is shorter is copied out of the scratch buffer, so that a small reply does not keep all of it.
const COPIED: usize = 4 << 10;
/// No more of a request's body is fetched from the client while this much waits to be written.
const QUEUED: usize = 64 << 10;
/// Interim replies before the final one; an instance that sends more never comes to an end.
const MAX_INTERIM: u8 = 32;

thread_local! {
    /// Empty between two reads. A connection is read by the worker's thread alone, one at a time.
    static READ: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

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

#[derive(Default)]
struct Up {
    head: Vec<u8>,
    /// How much of it is written.
    head_at: usize,
    frames: VecDeque<Bytes>,
    /// Bytes in `frames`.
    queued: usize,
    /// `None` once all of it was fetched.
    upload: Option<Upload>,
    framing: Framing,
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
        up.head.clear();
        up.framing = head::encode(&mut up.head, method, path, headers, upload.is_some());
        (up.head_at, up.sent, up.refused, up.blocked) = (0, false, false, None);
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
                Err(error) => return Poll::Ready(Some(Err(error))),
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
                down.partial.extend_from_slice(&down.bytes);
                down.bytes = Bytes::from(std::mem::take(&mut down.partial));
            }
            if down.bytes.is_empty() {
                return Ok(None);
            }
            let Some(head) = head::parse(&mut down.bytes, down.expected.head_only)? else {
                if down.bytes.len() > head::MAX_SIZE {
                    return Err(Broken::Reply("its head is too long"));
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
        let (stream, down) = (&mut self.stream, &mut self.down);
        READ.with_borrow_mut(|scratch| {
            if scratch.capacity() < MIN_ROOM {
                *scratch = BytesMut::with_capacity(SCRATCH);
            }
            let read = ready!(pin!(stream.read_buf(scratch)).poll(cx)).map_err(Broken::Io)?;
            if read <= COPIED {
                down.bytes = Bytes::copy_from_slice(scratch);
                scratch.clear();
            } else {
                down.bytes = scratch.split().freeze();
            }
            down.replied |= read > 0;
            Poll::Ready(Ok(read > 0))
        })
    }

    /// Writes the request; ready when all of it is written, or the instance takes no more.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let up = &mut self.up;
        while !up.is_done() && !up.refused {
            let fetched = up.fetch(cx)?;
            if up.is_written() {
                ready!(fetched);
                continue;
            }
            match up.write(Pin::new(&mut self.stream), cx) {
                Poll::Pending => {
                    up.blocked.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(written)) if written > 0 => up.written(written),
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
    fn is_written(&self) -> bool {
        self.head_at == self.head.len() && self.frames.is_empty()
    }

    fn is_done(&self) -> bool {
        self.upload.is_none() && self.is_written()
    }

    /// Fetches more of the body while little of it waits. Pending where the client is waited for.
    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Broken> {
        while let Some(upload) = &mut self.upload
            && self.queued < QUEUED
        {
            let frame = match Pin::new(upload).poll_frame(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(frame) => frame.transpose().map_err(|_| Broken::Upload)?,
            };
            let over = frame.is_none();
            let before = self.frames.len();
            if !self.framing.frame(frame, &mut self.frames) {
                return Err(Broken::Upload);
            }
            self.queued += self.frames.range(before..).map(Bytes::len).sum::<usize>();
            if over {
                self.upload = None;
            }
        }
        Ok(Poll::Ready(()))
    }

    fn write(&self, stream: Pin<&mut TcpStream>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let head = self.head.get(self.head_at..).unwrap_or_default();
        if self.frames.is_empty() {
            return stream.poll_write(cx, head);
        }
        let mut slices = [IoSlice::new(&[]); 16];
        let all = std::iter::once(head).chain(self.frames.iter().map(Bytes::as_ref));
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(all.filter(|bytes| !bytes.is_empty())) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        stream.poll_write_vectored(cx, slices.get(..count).unwrap_or_default())
    }

    fn written(&mut self, written: usize) {
        (self.sent, self.blocked) = (true, None);
        let of_head = written.min(self.head.len() - self.head_at);
        self.head_at += of_head;
        let mut rest = written - of_head;
        self.queued = self.queued.saturating_sub(rest);
        while let Some(frame) = self.frames.front_mut() {
            if rest < frame.len() {
                let _ = frame.split_to(rest);
                return;
            }
            rest -= frame.len();
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
