//! Server-sent events: single ones, and a response that a task produces.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use hubspoke_chassis::server::ConnectionHandle;
use hubspoke_protocol::{Revision, sse};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::AbortOnDropHandle;

/// When the registry stops, a reader has this long to take the end of its stream.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// One event.
pub(crate) fn event(name: &str, id: Option<Revision>, data: &[u8]) -> Bytes {
    let mut out = Vec::new();
    let event = sse::EventWriter::new(&mut out).name(name);
    if let Some(id) = id { event.id(id) } else { event }.data(data);
    out.into()
}

/// The response that `events` are sent in. It ends with `producer`, or on `shutdown`; then `connection` is closed if
/// its reader does not take the end of the stream.
pub(crate) fn response(
    events: mpsc::Receiver<Bytes>,
    producer: AbortOnDropHandle<()>,
    connection: ConnectionHandle,
    shutdown: CancellationToken,
) -> Response {
    let stopped = shutdown.clone();
    let closer = AbortOnDropHandle::new(tokio::spawn(async move {
        stopped.cancelled().await;
        tokio::time::sleep(END_TIMEOUT).await;
        connection.close();
    }));
    let body =
        EventBody { events, shutdown: Box::pin(shutdown.cancelled_owned()), _tasks: [producer, closer] };
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(sse::CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The body of such a response. Its tasks end with it.
struct EventBody {
    events: mpsc::Receiver<Bytes>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl http_body::Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.shutdown.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        self.events.poll_recv(context).map(|event| event.map(|text| Ok(Frame::data(text))))
    }
}
