//! An HTTP/2 connection to an instance, shared by the requests of one worker.
//!
//! On the h2 crate itself: hyper's client drops interim responses, and does not tell a request that waits for a stream
//! from one that was sent.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hubspoke_tls::Generation;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use crate::h2_stream::{Pings, poll_capacity, poll_reset};
use crate::memory::{Budget, Charge, STREAM_WINDOW};
use crate::replay::ReplayBody;

/// How much of a response an instance may send ahead while memory is short.
const SHORT_WINDOW: u32 = 2 << 10;

/// An HTTP/2 connection to an instance.
#[derive(Clone)]
pub(crate) struct H2Conn {
    sender: SendRequest<Bytes>,
    state: Arc<ConnState>,
    /// Memory for bodies that wait for the instance to read them.
    buffers: Arc<Budget>,
}

#[derive(Default)]
struct ConnState {
    /// Requests on it, those included that wait for a stream.
    requests: AtomicUsize,
    closed: AtomicBool,
    /// The identity with which it was opened, if it is TLS.
    generation: Option<Generation>,
}

/// A request on a connection; it counts until this is dropped.
struct RequestGuard(Arc<ConnState>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

impl H2Conn {
    /// Drives the connection in a task, which ends with the last sender and request, or with the worker's event loop.
    pub(super) fn start<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        sender: SendRequest<Bytes>,
        mut connection: Connection<T, Bytes>,
        buffers: Arc<Budget>,
        generation: Option<Generation>,
    ) -> Self {
        let mut is_short = false;
        let state = Arc::new(ConnState { generation, ..ConnState::default() });
        let conn = Self { sender, state: state.clone(), buffers: buffers.clone() };
        let mut pings = connection.ping_pong().map(Pings::new);
        tokio::spawn(async move {
            let end = poll_fn(|cx| {
                // What instances send ahead can't be refused, only asked for in smaller pieces.
                let window = if is_short { STREAM_WINDOW } else { SHORT_WINDOW };
                if buffers.is_short() != is_short && connection.set_initial_window_size(window).is_ok() {
                    is_short = !is_short;
                }
                if let Poll::Ready(end) = Pin::new(&mut connection).poll(cx) {
                    return Poll::Ready(end);
                }
                let in_use = state.requests.load(Relaxed) > 0;
                match &mut pings {
                    Some(pings) => pings.poll_unanswered(in_use, cx).map(Ok),
                    None => Poll::Pending,
                }
            })
            .await;
            state.closed.store(true, Relaxed);
            if let Err(error) = end {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "HTTP/2 connection to instance broke"
                );
            }
        });
        conn
    }

    /// Whether it takes no further requests: it is closed, or was opened with certificates that are not in use any more.
    pub(crate) fn is_closed(&self) -> bool {
        let is_retired = self.state.generation.as_ref().is_some_and(|generation| !generation.is_current());
        is_retired || self.state.closed.load(Relaxed)
    }

    /// Requests on the connection.
    pub(super) fn requests(&self) -> usize {
        self.state.requests.load(Relaxed)
    }

    /// Whether the instance takes another request at once.
    pub(super) fn has_room(&self) -> bool {
        self.requests() < self.sender.current_max_send_streams()
    }

    /// Checks that the instance has not announced the end of the connection. If it has, no request uses it any more.
    pub(crate) async fn is_open(&mut self) -> bool {
        let ready = poll_fn(|cx| self.sender.poll_ready(cx)).await;
        self.state.closed.fetch_or(ready.is_err(), Relaxed);
        ready.is_ok()
    }

    /// Sends a request. It waits for a stream if the instance allows no more of them.
    ///
    /// # Errors
    /// Nothing was sent.
    pub(crate) fn send(
        mut self,
        request: Request<()>,
        body: Option<ReplayBody>,
    ) -> Result<H2Exchange, h2::Error> {
        self.state.requests.fetch_add(1, Relaxed);
        let guard = RequestGuard(self.state.clone());
        let body = body.filter(|body| !body.is_end_stream());
        let (response, stream) = self.sender.send_request(request, body.is_none())?;
        let upload = body.map(|body| (body, stream));
        let unsent = self.buffers.charge();
        Ok(H2Exchange {
            sender: self.sender,
            response,
            waiting: upload,
            upload: None,
            unsent: Some(unsent),
            guard,
        })
    }
}

/// A request on a stream, until the head of its response.
pub(crate) struct H2Exchange {
    sender: SendRequest<Bytes>,
    response: ResponseFuture,
    /// The body and its stream, until the stream is open.
    waiting: Option<(ReplayBody, SendStream<Bytes>)>,
    upload: Option<Upload>,
    /// The memory of what is read of the body and not sent; none if it is being sent.
    unsent: Option<Charge>,
    guard: RequestGuard,
}

/// The task that sends a request's body; dropped, it resets the stream.
struct Upload(AbortHandle);

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl H2Exchange {
    /// Waits until the request has a stream, and begins to send its body then.
    ///
    /// # Errors
    /// The instance can't have seen the request.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        ready!(self.sender.poll_ready(cx))?;
        if let (Some((body, stream)), Some(unsent)) = (self.waiting.take(), self.unsent.take()) {
            self.upload = Some(Upload(tokio::spawn(send_body(body, stream, unsent)).abort_handle()));
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the next head: an interim one, which has no body, or the final one.
    ///
    /// # Errors
    /// The stream was reset, or the connection broke.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Option<RecvStream>>, h2::Error>> {
        if let Poll::Ready(Some(interim)) = self.response.poll_informational(cx) {
            return Poll::Ready(interim.map(|head| head.map(|()| None)));
        }
        Pin::new(&mut self.response).poll(cx).map_ok(|response| response.map(Some))
    }

    /// The rest of the response.
    pub(crate) fn into_response_body(self, stream: RecvStream, ahead: Charge) -> H2Response {
        H2Response { stream, data_ended: false, ahead, _upload: self.upload, _guard: self.guard }
    }
}

/// The body of a response on a stream. Dropped before its end, the stream is reset.
pub(crate) struct H2Response {
    stream: RecvStream,
    /// All data was read; trailers may follow.
    data_ended: bool,
    /// What its window lets the instance send ahead, while more is not waited for.
    ahead: Charge,
    _upload: Option<Upload>,
    _guard: RequestGuard,
}

impl H2Response {
    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            let Poll::Ready(data) = self.stream.poll_data(cx) else {
                self.ahead.set(0);
                return Poll::Pending;
            };
            self.ahead.set(STREAM_WINDOW as usize);
            if let Some(data) = data {
                return Poll::Ready(Some(data.map(|data| {
                    // Opens the window for as much again; fails only on a stream that has ended.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    Frame::data(data)
                })));
            }
            self.data_ended = true;
            self.ahead.set(0);
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }
}

/// Sends a request's body as the windows of the stream and its connection allow.
async fn send_body(mut body: ReplayBody, mut stream: SendStream<Bytes>, unsent: Charge) {
    if let Err(error) = try_send_body(&mut body, &mut stream, &unsent).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "request body broke off");
    }
}

async fn try_send_body(
    body: &mut ReplayBody,
    stream: &mut SendStream<Bytes>,
    unsent: &Charge,
) -> Result<(), h2::Error> {
    loop {
        let frame = poll_fn(|cx| match poll_reset(stream, cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => Pin::new(&mut *body).poll_frame(cx).map(Ok),
        });
        match frame.await? {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => {
                    let is_last = body.is_end_stream();
                    if data.is_empty() && is_last {
                        return stream.send_data(data, true);
                    }
                    while !data.is_empty() {
                        unsent.waits(data.len());
                        let capacity = poll_fn(|cx| poll_capacity(stream, data.len(), cx)).await?;
                        let part = data.split_to(capacity.min(data.len()));
                        stream.send_data(part, is_last && data.is_empty())?;
                    }
                    unsent.waits(0);
                    if is_last {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return stream.send_trailers(trailers);
                    }
                }
            },
            // The client's fault, which the attempt finds on record.
            Some(Err(_)) => {
                stream.send_reset(Reason::CANCEL);
                return Ok(());
            }
            None => return stream.send_data(Bytes::new(), true),
        }
    }
}
